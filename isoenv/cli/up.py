"""Start the services of an instance."""

from __future__ import annotations

import click

from isoenv import flags, instances
from isoenv.cli import enable, params, serving, start, targets


@click.command("up")
@params.services_argument
@click.option("--enable", "flag", type=params.FlagParam(), help="Turn this flag on first.")
def command(operands: tuple[str, ...], *, flag: str | None) -> None:
    """Start the services of an instance, or those named and what they require.

    They start in the order of isoenv.toml, each when the one before is healthy; what runs
    already stays as it is. Ctrl-C leaves running what was started, and the rest unstarted.

    \b
    Example:
      isoenv up
      isoenv up 2 api
      isoenv up --enable WHATSAPP_ENABLED
    """
    if flag:
        _enable(operands, flag)
    serving.bring_up(targets.find(operands, lease=True))


def _enable(operands: tuple[str, ...], flag: str) -> None:
    """Turn a flag on before anything gets the environment that it changes."""
    instance = targets.instance_of(start.caller(), operands)
    with start.registry(start.caller()) as registry:
        # A number that nobody holds has no flags yet.
        instances.select(
            start.caller(), registry, instance, check=lambda config: flags.named(config, flag)
        )
    # That another environment was inherited is said once, with the services.
    enable.turn(flag, instance or ".", on=True)
