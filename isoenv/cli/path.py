"""Print a path inside an instance's own directory."""

from __future__ import annotations

import click

from isoenv import instances
from isoenv.cli import output, params, start
from isoenv.errors import NotFoundError, UsageError


@click.command("path")
@click.argument("subpath", required=False, default="")
@params.instance_argument
def command(subpath: str, instance: str | None) -> None:
    """Print the path of SUBPATH inside the instance's own directory.

    A lone operand is a SUBPATH. The directory itself without one. Nothing is made.

    \b
    Example:
      isoenv path logs/api.log
      isoenv path "" 2
    """
    if subpath.startswith("/") or ".." in subpath.split("/"):
        raise UsageError(f"{subpath} leaves the instance's directory: name a path inside it")
    caller = start.here(instance)
    with start.registry(caller) as registry:
        selected = instances.select(caller, registry, instance, lease=False)
        found = instances.instance(selected, registry)
    if found.slot == 0 and selected.context.config.numbering.main == "none":
        raise NotFoundError(f"{found.project.name}/0 is left as it is: `isoenv path {subpath} 1`")
    output.write(f"{found.dir}/{subpath}".rstrip("/") + "\n")
