"""Write the files of ``[templates]``."""

from __future__ import annotations

import click

from isoenv import instances, rendering
from isoenv.cli import params, start


@click.command("render")
@click.argument("targets", nargs=-1, type=params.TargetParam(), metavar="[TEMPLATE]...")
def command(targets: tuple[str, ...]) -> None:
    """Write the files of [templates] for this checkout's instance, all or those named.

    Only ${NAME} and $NAME of this environment's own variables are replaced; everything else,
    such as nginx's $host, stays byte for byte as it is.

    \b
    Example:
      isoenv render
      isoenv render docker/nginx-local.conf
    """
    caller = start.here()
    with start.registry(caller) as registry:
        selected = instances.select(
            caller, registry, None, check=lambda config: rendering.check(config, targets)
        )
        environment = instances.environment(selected, registry)
    for path in rendering.render(selected.context.config, environment, targets):
        start.say(f"wrote {path}")
