"""Which process a pid meant when it was written down, and whether that one still lives.

A pid alone proves nothing: it is given to the next process, belongs to a namespace, and outlives
no reboot. Dead is said only on proof; what cannot be seen from here is unknown.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from enum import Enum
from functools import cache

# Field 22 of /proc/PID/stat, counted from the state, which is field 3 and follows the command.
START_TICKS = 19
# Zombies and what is about to be one: such a process runs no more, whatever kill(2) says.
DEAD_STATES = ("Z", "X", "x")


class Life(Enum):
    """What is known about a process that was written down."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from all others that have had or will have its pid.

    ``start`` is in clock ticks since boot (without Linux's /proc: in ms since the epoch).
    ``inode`` is the pidfd's where the kernel gives each process one of its own (6.9 and newer),
    else 0. ``boot`` is the kernel's boot id, ``namespace`` the inode of the pid namespace.
    """

    pid: int
    start: int
    inode: int
    boot: str
    namespace: int
    host: str


def identify(pid: int) -> Identity | None:
    """Return who has this pid now; None where nobody has, or only a zombie."""
    start = _start(pid)
    if start is None:
        return None
    return Identity(pid, start, _inode(pid), boot_id(), namespace(), hostname())


def myself() -> Identity:
    """Return this process."""
    identity = identify(os.getpid())
    assert identity is not None  # noqa: S101  # who asks is alive
    return identity


def life(identity: Identity) -> Life:
    """Return whether the process still runs; UNKNOWN on another host or in another namespace."""
    if identity.host != hostname():
        return Life.UNKNOWN
    if identity.boot != boot_id():
        return Life.DEAD
    if identity.namespace != namespace():
        return Life.UNKNOWN
    if _start(identity.pid) != identity.start:
        return Life.DEAD
    # Within one tick a pid can be given again: only the inode tells such two apart.
    if identity.inode and identity.inode != _inode(identity.pid):
        return Life.DEAD
    return Life.ALIVE


def _start(pid: int) -> int | None:
    if sys.platform != "linux":
        return _psutil_start(pid)
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command in parentheses may hold spaces and parentheses itself.
            state, *fields = file.read().rpartition(b")")[2].split()
    except (OSError, ValueError):
        return None
    return None if state.decode() in DEAD_STATES else int(fields[START_TICKS - 1])


def _psutil_start(pid: int) -> int | None:
    import psutil

    try:
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else int(found.create_time() * 1000)
    except psutil.Error:
        return None


def _inode(pid: int) -> int:
    if not _has_own_inodes():
        return 0
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return 0
    try:
        return os.fstat(descriptor).st_ino
    finally:
        os.close(descriptor)


@cache
def _has_own_inodes() -> bool:
    """Whether a pidfd has an inode of its own: older kernels share one with every event."""
    if not hasattr(os, "pidfd_open") or not hasattr(os, "eventfd"):
        return False
    try:
        pidfd, event = os.pidfd_open(os.getpid()), os.eventfd(0)
    except OSError:
        return False
    try:
        return os.fstat(pidfd).st_dev != os.fstat(event).st_dev
    finally:
        os.close(pidfd)
        os.close(event)


@cache
def boot_id() -> str:
    """Return what is another after each start of the machine."""
    if sys.platform == "linux":
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    import psutil

    return str(int(psutil.boot_time()))


@cache
def namespace() -> int:
    """Return the inode of this process's pid namespace; 0 where there is but one."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        return 0


@cache
def hostname() -> str:
    """Return the name of this host."""
    return socket.gethostname()
