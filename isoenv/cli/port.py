"""Print one port."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isoenv import instances
from isoenv.cli import output, params, start
from isoenv.errors import NotFoundError

if TYPE_CHECKING:
    from isoenv.models import Config


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

    def check(config: Config) -> None:
        if name not in config.ports:
            known = ", ".join(config.ports) or "none"
            raise NotFoundError(f"no port {name}: isoenv.toml has {known}")

    caller = start.here(instance)
    with start.registry(caller) as registry:
        selected = instances.select(caller, registry, instance, lease=False, check=check)
        check(selected.context.config)
        found = instances.instance(selected, registry)
    output.write(f"{found.ports[name]}\n")
