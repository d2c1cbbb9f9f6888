"""Locks of the kernel: a killed holder's is free at once, and waiting is fair."""

from __future__ import annotations

import fcntl
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from isoenv.coordination import lock_files, lock_inheritance, lock_list, lock_record
from isoenv.coordination import lock_scope as scopes
from isoenv.errors import IsoenvError, LockTimeout, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.coordination.lock_scope import Scope
    from isoenv.coordination.sticky import Obstacle

# Where the descriptors of a command's lock go: scripts use the low ones, and 200, as they like.
HIGH = 179


@dataclass(slots=True)
class _Held:
    """A lock that a thread holds, ``count`` times; without a grip it was inherited."""

    grip: lock_files.Grip | None
    mode: str
    session: str | None
    count: int = 1


# By directory and thread.
_held: dict[tuple[str, threading.Thread], _Held] = {}
# What the parent of this forked process held: its to give back.
_parents: set[tuple[str, threading.Thread]] = set()


def _after_fork() -> None:
    lock_files.close_copies()
    _parents.update(_held)
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)


class Lock:
    """A lock by name, for all processes and threads of a scope; a context manager.

    ``timeout`` is in seconds, None waits for ever. A ``shared`` lock keeps exclusive ones out. With
    ``slots`` above 1 it waits until fewer than so many have it: each caller by its own number. The
    thread that has it may take it again. The ``scope`` is the project of the current directory.
    """

    def __init__(  # noqa: PLR0913  # all but the name are choices
        self,
        name: str,
        *,
        timeout: float | None = None,
        shared: bool = False,
        slots: int = 1,
        scope: Scope | None = None,
        session: str | None = None,
    ) -> None:
        """Name a lock; nothing is locked yet."""
        if slots < 1:
            raise UsageError(f"a lock has one slot or more, not {slots}")
        if shared and slots > 1:
            raise UsageError("a lock is shared by all or has slots, not both")
        if timeout is not None and not timeout >= 0:
            raise UsageError(f"a lock cannot be waited for {timeout} s")
        several = lock_files.SHARED if shared else lock_files.SLOTTED
        self.name = name
        self.timeout = timeout
        self.mode = several if shared or slots > 1 else lock_files.EXCLUSIVE
        self.slots = slots
        self.scope = scope or scopes.current()
        self.session = session or os.environ.get("ISOENV_SESSION") or None
        self.directory = self.scope.lock(name)

    def __enter__(self) -> Self:
        """Take the lock, or raise LockTimeout."""
        self.acquire()
        return self

    def __exit__(self, *_exception: object) -> None:
        """Give the lock back."""
        self.release()

    def acquire(self, argv: Sequence[str] | None = None) -> None:
        """Take the lock, or raise LockTimeout; ``argv`` is the command that is to have it."""
        key = (self.directory, threading.current_thread())
        if held := _held.get(key):
            self._take_again(held)
            return
        if lock_inheritance.has(self.directory, self.mode):
            _held[key] = _Held(None, self.mode, self.session)
            return
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        request = lock_files.Request(
            self.directory,
            self.mode,
            self.slots,
            deadline,
            lambda: self._record(argv),
            self._refuse_to_wait_in_vain,
            self._obstacle,
        )
        grip = lock_files.acquire(request)
        if grip is None:
            raise self._timed_out()
        _held[key] = _Held(grip, self.mode, self.session)

    def release(self) -> None:
        """Give the lock back, once for each time that it was taken."""
        key = (self.directory, threading.current_thread())
        held = _held.get(key)
        if held is None:
            if key in _parents:
                return
            raise IsoenvError(f"the lock {self.name} is not held by this thread")
        held.count -= 1
        if held.count == 0:
            del _held[key]
            if held.grip:
                lock_files.release(held.grip)

    def bequeath(self) -> None:
        """Let the command that this process becomes have the lock, and its children."""
        held = _held[self.directory, threading.current_thread()]
        for descriptor in held.grip.descriptors if held.grip else ():
            try:
                fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH)
            except OSError:  # this process may have so few open files alone
                fcntl.fcntl(descriptor, fcntl.F_DUPFD, descriptor)

    def _take_again(self, held: _Held) -> None:
        """Count, where what is held will do; what never could be had is refused, not waited for."""
        if held.session and self.session and held.session != self.session:
            raise IsoenvError(
                f"the lock {self.name} is held by this very thread, for "
                f"session {held.session}: it would wait for itself"
            )
        if held.mode not in (self.mode, lock_files.EXCLUSIVE):
            raise IsoenvError(
                f"the lock {self.name} is held {_adverb(held.mode)} by this very thread, which "
                f"cannot have it {_adverb(self.mode)} too: it would wait for itself"
            )
        held.count += 1

    def _record(self, argv: Sequence[str] | None) -> bytes:
        project = self.scope.project
        return lock_record.compose(self.name, project=project, session=self.session, argv=argv)

    def _obstacle(self) -> Obstacle | None:
        from isoenv.coordination import sticky  # needs the store, which most locks do without

        return sticky.obstacle(self.directory, self.session)

    def _refuse_to_wait_in_vain(self) -> None:
        if self.timeout is not None:
            return
        if holder := lock_inheritance.waiting_ancestor(self.directory):
            raise IsoenvError(
                f"the lock {self.name} is held by what has started this process, {holder}: "
                "waiting for it without a time-out could be for ever"
            )

    def _timed_out(self) -> LockTimeout:
        holders = lock_list.holders(self.directory)
        who = f"held by {holders[0]}" if holders else "others were before this process"
        if len(holders) > 1:
            who = f"held by {len(holders)}, the first is {holders[0]}"
        name = lock_record.printable(self.name)
        return LockTimeout(
            f"the lock {name} was not free within {self.timeout:g} s: {who}: `isoenv lock list`"
        )


def _adverb(mode: str) -> str:
    return "with a slot" if mode == lock_files.SLOTTED else mode
