"""What is wrong with the state directory and the registry in it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import stat
from contextlib import closing
from typing import TYPE_CHECKING

from isoenv import files, host_directory, mounts, paths, registry_schema
from isoenv.diagnosis.finding import FIX, Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.context import Caller

# Bytes that a lease may need, with room for the journal.
SPACE = 1 << 20
# Kinds of findings after which no lease can be looked at.
UNREADABLE = ("registry-damaged", "registry-unreadable", "registry-newer")
DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
# Problems that are worth naming; one is as bad as all.
PROBLEMS = 3


def findings(caller: Caller) -> Iterator[Finding]:
    """Look at the directory and, as long as it can be read, at the database."""
    state = caller.state
    try:
        status = os.stat(state)
    except FileNotFoundError:
        return
    except OSError as error:
        yield Finding("state", f"cannot use {state}: {files.reason(error)}", f"`ls -ld {state}`")
        return
    yield from _access(state, status)
    yield from _disk(state)


def _access(state: str, status: os.stat_result) -> Iterator[Finding]:
    user = os.geteuid()
    names = [paths.registry_file(state) + suffix for suffix in ("", "-wal", "-shm", ".lock")]
    for path in [state, *names]:
        try:
            owner = os.lstat(path).st_uid
        except OSError:
            continue
        if owner != user:
            yield Finding(
                "state-owner",
                f"{path} belongs to user {host_directory.user_name(owner)}, and this is "
                f"{host_directory.user_name(user)}: perhaps from a `sudo` that keeps HOME",
                f"`sudo chown -R $(id -u) {state}`, or set ISOENV_STATE_DIR",
                file=path,
            )
            break
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077 and status.st_uid == user:
        what = "write to" if mode & 0o022 else "look into"
        yield Finding(
            "state-open",
            f"other users may {what} {state}, where shells find code to run (mode {mode:04o})",
            FIX,
            file=state,
            repair=_closing(state, mode),
        )


def _closing(state: str, mode: int) -> Callable[[], str]:
    def close() -> str:
        os.chmod(state, mode & ~0o077)
        return f"closed {state} to others (mode {mode & ~0o077:04o})"

    return close


def _disk(state: str) -> Iterator[Finding]:
    if not os.access(state, os.W_OK | os.X_OK):
        yield Finding(
            "state-read-only", f"cannot write to {state}", f"`ls -ld {state}` and `df {state}`"
        )
    elif (free := _free(state)) < SPACE:
        message = f"the disk of {state} has {free // 1024} KiB left"
        yield Finding("state-full", message, f"make room: `df {state}`", file=state)
    if kind := mounts.shared_kind(state):
        yield Finding(
            "state-network",
            f"{state} is on a {kind} file system, where locks are not to be relied on",
            "set ISOENV_STATE_DIR to a directory on a local disk",
            file=state,
        )


def _free(state: str) -> int:
    found = os.statvfs(state)
    return found.f_bavail * found.f_frsize


def registry(state: str) -> Iterator[Finding]:
    """Look at the database, reading it only."""
    file = paths.registry_file(state)
    if not os.path.lexists(file):
        return
    try:
        yield from _database(file)
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) in DAMAGED:
            yield _damaged(file, str(error))
        else:
            message = f"cannot read the registry {file}: {error}"
            yield Finding("registry-unreadable", message, f"`ls -l {file}`", file=file)
    yield from _lock(f"{file}.lock")


def _database(file: str) -> Iterator[Finding]:
    from urllib.parse import quote

    address = f"file:{quote(os.fsencode(file))}?mode=ro"
    with closing(sqlite3.connect(address, uri=True, timeout=1)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        # `quick_check` would not look at the indexes, by which no port is given twice.
        rows = connection.execute(f"PRAGMA integrity_check({PROBLEMS})").fetchall()
        problems = [str(text) for (text,) in rows if text != "ok"]
        if version:
            orphans = connection.execute("PRAGMA foreign_key_check").fetchall()
            problems += [
                f"{table} row {row} has no {of}" for table, row, of, _ in orphans[:PROBLEMS]
            ]
    if problems:
        yield _damaged(file, "; ".join(problems[:PROBLEMS]))
    if version > registry_schema.VERSION:
        yield Finding(
            "registry-newer",
            f"{file} has schema {version}, this isoenv reads up to {registry_schema.VERSION}",
            "`pip install --upgrade isoenv`, wherever it is installed",
            file=file,
        )


def _damaged(file: str, problem: str) -> Finding:
    return Finding(
        "registry-damaged",
        f"the registry {file} is damaged: {problem}",
        f"`mv {file} {file}.damaged`: the next command makes it anew, with all that was held",
        file=file,
    )


def _lock(file: str) -> Iterator[Finding]:
    """Find who keeps all others from writing: a process that is stopped would do so for ever."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        for pid in _lockers(os.fstat(descriptor)):
            yield from _stopped(file, pid)
    except OSError:
        return
    finally:
        os.close(descriptor)


def _lockers(status: os.stat_result) -> Iterator[int]:
    """Yield the processes that hold a lock of a file, as far as the kernel tells."""
    try:
        with open("/proc/locks", encoding="ascii") as table:
            rows = [line.split() for line in table]
    except (OSError, ValueError):
        return
    for row in rows:
        # "1: FLOCK  ADVISORY  WRITE 4711 fe:01:131 0 EOF"; waiters have "->" in front.
        if row[1] == "FLOCK" and row[5].rpartition(":")[2] == str(status.st_ino):
            yield int(row[4])


def _stopped(file: str, pid: int) -> Iterator[Finding]:
    import psutil

    try:
        process = psutil.Process(pid)
        command, halted = (
            process.name(),
            process.status()
            in (
                psutil.STATUS_STOPPED,
                psutil.STATUS_TRACING_STOP,
            ),
        )
    except (psutil.Error, ValueError):
        return
    if halted:
        yield Finding(
            "registry-locked",
            f"{file} is locked by {command} (pid {pid}), which is stopped: nobody can lease",
            f"`kill -CONT {pid}` lets it go on, `kill {pid}` ends it",
            file=file,
        )
