"""Turn the hook of this shell on again."""

from __future__ import annotations

import click

from isoenv.cli.start import refuse_without_hook


@click.command("on")
def command() -> None:
    """Turn the hook of this shell on again, after `isoenv off`.

    The hook does this itself, by the shell function of the same name.

    \b
    Example:
      isoenv on
    """
    refuse_without_hook("on")
