"""The kernel's own list of locks, read without touching one."""

from __future__ import annotations

from typing import NamedTuple

from isoenv import mounts

# A line without the arrow of those that wait: 1: FLOCK ADVISORY WRITE 77 fe:00:5678 0 EOF
FIELDS = 8


class Row(NamedTuple):
    """A lock by flock(2): ``kind`` is "READ" or "WRITE", the pid that of who asked for it.

    ``file`` is the (major, minor, inode) of the file. The kernel shows nobody of another pid
    namespace.
    """

    file: tuple[int, int, int]
    kind: str
    pid: int
    is_waiting: bool


class Table:
    """All that is locked and waited for at this moment, by file."""

    def __init__(self, text: str, mountinfo: bytes) -> None:
        """Parse what /proc/locks and /proc/self/mountinfo say."""
        self._mountinfo = mountinfo
        self._rows: dict[tuple[int, int, int], list[Row]] = {}
        for line in text.splitlines():
            if row := parse(line):
                self._rows.setdefault(row.file, []).append(row)

    def rows(self, directory: str, inode: int) -> list[Row]:
        """Return the rows of a file, by its directory without links; who waits longest is first."""
        # Not stat's device: btrfs gives each subvolume one of its own.
        mount = mounts.find(directory, self._mountinfo)
        return self._rows.get((*mount.device, inode), []) if mount else []


def now() -> Table:
    """Return the table of this moment; an empty one where the system has none."""
    try:
        with open("/proc/locks", encoding="ascii") as file:
            return Table(file.read(), mounts.table())
    except OSError:
        return Table("", b"")


def parse(line: str) -> Row | None:
    """Return what a line says; None for other kinds of locks."""
    words = line.split()
    is_waiting = "->" in words
    if is_waiting:
        words.remove("->")
    if len(words) != FIELDS or words[1] != "FLOCK":
        return None
    major, minor, inode = words[5].split(":")
    return Row((int(major, 16), int(minor, 16), int(inode)), words[3], int(words[4]), is_waiting)


def locked_through(descriptor: int) -> str | None:
    """Return how an open file of this process is locked, "READ" or "WRITE"; None if it is not."""
    try:
        with open(f"/proc/self/fdinfo/{descriptor}", encoding="ascii") as file:
            lines = [line.removeprefix("lock:") for line in file if line.startswith("lock:")]
    except OSError:
        return None
    return next((row.kind for line in lines if (row := parse(line))), None)
