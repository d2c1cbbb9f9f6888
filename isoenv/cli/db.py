"""The databases of an instance."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from isoenv import context, instances
from isoenv.cli import output, params, start
from isoenv.databases import lifecycle, targets
from isoenv.databases.address import Postgres
from isoenv.errors import IsoenvError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from isoenv.context import Caller
    from isoenv.databases.lifecycle import Look
    from isoenv.databases.targets import Target
    from isoenv.instances import Selected
    from isoenv.models import Environment
    from isoenv.registry import Registry

    Found = tuple[Selected, Environment]

KILO = 1024


def _timeout_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--timeout``."""
    return click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=lifecycle.PATIENCE,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for a template in use, or for another isoenv.",
    )(command)


def _force_option(text: str) -> Callable[..., Any]:
    """Add ``--force``."""
    return click.option("--force", is_flag=True, help=text)


@click.group("db")
def command() -> None:
    """Make, drop, renew and list the databases of an instance.

    \b
    Example:
      isoenv db create
      isoenv db list
    """


@command.command()
@params.instance_argument
@_timeout_option
def create(instance: str | None, timeout: float) -> None:
    """Make the databases of INSTANCE that are missing, each from its template.

    What is there already is left as it is. A number that nobody holds is leased. A template that
    somebody is connected to is waited for.

    \b
    Example:
      isoenv db create
      isoenv db create 3 --timeout 120
    """
    caller = start.here(instance)
    selected, environment = _selected(caller, instance)
    with _at_work():
        lifecycle.create_missing(selected, environment, start.say, timeout)


@command.command()
@params.instance_argument
@_timeout_option
@_force_option("End the connections of others; also slot 0's.")
def drop(instance: str | None, timeout: float, *, force: bool) -> None:
    """Drop the databases that isoenv has made for INSTANCE, with all that is in them.

    What isoenv has not made is never dropped. What somebody is connected to, and slot 0's, is
    dropped only with --force.

    \b
    Example:
      isoenv db drop
      isoenv db drop 3 --force
    """
    caller = start.here(instance)
    selected, environment = _selected(caller, instance, lease=False)
    lifecycle.drop(selected, environment, start.say, timeout, force=force)


@command.command()
@params.instance_argument
@_timeout_option
@_force_option("End the connections of others; also slot 0's.")
def reset(instance: str | None, timeout: float, *, force: bool) -> None:
    """Make the databases of INSTANCE anew from their templates.

    The old one stays until the new one is whole: a dump with an error in it costs nothing. The
    rules of `isoenv db drop` hold.

    \b
    Example:
      isoenv db reset
      isoenv db reset 3 --force
    """
    caller = start.here(instance)
    selected, environment = _selected(caller, instance)
    with _at_work():
        lifecycle.reset(selected, environment, start.say, timeout, force=force)


@command.command("list")
@params.instance_argument
@params.json_option
def list_(instance: str | None, *, as_json: bool) -> int:
    """List the databases of all instances of this project, or of INSTANCE alone.

    `whole`: made by isoenv. `foreign`: there, and not made by isoenv. `other`: made for another
    instance. `unfinished`: begun by a command that was killed; `isoenv db create` makes it anew.
    `missing`. `unreachable`: the exit code is 1, and the reason is on standard error.

    \b
    Example:
      isoenv db list
      isoenv db list 3 --json
    """
    caller = start.here(instance)
    with start.registry(caller) as registry:
        chosen = list(_chosen(caller, registry, instance))
    looks: list[tuple[Selected, Look]] = []
    failed = False
    for selected, environment in chosen:
        try:
            looks += [(selected, look) for look in lifecycle.look(selected, environment)]
        except IsoenvError as error:
            start.say(f"{selected.context.project.name}/{selected.slot}: {error}")
            failed = True
    if as_json:
        output.write_json({"databases": [_described(*row) for row in looks]})
    elif not looks and not failed:
        start.say("no databases: `[databases.NAME]` in isoenv.toml names one")
    else:
        rows = [_row(*row) for row in looks]
        output.write_table(("SLOT", "NAME", "DATABASE", "WHERE", "STATE", "SIZE", "TEMPLATE"), rows)
    for problem in dict.fromkeys(look.problem for _, look in looks if look.problem):
        start.say(problem)
    return int(failed or any(look.problem for _, look in looks))


@command.command()
@click.argument("name", type=params.DatabaseParam())
@_timeout_option
def freeze(name: str, timeout: float) -> None:
    """Make the template of database NAME one that nobody can connect to.

    So it can be copied at any time. A template that is missing is made from slot 0's database
    first. It needs a name of its own: `template = "shop_template"`.

    \b
    Example:
      isoenv db freeze main
    """
    selected, target = _of_main(name)
    with _at_work():
        lifecycle.freeze(selected, target, start.say, timeout)


@command.command()
@click.argument("name", type=params.DatabaseParam())
@_timeout_option
@_force_option("End the connections to slot 0's database.")
def refresh(name: str, timeout: float, *, force: bool) -> None:
    """Make the frozen template of database NAME anew from slot 0's database.

    The old template stays until the new one is whole. PostgreSQL copies only what nobody is
    connected to, so stop slot 0's services first, or end their connections with --force.

    \b
    Example:
      isoenv db refresh main
      isoenv db refresh main --force
    """
    selected, target = _of_main(name)
    with _at_work():
        lifecycle.refresh(selected, target, start.say, timeout, force=force)


@contextmanager
def _at_work() -> Iterator[None]:
    """Show on a terminal that a copy is being made, which may take minutes."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("copying"):
        yield


def _selected(caller: Caller, instance: str | None, *, lease: bool = True) -> Found:
    """Return an instance that has databases, with its environment."""
    with start.registry(caller) as registry:
        selected = instances.select(caller, registry, instance, lease=lease)
        environment = instances.environment(selected, registry)
    if not environment.databases:
        project = selected.context.project.name
        raise IsoenvError(
            f"{project}/{selected.slot} has no database: "
            "`[databases.main]` in isoenv.toml names one"
        )
    return selected, environment


def _of_main(name: str) -> tuple[Selected, Target]:
    """Return slot 0 and its database of that name."""
    caller = start.here()
    selected, environment = _selected(caller, "0", lease=False)
    for target in targets.of(selected, environment):
        if target.name == name:
            return selected, target
    raise NotFoundError(f"no database {name}: isoenv.toml has {', '.join(environment.databases)}")


def _chosen(caller: Caller, registry: Registry, instance: str | None) -> Iterator[Found]:
    """Yield the instances to be listed: that one, or all of the project."""
    if instance is not None:
        selected = instances.select(caller, registry, instance, lease=False)
        yield selected, instances.environment(selected, registry)
        return
    here = context.find(caller)
    context.require_trust(here)
    for lease in registry.leases(here.project):
        selected = instances.of_lease(caller, lease)
        try:
            context.require_trust(selected.context)
            found = selected, instances.environment(selected, registry)
        except IsoenvError as error:
            start.say(f"{lease.project.name}/{lease.slot} {lease.name}: {error}")
            continue
        yield found


def _described(selected: Selected, look: Look) -> dict[str, object]:
    target, found = look.target, look.found
    lease = selected.lease
    return {
        "project": selected.context.project.name,
        "slot": selected.slot,
        "instance": lease.name if lease else None,
        "name": target.name,
        "kind": "postgresql" if isinstance(target.place, Postgres) else "sqlite",
        "database": _name(target),
        "server": target.place.label if isinstance(target.place, Postgres) else None,
        "state": look.state,
        "size": found.size if found else None,
        "users": list(found.users) if found else [],
        "template": _template(target),
        "problem": look.problem or None,
    }


def _row(selected: Selected, look: Look) -> tuple[str, ...]:
    target, found = look.target, look.found
    place = target.place
    where = place.label if isinstance(place, Postgres) else "file"
    size = _size(found.size) if found and found.size is not None else ""
    slot = str(selected.slot)
    return slot, target.name, _name(target), where, look.state, size, _template(target) or ""


def _name(target: Target) -> str:
    place = target.place
    return place.database if isinstance(place, Postgres) else place.path


def _template(target: Target) -> str | None:
    source = target.template
    if source is None:
        return None
    return source.database if isinstance(source, Postgres) else source.path


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < KILO:
            return f"{size:.0f} {unit}"
        size /= KILO
    return f"{size:.1f} GiB"
