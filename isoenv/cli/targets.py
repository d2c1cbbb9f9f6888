"""From the operands of a command to an instance and its services."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import context, entering, instances
from isoenv.cli import start
from isoenv.errors import NotFoundError
from isoenv.services import plans, setup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.context import Caller
    from isoenv.instances import Selected
    from isoenv.models import Environment, Service
    from isoenv.services.plans import Plan
    from isoenv.services.setup import Setup

API = "api"


@dataclass(frozen=True, slots=True)
class Target:
    """An instance and those of its services that were named; ``plans`` are those of all.

    ``left_over`` run, and are in the configuration no more.
    """

    selected: Selected
    environment: Environment
    plans: Mapping[str, Plan]
    setup: Setup
    left_over: Mapping[str, Plan]
    names: tuple[str, ...] = ()

    @property
    def services(self) -> Mapping[str, Service]:
        """The services of the configuration."""
        return self.selected.context.config.services

    @property
    def shown(self) -> list[Plan]:
        """The services that are meant, in the order of the file, and after them the left over."""
        everything = {**self.plans, **self.left_over}
        return [plan for name, plan in everything.items() if not self.names or name in self.names]

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
    instance = instance_of(caller, operands)
    if instance is None:
        start.tell(caller)
    names = operands if instance is None else operands[1:]
    try:
        return of(caller, instance, names, lease=lease)
    except NotFoundError as error:
        here = context.find(caller)
        if instance is None:
            raise
        if instance.isdigit() or ":" in instance or str(error).startswith("no service"):
            raise
        known = ", ".join(here.config.services) or "none"
        raise NotFoundError(
            f"no instance and no service {instance} of {here.project.name}: "
            f"`isoenv list` shows the instances; services: {known}"
        ) from None


def instance_of(caller: Caller, operands: Sequence[str]) -> str | None:
    """Return the operand that names an instance, None where the first one names a service."""
    if not operands or operands[0] in context.find(caller).config.services:
        return None
    return operands[0]


def of(caller: Caller, instance: str | None, names: Sequence[str], *, lease: bool) -> Target:
    """Return an instance with the services that are named."""
    with start.registry(caller) as registry:
        if lease:
            selected, _ = entering.enter(caller, registry, instance)
        else:
            selected = instances.select(caller, registry, instance, lease=False)
        environment = instances.environment(selected, registry)
        environ = plans.environ(selected, environment)
        found = plans.of(selected, environment, environ)
        root = environment.instance.root
        todo = setup.of(selected, registry, environ, root)
        left = plans.left_over(todo.place, found.keys())
        target = Target(selected, environment, found, todo, left, tuple(names))
    for name in names:
        if name not in found and (lease or name not in left):
            known = ", ".join(found) or "none"
            raise NotFoundError(f"no service {name} in {target.title}: isoenv.toml has {known}")
    return target
