"""Whether the databases of a configuration are another one in each instance. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import resolver
from isoenv.databases import address
from isoenv.models import Instance, Project

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.databases.address import Place
    from isoenv.models import Config, Environment

# A template that is a file of SQL.
DUMP = "file:"


def objections(config: Config) -> Iterator[tuple[str, str, str]]:
    """Yield the database, the key and what is wrong with it, as two made-up instances show."""
    one, other = (resolver.resolve(config, _made_up(config, slot), "/home") for slot in (1, 2))
    for name, database in one.databases.items():
        try:
            place = place_of(one, name)
        except ValueError as error:
            yield name, "url", str(error)
            continue
        if not database.shared and place.identity == place_of(other, name).identity:
            hint = "put `{id}` or `{name}` into its name, or say `shared = true`"
            yield name, "url", f"is the same database for every instance: {hint}"
        template = database.template or ""
        if "://" in template and not (
            isinstance(place, address.Sqlite) and template.startswith("sqlite:")
        ):
            yield name, "template", "expected the name of a database or `file:seed.sql`, got a URL"
        elif template == DUMP:
            yield name, "template", "no file behind `file:`: expected `file:seed.sql`"


def place_of(environment: Environment, name: str) -> Place:
    """Return where an instance's database is; raises ValueError for a URL that names none."""
    place = address.parse(environment.databases[name].url)
    if isinstance(place, address.Postgres):
        return address.shortened(place).filled(environment.variables)
    return place.at(environment.instance.root)


def _made_up(config: Config, slot: int) -> Instance:
    # The ports need not be right, but another one in each instance.
    ports = {name: slot * 1000 + number for number, name in enumerate(config.ports)}
    name = config.project or "project"
    root = f"/made/up/{slot}"
    return Instance(Project(name, name), slot, f"instance-{slot}", root, f"{root}/dir", ports)
