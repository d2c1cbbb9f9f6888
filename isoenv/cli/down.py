"""Stop the services of an instance."""

from __future__ import annotations

import click

from isoenv.cli import params, serving, targets


@click.command("down")
@params.services_argument
def command(operands: tuple[str, ...]) -> None:
    """Stop the services of an instance, or those named, in the reverse order of their start.

    All processes of a service get TERM, and after ten seconds KILL.

    \b
    Example:
      isoenv down
      isoenv down 2 api
    """
    serving.take_down(targets.find(operands, lease=False))
