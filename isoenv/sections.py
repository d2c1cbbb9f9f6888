"""The tables of ``isoenv.toml``, each checked and turned into the types of the models."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isoenv import names, reserved
from isoenv.models import Config, Database, Flag, Numbering, Port, Service
from isoenv.tables import NAME, did_you_mean, dotted, quote, spell, spell_or

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from isoenv.tables import Fields, Table

PORTS = (1, 65535)
DAY = 86400
PROJECT_LENGTH = 64

_PLAIN = ("id", "name", "project", "root", "home")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_HEALTH = re.compile(r"https?://[^/\s]\S*|tcp:(?:\d+|\{[^{}]+\})")


def read(root: Table) -> Config:
    """Read the top-level table; problems go to its ``report``, and defaults take their place."""
    root.report_unknown(
        *("project", "extends", "instance", "ports", "env", "dirs", "path", "setup", "flags"),
        *("templates", "services", "databases", "limits"),
    )
    variables = _Variables()
    numbering = _numbering(root.table("instance"), variables)
    ports = _ports(root.table("ports"), variables)
    fields: Fields = dict.fromkeys((*_PLAIN, *(f"ports.{name}" for name in ports)))
    if numbering.dir is not None:
        root.table("instance").check_path("dir", numbering.dir, fields)
    dirs = _dirs(root.table("dirs"), variables, fields)
    flags = _flags(root.table("flags"), variables)
    fields |= dict.fromkeys(f"dirs.{name}" for name in dirs)
    fields |= dict.fromkeys(f"env.{name}" for name in variables.owners)
    env = _env(root.table("env"), variables, fields)
    setup = root.table("setup")
    setup.report_unknown("copy", "run")
    return Config(
        project=_project(root),
        numbering=numbering,
        ports=ports,
        env=env,
        dirs=dirs,
        path_prepend=_path(root.table("path"), fields),
        setup_copy=_copied(setup),
        setup_run=setup.texts("run"),
        flags=flags,
        templates=_templates(root.table("templates")),
        services=_services(root.table("services"), fields),
        databases=_databases(root.table("databases"), fields),
        limits=_limits(root.table("limits")),
    )


class _Variables:
    """The variables of the environment, each with the key that sets it."""

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}

    def add(self, table: Table, key: str, name: str) -> None:
        """Add a variable that this key sets, or report what speaks against it."""
        if not _VARIABLE.fullmatch(name):
            table.report(key, f"no variable name: {spell(name)}: expected `{_VARIABLE.pattern}`")
            return
        owner = self.owners.get(name)
        twice = f"is already set by {quote(owner)}: set it once" if owner else None
        if objection := reserved.objection(name) or twice:
            table.report(key, objection if key == name else f"{name} {objection}")
        else:
            place = table.path if table.path[0] == "ports" else (*table.path, key)
            self.owners[name] = dotted(place)


def _project(root: Table) -> str | None:
    name = root.text("project")
    if name is None:
        return None
    plain = name.isprintable() and name == name.strip() and not set(name) & {":", "/"}
    if not plain or name.isdecimal() or len(name) > PROJECT_LENGTH:
        expected = (
            f"at most {PROJECT_LENGTH} printable characters without `:` and `/`, and no number"
        )
        root.report("project", f"expected {expected}, got {spell(name)}")
    return name


def _numbering(table: Table, variables: _Variables) -> Numbering:
    table.report_unknown("variable", "prefer", "ports", "stride", "range", "main", "dir")
    default = Numbering()
    if variable := table.text("variable"):
        variables.add(table, "variable", variable)
    return Numbering(
        variable=variable,
        prefer=table.choice("prefer", ("lowest", "cksum"), default.prefer),
        ports=table.choice("ports", ("offset", "block"), default.ports),
        stride=table.integer("stride", *PORTS, default.stride),
        range=_range(table, default.range),
        main=table.choice("main", (0, "none"), default.main),
        dir=table.text("dir"),
    )


def _range(table: Table, default: tuple[int, int]) -> tuple[int, int]:
    value = table.entries.get("range", list(default))
    if isinstance(value, list) and [type(port) for port in value] == [int, int]:
        low, high = value
        if PORTS[0] <= low <= high - 10 <= PORTS[1] - 10:
            return low, high
    expected = "two ports from 1 to 65535, at least 10 apart, such as [20000, 32759]"
    table.report("range", f"expected {expected}, got {spell(value)}")
    return default


def _ports(table: Table, variables: _Variables) -> dict[str, Port]:
    ports: dict[str, Port] = {}
    names_by_base: dict[int, str] = {}
    for name in table.entries:
        _check_name(table, name)
        port = table.table(name, "a port or a table such as { base = 80 }")
        port.report_unknown("base", "variable")
        base = 0
        if "base" in port.entries:
            base = port.integer("base", *PORTS, 0)
        elif isinstance(table.entries[name], dict):
            port.report("base", "`base` is missing: the port of slot 0")
        if base and names_by_base.setdefault(base, name) != name:
            other = names_by_base[base]
            port.report("base", f"port {base} is already {quote(other)}: give each port its own")
        ports[name] = Port(name, base, _port_variable(port, name, variables))
    return ports


def _port_variable(port: Table, name: str, variables: _Variables) -> str | None:
    value = port.entries.get("variable", f"{name.upper().replace('-', '_')}_PORT")
    if value is False:
        return None
    variable = port.check_text("variable", value, "a variable name or false")
    # A wrong port name makes no right variable; one message is enough.
    if variable and ("variable" in port.entries or NAME.fullmatch(name)):
        variables.add(port, "variable", variable)
    return variable


def _dirs(table: Table, variables: _Variables, fields: Fields) -> dict[str, str]:
    dirs: dict[str, str] = {}
    for name in table.entries:
        variables.add(table, name, name)
        dirs[name] = text = table.text(name) or ""
        table.check_path(name, text, fields)
    return dirs


def _flags(table: Table, variables: _Variables) -> dict[str, Flag]:
    flags: dict[str, Flag] = {}
    for name in table.entries:
        variables.add(table, name, name)
        flag = table.table(name, "a table such as { main = true }")
        flag.report_unknown("main", "others", "exclusive")
        flags[name] = found = Flag(name, *map(flag.boolean, ("main", "others", "exclusive")))
        if found.exclusive and found.others:
            flag.report("others", "true with `exclusive`, which is on in one instance only")
    return flags


def _env(table: Table, variables: _Variables, fields: Fields) -> dict[str, str | Literal[False]]:
    """Read ``[env]`` in order; its names are added to ``fields`` on the way."""
    env: dict[str, str | Literal[False]] = {}
    for name in table.entries:
        variables.add(table, name, name)
        fields[f"env.{name}"] = "is set further down: move it up"
    for name, value in table.entries.items():
        if value is False:
            env[name] = False
            fields[f"env.{name}"] = f"is unset by {quote(f'{name} = false')}"
            continue
        fields[f"env.{name}"] = "is this variable itself: use an earlier one"
        text = table.check_text(name, value, "a string in quotes or false", empty=True)
        env[name] = text = text or ""
        table.check_template(name, text, fields)
        fields[f"env.{name}"] = None
    return env


def _path(table: Table, fields: Fields) -> tuple[str, ...]:
    table.report_unknown("prepend")
    entries = table.texts("prepend")
    for entry in entries:
        if ":" in entry:
            table.report("prepend", f"`:` in {spell(entry)}: make it two entries")
        table.check_path("prepend", entry, fields)
    return entries


def _copied(setup: Table) -> tuple[str, ...]:
    files = setup.texts("copy")
    for file in files:
        setup.check_inside("copy", file)
    return files


def _templates(table: Table) -> dict[str, str]:
    templates: dict[str, str] = {}
    for target in table.entries:
        if table.check_text(target, target, "the path of a file"):
            table.check_inside(target, target)
        templates[target] = source = table.text(target) or ""
        if source.startswith("/"):
            table.report(target, f"expected a path relative to the checkout, got {spell(source)}")
        elif source == target:
            table.report(target, "is its own template: render it to another file")
    return templates


def _services(table: Table, fields: Fields) -> dict[str, Service]:
    services = {name: _service(table, name, fields) for name in table.entries}
    graph: dict[str, list[str]] = {}
    for name, service in services.items():
        for other in service.requires:
            if other not in services:
                hint = did_you_mean(other, services) or f"expected {spell_or(services)}"
                table.table(name).report("requires", f"no service {quote(other)}: {hint}")
        graph[name] = [other for other in service.requires if other in services]
    if circle := _circle(graph):
        text = " requires ".join(dotted([name]) for name in circle)
        table.table(circle[0]).report("requires", f"goes round in a circle: {text}")
    return services


def _service(services: Table, name: str, fields: Fields) -> Service:
    _check_name(services, name)
    table = services.table(name)
    table.report_unknown("run", "start", "stop", "health", "start_timeout", "requires")
    given = table.entries.keys()
    if isinstance(services.entries[name], dict) and ("run" in given) == ("start" in given):
        got = "both" if "run" in given else "neither"
        table.report("start", f"expected either `run` or `start` and `stop`, got {got}")
    elif "start" in given and "stop" not in given:
        table.report("stop", "`stop` is missing: the command that ends what `start` began")
    elif "run" in given and "stop" in given:
        table.report("stop", "goes with `start`: a `run` process is ended by isoenv")
    return Service(
        name,
        run=_command(table, "run", fields),
        start=_command(table, "start", fields),
        stop=_command(table, "stop", fields),
        health=_health(table, fields),
        start_timeout=_seconds(table, "start_timeout", Service(name).start_timeout),
        requires=table.texts("requires"),
    )


def _command(table: Table, key: str, fields: Fields) -> str | tuple[str, ...] | None:
    value = table.entries.get(key)
    if isinstance(value, list):
        words = table.texts(key, empty=True)
        if not (words and words[0]):
            table.report(key, "expected a command, got an empty one")
        for word in words:
            table.check_template(key, word, fields)
        return words
    if value is None or table.check_text(key, value, "a string or a list of strings") is None:
        return None
    table.check_template(key, str(value), fields)
    return str(value)


def _health(table: Table, fields: Fields) -> str | None:
    health = table.text("health")
    if health is None:
        return None
    place = health.removeprefix("tcp:")
    if not _HEALTH.fullmatch(health) or (place.isdecimal() and not 1 <= int(place[:6]) <= PORTS[1]):
        expected = "`http://…`, `https://…` or `tcp:PORT`"
        table.report("health", f"expected {expected}, got {spell(health)}")
    else:
        table.check_template("health", health, fields)
    return health


def _seconds(table: Table, key: str, default: float) -> float:
    value = table.entries.get(key, default)
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value <= DAY:
        return float(value)
    table.report(key, f"expected seconds, more than 0 and at most {DAY}, got {spell(value)}")
    return default


def _databases(table: Table, fields: Fields) -> dict[str, Database]:
    databases: dict[str, Database] = {}
    for name in table.entries:
        table.check_name(name)
        database = table.table(name)
        database.report_unknown("url", "template", "shared")
        if isinstance(table.entries[name], dict) and "url" not in database.entries:
            database.report("url", "`url` is missing: a postgresql:// or sqlite:/// address")
        url, template = database.text("url") or "", database.text("template")
        database.check_template("url", url, fields)
        database.check_template("template", template or "", fields)
        databases[name] = Database(name, url, template, database.boolean("shared"))
    return databases


def _limits(table: Table) -> dict[str, int]:
    return {name: table.integer(name, 0, None, 0) for name in table.entries}


def _check_name(table: Table, name: str) -> None:
    """Report a port or a service that the command line could not name."""
    if name in names.SERVICE_ACTIONS:
        table.report(name, "is an action of the command line: choose another name")
    else:
        table.check_name(name)


def _circle(graph: Mapping[str, list[str]]) -> list[str]:
    """Return the names of services that require each other, the first one again at the end."""
    from graphlib import CycleError, TopologicalSorter

    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        circle: list[str] = error.args[1]
        return circle[::-1]
    return []
