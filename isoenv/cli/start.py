"""What every command starts from: who calls, the registry, and what to say to people."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NoReturn

import click

from isoenv import entering
from isoenv.cli import output
from isoenv.context import Caller
from isoenv.errors import IsoenvError, UsageError

if TYPE_CHECKING:
    from isoenv.registry import Registry


def say(line: str) -> None:
    """Write one line for people: to standard error, which no program reads."""
    click.echo(output.clean(f"isoenv: {line}"), err=True)


def caller(program: str | None = None) -> Caller:
    """Return what this command was started with."""
    try:
        directory = os.getcwd()
    except OSError:
        raise IsoenvError("the current directory is gone: `cd` somewhere else") from None
    return Caller(directory, os.environ, say, program)


def here(instance: str | None = None, program: str | None = None) -> Caller:
    """Return the caller of a command that the directory decides about, unless INSTANCE is named.

    Says so where the environment that was inherited is another checkout's: what the command does
    is right, and what other programs do in that environment is not.
    """
    found = caller(program)
    if instance is None:
        tell(found)
    return found


def acting(session: str | None) -> Caller:
    """Return the caller of a command that acts as a session; without one the directory decides."""
    from isoenv.coordination import current  # more than most commands import

    return here(session or next(filter(None, map(os.environ.get, current.ACTING)), None))


def tell(of: Caller) -> None:
    """Say whose environment this is, where it is not the one of the directory."""
    if of.environ.get("ISOENV_LOG") == "quiet" or not of.environ.get("ISOENV_ROOT"):
        return
    from isoenv import provenance

    asked = click.get_current_context().find_root().params.get("directory")
    # Who has named the directory knows that it is another one.
    if asked is None and (found := provenance.foreign(of)):
        say(f"{found}: {found.remedy}")


def registry(of: Caller) -> Registry:
    """Open the caller's registry."""
    return entering.open_registry(of)


def refuse_without_hook(action: str) -> NoReturn:
    """Say that only the hook's own function can act in the shell that called."""
    raise UsageError(
        f"`isoenv {action}` acts in a shell with the hook, and this one has none: "
        '`eval "$(isoenv hook bash)"`, zsh and fish alike'
    )
