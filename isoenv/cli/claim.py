"""Take or rename a slot for this checkout."""

from __future__ import annotations

import click

from isoenv import context, generated, instances, leasing
from isoenv.cli import params, start
from isoenv.errors import UsageError


@click.command("claim")
@params.instance_argument
@click.option("--name", help="Call the instance NAME instead of its directory's name.")
def command(instance: str | None, name: str | None) -> None:
    """Take slot INSTANCE for this checkout, or give its instance another name.

    Without INSTANCE the checkout keeps the slot it holds, or takes the next free one. The slot
    it held before is given back. A slot that another checkout holds is not taken.

    \b
    Example:
      isoenv claim
      isoenv claim 3
      isoenv claim --name review
    """
    slot = None if instance in (None, ".") else instances.number(instance)
    if slot is None and instance not in (None, "."):
        raise UsageError(f"{instance} is no slot: `isoenv claim 3 --name {instance}`")
    caller = start.here()
    here = context.find(caller)
    context.require_trust(here)
    with start.registry(caller) as registry:
        lease = leasing.take(registry, here.claim, slot, name)
    if here.base:
        generated.forget(caller.state, here.base)
    start.say(f"{here.base} holds {lease.project.name}/{lease.slot} {lease.name}")
