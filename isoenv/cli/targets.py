"""From the operands of a command to an instance and its services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import context, entering, instances
from isoenv.cli import start
from isoenv.errors import NotFoundError
from isoenv.services import plans

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.context import Caller
    from isoenv.instances import Selected
    from isoenv.models import Service
    from isoenv.services.plans import Plan

API = "api"


@dataclass(frozen=True, slots=True)
class Target:
    """An instance and those of its services that were named; ``plans`` are those of all."""

    selected: Selected
    plans: Mapping[str, Plan]
    names: tuple[str, ...] = ()

    @property
    def services(self) -> Mapping[str, Service]:
        """The services of the configuration."""
        return self.selected.context.config.services

    @property
    def title(self) -> str:
        """The instance, as people read it."""
        name = self.selected.lease.name if self.selected.lease else ""
        return f"{self.selected.context.project.name}/{self.selected.slot} {name}".rstrip()


def find(operands: Sequence[str], *, lease: bool) -> Target:
    """Find what ``[INSTANCE] [SERVICE…]`` means: the first one is an INSTANCE unless a service.

    With ``lease`` a number that nobody holds is leased, and its directories are made.
    """
    caller = start.caller()
    here = context.find(caller)
    if not operands or operands[0] in here.config.services:
        return of(caller, None, operands, lease=lease)
    instance, *names = operands
    try:
        return of(caller, instance, names, lease=lease)
    except NotFoundError as error:
        if instance.isdigit() or ":" in instance or str(error).startswith("no service"):
            raise
        known = ", ".join(here.config.services) or "none"
        raise NotFoundError(
            f"no instance and no service {instance} of {here.project.name}: "
            f"`isoenv list` shows the instances; services: {known}"
        ) from None


def of(caller: Caller, instance: str | None, names: Sequence[str], *, lease: bool) -> Target:
    """Return an instance with the services that are named."""
    with start.registry(caller) as registry:
        if lease:
            selected, _ = entering.enter(caller, registry, instance)
        else:
            selected = instances.select(caller, registry, instance, lease=False)
        found = plans.of(selected, registry)
    target = Target(selected, found, tuple(names))
    for name in names:
        if name not in found:
            known = ", ".join(found) or "none"
            raise NotFoundError(f"no service {name} in {target.title}: isoenv.toml has {known}")
    return target


def api(instance: str | None, *, lease: bool) -> Target:
    """Return the service named ``api``; outside of any checkout SkyPilot's."""
    return of(start.caller("sky"), instance, [API], lease=lease)
