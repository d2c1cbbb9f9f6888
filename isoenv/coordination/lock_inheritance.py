"""What a process has from those that started it: their locks, and reasons not to wait for them."""

from __future__ import annotations

import os
from functools import cache

from isoenv.coordination import lock_files, lock_list, lock_record
from isoenv.coordination.lock_table import locked_through


@cache
def _given() -> tuple[int, ...]:
    """Return the descriptors with a lock that this process was started with.

    Looked at once, before it locks anything itself: `lock run` passes its lock on like that.
    """
    try:
        names = os.listdir("/proc/self/fd")
    except OSError:
        return ()
    return tuple(int(name) for name in names if locked_through(int(name)))


def has(directory: str, mode: str) -> bool:
    """Whether this process was started with the lock in ``directory``, so or stronger."""
    for descriptor in _given():
        kind = locked_through(descriptor)
        name = _name(directory, descriptor) if kind else None
        if name == lock_files.LOCK and (kind == "WRITE" or mode == lock_files.SHARED):
            return True
        if name and name.startswith(lock_files.SLOT) and mode == lock_files.SLOTTED:
            return True
    return False


def _name(directory: str, descriptor: int) -> str | None:
    """Return which file of a lock is open there, if any."""
    try:
        opened = os.fstat(descriptor)
        with os.scandir(directory) as entries:
            for entry in entries:
                if os.path.samestat(entry.stat(follow_symlinks=False), opened):
                    return entry.name
    except OSError:
        pass
    return None


def waiting_ancestor(directory: str) -> lock_record.Holder | None:
    """Return the holder that this process runs under, whose end it would wait for in vain.

    Such a holder has not passed its lock on: Python closes what its children could inherit.
    """
    ancestors = _ancestors(os.getpid())
    if not any(record.get("pid") in ancestors for record in _records(directory)):
        return None
    holders = lock_list.holders(directory)
    return next((it for it in holders if it.pid in ancestors and not it.is_gone), None)


def is_below(pid: int) -> bool:
    """Whether this process is that one, or was started by it, at whatever remove."""
    return pid == os.getpid() or pid in _ancestors(os.getpid())


def _records(directory: str) -> list[dict[str, object]]:
    try:
        descriptor = os.open(f"{directory}/{lock_files.LOCK}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return lock_record.read(descriptor)
    finally:
        os.close(descriptor)


@cache
def _ancestors(_pid: int) -> frozenset[int]:
    """Return the processes above this one, as far as /proc shows them."""
    found = [os.getppid()]
    while found[-1] > 1:
        try:
            with open(f"/proc/{found[-1]}/stat", "rb") as file:
                _state, parent, *_rest = file.read().rpartition(b")")[2].split()
        except (OSError, ValueError):
            break
        found.append(int(parent))
    return frozenset(found)
