"""What can go wrong with a service, beside what can go wrong anywhere."""

from __future__ import annotations

import signal

from isoenv.errors import IsoenvError

# Beyond it an exit status of sh means a signal.
SIGNALLED = 128


class ServiceError(IsoenvError):
    """A service failed; ``log`` is where its last words are, if it had any."""

    def __init__(self, message: str, log: str | None = None) -> None:
        """Keep the path of the log beside the message."""
        super().__init__(message)
        self.log = log


class CancelledError(ServiceError):
    """Somebody wanted the service down while it was starting."""


def describe_exit(status: int) -> str:
    """Return "exit status 3", or "exit status 137 (SIGKILL)"."""
    text = f"exit status {status}"
    if status > SIGNALLED:
        try:
            return f"{text} ({signal.Signals(status - SIGNALLED).name})"
        except ValueError:
            return text
    return text
