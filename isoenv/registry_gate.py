"""The gate in front of the registry: who writes passes it, one after the other.

A lock of the kernel on a file that is never deleted. SQLite's own waiting is unfair and sleeps.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv import files, flock, lock_holders, registry_file
from isoenv.errors import RegistryBusyError, RegistryError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def passed(registry: str, patience: float) -> Iterator[None]:
    """Hold the gate of a registry file; who waits longer than ``patience`` seconds gives up."""
    name = f"{registry}.lock"
    try:
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RegistryError(
            f"cannot open {name}: {files.reason(error)}: `ls -ld` and `df` of its directory "
            "show why"
        ) from None
    try:
        if not flock.acquire(descriptor, patience):
            raise busy(registry, patience)
        yield
    finally:
        os.close(descriptor)


def refusal(registry: str, patience: float, error: sqlite3.Error) -> RegistryError:
    """Return what to raise for an error of SQLite's."""
    code = registry_file.code(error)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return busy(registry, patience)
    remedy = "`isoenv doctor`"
    if code in registry_file.UNWRITABLE:
        directory = os.path.dirname(registry)
        remedy = f"`ls -ld {directory}` and `df {directory}` show why"
    elif registry_file.is_damage(error):
        remedy = "`isoenv list` rebuilds it"
    return RegistryError(f"cannot use the registry {registry}: {error}: {remedy}")


def busy(registry: str, patience: float) -> RegistryBusyError:
    """Return the error that names the process which everybody waits for."""
    # With a write-ahead log SQLite locks the file of its shared memory, else the database.
    pid = lock_holders.of([f"{registry}.lock", f"{registry}-shm", registry])
    if pid is None:
        return RegistryBusyError(
            f"waited {patience:g} s for {registry}, which another process has locked: "
            f"`fuser -v {registry}.lock` names it"
        )
    stopped = lock_holders.is_stopped(pid)
    remedy = f"`kill -CONT {pid}` lets it go on" if stopped else f"`kill {pid}` ends it"
    return RegistryBusyError(
        f"waited {patience:g} s for {registry}, locked by {lock_holders.describe(pid)}"
        f"{', which is stopped' if stopped else ''}: {remedy}"
    )
