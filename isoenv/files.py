"""Read what may be no file at all, without hanging on a pipe, and write whole files or none."""

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


def replace(path: str, content: bytes) -> None:
    """Write a file whole or not at all; it keeps its mode, and a new one gets the usual.

    Raises IsoenvError, with the file as it was.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        mode = None
        if os.path.exists(path):
            mode = stat.S_IMODE(os.stat(path).st_mode)
            if not os.access(path, os.W_OK):
                raise PermissionError(0, "it is read-only")
        with open(temporary, "xb") as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        try:  # noqa: SIM105  # contextlib is not worth its import on a warm path
            os.unlink(temporary)
        except OSError:
            pass
        raise IsoenvError(
            f"cannot write {path}: {reason(error)}: `ls -ld` shows owner and mode"
        ) from None


def reason(error: OSError) -> str:
    """Return why the system refused, in the words of a message."""
    return (error.strerror or str(error)).lower()
