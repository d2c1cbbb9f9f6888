"""Stop services and start them again."""

from __future__ import annotations

import click

from isoenv.cli import params, serving, targets


@click.command("restart")
@params.services_argument
def command(operands: tuple[str, ...]) -> None:
    """Stop the services of an instance, or those named, and start them again.

    \b
    Example:
      isoenv restart
      isoenv restart 2 api
    """
    target = targets.find(operands, lease=True)
    serving.take_down(target)
    serving.bring_up(target)
