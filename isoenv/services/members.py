"""Which processes are a service's, on proof; and signals to them, and to nobody else.

A pid and a group number are given again once nobody has them, so neither proves anything. A
process is ours when it is the one that was written down, when it has the run's mark in its
environment, or when it belongs to a session or group that holds one of these, or one that was
there before the run's end: until then the number was not free.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv import liveness, process
from isoenv.process import Identity, Life
from isoenv.services import record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.services.record import Record

# Seconds between two looks at processes that are ending, and at all there are for new ones; and
# that the kernel has to take away what was killed.
POLL, LOOK, KILL_PATIENCE = 0.02, 0.5, 10.0


def leader(of: Record) -> Identity | None:
    """Return who a run's first process is; None where it was never written down."""
    if not of.number("pid"):
        return None
    return Identity(
        of.number("pid"),
        of.number("start"),
        of.number("inode"),
        of.text("boot"),
        of.number("namespace"),
        of.text("host"),
    )


def life(of: Record) -> Life:
    """Return whether a run's first process still runs."""
    identity = leader(of)
    return process.life(identity) if identity else Life.DEAD


def find(place: str, of: Record) -> list[Identity]:
    """Return the live processes of a run that are proven to be its own, the first one first."""
    first = leader(of)
    if first is None or process.life(first) is Life.UNKNOWN or first.boot != liveness.boot_id():
        return []
    marked: list[Identity] = []
    grouped: list[Identity] = []
    mark = f"{record.MARK}={of.text('id')}".encode("ascii")
    me = os.getpid()
    for pid in _pids():
        if pid == me:
            continue
        in_group = _is_in_group(pid, first.pid)
        has_mark = _has_mark(pid, mark)
        if (in_group or has_mark) and (found := process.identify(pid)):
            (marked if has_mark else grouped).append(found)
    is_alive = process.life(first) is Life.ALIVE
    if is_alive or _is_proven(place, of, marked, grouped, first):
        marked += grouped
    return sorted(marked, key=lambda each: each != first)


def _is_proven(
    place: str, of: Record, marked: list[Identity], grouped: list[Identity], first: Identity
) -> bool:
    """Whether the session or group with the number of a process that is gone is still the run's."""
    if process.identify(first.pid):
        # Somebody has the number, so it was free, and so is the session of that number theirs.
        return False
    if any(_is_in_group(each.pid, first.pid) for each in marked):
        return True
    ended = record.ended(place, of.text("id"))
    if ended is None or ended[1] is None:
        return False
    last = ended[1] * os.sysconf("SC_CLK_TCK")
    return any(first.start <= each.start < last for each in grouped)


def end(place: str, of: Record, patience: float) -> int:
    """End a run: TERM to each process, and KILL to what is left after ``patience`` seconds.

    Returns how many had to be killed. Processes that appear meanwhile are ended too.
    """
    deadline = time.monotonic() + patience
    told: set[Identity] = set()
    killed: set[Identity] = set()
    while found := find(place, of):
        now = time.monotonic()
        if now > deadline + KILL_PATIENCE:
            break
        number, done = (signal.SIGTERM, told) if now < deadline else (signal.SIGKILL, killed)
        for each in set(found) - done:
            send(each, number)
            done.add(each)
        _await(found, min(LOOK, max(POLL, deadline - now)))
    return len(killed)


def _await(some: Sequence[Identity], patience: float) -> None:
    """Wait until these processes are gone, or for so many seconds."""
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        time.sleep(POLL)
        if not any(process.life(each) is Life.ALIVE for each in some):
            return


def send(to: Identity, number: signal.Signals) -> None:
    """Signal a process if it is still the one that was meant."""
    with suppress(ProcessLookupError, PermissionError):
        if not hasattr(signal, "pidfd_send_signal"):
            if process.life(to) is Life.ALIVE:
                os.kill(to.pid, number)
            return
        descriptor = os.pidfd_open(to.pid)
        try:
            # What is open cannot become another process's any more.
            if process.life(to) is Life.ALIVE:
                signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)


def _pids() -> list[int]:
    import psutil

    return psutil.pids()


def _is_in_group(pid: int, group: int) -> bool:
    with suppress(OSError):
        return group in (os.getsid(pid), os.getpgid(pid))
    return False


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    except OSError:
        return False
