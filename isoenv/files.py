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
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise IsoenvError(f"cannot read {path}: it is no regular file: `ls -ld` shows what")
            content = file.read(limit + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise IsoenvError(
            f"cannot read {path}: {reason(error)}: `ls -ld` shows owner and mode"
        ) from None
    if len(content) > limit:
        raise IsoenvError(f"cannot read {path}: it is longer than {limit} bytes: shorten it")
    return content


def reason(error: OSError) -> str:
    """Return why the system refused, in the words of a message."""
    return (error.strerror or str(error)).lower()
