"""Turn a flag off in one instance."""

from __future__ import annotations

import click

from isoenv.cli import params
from isoenv.cli.enable import turn


@click.command("disable")
@click.argument("flag", type=params.FlagParam())
@params.instance_argument
def command(flag: str, instance: str | None) -> None:
    """Turn FLAG off in INSTANCE, by default that of the current directory.

    \b
    Example:
      isoenv disable WHATSAPP_ENABLED
    """
    turn(flag, instance, on=False)
