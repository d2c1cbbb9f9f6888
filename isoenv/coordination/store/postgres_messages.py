"""Messages in PostgreSQL, and what wakes those who wait for them.

A reader takes messages and acknowledges them later: what a killed one had taken and not yet
acknowledged is handed out again, so that nothing is lost and nothing else comes twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv.coordination import addresses
from isoenv.coordination.records import Message
from isoenv.coordination.store.postgres_database import NOW, Database, execute
from isoenv.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import psycopg

    from isoenv.coordination.records import Record

_INSERT = f"""
INSERT INTO message (sender, sender_id, body, sent_at, expires_at)
SELECT %s, %s, %s, now, now + %s FROM (SELECT {NOW}) AS clock (now) RETURNING id
"""  # noqa: S608  # of constants
# Who takes at the same time passes over what this one has chosen, and waits for nobody.
_TAKE = f"""
WITH chosen AS MATERIALIZED (
  SELECT delivery.id FROM delivery JOIN message ON message.id = message_id
  WHERE address = ANY(%s) AND reader IS NULL AND expires_at > {NOW}
  ORDER BY delivery.id LIMIT %s FOR UPDATE OF delivery SKIP LOCKED
), taken AS (
  UPDATE delivery SET reader = %s, taken_at = {NOW} FROM chosen WHERE delivery.id = chosen.id
  RETURNING delivery.id, message_id
)
SELECT taken.id, sender, sender_id, body, sent_at
FROM taken JOIN message ON message.id = message_id ORDER BY taken.id
"""  # noqa: S608  # of constants
_PEEK = f"""
SELECT delivery.id, sender, sender_id, body, sent_at
FROM delivery JOIN message ON message.id = message_id
WHERE address = ANY(%s) AND reader IS NULL AND expires_at > {NOW} ORDER BY delivery.id
"""  # noqa: S608  # of constants
# With their deliveries. What a reader is just acknowledging is passed over: who expires waits for
# nobody, and so nobody for him in a circle.
_EXPIRE = f"""
WITH due AS MATERIALIZED (
  SELECT delivery.id FROM delivery JOIN message ON message.id = message_id
  WHERE expires_at <= {NOW} FOR UPDATE OF delivery SKIP LOCKED
), gone AS (
  DELETE FROM delivery WHERE id IN (SELECT id FROM due) RETURNING id
)
DELETE FROM message WHERE id IN (
  SELECT id FROM message WHERE expires_at <= {NOW} AND NOT EXISTS (
    SELECT 1 FROM delivery WHERE message_id = message.id AND id NOT IN (SELECT id FROM gone))
  FOR UPDATE SKIP LOCKED)
"""  # noqa: S608  # of constants
_DROP = """
DELETE FROM message WHERE id IN (
  SELECT id FROM message WHERE id = ANY(%s)
  AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = message.id)
  FOR UPDATE SKIP LOCKED)
"""


class MessageTables(Database):
    """The part of the store that hands messages out."""

    def send(self, sender: Record, address: bytes, body: bytes, ttl: float) -> int:
        """Send to an address and return how many sessions it reaches now, waking them."""
        with self.transaction(members=False) as connection:
            execute(connection, _EXPIRE)
            reached = _sessions_at(connection, address, sender.id)
            targets = [addresses.of_session(session_id) for session_id in reached]
            if address.startswith(addresses.NAME) or (
                address.startswith(addresses.INSTANCE) and not reached
            ):
                # For who has the name, now or later; for the first of an instance that comes.
                targets = [address]
            if targets:
                values = (sender.title, sender.id, body, ttl)
                row = execute(connection, _INSERT, values).fetchone()
                execute(
                    connection,
                    "INSERT INTO delivery (message_id, address)"
                    " SELECT %s, address FROM unnest(%s::bytea[]) AS address",
                    (row[0] if row else None, targets),
                )
            wake(connection, reached)
        return len(reached)

    def take(self, where: Sequence[bytes], reader: str, limit: int) -> list[Message]:
        """Hand out the oldest messages to a reader, who acknowledges or gives them back."""
        return self._messages(self.rows(_TAKE, (list(where), limit, reader)))

    def forget_expired(self) -> None:
        """Delete the messages whose time is over."""
        with self.transaction() as connection:
            execute(connection, _EXPIRE)

    def peek(self, where: Sequence[bytes]) -> list[Message]:
        """Return the messages that nobody has taken."""
        return self._messages(self.rows(_PEEK, (list(where),)))

    def acknowledge(self, reader: str) -> None:
        """Delete what a reader has taken."""
        with self.transaction() as connection:
            drop_deliveries(connection, "reader = %s", reader)

    def give_back(self, readers: Sequence[str]) -> None:
        """Let others take what these readers have taken and not acknowledged, and wake them."""
        with self.transaction(members=False) as connection:
            found = execute(
                connection,
                "UPDATE delivery SET reader = NULL, taken_at = NULL WHERE id IN"
                " (SELECT id FROM delivery WHERE reader = ANY(%s) ORDER BY id FOR UPDATE)"
                " RETURNING address",
                (list(readers),),
            ).fetchall()
            for address in {address for (address,) in found}:
                wake(connection, _sessions_at(connection, address, None))

    def readers(self, where: Sequence[bytes]) -> dict[str, float]:
        """Return who has taken and not acknowledged, and when in seconds since the epoch."""
        found = self.rows(
            "SELECT reader, max(taken_at) FROM delivery"
            " WHERE reader IS NOT NULL AND address = ANY(%s) GROUP BY reader",
            (list(where),),
        )
        return {reader: taken_at - self.ahead for reader, taken_at in found}

    def waiter(self, session_id: str) -> Listener:
        """Return what wakes a reader; made before it looks, it misses nothing."""
        listener = Listener(self, session_id)
        if self._is_there(session_id, listener):
            return listener
        listener.close()
        raise NotFoundError(f"session {session_id} has ended: `isoenv session start` starts one")

    def _is_there(self, session_id: str, listener: Listener) -> bool:
        try:
            return bool(self.rows("SELECT 1 FROM session WHERE id = %s", (session_id,)))
        except BaseException:
            listener.close()
            raise

    def _messages(self, rows: Sequence[tuple[int, str, str, bytes, float]]) -> list[Message]:
        return [
            Message(
                *(number, sender, sender_id),
                body.decode("utf-8", "surrogatepass"),
                sent_at - self.ahead,
            )
            for number, sender, sender_id, body, sent_at in rows
        ]


class Listener:
    """What one reader waits at: a connection of its own, for others use the store meanwhile."""

    def __init__(self, database: Database, session_id: str) -> None:
        """Listen."""
        self._database = database
        with database.told("cannot wait at"):
            self._connection, _ = database.connect("waiter")
            try:
                execute(self._connection, f'LISTEN "{_channel(session_id)}"')
            except BaseException:
                self._connection.close()
                raise

    def wait(self, timeout: float | None) -> bool:
        """Wait for a message that was sent since the waiter was made; False on time-out."""
        with self._database.told("lost the connection to"):
            return any([*self._connection.notifies(timeout=timeout, stop_after=1)])

    def close(self) -> None:
        """Wait no more."""
        self._connection.close()


def wake(connection: psycopg.Connection, sessions: Iterable[str]) -> None:
    """Wake who waits as one of these sessions, when the transaction is there for all."""
    channels = [_channel(session_id) for session_id in sessions]
    if channels:
        execute(
            connection,
            "SELECT pg_notify(channel, '') FROM unnest(%s::text[]) AS channel",
            (channels,),
        )


def drop_deliveries(connection: psycopg.Connection, where: str, value: object) -> None:
    """Delete deliveries, and each message with its last one."""
    found = execute(
        connection,
        # In one order for all, so that two never wait for each other.
        "DELETE FROM delivery WHERE id IN"  # noqa: S608  # of this package
        f" (SELECT id FROM delivery WHERE {where} ORDER BY id FOR UPDATE) RETURNING message_id",
        (value,),
    ).fetchall()
    if found:
        execute(connection, _DROP, ([number for (number,) in found],))


def _channel(session_id: str) -> str:
    """Return a name that is short enough, whatever the id."""
    from hashlib import sha256

    return f"isoenv_{sha256(session_id.encode()).hexdigest()[:32]}"


def _sessions_at(connection: psycopg.Connection, address: bytes, sender: str | None) -> list[str]:
    """Return the sessions that an address means now; who sends to many is not one of them."""
    kind, values = addresses.parts(address)
    where = {
        addresses.SESSION: "id = %s",
        addresses.NAME: "name = %s",
        addresses.INSTANCE: "slot = %s AND project_key = %s AND id IS DISTINCT FROM %s",
        addresses.TO_EVERYONE: "id IS DISTINCT FROM %s",
    }[kind]
    given = values if kind in (addresses.SESSION, addresses.NAME) else (*values, sender)
    rows = execute(connection, f"SELECT id FROM session WHERE {where}", given)  # noqa: S608  # of this module
    return [session_id for (session_id,) in rows]
