"""Wake who waits: a named pipe for each, with a byte for each reason to look again."""

from __future__ import annotations

import os
import selectors
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv import files, paths
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

# More than any number of wakes that is worth telling apart, in bytes.
DRAIN = 4096


class Pipe:
    """What one reader waits at."""

    def __init__(self, state: str, forget: Callable[[bytes], None]) -> None:
        """Make the pipe; ``forget`` is called with its path when it is closed."""
        directory = paths.wake_dir(state)
        paths.make_private(directory)
        name = f"{directory}/{os.getpid()}.{os.urandom(8).hex()}"
        self.path = os.fsencode(name)
        self._forget = forget
        try:
            os.mkfifo(name, 0o600)
            self._descriptor = os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            # One writer of our own: without any, the pipe would be at its end all the time.
            self._writer = os.open(name, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise IsoenvError(f"cannot wait at {name}: {files.reason(error)}") from None

    def wait(self, timeout: float | None) -> bool:
        """Wait for a message that was sent since the waiter was made; False on time-out."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._descriptor, selectors.EVENT_READ)
            if not selector.select(timeout):
                return False
        os.read(self._descriptor, DRAIN)
        return True

    def close(self) -> None:
        """Wait no more."""
        os.close(self._descriptor)
        os.close(self._writer)
        with suppress(FileNotFoundError):
            os.unlink(self.path)
        self._forget(self.path)


def wake(waiting: Iterable[bytes]) -> None:
    """Wake all that wait at these pipes; one whose reader was killed is nobody's."""
    for path in waiting:
        with suppress(OSError):
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                # A full one will wake its reader anyway.
                os.write(descriptor, b"\n")
            finally:
                os.close(descriptor)
