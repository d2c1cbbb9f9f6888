"""A connection to the PostgreSQL database that several hosts share, made anew when it is lost."""

from __future__ import annotations

import os
from _thread import RLock
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv.coordination.store.postgres_schema import SCHEMA, TABLES, VERSION
from isoenv.databases.server import reason, require_driver
from isoenv.errors import IsoenvError
from isoenv.paths import STORE_SETTING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    import psycopg

# Seconds that a call waits for others, and that a connection may take.
PATIENCE = 30.0
# The shortest that libpq waits for a connection, in seconds.
SHORTEST = 2
# Advisory locks: of who makes the tables; and of who comes, goes or moves, which who sends shares,
# so that a message never falls between a session's coming and its first look.
SETUP, MEMBERS = 0x69736F656E760001, 0x69736F656E760002
# A peer that has vanished without a word is noticed within a minute, also by who waits for ever.
_KEEPALIVE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
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
        require_driver()
        self.state = state
        self.url = url
        self.patience = patience
        self.label, self._secret = _described(url)
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
                if not is_made:
                    _create(connection)
                row = connection.execute("SELECT version FROM version").fetchone()
            except BaseException:
                connection.close()
                raise
        version = row[0] if row else 0
        if version > VERSION:
            connection.close()
            raise IsoenvError(
                f"{self.label} has schema {version}, this isoenv reads up to {VERSION}: "
                "`pip install --upgrade isoenv`"
            )
        self._connection = connection
        return connection

    def connect(self, purpose: str) -> tuple[psycopg.Connection, bool]:
        """Return a new connection, and whether the tables are there.

        Raises IsoenvError behind a pooler, which would give one session's wakes to another.
        """
        import psycopg

        connection = psycopg.connect(
            self._conninfo(purpose), autocommit=True, prepare_threshold=None
        )
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
        if pid != connection.info.backend_pid:
            raise IsoenvError(
                f"{STORE_SETTING} is the address of a pooler, {self.label}, behind which "
                "nobody can be woken: give that of the PostgreSQL server itself"
            )
        self.ahead = round(now - (before + time.time()) / 2)
        return bool(is_made)

    def _conninfo(self, purpose: str) -> str:
        from psycopg.conninfo import conninfo_to_dict, make_conninfo

        patience = str(max(SHORTEST, int(self.patience)))
        ours = {**_KEEPALIVE, "connect_timeout": patience}
        given = conninfo_to_dict(self.url)
        ours = {name: value for name, value in ours.items() if name not in given}
        ours |= {"application_name": f"isoenv {purpose}", "client_encoding": "UTF8"}
        return make_conninfo(self.url, **ours)

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
            said = self.hide(reason(error))
            if self._connection is not None and self._connection.closed:
                self._release()
                what = "lost the connection to"
            raise IsoenvError(f"{what} {self.label}: {said}: {_remedy(error)}") from None

    def hide(self, text: str) -> str:
        """Return a text without the password."""
        return text.replace(self._secret, "…") if self._secret else text

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


def _create(connection: psycopg.Connection) -> None:
    with connection.transaction():
        execute(connection, "SELECT pg_advisory_xact_lock(%s)", (SETUP,))
        # Somebody else may have made it while this process waited: the tables say so, whereas
        # to_regclass may answer from what the server knew before.
        if not execute(connection, _IS_MADE, (SCHEMA,)).fetchall():
            execute(connection, TABLES)
            execute(connection, "INSERT INTO version VALUES (%s)", (VERSION,))


def _described(url: str) -> tuple[str, str]:
    """Return how to name a database to people, and its password."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        # What is wrong with it is not said: that may be a piece of the password.
        raise IsoenvError(
            f"{STORE_SETTING} is no address: `export {STORE_SETTING}=postgresql://USER@HOST/NAME`"
        ) from None
    host = given.get("host") or given.get("hostaddr") or "the local server"
    place = f"{host}:{given['port']}" if given.get("port") else host
    return f"{place}/{given.get('dbname') or ''}", str(given.get("password") or "")


def _remedy(error: psycopg.Error) -> str:
    from psycopg import errors

    if isinstance(error, (errors.QueryCanceled, errors.DeadlockDetected)):
        return "others were before this process, try again"
    away = (None, "57P01", "57P02", "57P03")
    if isinstance(error, errors.OperationalError) and error.sqlstate in away:
        return "once it runs, try again"
    return f"is `{STORE_SETTING}` right?"
