"""The files of one lock, and how the kernel's locks on them make it fair.

A lock is a directory, and nothing in it is ever removed: who waits for a removed file and who
makes it anew would both have the lock. In it are

- ``lock``, locked exclusively or shared by each holder, with the holder's record in it;
- ``queue``, locked by the one that is next. All others wait for this file, in the kernel's
  order: nobody passes by those who wait, neither who has just let go nor a stream of readers;
- for a lock with slots ``slot-N``, a FIFO that one holder each has open for writing and locked,
  and ``holder-N`` with its record. The holders share ``lock``, so that an exclusive one keeps
  all of them out. A FIFO tells the next one at once that its last writer has gone, however that
  came about: a waiter needs no clock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import files, flock, paths
from isoenv.coordination import lock_record
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.coordination.sticky import Obstacle

LOCK, QUEUE, SLOT, HOLDER = "lock", "queue", "slot-", "holder-"
EXCLUSIVE, SHARED, SLOTTED, STICKY = "exclusive", "shared", "slot", "sticky"
FLAGS = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
# Seconds that is waited at least for what somebody may have for a moment: the queue in passing
# through it, the lock in looking whether it is held.
GRACE = 0.02
# What a kernel says that has no locks for a file.
REFUSED = (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL)

# All that is open here, so that a forked child can close its copies.
_open: set[int] = set()


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for: ``slots`` holders at most, several where ``mode`` is a slot.

    ``record`` makes the record at the moment of success. ``before_wait`` may raise what makes
    waiting hopeless. ``obstacle`` returns what keeps a holder of the kernel's lock out all the
    same: a session that has it across commands. ``deadline`` is on the monotonic clock, None waits
    for ever.
    """

    directory: str
    mode: str
    slots: int
    deadline: float | None
    record: Callable[[], bytes]
    before_wait: Callable[[], None]
    obstacle: Callable[[], Obstacle | None]


@dataclass(frozen=True, slots=True)
class Grip:
    """Open files that hold a lock: ``lock`` always, the FIFO and the record's file of a slot."""

    mode: str
    lock: int
    slot: int | None = None
    holder: int | None = None

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What has to stay open for the lock to be held."""
        return (self.lock,) if self.slot is None else (self.lock, self.slot)


def acquire(request: Request) -> Grip | None:
    """Take a lock; None when the time is up. Raises IsoenvError where the files cannot be used."""
    queue = _locked(request, QUEUE)
    if queue is None:
        return None
    try:
        lock = _unobstructed(request)
        if lock is None:
            return None
        try:
            grip = _grip(request, lock)
        except BaseException:
            close(lock)
            raise
        if grip is None:
            close(lock)
        return grip
    finally:
        close(queue)


def release(grip: Grip) -> None:
    """Let go, and leave no record behind."""
    with contextlib.suppress(OSError):
        if grip.holder is not None:
            os.ftruncate(grip.holder, 0)
        if grip.mode != EXCLUSIVE:
            # The last one of several finds that it could have the lock for itself.
            fcntl.flock(grip.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(grip.lock, 0)
    for descriptor in (grip.slot, grip.holder, grip.lock):
        if descriptor is not None:
            close(descriptor)


def close(descriptor: int) -> None:
    """Unlock and close; a copy in a process that was forked meanwhile must not keep the lock."""
    _open.discard(descriptor)
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def close_copies() -> None:
    """Close a forked child's copies of all that its parent has open, and unlock nothing."""
    for descriptor in _open:
        with contextlib.suppress(OSError):
            os.close(descriptor)
    _open.clear()


def indexes(directory: str) -> list[int]:
    """Return the slots that a lock has had so far."""
    found = (name.removeprefix(SLOT) for name in os.listdir(directory) if name.startswith(SLOT))
    return sorted(int(index) for index in found if index.isdigit())


def _unobstructed(request: Request) -> int | None:
    """Lock the lock itself once no session has it across commands; None when the time is up."""
    while True:
        lock = _locked(request, LOCK, shared=request.mode != EXCLUSIVE)
        if lock is None or not os.path.lexists(f"{request.directory}/{STICKY}"):
            return lock
        try:
            obstacle = request.obstacle()
        except BaseException:
            close(lock)
            raise
        if obstacle is None:
            return lock
        # Waiting it keeps its place in the queue, but nobody from finding the lock free.
        close(lock)
        with contextlib.closing(obstacle):
            while obstacle.is_there():
                left = _left(request.deadline)
                if left == 0:
                    return None
                obstacle.wait(left)


def _grip(request: Request, lock: int) -> Grip | None:
    if request.mode != SLOTTED:
        lock_record.write(lock, request.record(), shared=request.mode == SHARED)
        return Grip(request.mode, lock)
    slot, index = _slot(request)
    if slot is None:
        return None
    try:
        holder = _opened(f"{request.directory}/{HOLDER}{index}")
    except BaseException:
        close(slot)
        raise
    lock_record.write(holder, request.record())
    return Grip(request.mode, lock, slot, holder)


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def _locked(request: Request, name: str, *, shared: bool = False) -> int | None:
    """Open and lock a file of the lock; None when the time is up."""
    path = f"{request.directory}/{name}"
    while True:
        descriptor = _opened(path)
        try:
            is_had = _lock(descriptor, 0, shared=shared)
            if not is_had:
                request.before_wait()
                left = _left(request.deadline)
                limit = None if left is None else max(left, GRACE)
                is_had = _lock(descriptor, limit, shared=shared)
            # Somebody may have removed or replaced the file: the others meet at the new one.
            is_it = is_had and is_at(path, descriptor)
        except BaseException:
            close(descriptor)
            raise
        if is_it:
            return descriptor
        close(descriptor)
        if not is_had:
            return None


def _opened(path: str) -> int:
    try:
        try:
            descriptor = os.open(path, FLAGS | os.O_CREAT, 0o600)
        except FileNotFoundError:
            paths.make_private(os.path.dirname(path))
            descriptor = os.open(path, FLAGS | os.O_CREAT, 0o600)
    except OSError as error:
        raise unusable(path, error) from None
    _open.add(descriptor)
    return descriptor


def _lock(descriptor: int, timeout: float | None, *, shared: bool = False) -> bool:
    try:
        return flock.acquire(descriptor, timeout, shared=shared)
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        raise IsoenvError(
            f"this file system has no locks ({files.reason(error)}): "
            "`export ISOENV_STATE_DIR=/…` on a disk of this machine"
        ) from None


def is_at(path: str, descriptor: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def unusable(path: str, error: OSError) -> IsoenvError:
    """Return what to say of a lock whose files cannot be used."""
    return IsoenvError(f"cannot use the lock {path}: {files.reason(error)}")


# -- slots -----------------------------------------------------------------------------------


def _slot(request: Request) -> tuple[int | None, int]:
    """Take a free slot once fewer than ``slots`` are held, whoever chose how many there are.

    Each caller brings its own number. Only one counts at a time: who holds the queue.
    """
    while True:
        with _watched() as watched:
            mine, index, held = _count(request, watched)
            if mine is not None:
                if held < request.slots:
                    return mine, index
                close(mine)
            request.before_wait()
            left = _left(request.deadline)
            if left == 0 or not _wait(watched, left):
                return None, 0


def _count(request: Request, watched: list[int]) -> tuple[int | None, int, int]:
    """Return a free slot with its index, and how many are held; those are watched."""
    mine, at, held = None, 0, 0
    known = indexes(request.directory)
    unused = next(index for index in range(len(known) + 1) if index not in known)
    for index in [*known, unused]:
        path = f"{request.directory}/{SLOT}{index}"
        if index == unused and mine is not None:
            break
        descriptor = _fifo(path)
        try:
            is_free = _lock(descriptor, 0)
            if not is_free:
                watched.append(_reader(path))
                # It may have been let go before it was watched.
                is_free = _lock(descriptor, 0)
        except BaseException:
            close(descriptor)
            raise
        held += not is_free
        if is_free and mine is None:
            mine, at = descriptor, index
        else:
            close(descriptor)
    return mine, at, held


def _fifo(path: str) -> int:
    try:
        try:
            descriptor = os.open(path, FLAGS)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            descriptor = os.open(path, FLAGS)
    except OSError as error:
        raise unusable(path, error) from None
    _open.add(descriptor)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        close(descriptor)
        raise IsoenvError(f"cannot use the lock {path}: it is no FIFO: `rm` removes it")
    return descriptor


def _reader(path: str) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    _open.add(descriptor)
    return descriptor


@contextlib.contextmanager
def _watched() -> Iterator[list[int]]:
    watched: list[int] = []
    try:
        yield watched
    finally:
        for descriptor in watched:
            close(descriptor)


def _wait(watched: list[int], timeout: float | None) -> bool:
    """Wait until one of the slots has no writer any more; False when the time is up."""
    import select

    poll = select.poll()
    for descriptor in watched:
        poll.register(descriptor, 0)
    return bool(poll.poll(None if timeout is None else timeout * 1000))
