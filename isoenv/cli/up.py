"""Start the services of an instance."""

from __future__ import annotations

import click

from isoenv.cli import params, serving, targets


@click.command("up")
@params.services_argument
def command(operands: tuple[str, ...]) -> None:
    """Start the services of an instance, or those named and what they require.

    They start in the order of isoenv.toml, each when the one before is healthy; what runs
    already stays as it is. Ctrl-C leaves running what was started, and the rest unstarted.

    \b
    Example:
      isoenv up
      isoenv up 2 api
    """
    serving.bring_up(targets.find(operands, lease=True))
