"""Print one port."""

from __future__ import annotations

import click

from isoenv import instances
from isoenv.cli import output, params, start
from isoenv.errors import NotFoundError


@click.command("port")
@click.argument("name", type=params.PortNameParam())
@params.instance_argument
def command(name: str, instance: str | None) -> None:
    """Print the port called NAME of INSTANCE, by default that of the current directory.

    \b
    Example:
      curl "http://localhost:$(isoenv port nginx)/"
      isoenv port postgres 2
    """
    caller = start.caller()
    with start.registry(caller) as registry:
        selected = instances.select(caller, registry, instance, lease=False)
        found = instances.instance(selected, registry)
    if name not in found.ports:
        known = ", ".join(found.ports) or "none"
        raise NotFoundError(f"no port {name} in {found.project.name}: it has {known}")
    output.write(f"{found.ports[name]}\n")
