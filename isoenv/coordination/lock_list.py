"""Which locks are held and waited for, by the kernel's word; the records only say by whom."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import paths
from isoenv.coordination import lock_files, lock_names, lock_record, lock_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.coordination.lock_record import Holder

Record = dict[str, object]


@dataclass(frozen=True, slots=True)
class Locked:
    """A lock that is held or waited for.

    ``project`` is None for a lock of the machine. ``waiters`` are the pids of those that wait in
    the kernel's queue, in order; with a store of several hosts behind those that are next on each.
    """

    name: str
    project: str | None
    holders: tuple[Holder, ...]
    waiters: tuple[int, ...]


def locks() -> list[Locked]:
    """Return the locks of all scopes that are held or waited for now."""
    root = os.path.realpath(paths.state_dir(os.environ) + "/locks")
    table = lock_table.now()
    found = [
        locked
        for scope in _names(root)
        for name in _names(f"{root}/{scope}")
        if (locked := _look(f"{root}/{scope}/{name}", table))
    ]
    if not paths.store_url(os.environ):
        return found
    from isoenv.coordination import host_lock_list  # needs the driver of the store

    return host_lock_list.joined(paths.state_dir(os.environ), found)


def holders(directory: str) -> tuple[Holder, ...]:
    """Return who holds the lock in a directory."""
    return _Files(os.path.realpath(directory), lock_table.now()).holders()


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _look(directory: str, table: lock_table.Table) -> Locked | None:
    files = _Files(directory, table)
    held_by, waiters = files.holders(), files.waiters()
    if not held_by and not waiters:
        return None
    scope, file_name = directory.rsplit("/", 2)[1:]
    record: Record = next(iter(files.records), {})
    name = lock_names.decode(file_name) or str(record.get("name") or file_name)
    # Without a record its directory's name must do.
    project = scope.rpartition("-")[0] and str(record.get("project") or scope)
    return Locked(name, project or None, held_by, waiters)


class _Files:
    """The files of one lock, beside the kernel's table of one moment."""

    def __init__(self, directory: str, table: lock_table.Table) -> None:
        self.directory = directory
        self.table = table
        self.records: list[Record] = []

    def holders(self) -> tuple[Holder, ...]:
        """Return who holds the lock; those with a slot share its first file as well."""
        found = list(self._held(lock_files.LOCK, lock_files.LOCK))
        if holder := self._session():
            found.append(holder)
        with contextlib.suppress(OSError):
            for index in lock_files.indexes(self.directory):
                slot, record = f"{lock_files.SLOT}{index}", f"{lock_files.HOLDER}{index}"
                for holder in self._held(slot, record):
                    also = next((it for it in found if _is_also(it, holder)), None)
                    if also:
                        found.remove(also)
                    found.append(holder)
        return tuple(found)

    def _session(self) -> Holder | None:
        """Return the session that holds the lock across commands."""
        if not os.path.lexists(f"{self.directory}/{lock_files.STICKY}"):
            return None
        from isoenv.coordination import sticky  # needs the store, which most locks do without

        claim = sticky.claim_of(self.directory)
        if claim is None:
            return None
        self.records.append({"name": claim.name, "project": claim.project})
        return sticky.holder_of(claim)

    def waiters(self) -> tuple[int, ...]:
        """Return who waits: the one that holds the queue, and those behind it."""
        queue = self._rows(lock_files.QUEUE)
        return tuple(row.pid for row in sorted(queue, key=lambda row: row.is_waiting))

    def _held(self, name: str, record_name: str) -> Iterator[Holder]:
        records = self._records(record_name)
        self.records += records
        rows = [row for row in self._rows(name) if not row.is_waiting]
        for row in rows:
            mode = lock_files.SHARED if row.kind == "READ" else lock_files.EXCLUSIVE
            if name != lock_files.LOCK:
                mode = lock_files.SLOTTED
            yield _holder(records, row.pid, mode)
        if records and not rows and self._is_held(name, record_name):
            # By a process of another pid namespace, or without a table to see it in.
            mode = lock_files.EXCLUSIVE if name == lock_files.LOCK else lock_files.SLOTTED
            yield lock_record.holder(records[-1], mode)

    def _rows(self, name: str) -> list[lock_table.Row]:
        try:
            inode = os.lstat(f"{self.directory}/{name}").st_ino
        except OSError:
            return []
        return self.table.rows(self.directory, inode)

    def _records(self, name: str) -> list[Record]:
        try:
            descriptor = os.open(f"{self.directory}/{name}", os.O_RDONLY | os.O_NONBLOCK)
        except OSError:
            return []
        try:
            return lock_record.read(descriptor)
        except OSError:
            return []
        finally:
            os.close(descriptor)

    def _is_held(self, name: str, record_name: str) -> bool:
        """Try the lock; where it is free, take the record of a killed holder away."""
        try:
            descriptor = os.open(f"{self.directory}/{name}", lock_files.FLAGS)
        except OSError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.truncate(f"{self.directory}/{record_name}", 0)
        except BlockingIOError:
            return True
        except OSError:
            return False
        else:
            return False
        finally:
            os.close(descriptor)


def _holder(records: list[Record], pid: int, mode: str) -> Holder:
    """Return who the kernel names: by its record, else by what its process shows."""
    own = next((record for record in reversed(records) if record.get("pid") == pid), None)
    if own is None:
        return lock_record.bare(pid, mode)
    return lock_record.holder(own, mode)


def _is_also(shared: Holder, slot: Holder) -> bool:
    return shared.mode == lock_files.SHARED and shared.pid == slot.pid
