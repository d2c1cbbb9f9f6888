"""Give a slot back."""

from __future__ import annotations

import os

import click

from isoenv import context, generated, instances, leasing
from isoenv.cli import params, start
from isoenv.errors import NotFoundError


@click.command("release")
@params.instance_argument
def command(instance: str | None) -> None:
    """Give back the slot of INSTANCE, by default that of this checkout, with its ports.

    Directories and databases stay. The next command in the checkout takes a slot again, and so
    does a shell's hook at the next prompt there.

    \b
    Example:
      isoenv release
      isoenv release 3
    """
    caller = start.here(instance)
    with start.registry(caller) as registry:
        if instance in (None, "."):
            here = context.find(caller)
            lease = leasing.find(registry, here.claim)
            if lease is None:
                raise NotFoundError(f"{here.base or caller.directory} holds no slot: `isoenv list`")
        else:
            selected = instances.select(caller, registry, instance, lease=False)
            lease = selected.lease
            if lease is None:
                project = selected.context.project.name
                raise NotFoundError(
                    f"nobody holds slot {selected.slot} of {project}: `isoenv list`"
                )
        leasing.give_back(registry, lease)
    if lease.root:
        generated.forget(caller.state, lease.root)
    title = f"{lease.project.name}/{lease.slot} {lease.name}"
    # A hook is such a command, at its next prompt there.
    is_there = lease.root and os.path.isdir(lease.root)
    again = f": the next command in {lease.root} takes one again" if is_there else ""
    start.say(f"{title} is free{again}")
