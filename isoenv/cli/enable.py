"""Turn a flag on in one instance."""

from __future__ import annotations

import click

from isoenv import flags, generated, instances
from isoenv.cli import params, start


@click.command("enable")
@click.argument("flag", type=params.FlagParam())
@params.instance_argument
@click.option("--steal", is_flag=True, help="Turn an exclusive flag off where it is on.")
def command(flag: str, instance: str | None, *, steal: bool) -> None:
    """Turn FLAG on in INSTANCE, by default that of the current directory.

    A flag that is exclusive in isoenv.toml is on in one instance of the project at a time.

    \b
    Example:
      isoenv enable WHATSAPP_ENABLED 2
      isoenv enable WHATSAPP_ENABLED --steal
    """
    turn(flag, instance, on=True, steal=steal)


def turn(flag: str, instance: str | None, *, on: bool, steal: bool = False) -> None:
    """Set the flag, and let shells that have the old value notice."""
    caller = start.here(instance)
    with start.registry(caller) as registry:
        selected = instances.select(
            caller, registry, instance, lease=False, check=lambda config: flags.named(config, flag)
        )
        changed = flags.turn(registry, selected, flag, on=on, steal=steal)
    for lease in changed:
        if lease.root:
            generated.forget(caller.state, lease.root)
        value = on if lease is changed[0] else False
        word = "true" if value else "false"
        start.say(f"{flag}={word} in {lease.project.name}/{lease.slot} {lease.name}")
