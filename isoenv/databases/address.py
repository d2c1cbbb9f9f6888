"""What the URL of a database says: the server and the name in it, or the file. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isoenv.databases import naming

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# The variables that fill in what a URL leaves out, by libpq's name for the parameter.
VARIABLES = {
    "host": "PGHOST",
    "hostaddr": "PGHOSTADDR",
    "port": "PGPORT",
    "user": "PGUSER",
    "password": "PGPASSWORD",
    "passfile": "PGPASSFILE",
    "sslmode": "PGSSLMODE",
    "sslrootcert": "PGSSLROOTCERT",
    "sslcert": "PGSSLCERT",
    "sslkey": "PGSSLKEY",
}
SECRETS = ("password", "sslpassword")

_PORT = 5432
_SCHEME = re.compile(r"(postgresql|postgres|sqlite)(?:\+[A-Za-z0-9_]+)?://(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:([^@/]*)@)?([^/]*)(?:/(.*))?", re.DOTALL)
# SQLAlchemy lets a password hold a slash, libpq does not.
_SLASH_IN_PASSWORD = re.compile(r"([^:/@]*:[^@]*)@([^/]*)(?:/(.*))?", re.DOTALL)
_HOSTS = re.compile(r"(?:\[[^\]]*\]|[^:,]*)(?::(\d*))?")


@dataclass(frozen=True, slots=True)
class Postgres:
    """A database on a PostgreSQL server; ``parameters`` are libpq's, without name and secrets."""

    database: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def server(self) -> tuple[str, str]:
        """Host and port, which tell one server from another."""
        host = self.parameters.get("host") or self.parameters.get("hostaddr") or "localhost"
        return host, self.parameters.get("port") or str(_PORT)

    @property
    def label(self) -> str:
        """The server as people name it."""
        host, port = self.server
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    @property
    def identity(self) -> tuple[str, ...]:
        """What two instances must not have in common."""
        return ("postgresql", *self.server, self.database)

    def __str__(self) -> str:
        """Return how people name it."""
        return f"{self.database} on {self.label}"

    def filled(self, variables: Mapping[str, str | None]) -> Postgres:
        """Return it with what the instance's own PG variables say where the URL is silent."""
        known = {**self.parameters, **self.secrets}
        found = {
            name: value
            for name, variable in VARIABLES.items()
            if name not in known and (value := variables.get(variable))
        }
        return _postgres(self.database, {**known, **found})

    def hide(self, text: str) -> str:
        """Return a text without any of the secrets."""
        for secret in self.secrets.values():
            text = text.replace(secret, "***") if secret else text
        return text


@dataclass(frozen=True, slots=True)
class Sqlite:
    """A SQLite database: the path of its file, relative to the checkout's root or absolute."""

    path: str

    @property
    def identity(self) -> tuple[str, ...]:
        """What two instances must not have in common."""
        return "sqlite", self.path

    def __str__(self) -> str:
        """Return how people name it."""
        return self.path

    def at(self, root: str) -> Sqlite:
        """Return it with an absolute path, without ``.`` and ``..``."""
        joined = self.path if self.path.startswith("/") else f"{root.rstrip('/')}/{self.path}"
        parts: list[str] = []
        for part in joined.split("/"):
            if part == "..":
                parts[-1:] = []
            elif part not in ("", "."):
                parts.append(part)
        return Sqlite("/" + "/".join(parts))


Place = Postgres | Sqlite


def parse(url: str) -> Place:
    """Read a URL as libpq and SQLAlchemy do.

    Raises ValueError with what was expected, never with the URL: it may hold a password.
    """
    found = _SCHEME.fullmatch(url)
    if found is None:
        raise ValueError("expected `postgresql://…/NAME`, `sqlite:///PATH` or `sqlite:////PATH`")
    rest, _, query = found[2].partition("?")
    if found[1] == "sqlite":
        return _sqlite(rest)
    credentials, hosts, raw_name = _split(rest)
    parameters = dict(_credentials(credentials))
    parameters |= _hosts(hosts)
    parameters |= _query(query)
    name = parameters.pop("dbname", None) or _decode(raw_name)
    if not name:
        raise ValueError("no name of a database behind the host: `postgresql://host/NAME`")
    if "\0" in name:
        raise ValueError("NUL in the name of the database")
    return _postgres(name, parameters)


def long_names(url: str) -> Iterator[tuple[str, str]]:
    """Yield what a name that is too long is to be replaced by in texts: as written, and decoded."""
    found = _SCHEME.fullmatch(url)
    if found is None or found[1] == "sqlite":
        return
    raw = _split(found[2].partition("?")[0])[2]
    name = _decode(raw)
    short = naming.cut(name)
    if short != name:
        from urllib.parse import quote

        if raw != name:
            yield raw, quote(short, safe="", errors="surrogateescape")
        yield name, short


def shortened(place: Postgres) -> Postgres:
    """Return it with a name that the server does not cut."""
    return replace(place, database=naming.cut(place.database))


def _postgres(name: str, parameters: Mapping[str, str]) -> Postgres:
    return Postgres(
        name,
        {key: value for key, value in parameters.items() if key not in SECRETS},
        {key: value for key, value in parameters.items() if key in SECRETS},
    )


def _sqlite(rest: str) -> Sqlite:
    # SQLAlchemy decodes nothing here, and knows no host.
    if not rest.startswith("/"):
        raise ValueError(
            "expected `sqlite:///PATH`, relative to the checkout, or `sqlite:////PATH`"
        )
    path = rest[1:]
    if not path or path == ":memory:" or path.startswith("file:"):
        raise ValueError("no file of a database: expected `sqlite:///PATH` or `sqlite:////PATH`")
    if path.endswith("/"):
        raise ValueError("the path of a database ends with `/`: expected that of a file")
    return Sqlite(path)


def _split(rest: str) -> tuple[str, str, str]:
    """Return credentials, hosts and the name as written."""
    found = _AUTHORITY.fullmatch(rest)
    assert found is not None  # noqa: S101  # every part of it may be empty
    if found[1] is None and not _are_hosts(found[2]):
        found = _SLASH_IN_PASSWORD.fullmatch(rest) or found
    elif "@" in found[2]:
        # A password with @ in it: the last one in front of the slash ends it.
        head, _, tail = found[2].rpartition("@")
        return f"{found[1]}@{head}", tail, found[3] or ""
    return found[1] or "", found[2], found[3] or ""


def _are_hosts(text: str) -> bool:
    return all(_HOSTS.fullmatch(part) for part in text.split(","))


def _credentials(text: str) -> Iterator[tuple[str, str]]:
    user, colon, password = text.partition(":")
    if user:
        yield "user", _decode(user)
    if colon and password:
        yield "password", _decode(password)


def _hosts(text: str) -> dict[str, str]:
    """Return one host, or several as libpq takes them, and their ports."""
    if not _are_hosts(text):
        raise ValueError("the host of the URL is none: `postgresql://user@host:5432/NAME`")
    hosts, ports = [], []
    for part in text.split(","):
        host, _, port = part.rpartition("]")[2].partition(":")
        hosts.append(_decode(part[1 : part.index("]")] if part.startswith("[") else host))
        ports.append(port)
    found = {}
    if any(hosts):
        found["host"] = ",".join(hosts)
    if any(ports):
        found["port"] = ",".join(ports)
    return found


def _query(text: str) -> dict[str, str]:
    found = {}
    for pair in filter(None, text.split("&")):
        key, _, value = pair.partition("=")
        found[_decode(key)] = _decode(value)
    return found


def _decode(text: str) -> str:
    if "%" not in text:
        return text
    from urllib.parse import unquote

    return unquote(text, errors="surrogateescape")
