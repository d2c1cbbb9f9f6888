"""One SQLite database that all processes of a machine write to, fairly and safely.

WAL lets readers go on while somebody writes. Writers queue on a lock file before ``BEGIN
IMMEDIATE``: SQLite's own waiting sleeps, is unfair, and does not cover a transaction that begins
by reading.
"""

from __future__ import annotations

import os
import sqlite3
from _thread import allocate_lock, get_ident  # threading itself costs a status line its import

from isoenv import flock, paths
from isoenv.coordination.store.schema import TABLES, VERSION
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Seconds that a writer waits for the others before it gives up.
PATIENCE = 30.0
# The smallest page of SQLite, in bytes: what is shorter it takes for no database, and overwrites.
SMALLEST = 512
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)


class Database:
    """An open database. It may be used from several threads, and from a forked child."""

    def __init__(self, state: str, patience: float = PATIENCE) -> None:
        """Open the database in the state directory, and make both where they are missing.

        ``patience`` is how many seconds a call waits for other processes.
        """
        self.state = state
        self.patience = patience
        self.file = paths.coordination_file(state)
        self._lock = allocate_lock()
        self._transaction = _Transaction(self)
        self._is_closed = False
        self._gate = -1
        self._connection: sqlite3.Connection | None = None
        # The thread that is writing.
        self._writer = 0
        self._open()
        _opened.add(self)

    def _open(self) -> None:
        paths.make_private(self.state)
        try:
            # Transactions are begun by hand, for the module's own would be deferred ones.
            self._connection = sqlite3.connect(
                self.file, timeout=self.patience, isolation_level=None, check_same_thread=False
            )
            self._prepare(self._connection)
        except BaseException as error:
            self._release()
            if isinstance(error, sqlite3.Error):
                raise self.unusable(error) from None
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")
        version = _version(connection)
        if version == 0:
            self._create(connection)
        elif version > VERSION:
            raise IsoenvError(
                f"{self.file} has schema {version}, this isoenv reads up to {VERSION}: "
                "`pip install --upgrade isoenv`"
            )

    @property
    def connection(self) -> sqlite3.Connection:
        """The connection, made anew after a fork."""
        if self._connection is None:
            if self._is_closed:
                raise IsoenvError("the session has ended, and with it what it can do")
            self._open()
        assert self._connection is not None  # noqa: S101  # it has just been opened
        return self._connection

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._is_closed = True
            _opened.discard(self)
            self._release()

    def _release(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def park(self) -> None:
        """Let go of all that a forked child must not have, and keep it so until ``unpark``.

        Neither SQLite nor a lock on the gate can be shared: the child would write without locks.
        """
        if self._writer != get_ident():
            self._lock.acquire()
            self._release()

    def unpark(self) -> None:
        """Go on, with what is opened anew when it is needed."""
        if self._writer != get_ident():
            self._lock.release()

    def _create(self, connection: sqlite3.Connection) -> None:
        self._enter_gate()
        try:
            # Somebody else may have made it while this process waited.
            if _version(connection) == 0:
                if 0 < os.path.getsize(self.file) < SMALLEST:
                    raise self._corrupt("file is not a database")
                connection.execute("PRAGMA journal_mode = WAL")
                connection.executescript(
                    f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
                )
        finally:
            self._leave_gate()

    def _enter_gate(self) -> None:
        # Opened when there is something to write: where one may not, one can still read.
        if self._gate < 0:
            self._gate = _opened_gate(f"{self.file}.lock")
        if not flock.acquire(self._gate, self.patience):
            raise IsoenvError(
                f"{self.file}.lock is locked by another process for {self.patience:g} s"
            )

    def _leave_gate(self) -> None:
        if self._gate >= 0:
            flock.release(self._gate)

    def transaction(self) -> _Transaction:
        """Return a context to write in, with everybody else kept out; all happens, or nothing."""
        return self._transaction

    def rows(self, sql: str, values: Iterable[object] = ()) -> list[Any]:
        """Return what a query finds, outside any transaction."""
        try:
            with self._lock:
                return self.connection.execute(sql, tuple(values)).fetchall()
        except UnicodeEncodeError:
            # A name that is no Unicode: SQLite can hold it in no row.
            return []
        except sqlite3.Error as error:
            raise self.unusable(error) from None

    def unusable(self, error: sqlite3.Error) -> IsoenvError:
        """Return what to tell the user of an error of SQLite's."""
        # The low byte: above it stand SQLite's finer distinctions.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _CORRUPT:
            return self._corrupt(str(error))
        remedy = f"`df -h {self.state}`" if code in _FULL else f"`ls -ld {self.state}`"
        return IsoenvError(f"cannot use {self.file}: {error}: {remedy}")

    def _corrupt(self, why: str) -> IsoenvError:
        return IsoenvError(
            f"cannot use {self.file}: {why}: `mv {self.file} {self.file}.bad` starts a new one, "
            "without the sessions and messages in it"
        )


class _Transaction:
    """Writing in turn. One object for all of them, which is what makes an update cheap."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def __enter__(self) -> sqlite3.Connection:
        database = self._database
        database._lock.acquire()  # noqa: SLF001  # the two are one
        try:
            connection = database.connection
            database._enter_gate()  # noqa: SLF001  # likewise
            connection.execute("BEGIN IMMEDIATE")
            database._writer = get_ident()  # noqa: SLF001  # likewise
        except BaseException as error:
            self._leave()
            if isinstance(error, sqlite3.Error):
                raise database.unusable(error) from None
            raise
        return connection

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        database = self._database
        connection = database.connection
        try:
            if error is None:
                connection.execute("COMMIT")
        except sqlite3.Error as refused:
            error = refused
        try:
            # A full disk makes SQLite roll back by itself.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        finally:
            self._leave()
        if isinstance(error, sqlite3.Error):
            raise database.unusable(error) from None

    def _leave(self) -> None:
        self._database._writer = 0  # noqa: SLF001  # the two are one
        self._database._leave_gate()  # noqa: SLF001  # likewise
        self._database._lock.release()  # noqa: SLF001  # likewise


_opened: set[Database] = set()
_parked: list[Database] = []


def _before_fork() -> None:
    for database in list(_opened):
        database.park()
        _parked.append(database)


def _after_fork() -> None:
    while _parked:
        _parked.pop().unpark()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)


def _version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _opened_gate(name: str) -> int:
    try:
        return os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IsoenvError(f"cannot open {name}: {reason}: `ls -l {name}`") from None
