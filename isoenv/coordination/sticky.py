"""Locks that a session holds across commands, beside those of the kernel with the same name.

A row of the store says who has it. It is written by who has the kernel's lock, and so in turn;
the file ``sticky`` says that there may be a row, so that nobody else needs to open the store.
Who has the kernel's lock, finds the file and then a holder lets the kernel's lock go again, and
waits: at the head of the queue, for the release, the end of the holder's process or of its time.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import TYPE_CHECKING

from isoenv import files, flock, liveness, paths
from isoenv.coordination import lock_files, lock_inheritance, lock_record, reaping
from isoenv.coordination.store import open_store
from isoenv.errors import IsoenvError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.coordination.lock import Lock
    from isoenv.coordination.records import Claim, Record
    from isoenv.coordination.store import Store
    from isoenv.coordination.store.postgres_line import Line

WAKE = "wake"
# What a command that has a lock finds its token in.
TOKEN = "ISOENV_LOCK_TOKEN"  # noqa: S105  # no secret
# Seconds after which a waiter looks again for what nothing wakes it for: a session that ended
# while its process lives on, or one whose process cannot be seen from here.
AGAIN = 1.0
# The longest time to have a lock for, in seconds: thirty years.
LONGEST = 1e9
NANO = 1_000_000_000


def check_ttl(ttl: float | None) -> None:
    """Raise UsageError for what is no time that a lock could be had for."""
    if ttl is not None and not 0 < ttl <= LONGEST:
        raise UsageError(f"a lock cannot be had for {ttl} s: leave `--ttl` out for ever")


def acquire(lock: Lock, session: Record, ttl: float | None) -> Claim:
    """Take a lock for a session, in turn; one that it has already is its for another ``ttl``.

    ``ttl`` is in seconds, None as long as the session. Raises LockTimeout.
    """
    check_ttl(ttl)
    with lock.in_passing(), closing(open_store(_state(lock.directory))) as store:
        if not paths.store_url(os.environ):
            _mark(lock.directory)
        claim = store.take_lock(
            *(lock.path, lock.name, lock.scope.project, session.id, ttl), is_free
        )
    if claim is None:
        raise NotFoundError(f"session {session.title} has ended: `isoenv session start`")
    if claim.pulse[0] != session.id:
        raise IsoenvError(f"the lock {lock.name} is held by {holder_of(claim)}")
    return claim


def release(lock: Lock, session: Record) -> None:
    """Give a lock of a session back. Raises IsoenvError where the session does not hold it."""
    with closing(open_store(_state(lock.directory))) as store:
        is_done = store.free_lock(lock.path, session.id)
        claim = None if is_done else store.claim(lock.path)
    if not is_done:
        who = f"{holder_of(claim)} has it" if claim and not is_free(claim) else "it is free"
        shown = lock_record.printable(lock.name)
        raise IsoenvError(
            f"session {session.title} does not hold the lock {shown}, {who}: `isoenv lock list`"
        )
    if not paths.store_url(os.environ):
        _unmark(lock.directory)
        _wake(lock.directory)


def claim_of(directory: str) -> Claim | None:
    """Return the claim of the session that holds the lock in a directory."""
    claim = _claim(directory)
    return claim if claim and not is_free(claim) else None


def holder_of(claim: Claim) -> lock_record.Holder:
    """Return who holds a lock, as other locks show it."""
    _, pid, start, inode, boot, namespace, host, *_ = claim.pulse
    seen = liveness.is_dead(pid, start, inode, boot, namespace, host) is False
    return lock_record.Holder(
        lock_files.STICKY,
        pid,
        session=claim.title,
        command=lock_record.bare(pid, lock_files.STICKY).command if seen else None,
        instance=claim.instance,
        host=host,
        since=claim.since,
        token=claim.token,
    )


def obstacle(directory: str, session: str | None) -> Obstacle | None:
    """Return what keeps a process from a lock whose kernel's lock it has; None if nothing does."""
    claim = claim_of(directory)
    if claim is None:
        with suppress(FileNotFoundError):
            os.unlink(f"{directory}/{lock_files.STICKY}")
        return None
    return None if _is_own(claim, session) else Obstacle(directory, claim)


class Obstacle:
    """A session that holds a lock, and what tells that it may not do so any more."""

    def __init__(self, directory: str, claim: Claim) -> None:
        """Listen before the look that `is_there` takes: what happens in between is not missed."""
        self._directory = directory
        self._claim = claim
        self._wake = _listen(f"{directory}/{WAKE}")

    def is_there(self) -> bool:
        """Look whether the session, or another one meanwhile, holds the lock."""
        claim = claim_of(self._directory)
        if claim is not None:
            self._claim = claim
        return claim is not None

    def wait(self, timeout: float | None) -> None:
        """Wait until it may be gone, at most so many seconds."""
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        with _watched(self._claim) as processes:
            for process in processes:
                poll.register(process, select.POLLIN)
            poll.poll(_limit(self._claim, timeout) * 1000)
            with suppress(BlockingIOError):
                os.read(self._wake, select.PIPE_BUF)

    def close(self) -> None:
        """Listen no more."""
        os.close(self._wake)


def host_obstacle(state: str, path: str, session: str | None) -> HostObstacle | None:
    """Return what keeps a process from a lock of all hosts that it has; None if nothing does.

    What a session held that is gone, or whose time is over, is free from then on.
    """
    store = open_store(state)
    with ExitStack() as stack:
        stack.callback(store.close)
        claim = store.claim(path)
        if claim and is_free(claim):
            store.free_lock(path, claim.pulse[0])
        elif claim and not _is_own(claim, session):
            stack.pop_all()
            return HostObstacle(store, path, claim)
    return None


class HostObstacle:
    """A session that holds a lock of all hosts."""

    def __init__(self, store: Store, path: str, claim: Claim) -> None:
        """Go on with an open store."""
        self._store = store
        self._path = path
        self._claim = claim

    def is_there(self) -> bool:
        """Look whether the session, or another one meanwhile, holds the lock."""
        claim = self._store.claim(self._path)
        if claim is None or is_free(claim):
            return False
        self._claim = claim
        return True

    def wait(self, line: Line, timeout: float | None) -> None:
        """Wait until it may be gone, at most so many seconds, at a line that is told of it."""
        with _watched(self._claim) as processes:
            line.hear(_limit(self._claim, timeout), *processes)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _path(directory: str) -> str:
    return "/".join(directory.rsplit("/", 2)[1:])


def _state(directory: str) -> str:
    return directory.rsplit("/", 3)[0]


def _claim(directory: str) -> Claim | None:
    state = _state(directory)
    if not paths.has_store(os.environ, state):
        return None
    with closing(open_store(state)) as store:
        return store.claim(_path(directory))


def is_free(claim: Claim) -> bool:
    """Whether the time of a session with a lock is over, or its process is gone."""
    return claim.is_over or reaping.is_gone(claim.pulse)


def _is_own(claim: Claim, session: str | None) -> bool:
    """Whether a claim is of the session that a process acts as.

    A nameless session is that of a process: all that runs below it acts as it, unless it says
    otherwise.
    """
    session_id, pid, start, inode, boot, namespace, host, *_ = claim.pulse
    if session is not None:
        return session in (session_id, claim.title)
    return (
        not claim.is_named
        and lock_inheritance.is_below(pid)
        and liveness.is_dead(pid, start, inode, boot, namespace, host) is False
    )


def _mark(directory: str) -> None:
    try:
        descriptor = os.open(
            f"{directory}/{lock_files.STICKY}", lock_files.FLAGS | os.O_CREAT, 0o600
        )
    except OSError as error:
        raise lock_files.unusable(f"{directory}/{lock_files.STICKY}", error) from None
    os.close(descriptor)


def _unmark(directory: str) -> None:
    """Take the mark away where nobody has the kernel's lock: who has it does so by himself."""
    path = f"{directory}/{lock_files.LOCK}"
    try:
        descriptor = os.open(path, lock_files.FLAGS)
    except OSError:
        return
    try:
        with suppress(OSError):
            is_mine = flock.acquire(descriptor, 0) and lock_files.is_at(path, descriptor)
            if is_mine and _claim(directory) is None:
                os.unlink(f"{directory}/{lock_files.STICKY}")
    finally:
        os.close(descriptor)


def _listen(path: str) -> int:
    try:
        try:
            # With a writer of its own: without any, a pipe is at its end all the time.
            return os.open(path, lock_files.FLAGS)
        except FileNotFoundError:
            with suppress(FileExistsError):
                os.mkfifo(path, 0o600)
            return os.open(path, lock_files.FLAGS)
    except OSError as error:
        raise IsoenvError(f"cannot wait at {path}: {files.reason(error)}") from None


def _wake(directory: str) -> None:
    """Wake the one that waits, if there is one."""
    with suppress(OSError):
        descriptor = os.open(f"{directory}/{WAKE}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(descriptor, b"\n")
        finally:
            os.close(descriptor)


def _limit(claim: Claim, timeout: float | None) -> float:
    """Return after how many seconds to look again whether a session has a lock."""
    limits = [AGAIN] if timeout is None else [AGAIN, timeout]
    if claim.expires is not None:
        limits.append(max(0.0, (claim.expires - time.monotonic_ns()) / NANO))
    return min(limits)


@contextmanager
def _watched(claim: Claim) -> Iterator[list[int]]:
    """Give what is readable once the holder's process has ended, where it can be seen."""
    _, pid, start, inode, boot, namespace, host, *_ = claim.pulse
    try:
        descriptor = os.pidfd_open(pid) if hasattr(os, "pidfd_open") else None
    except OSError:
        descriptor = None
    if descriptor is None:
        yield []
        return
    try:
        # Opened first: the pid could be given to another process in between.
        is_it = liveness.is_dead(pid, start, inode, boot, namespace, host) is False
        yield [descriptor] if is_it else []
    finally:
        os.close(descriptor)
