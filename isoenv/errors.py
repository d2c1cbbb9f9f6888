"""What can go wrong, each with the exit code that scripts may rely on.

A message is one line: what happened, the value, and the remedy in backticks. It is worded where
it is raised and shown in one place, ``isoenv.__main__``.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from typing import ClassVar


class IsoenvError(Exception):
    """Something failed; the message says what, with the value and the remedy."""

    exit_code: ClassVar[int] = 1


class ConfigError(IsoenvError):
    """An ``isoenv.toml`` that is wrong: file, line, key and what was expected."""


class RegistryError(IsoenvError):
    """The registry cannot be read or written; nothing was changed."""


class RegistryBusyError(RegistryError):
    """Another process has locked the registry for longer than anybody waits."""

    exit_code = 75


class UsageError(IsoenvError):
    """The command was called wrongly."""

    exit_code = 2


class NotTrustedError(IsoenvError):
    """The checkout's ``isoenv.toml`` was not allowed by the user."""

    exit_code = 4


class NotFoundError(IsoenvError):
    """There is no such instance, project, service or port name."""

    exit_code = 5


class BusyError(IsoenvError):
    """A lock or a wait timed out."""

    exit_code = 75


class PortTakenError(IsoenvError):
    """A port that is needed belongs to another process."""

    exit_code = 6


class TimedOutError(IsoenvError):
    """A lock or a wait took longer than the user wanted to wait."""

    exit_code = 75


class LockTimeout(TimedOutError):  # noqa: N818  # the name of the contract
    """A lock was not free in time; the message names who holds it."""
