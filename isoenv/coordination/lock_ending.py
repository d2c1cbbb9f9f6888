"""End all processes that have a lock which is lost: those that have inherited its pipe."""

from __future__ import annotations

import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv import liveness, process

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.process import Identity

# Seconds that they have to end by themselves, and that the kernel has to end them then.
GRACE, LAST = 10.0, 5.0
PAUSE = 0.05


def end(pipe: int, leader: Identity, tell: Callable[[], object]) -> None:
    """Ask all that have the other end of a pipe to end, and end what is left after a while.

    ``leader`` is the one to end where the system does not show who has it. ``tell`` is called as
    soon as they have been asked, unless it would have to wait for who reads standard error.
    """
    asked: set[int] = set()
    deadline = time.monotonic() + GRACE
    is_told = False
    while not is_alone(pipe) and time.monotonic() < deadline:
        found = _holders(pipe, leader)
        for pid in found - asked:
            _signal(pid, pipe, leader, signal.SIGTERM)
        asked |= found
        if not is_told:
            is_told = True
            _tell(tell)
        _pause(pipe)
    deadline = time.monotonic() + LAST
    while not is_alone(pipe) and time.monotonic() < deadline:
        for pid in _holders(pipe, leader):
            _signal(pid, pipe, leader, signal.SIGKILL)
        _pause(pipe)


def is_alone(pipe: int) -> bool:
    """Whether nobody has the other end of a pipe any more."""
    return _is_at_end(pipe, 0)


def _pause(pipe: int) -> None:
    _is_at_end(pipe, PAUSE)


def _is_at_end(pipe: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(timeout * 1000))


def _tell(tell: Callable[[], object]) -> None:
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with suppress(OSError):
        if poll.poll(0):
            tell()


def _holders(pipe: int, leader: Identity) -> set[int]:
    """Return who has the pipe open, of those that this user may look at."""
    name = f"pipe:[{os.fstat(pipe).st_ino}]"
    pids = {int(word) for word in liveness.present() if word.isdigit()}
    if not pids:
        return {leader.pid} if process.life(leader) is process.Life.ALIVE else set()
    return {pid for pid in pids if pid != os.getpid() and _has(pid, name)}


def _has(pid: int, name: str) -> bool:
    directory = f"/proc/{pid}/fd"
    try:
        return any(_target(f"{directory}/{number}") == name for number in os.listdir(directory))
    except OSError:
        return False


def _target(link: str) -> str:
    # Not by stat, which would wait for a file server that is gone.
    try:
        return os.readlink(link)
    except OSError:
        return ""


def _signal(pid: int, pipe: int, leader: Identity, number: signal.Signals) -> None:
    """Signal a process that has the pipe, and no other that has been given its pid meanwhile."""
    with suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return
        descriptor = os.pidfd_open(pid)
        try:
            if pid in _holders(pipe, leader):
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)
