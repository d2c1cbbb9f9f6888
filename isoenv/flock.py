"""A blocking, fair lock of the kernel on a file, with a time-out."""

from __future__ import annotations

import fcntl
import time

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from types import FrameType

# Where no signal may end the wait, how often to try, in seconds.
POLL = 0.01
# The alarm rings again, should the first ring fall just before the blocking call.
AGAIN = 0.1


class _TimeUpError(Exception):
    """Raised out of the blocking call by the timer's signal."""


def acquire(descriptor: int, timeout: float | None, *, shared: bool = False) -> bool:
    """Lock the open file; return False after ``timeout`` seconds. None waits for ever.

    The wait is the kernel's queue, not polling: polling starves under contention, and a waiter
    would notice a killed holder late. Only the main thread can be woken by an alarm, and only
    where the caller waits for none of its own; others poll.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    if _try(descriptor, operation):
        return True
    if timeout is None:
        fcntl.flock(descriptor, operation)
        return True
    if timeout <= 0:
        return False
    import threading

    if threading.current_thread() is not threading.main_thread() or _is_alarm_in_use():
        return _poll(descriptor, operation, timeout)
    return _wait(descriptor, operation, timeout)


def release(descriptor: int) -> None:
    """Unlock the open file."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def _try(descriptor: int, operation: int) -> bool:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_alarm_in_use() -> bool:
    """Whether an alarm is set, is blocked, or has a handler that Python could not put back."""
    import signal

    return (
        signal.getitimer(signal.ITIMER_REAL)[0] > 0
        or signal.SIGALRM in signal.pthread_sigmask(signal.SIG_BLOCK, ())
        or signal.getsignal(signal.SIGALRM) is None
    )


def _wait(descriptor: int, operation: int, timeout: float) -> bool:
    import signal

    waiting = True

    def ring(_signal: int, _frame: FrameType | None) -> None:
        nonlocal waiting
        if waiting:
            waiting = False
            raise _TimeUpError

    previous = signal.signal(signal.SIGALRM, ring)
    try:
        signal.setitimer(signal.ITIMER_REAL, timeout, AGAIN)
        fcntl.flock(descriptor, operation)
        waiting = False
    except _TimeUpError:
        # The ring may have come just after the lock was had.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        return False
    finally:
        waiting = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    return True


def _poll(descriptor: int, operation: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        time.sleep(min(POLL, left))
        if _try(descriptor, operation):
            return True
    return False
