"""A lock is waited for in the kernel's queue, for a time, with nothing of the caller's touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import pytest

from isoenv import flock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

HOLDER = """
import fcntl, os, sys
descriptor = os.open(sys.argv[1], os.O_RDWR)
fcntl.flock(descriptor, getattr(fcntl, sys.argv[2]))
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    opened = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield opened
    os.close(opened)


@pytest.fixture
def holder(descriptor: int, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that holds the lock until its input ends or it is killed."""
    assert descriptor
    started: list[subprocess.Popen[str]] = []

    def holder(kind: str = "LOCK_EX") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-ISc", HOLDER, str(tmp_path / "lock"), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        return process

    yield holder
    for process in started:
        process.kill()
        process.communicate()


def in_thread(job: Callable[[], bool]) -> bool:
    results: list[bool] = []
    thread = threading.Thread(target=lambda: results.append(job()))
    thread.start()
    thread.join()
    return results[0]


def is_waited_for(path: Path) -> bool:
    """Whether somebody waits in the kernel's queue for the lock on a file."""
    inode = f":{path.stat().st_ino} "
    with open("/proc/locks", encoding="ascii") as file:
        return any("->" in line and inode in line for line in file)


class WhenWaitedFor(threading.Thread):
    """Does something once the kernel's queue has a waiter; after 20 s without one, all the same."""

    def __init__(self, path: Path, act: Callable[[], None]) -> None:
        super().__init__()
        self.path, self.act, self.was_waited_for = path, act, False
        self.start()

    def run(self) -> None:
        deadline = time.monotonic() + 20
        while not self.was_waited_for and time.monotonic() < deadline:
            time.sleep(0.005)
            self.was_waited_for = is_waited_for(self.path)
        self.act()

    def check(self) -> None:
        self.join()
        assert self.was_waited_for


def test_a_free_lock_is_had_at_once(descriptor: int) -> None:
    assert flock.acquire(descriptor, 0)
    assert flock.acquire(descriptor, None)


def test_a_wait_ends_with_false_when_its_time_is_up(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    holder()
    for timeout in (-1.0, 0.0, 1e-6, 0.05):
        began = time.monotonic()
        assert not flock.acquire(descriptor, timeout)
        assert time.monotonic() - began >= timeout


def test_a_wait_ends_with_false_in_threads_too(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    holder()
    assert not in_thread(lambda: flock.acquire(descriptor, 0.05))


@pytest.mark.parametrize("timeout", [None, 600.0])
def test_a_waiter_in_the_queue_has_the_lock_of_a_killed_holder(
    descriptor: int,
    holder: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    timeout: float | None,
) -> None:
    killer = WhenWaitedFor(tmp_path / "lock", holder().kill)
    assert flock.acquire(descriptor, timeout)
    killer.check()


def test_a_waiter_in_a_thread_has_the_lock_of_a_killed_holder(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder()
    threading.Timer(0.05, process.kill).start()
    assert in_thread(lambda: flock.acquire(descriptor, 600))


def test_the_lock_is_not_had_after_a_time_out(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder()
    assert not flock.acquire(descriptor, 0.05)
    process.communicate()
    # Another holder gets it: a waiter that was given up does not sit in the queue.
    holder()


def test_shared_holders_do_not_exclude_each_other(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    holder("LOCK_SH")
    assert flock.acquire(descriptor, 0, shared=True)
    assert not flock.acquire(descriptor, 0.05)


def test_the_callers_handler_is_put_back(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    process = holder()
    rung: list[int] = []

    def handler(number: int, _frame: object) -> None:
        rung.append(number)

    previous = signal.signal(signal.SIGALRM, handler)
    try:
        assert not flock.acquire(descriptor, 0.05)
        assert signal.getsignal(signal.SIGALRM) is handler
        process.communicate()
        assert flock.acquire(descriptor, 600)
        assert signal.getsignal(signal.SIGALRM) is handler
    finally:
        signal.signal(signal.SIGALRM, previous)
    assert rung == []
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_the_callers_alarm_rings_during_the_wait(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    holder()
    rung: list[int] = []
    previous = signal.signal(signal.SIGALRM, lambda number, _frame: rung.append(number))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 1000)
        assert not flock.acquire(descriptor, 0.2)
        assert rung == [signal.SIGALRM]
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert left > 500
        assert interval == 1000
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def test_a_wait_ends_where_the_alarm_is_blocked(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]]
) -> None:
    holder()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
    try:
        assert not flock.acquire(descriptor, 0.05)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_an_interrupt_ends_the_wait_and_leaves_no_alarm(
    descriptor: int, holder: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    holder()
    previous = signal.getsignal(signal.SIGALRM)
    killer = WhenWaitedFor(tmp_path / "lock", lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        flock.acquire(descriptor, 600)
    killer.check()
    assert signal.getsignal(signal.SIGALRM) is previous
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
