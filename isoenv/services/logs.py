"""The log files of services: rotated at each start, read from their end, followed."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv import files, paths
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator

# How many logs of former starts stay, and the bytes that are read at once from the end of one.
KEPT = 4
BLOCK = 1 << 16


def path(instance_dir: str, service: str) -> str:
    """Return the log of a service."""
    return f"{instance_dir}/logs/{service}.log"


def rotate(log: str) -> None:
    """Move the log of the last start out of the way, and drop the oldest one."""
    paths.make_private(os.path.dirname(log))
    names = [log, *(f"{log}.{number}" for number in range(1, KEPT + 1))]
    with suppress(FileNotFoundError):
        if os.path.getsize(log) == 0:
            return
    for older, newer in reversed(list(zip(names[1:], names[:-1], strict=True))):
        try:
            os.replace(newer, older)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise IsoenvError(f"cannot move {newer}: {files.reason(error)}") from None


def open_to_append(log: str) -> int:
    """Open a log to write to its end, and return the descriptor."""
    try:
        paths.make_private(os.path.dirname(log))
        return os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IsoenvError(f"cannot write {log}: {files.reason(error)}") from None


def tail(log: str, lines: int) -> list[bytes]:
    """Return the last lines of a log, without their ends; none where there is no log."""
    try:
        with open(log, "rb") as file:
            file.seek(_start_of(file.fileno(), lines))
            return file.read().splitlines()
    except OSError:
        return []


def _start_of(descriptor: int, lines: int) -> int:
    """Return where the last lines of a file begin, in bytes; read from its end, in blocks."""
    size = at = os.fstat(descriptor).st_size
    # The end of the last line ends nothing before it.
    wanted = lines + 1 if size and os.pread(descriptor, 1, size - 1) == b"\n" else lines
    while at > 0 and wanted > 0:
        begin = max(0, at - BLOCK)
        block = os.pread(descriptor, at - begin, begin)
        while wanted > 0 and (end := block.rfind(b"\n")) >= 0:
            wanted -= 1
            block = block[:end]
            if wanted == 0:
                return begin + end + 1
        at = begin
    return size if lines == 0 else 0


class Follower:
    """Reads what is added to a log, from one start of the service to the next."""

    def __init__(self, log: str, lines: int) -> None:
        """Begin so many lines before the present end of the log, if there is one."""
        self.log = log
        self._descriptor: int | None = None
        self._inode = 0
        self._rest = b""
        self.is_there = self._open()
        if self._descriptor is not None:
            os.lseek(self._descriptor, _start_of(self._descriptor, lines), os.SEEK_SET)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that have come since the last time, without their ends."""
        is_moved = self._is_another()
        yield from self._read()
        if is_moved:
            # Nobody writes to it any more, and all of it has been read.
            yield from self.rest()
            self.close()
            if self._open():
                yield from self._read()

    def rest(self) -> Iterator[bytes]:
        """Yield a last line that has no end yet."""
        if self._rest:
            yield self._rest
        self._rest = b""

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _open(self) -> bool:
        try:
            self._descriptor = os.open(self.log, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        self._inode = os.fstat(self._descriptor).st_ino
        return True

    def _is_another(self) -> bool:
        try:
            return self._descriptor is None or os.stat(self.log).st_ino != self._inode
        except OSError:
            return False

    def _read(self) -> Iterator[bytes]:
        while self._descriptor is not None and (read := os.read(self._descriptor, BLOCK)):
            *whole, self._rest = (self._rest + read).split(b"\n")
            yield from whole
