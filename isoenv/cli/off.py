"""Turn the hook of this shell off."""

from __future__ import annotations

import click

from isoenv.cli.start import refuse_without_hook


@click.command("off")
def command() -> None:
    """Turn the hook of this shell off: what it has loaded is undone.

    The hook does this itself, by the shell function of the same name.

    \b
    Example:
      isoenv off
    """
    refuse_without_hook("off")
