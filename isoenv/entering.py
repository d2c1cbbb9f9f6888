"""Enter an instance: its environment computed, its directories made, kept ready for next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import directories, generated, instances

if TYPE_CHECKING:
    from isoenv.instances import Caller
    from isoenv.registry import Registry


def enter(
    caller: Caller, registry: Registry, operand: str | None
) -> tuple[instances.Selected, generated.Ready]:
    """Return the instance that ``operand`` names and its ready environment, leasing as needed."""
    selected = instances.select(caller, registry, operand)
    computed = instances.environment(selected, registry)
    here = selected.context
    directories.make(computed.dirs.values(), here.checkout.root if here.checkout else None)
    # Made before the stamps are taken: a directory that appears is no change of an input.
    ready = instances.ready(selected, computed)
    if selected.own and here.base:
        generated.publish(caller.state, here.base, ready)
    return selected, ready
