"""A connection to the PostgreSQL database that several hosts share, made anew when it is lost."""

from __future__ import annotations

import os
from _thread import RLock
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv.coordination.store import postgres_migration
from isoenv.coordination.store.postgres_address import Address
from isoenv.coordination.store.postgres_schema import SCHEMA, TABLES, VERSION
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import psycopg

# Seconds that a call waits for others, and that a connection may take.
PATIENCE = 30.0
# Advisory locks: of who makes the tables; and of who comes, goes or moves, which who sends shares,
# so that a message never falls between a session's coming and its first look.
SETUP, MEMBERS = 0x69736F656E760001, 0x69736F656E760002
_GREET = """
SELECT pg_backend_pid(), extract(epoch FROM clock_timestamp())::float8,
       set_config('statement_timeout', %s, false), set_config('search_path', %s, false),
       to_regclass(%s) IS NOT NULL
"""
_IS_MADE = """
SELECT 1 FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
WHERE nspname = %s AND relname = 'version'
"""
NOW = "extract(epoch FROM clock_timestamp())::float8"


class Database:
    """An open database. It may be used from several threads, and from a forked child."""

    def __init__(self, state: str, url: str, patience: float = PATIENCE) -> None:
        """Connect, and make the tables where they are missing.

        ``state`` is the state directory for what is in files; ``patience`` is in seconds.
        """
        self.state = state
        self.address = Address(url)
        self.patience = patience
        # What the server's clock is ahead of this host's, in whole seconds: what is written down
        # is read as it was.
        self.ahead = 0
        self._lock = RLock()
        self._is_closed = False
        self._connection: psycopg.Connection | None = None
        with self._lock:
            self._open()
        _opened.add(self)

    def _open(self) -> psycopg.Connection:
        with self.told("cannot use"):
            connection, is_made = self.connect("store")
            try:
                if not is_made or _version(connection) < VERSION:
                    _make(connection)
                version = _version(connection)
            except BaseException:
                connection.close()
                raise
        if version > VERSION:
            connection.close()
            raise IsoenvError(
                f"{self.address.label} has schema {version}, this isoenv reads up to {VERSION}: "
                "`pip install --upgrade isoenv`"
            )
        self._connection = connection
        return connection

    def connect(self, purpose: str) -> tuple[psycopg.Connection, bool]:
        """Return a new connection, and whether the tables are there.

        Raises IsoenvError behind a pooler.
        """
        connection = self.address.connect(purpose, self.patience)
        try:
            return connection, self._greet(connection)
        except BaseException:
            connection.close()
            raise

    def _greet(self, connection: psycopg.Connection) -> bool:
        """Make a connection ready, and return whether the tables are there."""
        import time

        import psycopg

        connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED
        before = time.time()
        greeting = (str(int(self.patience * 1000)), SCHEMA, f"{SCHEMA}.version")
        ((pid, now, _, _, is_made),) = connection.execute(_GREET, greeting).fetchall()
        self.address.require_direct(connection, pid)
        self.ahead = round(now - (before + time.time()) / 2)
        return bool(is_made)

    @property
    def connection(self) -> psycopg.Connection:
        """The connection, made anew after a fork and when the last one was lost."""
        if self._is_closed:
            raise IsoenvError("the session has ended, and with it what it can do")
        return self._connection or self._open()

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            self._is_closed = True
            _opened.discard(self)
            self._release()

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def transaction(self, *, members: bool | None = None) -> Iterator[psycopg.Connection]:
        """Give a context to write in: all happens, or nothing.

        With ``members`` nobody else comes, goes or moves meanwhile; False lets others say so too.
        """
        with self._lock:
            connection = self.connection
            with self.told("cannot use"), connection.transaction():
                if members is not None:
                    shared = "" if members else "_shared"
                    execute(connection, f"SELECT pg_advisory_xact_lock{shared}(%s)", (MEMBERS,))
                yield connection

    def rows(
        self, sql: str, values: Sequence[object] | Mapping[str, object] = ()
    ) -> list[tuple[Any, ...]]:
        """Return what a query finds or has changed."""
        try:
            with self._lock:
                connection = self.connection
                with self.told("cannot use"):
                    return execute(connection, sql, values).fetchall()
        except UnicodeEncodeError:
            # A name that is no Unicode: PostgreSQL can hold it in no row.
            return []

    @contextmanager
    def told(self, what: str) -> Iterator[None]:
        """Turn what the server says into one line without the password."""
        import psycopg

        try:
            yield
        except psycopg.Error as error:
            if self._connection is not None and self._connection.closed:
                self._release()
                what = "lost the connection to"
            raise self.address.failure(what, error) from None

    def park(self) -> None:
        """Wait until no thread uses the connection, and keep it so until ``unpark``."""
        self._lock.acquire()

    def unpark(self) -> None:
        """Go on."""
        self._lock.release()

    def disown(self) -> None:
        """Leave the connection to the parent of this child, with nothing of it open here."""
        if self._connection is not None:
            _parents.append(self._connection)
            if not self._connection.closed:
                os.close(self._connection.fileno())
            self._connection = None


_opened: set[Database] = set()
_parked: list[Database] = []
# Kept, for its end would say goodbye to the server in the parent's name.
_parents: list[psycopg.Connection] = []


def _before_fork() -> None:
    for database in list(_opened):
        database.park()
        _parked.append(database)


def _after_fork_in_parent() -> None:
    while _parked:
        _parked.pop().unpark()


def _after_fork_in_child() -> None:
    for database in _parked:
        database.disown()
    _after_fork_in_parent()


os.register_at_fork(
    before=_before_fork,
    after_in_parent=_after_fork_in_parent,
    after_in_child=_after_fork_in_child,
)


def execute(
    connection: psycopg.Connection, sql: str, values: Sequence[object] | Mapping[str, object] = ()
) -> psycopg.Cursor[tuple[Any, ...]]:
    """Run a statement; the text is this package's own."""
    return connection.execute(sql, values or None)


def _make(connection: psycopg.Connection) -> None:
    """Make the tables, or bring those of an earlier version to this one."""
    with connection.transaction():
        execute(connection, "SELECT pg_advisory_xact_lock(%s)", (SETUP,))
        # Somebody else may have made it while this process waited: the tables say so, whereas
        # to_regclass may answer from what the server knew before.
        if not execute(connection, _IS_MADE, (SCHEMA,)).fetchall():
            execute(connection, TABLES)
            execute(connection, "INSERT INTO version VALUES (%s)", (VERSION,))
        elif _version(connection) < VERSION:
            postgres_migration.migrate(connection)
            execute(connection, "UPDATE version SET version = %s", (VERSION,))


def _version(connection: psycopg.Connection) -> int:
    row = execute(connection, "SELECT version FROM version").fetchone()
    return row[0] if row else 0
