"""Messages in SQLite, and what wakes those who wait for them.

A reader takes messages and acknowledges them later: what a killed one had taken and not yet
acknowledged is handed out again, so that nothing is lost and nothing else comes twice.
"""

from __future__ import annotations

import time

from isoenv.coordination import addresses
from isoenv.coordination.store.database import Database
from isoenv.errors import NotFoundError

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from isoenv.coordination.records import Message, Record
    from isoenv.coordination.store.pipes import Pipe

_SELECT = """
SELECT delivery.id, sender, sender_id, body, sent_at
FROM delivery JOIN message ON message.id = message_id
"""
# With the plus by the index of the readers: there are few, and of messages many.
_READERS = (
    "SELECT reader, max(taken_at) FROM delivery WHERE reader IS NOT NULL AND +address = ?"
    " GROUP BY reader"
)
_FREE = "SELECT id FROM delivery WHERE address = ? AND reader IS NULL"


class MessageTables(Database):
    """The part of the store that hands messages out."""

    def send(self, sender: Record, address: bytes, body: bytes, ttl: float) -> int:
        """Send to an address and return how many sessions it reaches now, waking them."""
        from isoenv.coordination.store import pipes

        now = time.time()
        with self.transaction() as connection:
            _forget_expired(connection, now)
            reached = _sessions_at(connection, address, sender.id)
            targets = [addresses.of_session(session_id) for session_id in reached]
            if address.startswith(addresses.NAME) or (
                address.startswith(addresses.INSTANCE) and not reached
            ):
                # For who has the name, now or later; for the first of an instance that comes.
                targets = [address]
            if targets:
                cursor = connection.execute(
                    "INSERT INTO message (sender, sender_id, body, sent_at, expires_at)"
                    " VALUES (?, ?, ?, ?, ?)",
                    (sender.title, sender.id, body, now, now + ttl),
                )
                connection.executemany(
                    "INSERT INTO delivery (message_id, address) VALUES (?, ?)",
                    [(cursor.lastrowid, target) for target in targets],
                )
            waiting = waiting_for(connection, reached)
        pipes.wake(waiting)
        return len(reached)

    def take(self, where: Sequence[bytes], reader: str, limit: int) -> list[Message]:
        """Hand out the oldest messages to a reader, who acknowledges or gives them back."""
        # Looked for outside a transaction first: mostly there is nothing, and that costs nothing.
        if not any(self.rows(f"{_FREE} LIMIT 1", (address,)) for address in where):
            return []
        now = time.time()
        with self.transaction() as connection:
            _forget_expired(connection, now)
            # One query for each address, so that a long backlog is never read wholly.
            free = [
                number
                for address in where
                for (number,) in connection.execute(
                    f"{_FREE} ORDER BY id LIMIT ?", (address, limit)
                )
            ]
            chosen = sorted(free)[:limit]
            connection.executemany(
                "UPDATE delivery SET reader = ?, taken_at = ? WHERE id = ?",
                [(reader, now, number) for number in chosen],
            )
            found = [
                connection.execute(f"{_SELECT} WHERE delivery.id = ?", (number,)).fetchone()
                for number in chosen
            ]
        return _messages(found)

    def forget_expired(self) -> None:
        """Delete the messages whose time is over."""
        with self.transaction() as connection:
            _forget_expired(connection, time.time())

    def peek(self, where: Sequence[bytes]) -> list[Message]:
        """Return the messages that nobody has taken."""
        return _messages(
            self.rows(
                f"{_SELECT} WHERE address IN ({_marks(where)}) AND reader IS NULL"
                " AND expires_at > ? ORDER BY delivery.id",
                (*where, time.time()),
            )
        )

    def acknowledge(self, reader: str) -> None:
        """Delete what a reader has taken."""
        with self.transaction() as connection:
            connection.execute("DELETE FROM delivery WHERE reader = ?", (reader,))

    def give_back(self, readers: Sequence[str]) -> None:
        """Let others take what these readers have taken and not acknowledged, and wake them."""
        from isoenv.coordination.store import pipes

        waiting: list[bytes] = []
        with self.transaction() as connection:
            for reader in readers:
                where = connection.execute(
                    "SELECT DISTINCT address FROM delivery WHERE reader = ?", (reader,)
                ).fetchall()
                connection.execute(
                    "UPDATE delivery SET reader = NULL, taken_at = NULL WHERE reader = ?", (reader,)
                )
                for (address,) in where:
                    waiting += waiting_for(connection, _sessions_at(connection, address, None))
        pipes.wake(waiting)

    def readers(self, where: Sequence[bytes]) -> dict[str, float]:
        """Return who has taken and not acknowledged, and when in seconds since the epoch."""
        found: dict[str, float] = {}
        for address in where:
            found |= self.rows(_READERS, (address,))
        return found

    def waiter(self, session_id: str) -> Pipe:
        """Return what wakes a reader; made before it looks, it misses nothing."""
        from isoenv.coordination.store.pipes import Pipe

        pipe = Pipe(self.state, self._forget_pipe)
        try:
            self._enter_pipe(pipe.path, session_id)
        except BaseException:
            pipe.close()
            raise
        return pipe

    def _enter_pipe(self, path: bytes, session_id: str) -> None:
        with self.transaction() as connection:
            cursor = connection.execute(
                "INSERT INTO waiter SELECT ?, id FROM session WHERE id = ?", (path, session_id)
            )
        if not cursor.rowcount:
            raise NotFoundError(
                f"session {session_id} has ended: `isoenv session start` starts one"
            )

    def _forget_pipe(self, path: bytes) -> None:
        with self.transaction() as connection:
            connection.execute("DELETE FROM waiter WHERE pipe = ?", (path,))


def _forget_expired(connection: sqlite3.Connection, now: float) -> None:
    # With its last delivery the message itself goes.
    connection.execute(
        "DELETE FROM delivery WHERE message_id IN (SELECT id FROM message WHERE expires_at <= ?)",
        (now,),
    )


def _sessions_at(connection: sqlite3.Connection, address: bytes, sender: str | None) -> list[str]:
    """Return the sessions that an address means now; who sends to many is not one of them."""
    kind, values = addresses.parts(address)
    where = {
        addresses.SESSION: "WHERE id = ?",
        addresses.NAME: "WHERE name = ?",
        addresses.INSTANCE: "WHERE slot = ? AND project_key = ? AND id IS NOT ?",
        addresses.TO_EVERYONE: "WHERE id IS NOT ?",
    }[kind]
    given = values if kind in (addresses.SESSION, addresses.NAME) else (*values, sender)
    return [row[0] for row in connection.execute(f"SELECT id FROM session {where}", given)]  # noqa: S608  # of this module


def waiting_for(connection: sqlite3.Connection, sessions: Iterable[str]) -> list[bytes]:
    """Return the pipes of who waits for a message to one of these sessions."""
    wanted = set(sessions)
    # Few wait at any time, and many may be meant.
    rows = connection.execute("SELECT pipe, session_id FROM waiter") if wanted else ()
    return [pipe for pipe, session_id in rows if session_id in wanted]


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _messages(rows: Sequence[tuple[int, str, str, bytes, float]]) -> list[Message]:
    if not rows:
        return []
    from isoenv.coordination.records import Message

    return [
        Message(number, sender, sender_id, body.decode("utf-8", "surrogatepass"), sent_at)
        for number, sender, sender_id, body, sent_at in rows
    ]
