"""What every command starts from: who calls, the registry, and what to say to people."""

from __future__ import annotations

import os

import click

from isoenv.cli import output
from isoenv.context import Caller
from isoenv.errors import IsoenvError
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
    return Registry(of.state)
