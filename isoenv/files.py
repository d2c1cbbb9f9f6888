"""Read what may be no file at all: a pipe must not hang, a directory must not pass."""

from __future__ import annotations

import os
import stat

from isoenv.errors import IsoenvError


def read(path: str, limit: int) -> bytes | None:
    """Return what is in a regular file of at most ``limit`` bytes; None where there is none.

    Raises IsoenvError for what is there and cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise IsoenvError(f"cannot read {path}: it is no regular file: `ls -ld` shows what")
            content = contents(descriptor, status.st_size, limit)
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IsoenvError(
            f"cannot read {path}: {reason(error)}: `ls -ld` shows owner and mode"
        ) from None
    if len(content) > limit:
        raise IsoenvError(f"cannot read {path}: it is longer than {limit} bytes: shorten it")
    return content


def contents(descriptor: int, size: int, limit: int) -> bytes:
    """Return what is in an open file of about ``size`` bytes; more than ``limit`` if it has more.

    By descriptor: a file object costs more than what is read here, once for each of many files.
    """
    content = b""
    while len(content) <= limit:
        wanted = min(max(size - len(content), 0), limit) + 1
        part = os.read(descriptor, wanted)
        content += part
        # A regular file gives less than it is asked for at its end only.
        if len(part) < wanted:
            break
    return content


def reason(error: OSError) -> str:
    """Return why the system refused, in the words of a message."""
    return (error.strerror or str(error)).lower()
