"""A process that was written down is told from all that have its pid later."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from isoenv import process
from isoenv.process import Life


def test_a_running_process_is_alive_and_a_killed_one_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = process.identify(child.pid)
    assert found is not None
    assert process.life(found) is Life.ALIVE
    child.kill()
    child.communicate()
    assert process.life(found) is Life.DEAD
    assert process.identify(child.pid) is None


def test_a_zombie_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    found = process.identify(child.pid)
    assert found is not None
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    os.kill(child.pid, 0)
    assert process.life(found) is Life.DEAD
    child.communicate()


def test_a_recycled_pid_is_another_process() -> None:
    me = process.myself()
    assert process.life(replace(me, start=me.start - 1)) is Life.DEAD
    # The same pid within one tick of the clock.
    if me.inode:
        assert process.life(replace(me, inode=me.inode + 1)) is Life.DEAD


def test_nothing_outlives_a_reboot() -> None:
    assert process.life(replace(process.myself(), boot="another")) is Life.DEAD


def test_what_cannot_be_seen_from_here_is_unknown() -> None:
    me = process.myself()
    assert process.life(replace(me, host="elsewhere", boot="another")) is Life.UNKNOWN
    assert process.life(replace(me, namespace=me.namespace + 1)) is Life.UNKNOWN


def test_a_command_with_spaces_and_parentheses_is_read() -> None:
    # The kernel keeps the file's name as the process's.
    code = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) Z (b', 0, 0, 0); print(); input()"
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    found = process.identify(child.pid)
    assert found is not None
    assert process.life(found) is Life.ALIVE
    child.kill()
    child.communicate()


def test_nobody_has_a_pid_that_cannot_be() -> None:
    assert process.identify(-1) is None
    assert process.identify(1 << 40) is None
