"""What tells one process from all that have had or will have its pid, and whether it still runs.

The cheap half of ``isoenv.process``, for a status line that is run several times a second: numbers
and strings alone, and nothing imported that costs.
"""

from __future__ import annotations

import os
import sys
from functools import cache

# Fields 4, 9 and 22 of /proc/PID/stat, counted from the state, which is field 3.
PARENT, FLAGS, START_TICKS = 1, 6, 19
# PF_FORKNOEXEC of the kernel: a copy of its parent that has not become another program.
FORKED_WITHOUT_EXEC = 0x40
SHELLS = (b"bash", b"sh", b"dash", b"zsh", b"fish", b"ksh", b"ksh93", b"mksh", b"ash", b"busybox")
# Zombies and what is about to be one: such a process runs no more, whatever kill(2) says.
DEAD_STATES = (b"Z", b"X", b"x")
# The longest line of /proc/PID/stat is far shorter.
STAT_LIMIT = 4096


def is_dead(  # noqa: PLR0913, PLR0917  # what it takes to tell one process from all others
    pid: int, start: int, inode: int, boot: str, namespace_: int, host: str
) -> bool | None:
    """Whether a process that was written down so is dead; None where it cannot be seen from here.

    The arguments are the fields of ``isoenv.process.Identity``.
    """
    if host != hostname():
        return None
    if boot != boot_id():
        return True
    if namespace_ != namespace():
        return None
    if start_of(pid) != start:
        return True
    # Within one tick a pid can be given again: only the inode tells such two apart.
    return bool(inode) and inode != inode_of(pid)


def present() -> frozenset[str]:
    """Return all pids of this namespace at once, in digits; empty where there is no /proc.

    A process that has lived since before the call is among them.
    """
    try:
        return frozenset(os.listdir("/proc"))
    except OSError:
        return frozenset()


def is_near(boot: str, namespace_: int, host: str) -> bool:
    """Whether a process that was written down so would be among those that are ``present``."""
    return (boot, namespace_, host) == (boot_id(), namespace(), hostname())


def start_of(pid: int) -> int | None:
    """Return when a process started, as ``Identity.start`` counts; None for none or a zombie."""
    if sys.platform != "linux":
        return _psutil_start(pid)
    _, fields = _stat(pid)
    return None if not fields or fields[0] in DEAD_STATES else int(fields[START_TICKS])


def parent() -> int:
    """Return the process that called this one, past the subshells of ``$(…)`` and ``( … )``.

    Those end with the command in them; the shell is meant that has forked them.
    """
    pid = os.getppid()
    while sys.platform == "linux":
        name, fields = _stat(pid)
        if name not in SHELLS or not int(fields[FLAGS]) & FORKED_WITHOUT_EXEC:
            break
        pid = int(fields[PARENT])
    return pid


def _stat(pid: int) -> tuple[bytes, list[bytes]]:
    """Return a process's name, and the fields of its /proc/PID/stat from the state on."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b"", []
    try:
        # The command in parentheses may hold spaces and parentheses itself.
        head, _, rest = os.read(descriptor, STAT_LIMIT).rpartition(b")")
    except OSError:
        return b"", []
    finally:
        os.close(descriptor)
    return head.partition(b"(")[2], rest.split()


def _psutil_start(pid: int) -> int | None:
    import psutil

    try:
        found = psutil.Process(pid)
        return None if found.status() == psutil.STATUS_ZOMBIE else int(found.create_time() * 1000)
    except psutil.Error:
        return None


def inode_of(pid: int) -> int:
    """Return the inode of the process's pidfd; 0 where the kernel has none of its own for each."""
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
    return os.uname().nodename
