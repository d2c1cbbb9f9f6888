"""Do what a new instance needs once."""

from __future__ import annotations

import click

from isoenv.cli import params, start, targets
from isoenv.services import setup


@click.command("setup")
@params.instance_argument
def command(instance: str | None) -> None:
    """Do the [setup] of INSTANCE: copy ignored files from the main checkout, run commands.

    Each step is done once for a new instance; after a failure the next try goes on with the step
    that failed. `isoenv up` does the same before the first start.

    \b
    Example:
      isoenv setup
      isoenv setup 2
    """
    target = targets.of(start.here(instance), instance, (), lease=True)
    if not target.setup.steps:
        start.say(f"{target.title} needs no setup: `[setup]` in isoenv.toml says what it needs")
    elif not setup.run(target.setup, start.say):
        start.say(f"the setup of {target.title} is done already")
