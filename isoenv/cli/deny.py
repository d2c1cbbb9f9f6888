"""Block this checkout's isoenv.toml."""

from __future__ import annotations

import click

from isoenv import trust
from isoenv.cli.allow import decide


@click.command("deny")
def command() -> None:
    """Block this checkout's isoenv.toml: nothing of it is used until it is allowed.

    \b
    Example:
      isoenv deny
    """
    decide(trust.DENIED)
