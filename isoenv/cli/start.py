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


def registry(of: Caller) -> Registry:
    """Open the caller's registry."""
    return entering.open_registry(of)


def refuse_without_hook(action: str) -> NoReturn:
    """Say that only the hook's own function can act in the shell that called."""
    raise UsageError(
        f"`isoenv {action}` acts in a shell with the hook, and this one has none: "
        '`eval "$(isoenv hook bash)"`, zsh and fish alike'
    )
