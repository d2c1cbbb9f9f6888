"""Who may start or stop a service: one at a time, the kernel's lock on a file."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv import files, flock, paths
from isoenv.errors import BusyError, IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def hold(place: str, title: str, patience: float) -> Iterator[int]:
    """Hold the lock of the service whose files are at ``place``; yields its descriptor.

    Whoever inherits the descriptor keeps the lock with it.
    """
    paths.make_private(place)
    try:
        descriptor = os.open(f"{place}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IsoenvError(f"cannot open {place}/lock: {files.reason(error)}") from None
    try:
        if not flock.acquire(descriptor, patience):
            raise BusyError(
                f"{title} is still being started or stopped by another command after "
                f"{patience:g} s: `isoenv ps` shows how far it is"
            )
        yield descriptor
    finally:
        os.close(descriptor)
