"""Compute the environment of this shell anew."""

from __future__ import annotations

import click

from isoenv.cli.start import refuse_without_hook


@click.command("reload")
def command() -> None:
    """Compute the environment of this shell anew, though no input has changed.

    The hook does this itself, by the shell function of the same name.

    \b
    Example:
      isoenv reload
    """
    refuse_without_hook("reload")
