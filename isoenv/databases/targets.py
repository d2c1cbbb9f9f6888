"""From a selected instance to its databases: where each is, whose, and what it starts as."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isoenv import checkout, resolver
from isoenv.databases import address, isolation, marks, naming
from isoenv.errors import ConfigError, IsoenvError

if TYPE_CHECKING:
    from isoenv.databases.address import Place
    from isoenv.databases.marks import Mark
    from isoenv.instances import Selected
    from isoenv.models import Database, Environment, Lease


@dataclass(frozen=True, slots=True)
class Dump:
    """A new database starts with the SQL of this file."""

    path: str


@dataclass(frozen=True, slots=True)
class Target:
    """A database of an instance.

    ``template`` is the database that a new one is a copy of, or a dump; None for an empty one.
    ``lease`` is None for what no instance holds: shared ones, templates, unleased numbers.
    """

    name: str
    place: Place
    mark: Mark
    template: Place | Dump | None = None
    lease: Lease | None = None

    @property
    def is_main(self) -> bool:
        """Whether it is slot 0's, or everybody's: nothing to be dropped by the way."""
        return self.mark.seat in ("0", marks.SHARED)


def of(selected: Selected, environment: Environment) -> list[Target]:
    """Return the databases of an instance, in the order of the configuration."""
    found = [_target(selected, environment, name) for name in environment.databases]
    _refuse_common_files(selected, environment, found)
    return found


def template_of(target: Target, project_key: str) -> Target:
    """Return the template of a database as a target of its own; ``target`` is slot 0's.

    Raises IsoenvError where there is none that could be frozen.
    """
    if target.template is None or isinstance(target.template, Dump):
        got = "a file" if target.template else "none, or slot 0's own database"
        raise IsoenvError(
            f"the template of database {target.name} is {got}: `template` with a name of its own "
            "can be frozen"
        )
    title = target.mark.title.replace(f"{target.name} of", f"template {target.name} of")
    return Target(
        target.name, target.template, marks.mark(project_key, marks.TEMPLATE, title), target.place
    )


def _target(selected: Selected, environment: Environment, name: str) -> Target:
    database, instance = environment.databases[name], environment.instance
    try:
        place = isolation.place_of(environment, name)
    except ValueError as error:
        raise ConfigError(f"databases.{name}.url: {error}") from None
    seat = marks.SHARED if database.shared else str(instance.slot)
    title = f"{name} of {instance.project.name}/{instance.slot} {instance.name}"
    return Target(
        name,
        place,
        marks.mark(instance.project.key, seat, title),
        _template(selected, environment, database, place),
        None if database.shared else selected.lease,
    )


def _template(
    selected: Selected, environment: Environment, database: Database, place: Place
) -> Place | Dump | None:
    """Return what a new database starts as; nothing can be a copy of itself."""
    text = database.template
    if not text:
        return None
    roots = [environment.instance.root]
    if main := _main_root(selected):
        roots.append(main)
    if text.startswith(isolation.DUMP):
        return Dump(_found(text.removeprefix(isolation.DUMP), roots, None))
    if isinstance(place, address.Postgres):
        named = replace(place, database=naming.cut(text))
        return None if named.database == place.database else named
    try:
        file = address.parse(text) if "://" in text else address.Sqlite(text)
    except ValueError as error:
        raise ConfigError(f"databases.{database.name}.template: {error}") from None
    assert isinstance(file, address.Sqlite)  # noqa: S101  # checked with the configuration
    found = _found(file.path, roots, place.path)
    return None if found == place.path else address.Sqlite(found)


def _found(path: str, roots: list[str], other_than: str | None) -> str:
    """Return where a file is: in the checkout, else in the main one, which has what git ignores."""
    candidates = [address.Sqlite(path).at(root).path for root in roots]
    for candidate in candidates:
        if candidate != other_than and os.path.exists(candidate):
            return candidate
    return candidates[-1] if other_than else candidates[0]


def _main_root(selected: Selected) -> str | None:
    found = selected.context.checkout
    if found is None or found.is_main:
        return None
    parent, name = os.path.split(checkout.project_dir(found))
    return parent if name == ".git" else None


def _refuse_common_files(selected: Selected, environment: Environment, found: list[Target]) -> None:
    """Refuse a file that a bare number would have in common with the checkout it is named from.

    A checkout's relative path is its own; a number that no checkout holds has no directory.
    """
    here, instance = selected.context, environment.instance
    if selected.lease and selected.lease.token:
        return
    other = replace(instance, slot=instance.slot + 1, name=f"{instance.name}+")
    theirs = resolver.resolve(here.config, other, here.caller.home)
    for target in found:
        if target.mark.seat == marks.SHARED or not isinstance(target.place, address.Sqlite):
            continue
        if target.place == isolation.place_of(theirs, target.name):
            raise IsoenvError(
                f"{target.place} would be database {target.name} of every number: "
                "put `{id}` into its url"
            )
