"""Read what a person may have put in place of a file: a pipe must not hang, a directory not pass."""

from __future__ import annotations

import os
import stat

from isoenv.errors import IsoenvError


def read(path: str, limit: int) -> bytes | None:
    """Return the first ``limit`` bytes of a regular file, and one more; None where there is none.

    Raises IsoenvError for what is there and cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise unreadable(path, error) from None
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise IsoenvError(f"cannot read {path}: it is no regular file; `ls -ld` shows what")
        try:
            return file.read(limit + 1)
        except OSError as error:
            raise unreadable(path, error) from None


def unreadable(path: str, error: OSError) -> IsoenvError:
    """Return what to say of a file that cannot be read."""
    return IsoenvError(f"cannot read {path}: {reason(error)}; `ls -ld` shows its owner and mode")


def reason(error: OSError) -> str:
    """Return why the system refused, in the words of a message."""
    return (error.strerror or str(error)).lower()
