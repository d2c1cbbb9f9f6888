"""Which process holds a file's lock, by the kernel's table of locks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

TABLE = "/proc/locks"
# How much of a command is shown.
LONGEST = 80


def of(paths: Iterable[str]) -> int | None:
    """Return the pid of a process that holds a lock on one of these files, None where unseen."""
    try:
        with open(TABLE, encoding="ascii") as file:
            text = file.read()
    except OSError:
        return None
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        number = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
        found = [pid for pid in holders(text, number) if pid != os.getpid()]
        if found:
            return found[0]
    return None


def holders(text: str, file: str) -> list[int]:
    """Return the pids that hold a lock on ``MAJOR:MINOR:INODE``; who waits for one holds none."""
    lines = (line.split() for line in text.splitlines())
    # ID: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE START END; no pid is that of an open file.
    return [
        int(fields[4])
        for fields in lines
        if len(fields) > 5 and fields[5] == file and fields[4].isdecimal() and int(fields[4])  # noqa: PLR2004  # see above
    ]


def describe(pid: int) -> str:
    """Return what a process is, as in "pid 7 (python3 -m isoenv claim)", in one line."""
    import psutil

    try:
        process = psutil.Process(pid)
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        return f"pid {pid}"
    return f"pid {pid} ({''.join(c if c.isprintable() else ' ' for c in command)[:LONGEST]})"


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped, by Ctrl-Z for one."""
    import psutil

    try:
        return psutil.Process(pid).status() == psutil.STATUS_STOPPED
    except psutil.Error:
        return False
