"""A connection to the PostgreSQL server that has a lock: asked with a time limit, never polled.

It is used by one thread at a time. Its end, however it comes, is the end of the lock: for the
server, and for who reads here that it has ended.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv.coordination.store.postgres_schema import SCHEMA, VERSION
from isoenv.databases.server import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import psycopg

    from isoenv.coordination.store.postgres_address import Address

    Row = tuple[str | None, ...]

# Seconds in which the server answers where there is nothing to wait for.
ANSWER = 5.0
# Seconds after which the server gives up a holder that is silent, whose host has vanished. What
# watches a lock must know before.
GIVEN_UP = 60
# A killed waiter must not stand in the way of those behind it: how often the server looks, in ms.
_LOOK = {"client_connection_check_interval": "1000"}
_SETTINGS = {
    "search_path": SCHEMA,
    # Neither waiting for a lock nor holding one has a limit but those that are asked for.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_session_timeout": "0",
    "lock_timeout": "0",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
}
# Those that the server's version has not are left out.
_SET = """
SELECT set_config(name, value, false)
FROM unnest($1::text[], $2::text[]) AS wanted (name, value)
WHERE name IN (SELECT name FROM pg_settings)
"""
_GREET = f"""
SELECT pg_backend_pid(), (SELECT backend_start::text FROM pg_stat_activity
  WHERE pid = pg_backend_pid()), to_regclass('{SCHEMA}.version') IS NOT NULL
"""  # noqa: S608  # a constant


class LostError(Exception):
    """The connection has ended, or could not be made."""


class SilentError(Exception):
    """No answer has come in time; it may come later."""


class RefusedError(Exception):
    """The server does not do what it was asked for, ``sqlstate`` says why."""

    def __init__(self, text: str, sqlstate: str) -> None:
        """Say why."""
        super().__init__(text)
        self.sqlstate = sqlstate


class StoppedError(Exception):
    """Nobody waits for the answer any more."""


class Line:
    """A connection. With ``stop``, an open file, nothing is waited for once that is at its end.

    ``identity`` is the server's pid for it with the time when that began, ``patience`` how many
    seconds an answer may take. ``is_usable`` is False where the tables are of another version.
    """

    def __init__(
        self,
        address: Address,
        patience: float,
        place: Mapping[str, str] | None = None,
        stop: int | None = None,
    ) -> None:
        """Connect, within ``patience`` seconds, or to the ``place`` of another line.

        Raises LostError, or IsoenvError at a pooler.
        """
        import psycopg

        self.address = address
        self.stop = stop
        self.patience = ANSWER
        self._is_owed = False
        try:
            self.connection = address.connect("lock", patience, **(place or {}))
        except psycopg.Error as error:
            raise _lost(address, error) from None
        _open.add(self)
        try:
            self._greet()
        except BaseException:
            self.close()
            raise

    def _greet(self) -> None:
        wanted = {
            **_SETTINGS,
            "tcp_keepalives_idle": str(max(1, GIVEN_UP // 3)),
            "tcp_user_timeout": str(GIVEN_UP * 1000),
        }
        ((pid, since, is_made),) = self.ask(_GREET)
        self.address.require_direct(self.connection, int(pid or 0))
        self.identity = (int(pid or 0), str(since))
        self.ask(_SET, _array(wanted), _array(wanted.values()))
        # Some systems cannot tell a server that.
        with suppress(RefusedError):
            self.ask(_SET, _array(_LOOK), _array(_LOOK.values()))
        version = self.ask("SELECT version FROM version") if is_made == "t" else []
        self.is_usable = version == [(str(VERSION),)]

    @property
    def place(self) -> dict[str, str]:
        """What leads to the very same server without asking for its name again."""
        info = self.connection.info
        found = {"host": info.host, "port": str(info.port)}
        return found | ({"hostaddr": info.hostaddr} if info.hostaddr else {})

    def ask(self, sql: str, *values: str | int | None) -> list[Row]:
        """Return the rows of an answer; see ``ask_within`` for what it raises."""
        return self.ask_within(self.patience, sql, *values)

    def ask_within(self, limit: float | None, sql: str, *values: str | int | None) -> list[Row]:
        """Return the rows of an answer that comes within ``limit`` seconds.

        Raises LostError, SilentError, RefusedError and StoppedError.
        """
        import psycopg

        if self._is_owed:
            self.answer(limit)
        given = [None if value is None else str(value).encode() for value in values]
        try:
            self.connection.pgconn.send_query_params(sql.encode(), given)
        except psycopg.Error as error:
            raise _lost(self.address, error) from None
        self._is_owed = True
        return self.answer(limit)

    def answer(self, limit: float | None) -> list[Row]:
        """Return the rows that were asked for before."""
        import psycopg

        pgconn = self.connection.pgconn
        deadline = None if limit is None else time.monotonic() + limit
        rows: list[Row] = []
        refusal: RefusedError | None = None
        try:
            while pgconn.is_busy():
                if not self._wait(deadline):
                    raise SilentError(f"no answer within {limit:g} s")
                pgconn.consume_input()
            while result := pgconn.get_result():
                if result.status == psycopg.pq.ExecStatus.FATAL_ERROR:
                    refusal = _refusal(result)
                else:
                    rows = _rows(result)
        except psycopg.Error as error:
            raise _lost(self.address, error) from None
        self._is_owed = False
        if pgconn.status != psycopg.pq.ConnStatus.OK:
            raise LostError(str(refusal or "the server closed the connection"))
        if refusal:
            raise refusal
        return rows

    def hear(self, limit: float | None, *also: int) -> None:
        """Wait to be notified, or until another descriptor can be read."""
        import psycopg

        pgconn = self.connection.pgconn
        deadline = None if limit is None else time.monotonic() + limit
        try:
            while not pgconn.notifies():
                if not self._wait(deadline, *also):
                    return
                pgconn.consume_input()
            while pgconn.notifies():
                pass
        except psycopg.Error as error:
            raise _lost(self.address, error) from None

    def _wait(self, deadline: float | None, *also: int) -> bool:
        """Wait until there is something to read; False when the time is up, or for others."""
        poll = select.poll()
        poll.register(self.connection.pgconn.socket, select.POLLIN)
        for descriptor in also if self.stop is None else (*also, self.stop):
            poll.register(descriptor, select.POLLIN)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        ready = [descriptor for descriptor, _ in poll.poll(left)]
        if self.stop in ready:
            raise StoppedError
        return self.connection.pgconn.socket in ready

    def cancel(self) -> None:
        """Tell the server that nobody waits for the answer, and close."""
        import psycopg

        try:
            self.connection.cancel_safe(timeout=ANSWER)
        except psycopg.Error:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """End it, and with it what it holds."""
        _open.discard(self)
        self.connection.close()

    def detach(self) -> None:
        """Let a process that is forked now go on with it: only one of the two may use it then."""
        _open.discard(self)

    def abandon(self) -> None:
        """Close this process's copy, and say nothing to the server: it is another's."""
        import psycopg

        _open.discard(self)
        # Kept, for its end would say goodbye in the other's name.
        _others.append(self)
        if self.connection.pgconn.status == psycopg.pq.ConnStatus.OK:
            os.close(self.connection.pgconn.socket)


_open: set[Line] = set()
_others: list[Line] = []


def _after_fork() -> None:
    for line in list(_open):
        line.abandon()


os.register_at_fork(after_in_child=_after_fork)


def _array(texts: Iterable[str]) -> str:
    return "{" + ",".join(texts) + "}"


def _rows(result: psycopg.pq.abc.PGresult) -> list[Row]:
    return [
        tuple(
            None if (value := result.get_value(row, column)) is None else value.decode()
            for column in range(result.nfields)
        )
        for row in range(result.ntuples)
    ]


def _lost(address: Address, error: psycopg.Error) -> LostError:
    return LostError(address.hide(reason(error).removeprefix("consuming input failed: ")))


def _refusal(result: psycopg.pq.abc.PGresult) -> RefusedError:
    from psycopg.pq import DiagnosticField

    text = result.error_field(DiagnosticField.MESSAGE_PRIMARY) or result.error_message
    state = result.error_field(DiagnosticField.SQLSTATE)
    said = (text or b"no reason given").decode("utf-8", "replace").partition("\n")[0].strip()
    return RefusedError(said, (state or b"").decode())
