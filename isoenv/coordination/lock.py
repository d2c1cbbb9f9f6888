"""Locks by name: a killed holder's is free at once, and waiting is fair.

They are the kernel's, of one machine. With a store of several hosts there is a second one above
each, of that store's server, which is taken after it and given back before it.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from isoenv import paths
from isoenv.coordination import lock_files, lock_inheritance, lock_list, lock_names, lock_record
from isoenv.coordination import lock_scope as scopes
from isoenv.errors import IsoenvError, LockTimeout, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isoenv.coordination.host_lock import Hold
    from isoenv.coordination.lock_record import Holder
    from isoenv.coordination.lock_scope import Scope
    from isoenv.coordination.lock_watcher import Watch
    from isoenv.coordination.sticky import HostObstacle, Obstacle

# Where the descriptors of a command's lock go: scripts use the low ones, and 200, as they like.
HIGH = 179


@dataclass(slots=True)
class _Held:
    """A lock that a thread holds, ``count`` times; without a grip it was inherited.

    ``hold`` is the one of all hosts, ``watch`` its watching and ``bequeathed`` the descriptors for
    a command that is about to have it.
    """

    grip: lock_files.Grip | None
    mode: str
    session: str | None
    hold: Hold | None = None
    watch: Watch | None = None
    bequeathed: list[int] = field(default_factory=list)
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
    thread that has it may take it again. The ``scope`` is the project of the current directory. It
    is a lock of this machine; where ISOENV_STORE names a store, of all hosts that share that.
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
        """Give the lock back; raises as ``release`` does."""
        self.release()

    @property
    def path(self) -> str:
        """What the store knows the lock by."""
        if paths.store_url(os.environ):
            return lock_names.path(self.scope.project, self.name)
        return "/".join(self.directory.rsplit("/", 2)[1:])

    @property
    def token(self) -> int | None:
        """A number that is greater than those of all that had the lock alone before.

        None without a store, and where this thread does not have the lock alone. What is written
        to can refuse a writer with a smaller number than the last one's: it has lost its lock.
        """
        held = _held.get((self.directory, threading.current_thread()))
        is_alone = held is not None and held.mode == lock_files.EXCLUSIVE
        return held.hold.token if held and held.hold and is_alone else None

    def acquire(self, argv: Sequence[str] | None = None) -> None:
        """Take the lock, or raise LockTimeout; ``argv`` is the command that is to have it.

        Raises IsoenvError where it cannot be had, as from a store that is away.
        """
        self._acquire(argv, is_counted=True)

    @contextmanager
    def in_passing(self) -> Iterator[None]:
        """Take the lock only to write down that a session has it, which counts by itself."""
        self._acquire(None, is_counted=False)
        try:
            yield
        finally:
            self.release()

    def _acquire(self, argv: Sequence[str] | None, *, is_counted: bool) -> None:
        key = (self.directory, threading.current_thread())
        if held := _held.get(key):
            self._take_again(held)
            return
        if lock_inheritance.has(self.directory, self.mode):
            _held[key] = _Held(None, self.mode, self.session)
            return
        deadline = None if self.timeout is None else time.monotonic() + self.timeout
        url = paths.store_url(os.environ)
        request = lock_files.Request(
            self.directory,
            self.mode,
            self.slots,
            deadline,
            lambda: self._record(argv),
            self._refuse_to_wait_in_vain,
            _no_obstacle if url else self._obstacle,
        )
        grip = lock_files.acquire(request)
        if grip is None:
            raise self._timed_out()
        hold = None
        if url:
            try:
                hold = self._of_all_hosts(url, deadline, self._record(argv), is_counted=is_counted)
            except BaseException:
                lock_files.release(grip)
                raise
        _held[key] = _Held(grip, self.mode, self.session, hold)

    def _of_all_hosts(
        self, url: str, deadline: float | None, record: bytes, *, is_counted: bool
    ) -> Hold:
        """Take the lock of the store's server, which stands above this host's own."""
        from isoenv.coordination import host_lines, host_lock  # need the driver of the store

        request = host_lock.Request(
            path=self.path,
            name=self.name,
            project=self.scope.project,
            mode=self.mode,
            slots=self.slots,
            deadline=deadline,
            record=record.decode(),
            is_counted=is_counted,
            obstacle=self._host_obstacle,
        )
        try:
            return host_lines.acquire(request, url, self._state)
        except host_lock.TimeUpError:
            raise self._timed_out() from None

    def check(self) -> None:
        """Raise IsoenvError unless this thread has the lock, and has had it since it took it.

        A lock of one machine cannot be lost. With a store the server is asked, which takes as
        long as one look into it: a connection that was lost is made anew, and the lock is had
        again unless another has had it.
        """
        held = self._own()
        if held.hold is not None:
            from isoenv.coordination import host_lines  # needs the driver of the store

            host_lines.check(held.hold)

    def release(self) -> None:
        """Give the lock back, once for each time that it was taken.

        Raises IsoenvError where it was lost meanwhile, with the connection to the store, and
        another has had it or nobody can say.
        """
        key = (self.directory, threading.current_thread())
        if key not in _held and key in _parents:
            return
        held = self._own()
        held.count -= 1
        if held.count:
            return
        del _held[key]
        for descriptor in held.bequeathed:
            os.close(descriptor)
        try:
            if held.hold and held.watch:
                held.hold.line.abandon()
                held.watch.stop()
            elif held.hold:
                _release_of_all_hosts(held.hold)
        finally:
            if held.grip:
                lock_files.release(held.grip)

    def _own(self) -> _Held:
        held = _held.get((self.directory, threading.current_thread()))
        if held is None:
            raise IsoenvError(f"the lock {self.name} is not held by this thread")
        return held

    def bequeath(self, argv: Sequence[str], say: Callable[[str], object]) -> None:
        """Let the command that this process becomes have the lock, and its children.

        A lock of all hosts is watched from now on, by a process that ends the command if the lock
        is lost and writes a line by ``say``.
        """
        held = self._own()
        descriptors = held.grip.descriptors if held.grip else ()
        if held.hold:
            from isoenv.coordination import lock_watcher  # needs the driver of the store

            held.watch = lock_watcher.start(held.hold, shlex.join(argv), say)
            connection = held.hold.line.connection.fileno()
            descriptors = (*descriptors, held.watch.lifeline, connection)
        held.bequeathed = [_inheritable(descriptor) for descriptor in descriptors]

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

    @property
    def _state(self) -> str:
        return self.directory.rsplit("/", 3)[0]

    def _obstacle(self) -> Obstacle | None:
        from isoenv.coordination import sticky  # needs the store, which most locks do without

        return sticky.obstacle(self.directory, self.session)

    def _host_obstacle(self) -> HostObstacle | None:
        from isoenv.coordination import sticky  # needs the store, which most locks do without

        return sticky.host_obstacle(self._state, self.path, self.session)

    def _refuse_to_wait_in_vain(self) -> None:
        if self.timeout is not None:
            return
        if holder := lock_inheritance.waiting_ancestor(self.directory):
            raise IsoenvError(
                f"the lock {self.name} is held by what has started this process, {holder}: "
                "waiting for it without a time-out could be for ever"
            )

    def _holders(self) -> tuple[Holder, ...]:
        if not paths.store_url(os.environ):
            return lock_list.holders(self.directory)
        from isoenv.coordination import host_lock_list  # needs the driver of the store

        return host_lock_list.holders(self._state, self.scope.project, self.name)

    def _timed_out(self) -> LockTimeout:
        holders = self._holders()
        who = f"held by {holders[0]}" if holders else "others were before this process"
        if len(holders) > 1:
            who = f"held by {len(holders)}, the first is {holders[0]}"
        name = lock_record.printable(self.name)
        return LockTimeout(
            f"the lock {name} was not free within {self.timeout:g} s: {who}: `isoenv lock list`"
        )


def _inheritable(descriptor: int) -> int:
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD, HIGH)
    except OSError:  # this process may have so few open files alone
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD, descriptor)


def _no_obstacle() -> None:
    """Return none: with a store, what sessions hold stands beside the lock of all hosts."""


def _release_of_all_hosts(hold: Hold) -> None:
    from isoenv.coordination import host_lines  # needs the driver of the store

    # Who was told that it was lost need not be told again.
    if not hold.is_lost:
        host_lines.release(hold)


def _adverb(mode: str) -> str:
    return "with a slot" if mode == lock_files.SLOTTED else mode
