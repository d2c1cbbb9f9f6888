"""The registry's database file: examined before it is used, made, migrated, or set aside.

SQLite takes an empty file for a new database and throws a log away that it cannot use; a registry
that was lost must be noticed before SQLite sees it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple

from isoenv import __version__, mounts, registry_mirror
from isoenv.registry_schema import FIRST_TABLES, MIGRATIONS, TABLES, VERSION

if TYPE_CHECKING:
    from collections.abc import Callable

# The smallest page of SQLite, in bytes.
SMALLEST = 512
# How often a file may be replaced while it is opened.
ATTEMPTS = 5
# Beside the database itself, which is moved first: what is left alone is recognised as lost.
PARTS = ("", "-wal", "-shm", "-journal")
# When the directory, the disk or the file itself lets nothing be written.
UNWRITABLE = {
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}
_PRIMARY = 0xFF


class DamagedError(Exception):
    """The file is no sound registry; the text says what is wrong with it."""


class Opened(NamedTuple):
    """A sound database, its schema's version (0: nothing is in it yet) and which file it is.

    ``is_mirrored`` says that its mirror holds the last thing that was written.
    """

    connection: sqlite3.Connection
    version: int
    identity: tuple[int, int] | None
    is_mirrored: bool = True


def code(error: sqlite3.Error) -> int:
    """Return SQLite's primary code of an error, 0 where Python has found it itself."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def is_damage(error: sqlite3.Error) -> bool:
    """Whether an error says that the database itself is broken."""
    return code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def identity(file: str) -> tuple[int, int] | None:
    """Return which file has the name now."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def opened(file: str, patience: float) -> Opened | None:
    """Open a sound registry; None where there is none, and none was lost.

    Raises DamagedError, and sqlite3.Error for what says nothing about the registry.
    """
    for attempts_left in reversed(range(ATTEMPTS)):
        before = identity(file)
        # First the mirror: it is never ahead of a registry that is read after it.
        revision = registry_mirror.revision(file)
        if not _is_there(file):
            if revision is not None:
                raise DamagedError("it is empty" if before else "it is missing")
            return None
        found = _examined(connect(file, patience), revision, before)
        # Somebody may just have put another file in its place; a file system may have no inodes.
        if identity(file) == before or not attempts_left:
            return found
        found.connection.close()
    return None


def connect(file: str, patience: float, options: str | None = None) -> sqlite3.Connection:
    """Connect to a database, whatever it is; the ``options`` are those of a URI."""
    name, is_uri = file, options is not None
    if is_uri:
        from urllib.parse import quote

        name = f"file:{quote(os.fsencode(file))}?{options}"
    # Transactions are begun by hand: the module's own would begin deferred ones, which fail at
    # once when two of them want to write.
    return sqlite3.connect(name, timeout=patience, isolation_level=None, uri=is_uri)


def read_only(file: str, patience: float) -> Opened | None:
    """Open a registry of which nothing can be written; None where it cannot be read either."""
    options = ["mode=ro"]
    if not _has_log(file):
        # Nobody has it open, and all of it is in the file.
        options.append("mode=ro&immutable=1")
    for option in options:
        with contextlib.suppress(sqlite3.Error, DamagedError):
            return _examined(connect(file, patience, option), None, identity(file))
    return None


def make(
    file: str, patience: float, fill: Callable[[sqlite3.Connection], int]
) -> tuple[Opened, int]:
    """Make a registry, or what is missing of one; return it with what ``fill`` has counted.

    All of it is one transaction: who is killed on the way has made nothing.
    """
    connection = connect(file, patience)
    try:
        # A write-ahead log needs memory that all processes share: not to be had over a network.
        mode = "DELETE" if mounts.shared_kind(file) else "WAL"
        connection.execute(f"PRAGMA journal_mode = {mode}")
        _prepare(connection)
        connection.executescript(f"BEGIN IMMEDIATE; {TABLES}")
        connection.execute("INSERT INTO registry VALUES (0, ?)", (__version__,))
        count = fill(connection)
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        connection.close()
        raise
    return Opened(connection, VERSION, identity(file)), count


def migrate(found: Opened) -> Opened:
    """Bring an older registry to the present schema."""
    connection = found.connection
    changes = "".join(MIGRATIONS[version] for version in range(found.version, VERSION))
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {changes}")
        connection.execute("INSERT INTO registry VALUES (0, ?)", (__version__,))
        connection.execute(f"PRAGMA user_version = {VERSION}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return found._replace(version=VERSION)


def maker(connection: sqlite3.Connection) -> str | None:
    """Return which isoenv has made the tables, of a newer schema too."""
    try:
        row = connection.execute("SELECT maker FROM registry").fetchone()
    except sqlite3.Error:
        return None
    return str(row[0]) if row else None


def set_aside(file: str) -> str | None:
    """Move a registry away with all that belongs to it; return its new name, None for nothing."""
    wanted = aside = f"{file}.corrupt-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}"
    number = 1
    while any(os.path.lexists(f"{aside}{part}") for part in PARTS):
        number += 1
        aside = f"{wanted}-{number}"
    moved = False
    for part in PARTS:
        with contextlib.suppress(FileNotFoundError):
            os.rename(f"{file}{part}", f"{aside}{part}")
            moved = True
    return aside if moved else None


def _is_there(file: str) -> bool:
    """Whether there is a file that SQLite can be asked about."""
    try:
        size = os.path.getsize(file)
    except FileNotFoundError:
        size = 0
    except OSError:
        return True
    if size >= SMALLEST:
        return True
    # A database that is being made has no log before it has its first page.
    if size:
        raise DamagedError("file is not a database")
    if _has_log(file):
        raise DamagedError("it is empty, and its log is not")
    return False


def _has_log(file: str) -> bool:
    """Whether there is a write-ahead log with something in it."""
    try:
        return os.path.getsize(f"{file}-wal") > 0
    except OSError:
        return False


def _prepare(connection: sqlite3.Connection) -> None:
    """Set what holds for a connection; the file is read for it."""
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _examined(
    connection: sqlite3.Connection, mirrored: int | None, which: tuple[int, int] | None
) -> Opened:
    """Return a connection with what is known of it; close one that is not sound.

    ``mirrored`` is the revision that the mirror was written from.
    """
    try:
        version, known = _state(connection, mirrored)
    except sqlite3.DatabaseError as error:
        connection.close()
        if is_damage(error):
            raise DamagedError(str(error)) from None
        raise
    except BaseException:
        connection.close()
        raise
    return Opened(connection, version, which, known == mirrored)


def _state(connection: sqlite3.Connection, mirrored: int | None) -> tuple[int, int | None]:
    """Return the version of the schema, and the revision where that schema has one."""
    _prepare(connection)
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > VERSION:
        return version, mirrored
    if problem := _problem(connection, version):
        raise DamagedError(problem)
    if version == VERSION:
        (known,) = connection.execute("SELECT max(revision) FROM registry").fetchone()
        if known is None or (mirrored is not None and known < mirrored):
            raise DamagedError("it is older than its mirror")
        return version, known
    if version == 0 and mirrored is not None:
        raise DamagedError("it is empty")
    return version, mirrored


def _problem(connection: sqlite3.Connection, version: int) -> str | None:
    rows = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    tables = {name for (name,) in rows}
    if version == 0 and not tables:
        return None
    if version <= 0 or not tables >= FIRST_TABLES:
        return "it is the database of another program"
    (answer,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    return None if answer == "ok" else " ".join(answer.split())
