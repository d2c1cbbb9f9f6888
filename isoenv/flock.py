"""A blocking, fair lock of the kernel on a file, with a time-out."""

from __future__ import annotations

import fcntl
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

# Where no signal can end the wait (threads), how often to try, in seconds.
POLL = 0.01


class _TimeUpError(Exception):
    """Raised out of the blocking call by the timer's signal."""


def acquire(descriptor: int, timeout: float | None, *, shared: bool = False) -> bool:
    """Lock the open file; return False after ``timeout`` seconds. None waits for ever.

    The wait is the kernel's queue, not polling: polling starves under contention, and a waiter
    would notice a killed holder late. Only the main thread can be woken by a timer; others poll.
    """
    operation = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError:
        pass
    else:
        return True
    if timeout is None:
        fcntl.flock(descriptor, operation)
        return True
    if threading.current_thread() is not threading.main_thread():
        return _poll(descriptor, operation, timeout)
    return _wait(descriptor, operation, timeout)


def _wait(descriptor: int, operation: int, timeout: float) -> bool:
    if timeout <= 0:
        return False
    waiting = True

    def ring(_signal: int, _frame: FrameType | None) -> None:
        if waiting:
            raise _TimeUpError

    previous = signal.signal(signal.SIGALRM, ring)
    # The interval rings again, should the first ring fall just before the blocking call.
    signal.setitimer(signal.ITIMER_REAL, timeout, 0.1)
    try:
        fcntl.flock(descriptor, operation)
        waiting = False
    except _TimeUpError:
        waiting = False
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
    while time.monotonic() < deadline:
        time.sleep(POLL)
        try:
            fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        return True
    return False
