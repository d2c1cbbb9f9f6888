"""A SQLite database: written under another name beside its own, then renamed.

There is no comment in a file that programs would leave alone, so the mark is in the record, with
the file's inode: what somebody else has put in its place is not isoenv's.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from isoenv import files, flock, paths
from isoenv.databases import ownership, records
from isoenv.databases.address import Sqlite
from isoenv.databases.ownership import Found
from isoenv.databases.targets import Dump
from isoenv.errors import IsoenvError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.databases.desk import Desk
    from isoenv.databases.records import Record
    from isoenv.databases.targets import Target

# What SQLite keeps beside a database while somebody writes.
BESIDE = ("-journal", "-wal", "-shm")
FROZEN = 0o444
# Steps of SQLite's machine between two looks at signals: some tenths of a millisecond.
INSTRUCTIONS = 100_000
# Seconds between two tries at a template that is being written.
INTERVAL = 0.1


class Database:
    """What can be done with one file."""

    def __init__(self, target: Target, place: Sqlite, desk: Desk) -> None:
        """Take what the database should be, and for whom it is done."""
        self.target = target
        self.place = place
        self.desk = desk
        folder, name = os.path.split(place.path)
        self.temporary = f"{folder.rstrip('/')}/.{name}.isoenv-new"

    def look(self) -> tuple[Found | None, bool]:
        """Return what is there, and whether an unfinished one is."""
        left = os.path.lexists(self.temporary)
        status = self._status()
        if status is None:
            return None, left
        record = self._record(status)
        return Found(record.mark if record else None, status.st_size), left

    def create(self) -> bool:
        """Make it where it is missing; return whether it was."""
        with self._locked():
            if status := self._status():
                record = self._record(status)
                if record:
                    ownership.refuse_others(self.target, record, record.mark)
                    self._write(status)
                return False
            self._build()
            return True

    def reset(self, *, force: bool) -> None:
        """Make it anew: the old one stays until the new one is whole."""
        with self._locked():
            if status := self._status():
                self._check_droppable(status, "reset", force=force)
            self._build()

    def drop(self, *, force: bool) -> bool:
        """Remove it; return whether it was there."""
        with self._locked():
            if status := self._status():
                self._check_droppable(status, "drop", force=force)
            with _said(self.place):
                _remove(self.temporary)
                _remove(self.place.path)
            records.remove(self.desk.state, self.place)
            return status is not None

    def freeze(self) -> bool:
        """Let nobody write it, and make it from its template if missing; return whether it was."""
        with self._locked():
            if self._status() is None:
                self._build(frozen=True)
                return True
            with _said(self.place):
                os.chmod(self.place.path, FROZEN)
            return False

    def refresh(self, *, force: bool) -> None:  # noqa: ARG002  # nobody has to be ended for it
        """Make a frozen template anew from its own template."""
        with self._locked():
            if status := self._status():
                record = self._record(status)
                ownership.refuse_foreign(self.target, record, record.mark if record else None)
            self._build(frozen=True)

    def _status(self) -> os.stat_result | None:
        try:
            return os.stat(self.place.path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise IsoenvError(f"cannot read {self.place}: {files.reason(error)}") from None

    def _record(self, status: os.stat_result) -> Record | None:
        """Return the record of what is there; None where it is about another file."""
        found = records.read(self.desk.state, self.place)
        return found if found and found.identity == (status.st_dev, status.st_ino) else None

    def _write(self, status: os.stat_result) -> None:
        identity = (status.st_dev, status.st_ino)
        record = records.of(self.target, self.desk.project, identity)
        records.write(self.desk.state, record)

    def _check_droppable(self, status: os.stat_result, action: str, *, force: bool) -> None:
        record = self._record(status)
        ownership.refuse_foreign(self.target, record, record.mark if record else None)
        if not force:
            ownership.refuse_used(self.target, _users(self.place.path), action)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        name = records.lock_file(self.desk.state, self.place)
        paths.make_private(os.path.dirname(name))
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise IsoenvError(f"cannot open {name}: {files.reason(error)}") from None
        try:
            if not flock.acquire(descriptor, max(0.0, self._left())):
                raise TimedOutError(
                    f"{self.place} is in the hands of another isoenv: "
                    "`--timeout SECONDS` waits longer"
                )
            yield
        finally:
            os.close(descriptor)

    def _left(self) -> float:
        return self.desk.deadline - time.monotonic()

    def _build(self, *, frozen: bool = False) -> None:
        folder = os.path.dirname(self.place.path)
        with _said(self.place):
            os.makedirs(folder, exist_ok=True)
            # Whose turn it is, is settled: what is there was left by somebody who was killed.
            _remove(self.temporary)
            try:
                self._fill()
                _sync(self.temporary)
                if frozen:
                    os.chmod(self.temporary, FROZEN)
                # The record first: the inode is what tells this file from a stranger's.
                self._write(os.stat(self.temporary))
                # The former one's log would be taken for the new one's.
                _remove(self.place.path)
                os.rename(self.temporary, self.place.path)
                _sync(folder)
            except BaseException:
                with suppress(OSError):
                    _remove(self.temporary)
                raise

    def _fill(self) -> None:
        source = self.target.template
        with closing(sqlite3.connect(os.fsencode(self.temporary), isolation_level=None)) as new:
            # What a power cut leaves of it is dropped anyway, and the whole is synced at its end.
            new.executescript("PRAGMA synchronous = OFF; PRAGMA journal_mode = MEMORY")
            if source is None:
                # Makes it a database, and not merely an empty file.
                new.execute("VACUUM")
            elif isinstance(source, Dump):
                _load(new, source.path)
            elif isinstance(source, Sqlite):
                self._copy(source.path, new)

    def _copy(self, path: str, new: sqlite3.Connection) -> None:
        if not os.path.isfile(path):
            raise IsoenvError(f"there is no template {path}: make it, or see `template`")
        uri = f"file:{quote(os.fsencode(path))}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, timeout=0)) as source:
            # It tries a locked one again for ever, and says how it goes after each step.
            source.backup(new, progress=self._watch, sleep=INTERVAL)

    def _watch(self, status: int, _remaining: int, _total: int) -> None:
        """End the copying of a template that stays locked."""
        if status not in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED) or self._left() > 0:
            return
        source = self.target.template
        path = source.path if isinstance(source, Sqlite) else ""
        users = ownership.names(_users(path)) or "a program of another user"
        raise TimedOutError(
            f"{path} cannot be copied, it is being written by {users}: close it, or "
            f"`isoenv db freeze {self.target.name}` with a template of its own"
        )


def _load(new: sqlite3.Connection, path: str) -> None:
    """Run a file statement by statement, so that an error has its line."""
    statement, start, number = "", 1, 0
    # Python hears of Ctrl-C only where it runs, and one statement may take minutes.
    new.set_progress_handler(lambda: 0, INSTRUCTIONS)
    try:
        with open(path, encoding="utf-8") as stream:
            for number, line in enumerate(stream, 1):
                for piece in line.split(";")[:-1]:
                    statement += f"{piece};"
                    if sqlite3.complete_statement(statement):
                        new.execute(statement)
                        statement = ""
                statement += line.rpartition(";")[2]
                if not statement.strip():
                    statement, start = "", number + 1
        new.execute(statement)
    except sqlite3.Error as error:
        if error.sqlite_errorcode == sqlite3.SQLITE_INTERRUPT:
            raise KeyboardInterrupt from None
        raise IsoenvError(f"{path}:{start}: {error}: the database was not made") from None
    except UnicodeDecodeError:
        raise IsoenvError(f"{path}:{number + 1}: bytes that are not UTF-8") from None
    except OSError as error:
        raise IsoenvError(f"cannot read {path}: {files.reason(error)}: see `template`") from None


@contextmanager
def _said(place: Sqlite) -> Iterator[None]:
    """Turn what SQLite and the system say into one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise IsoenvError(f"{place}: {error}") from None
    except OSError as error:
        raise IsoenvError(f"{error.filename or place}: {files.reason(error)}") from None


def _remove(path: str) -> None:
    for name in (path, *(f"{path}{suffix}" for suffix in BESIDE)):
        with suppress(FileNotFoundError):
            os.unlink(name)


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _users(path: str) -> list[str]:
    """Return which processes have a file open, as far as this user may see."""
    import psutil

    real = os.path.realpath(path)
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if any(opened.path == real for opened in process.open_files()):
                found.append(f"{process.name()} (pid {process.pid})")
    return found
