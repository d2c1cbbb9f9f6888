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
            return _last(file.fileno(), lines)
    except OSError:
        return []


def _last(descriptor: int, lines: int) -> list[bytes]:
    at = os.fstat(descriptor).st_size
    content = b""
    while at > 0 and content.count(b"\n") <= lines:
        begin = max(0, at - BLOCK)
        content = os.pread(descriptor, at - begin, begin) + content
        at = begin
    return content.splitlines()[-lines:] if lines else []


class Follower:
    """Reads what is added to a log, from one start of the service to the next."""

    def __init__(self, log: str) -> None:
        """Begin at the present end of the log, whether it exists yet or not."""
        self.log = log
        self._descriptor: int | None = None
        self._inode = 0
        self._rest = b""
        if self._open():
            assert self._descriptor is not None  # noqa: S101  # it was opened
            os.lseek(self._descriptor, 0, os.SEEK_END)

    def lines(self) -> Iterator[bytes]:
        """Yield the lines that have come since the last time, without their ends."""
        yield from self._read()
        if self._is_another():
            # What was written before the log was moved away has been read above.
            self.close()
            if self._open():
                yield from self._read()

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
