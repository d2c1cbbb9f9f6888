"""From a configuration and an instance to its environment. Pure: values in, values out."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from isoenv import template
from isoenv.errors import NotFoundError
from isoenv.models import Environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from isoenv.models import Config, Database, Instance

# How the names of parameters end whose values nobody is shown.
SECRETS = ("password", "passwd")


def resolve(config: Config, instance: Instance, home: str) -> Environment:
    """Compute the environment of ``instance``.

    With ``main = "none"`` slot 0 gets no variable at all: the main checkout is left alone.
    """
    if instance.slot == 0 and config.numbering.main == "none":
        return Environment(instance)
    variables: dict[str, str | None] = {
        "ISOENV_PROJECT": instance.project.name,
        "ISOENV_INSTANCE": str(instance.slot),
        "ISOENV_NAME": instance.name,
        "ISOENV_ROOT": instance.root,
        "ISOENV_DIR": instance.dir,
    }
    if config.numbering.variable:
        variables[config.numbering.variable] = str(instance.slot)
    for port in config.ports.values():
        if port.variable and port.name in instance.ports:
            variables[port.variable] = str(instance.ports[port.name])
    for name in config.flags:
        variables[name] = "true" if instance.flags.get(name) else "false"
    dirs: dict[str, str] = {}
    look = _lookup(instance, home, dirs, variables)
    for name, text in config.dirs.items():
        dirs[name] = variables[name] = _absolute(template.expand(text, look), instance.root)
    for name, value in config.env.items():
        variables[name] = None if value is False else template.expand(value, look)
    databases = {
        name: replace(
            database,
            url=template.expand(database.url, look),
            template=database.template and template.expand(database.template, look),
        )
        for name, database in config.databases.items()
    }
    for database in list(databases.values()):
        _cut_name(database, databases, variables, config.env)
    return Environment(
        instance,
        variables,
        tuple(
            _absolute(template.expand(entry, look), instance.root) for entry in config.path_prepend
        ),
        dirs,
        {name: value for name, value in variables.items() if value and is_url(value)},
        databases,
    )


def instance_dir(text: str, instance: Instance, home: str) -> str:
    """Expand the ``dir`` of ``[instance]``, for an instance that does not have it yet."""
    return _absolute(template.expand(text, _lookup(instance, home, {}, {})), instance.root)


def lookup(environment: Environment, home: str) -> Callable[[str], str]:
    """Return what a template's fields stand for in a computed environment."""
    return _lookup(environment.instance, home, environment.dirs, environment.variables)


def is_url(value: str) -> bool:
    """Whether a value reads as ``scheme://…``."""
    scheme, separator, rest = value.partition("://")
    return bool(separator and rest) and scheme.isascii() and scheme.replace("+", "").isalnum()


def mask(url: str) -> str:
    """Return a URL with the passwords in it replaced by ``***``, also those of its query."""
    scheme, separator, rest = url.partition("://")
    # First the query: an @ in it ends no password.
    rest = _mask_query(rest)
    url = f"{scheme}{separator}{rest}"
    credentials, at, place = rest.rpartition("@")
    user, colon, password = credentials.partition(":")
    if not (separator and at and colon and password) or "/" in user:
        return url
    # `localhost:3000/@vite` has an @ behind a port. A password may hold anything, even a slash.
    port, slash, _ = password.partition("/")
    return url if slash and port.isdecimal() else f"{scheme}://{user}:***@{place}"


def _mask_query(url: str) -> str:
    """Replace the values of parameters such as ``password`` and ``sslpassword``."""
    place, mark, query = url.partition("?")
    pairs = (pair.partition("=") for pair in query.split("&"))
    shown = (
        f"{key}=***" if value and _is_secret(key) else f"{key}{equals}{value}"
        for key, equals, value in pairs
    )
    return f"{place}{mark}{'&'.join(shown)}"


def _is_secret(key: str) -> bool:
    if "%" in key:
        from urllib.parse import unquote

        key = unquote(key)
    return key.lower().endswith(SECRETS)


def _cut_name(
    database: Database,
    databases: dict[str, Database],
    variables: dict[str, str | None],
    names: Iterable[str],
) -> None:
    """Put a short name for one that PostgreSQL would cut, also where the program reads it."""
    from isoenv.databases import address

    for long, short in address.long_names(database.url):
        for name in names:
            value = variables[name]
            variables[name] = value and value.replace(long, short)
        for name, other in databases.items():
            databases[name] = replace(other, url=other.url.replace(long, short))


def _lookup(
    instance: Instance,
    home: str,
    dirs: Mapping[str, str],
    variables: Mapping[str, str | None],
) -> Callable[[str], str]:
    plain = {
        "id": str(instance.slot),
        "name": instance.name,
        "project": instance.project.name,
        "root": instance.root,
        "home": home,
    }

    def look(field: str) -> str:
        table, _, key = field.partition(".")
        if table == "ports":
            return str(_port(instance, key))
        if table == "dirs":
            return dirs[key]
        if table == "env":
            return variables[key] or ""
        return plain[field]

    return look


def _port(instance: Instance, name: str) -> int:
    if name in instance.ports:
        return instance.ports[name]
    # A checkout that is gone cannot reserve what was added to the configuration since.
    title = f"{instance.project.name}/{instance.slot} {instance.name}"
    raise NotFoundError(f"no port {name} is reserved for {title}: `isoenv release` gives it back")


def _absolute(path: str, root: str) -> str:
    joined = path if path.startswith("/") else f"{root.rstrip('/')}/{path}"
    parts: list[str] = []
    for part in joined.split("/"):
        if part == "..":
            parts[-1:] = []
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
