"""All that it takes to run one service of one instance, computed from the configuration."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isoenv import generated, instances, launch, resolver, template
from isoenv.errors import IsoenvError
from isoenv.services import health, logs, record, skypilot
from isoenv.skypilot import PRESET

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from isoenv.instances import Selected
    from isoenv.models import Environment, Service

# Seconds between TERM and KILL.
STOP_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How one service is run. Commands are argument lists, ``environ`` is whole.

    Either ``run``, the process that stays, or ``start``. ``stop`` is what ends that, or what is
    run before a ``run`` service that is alive is ended. ``ports`` must be free before the start,
    and are free after the stop; ``mentioned`` ones stand in the command, perhaps as those of
    another service. ``place`` is the directory of its record, ``facts`` are what the record says
    of the instance, with a ``stop`` as JSON where only the start knows that. ``prepare`` is called
    when a ``run`` service is about to be started, and returns the plan for this start.
    """

    name: str
    title: str
    place: str
    directory: str
    log: str
    environ: Mapping[str, str]
    run: tuple[str, ...] | None = None
    start: tuple[str, ...] | None = None
    stop: tuple[str, ...] | None = None
    health: str | None = None
    ports: tuple[int, ...] = ()
    mentioned: tuple[int, ...] = ()
    start_timeout: float = 60.0
    stop_patience: float = STOP_PATIENCE
    facts: Mapping[str, str] = field(default_factory=dict)
    prepare: Callable[[Plan], Plan] | None = None


def of(selected: Selected, environment: Environment, environ: Mapping[str, str]) -> dict[str, Plan]:
    """Return the plans of all services of an instance, in the order of the file."""
    here = selected.context
    if here.config.services and not environment.variables:
        if here.config.preset == PRESET:
            raise IsoenvError(
                f"{here.project.name}/{selected.slot} is your own ~/.sky and port 46580, which "
                "isoenv leaves alone: `sky api start`, `sky api stop`, `sky api info`"
            )
        raise IsoenvError(
            f"{here.project.name}/{selected.slot} is left as it is, without services: "
            "`isoenv list` shows the other instances"
        )
    lookup = resolver.lookup(environment, here.caller.home)

    def expand(text: str) -> str:
        return template.expand(text, lookup)

    def words(command: str | tuple[str, ...] | None) -> tuple[str, ...] | None:
        if isinstance(command, str):
            return ("/bin/sh", "-c", expand(command))
        return None if command is None else tuple(map(expand, command))

    found = environment.instance
    facts = {
        "project": found.project.key,
        "project_name": found.project.name,
        "slot": str(found.slot),
        "instance": found.name,
        "root": found.root,
        "base": here.base or "",
        "compose": environ.get("COMPOSE_PROJECT_NAME", ""),
    }
    plans = {}
    for name, service in here.config.services.items():
        asked = expand(service.health) if service.health else None
        plan = Plan(
            name=name,
            title=f"{name} of {found.project.name}/{found.slot}",
            place=record.directory(here.caller.state, found.project.key, found.slot, name),
            directory=found.root,
            log=logs.path(found.dir, name),
            environ=environ,
            run=words(service.run),
            start=words(service.start),
            stop=words(service.stop),
            health=asked,
            ports=_ports(asked),
            mentioned=_mentioned(service, environment),
            start_timeout=service.start_timeout,
            facts={**facts, "service": name, "health": asked or ""},
        )
        if skypilot.is_meant(here, service.run):
            plan = skypilot.adapt(plan, here, found)
        ports = " ".join(map(str, plan.ports))
        plans[name] = replace(plan, facts={**plan.facts, "ports": ports})
    return plans


def left_over(place: str, known: Collection[str]) -> dict[str, Plan]:
    """Return plans to look at and stop what runs and is in the configuration no more.

    ``place`` is where the records of the instance's services are.
    """
    plans = {}
    for name in sorted(os.listdir(place)) if os.path.isdir(place) else ():
        found = None if name in known else record.read(f"{place}/{name}")
        if found and found.number("pid") and found.text("state") == record.UP:
            asked = found.text("health") or None
            plans[name] = Plan(
                name=name,
                title=f"{name} of {found.text('project_name')}/{found.text('slot')}",
                place=f"{place}/{name}",
                directory=found.text("root"),
                log=found.text("log"),
                environ={},
                run=(),
                health=asked,
                ports=_ports(asked),
                start_timeout=found.seconds("start_timeout") or 0.0,
            )
    return plans


def environ(selected: Selected, environment: Environment) -> dict[str, str]:
    """Return the variables that `exec` would give to a command."""
    here, found = selected.context, environment.instance
    ready = generated.Ready(
        root=found.root,
        label="",
        guards=(),
        watched={},
        path_prepend=environment.path_prepend,
        variables=environment.variables
        and {**environment.variables, instances.OWN_SLOT: str(found.slot)},
    )
    variables = launch.environment(here.caller.environ, ready)
    if selected.pinned:
        variables[instances.PIN] = f"{selected.slot}:{here.project.key}"
    return {**variables, "PWD": found.root}


def _ports(asked: str | None) -> tuple[int, ...]:
    """Return the port that a service is known to listen on: the one that its health is asked at."""
    if asked is None:
        return ()
    target = health.Target(asked)
    return (target.port,) if target.is_local else ()


def _mentioned(service: Service, environment: Environment) -> tuple[int, ...]:
    """Return the ports whose field or variable stands in the command that stays."""
    command = service.run or ()
    texts = (command,) if isinstance(command, str) else command
    fields = {name for text in texts for name in template.fields(text)}
    names = {name for text in texts for name in template.names(text)}
    ports = environment.instance.ports
    return tuple(
        port
        for name, port in ports.items()
        if f"ports.{name}" in fields
        or any(environment.variables.get(variable) == str(port) for variable in names)
    )
