"""From the settings of a checkout to the ``[env]`` of a configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote

from isoenv import reserved
from isoenv.detection.evidence import LOCAL_HOSTS, LOCAL_PORT, Place, Remark, Setting

if TYPE_CHECKING:
    from isoenv.detection.port_table import PortTable, Values
    from isoenv.detection.scan import Evidence

COMPOSE_VARIABLE = "COMPOSE_PROJECT_NAME"

# More than a person would keep.
VARIABLES = 200

# Stands for the slot while a value is made: a character that nobody uses.
_SLOT = "\ue000"
_DATABASE = re.compile(
    r"(?:.*_)?(?:DB|DATABASE|POSTGRES|POSTGRESQL|PG|MYSQL|MARIADB|MONGO|MONGODB)"
    r"_?(?:DB|DATABASE|NAME|DB_NAME|DBNAME)"
)
_SQL = frozenset({"postgres", "mysql", "mssql", "mongodb", "clickhouse", "database"})
_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
# The database in a URL: `postgres://user@host:5432/` and the name after it.
_URL_DATABASE = re.compile(r"([a-z][a-z0-9+]*://[^/?#\s]*:\d+/)([A-Za-z][A-Za-z0-9_-]*)(?=[?#]|$)")
_REDIS = re.compile(r"(rediss?://[^/?#\s]*:\d+)(?:/0?)?$")
# An address of this machine that leaves out the usual port.
_PORTLESS = re.compile(r"(http(s?)://(?:localhost|127\.0\.0\.1))(/[\w./-]*)?")
_NUMBERED = re.compile(r"(.*[A-Za-z][_-])0")
_CREDENTIALS = re.compile(r"\b([a-z][a-z0-9+]*)://([^/@\s:]*)(?::([^/@\s]*))?@", re.IGNORECASE)
_TELLTALE = ("key", "token", "secret", "pass", "sig", "auth")
_PLAIN = re.compile(r"[^\s{}\"'<>]+")


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable of the configuration: its template, and where its value comes from."""

    name: str
    value: str
    places: tuple[Place, ...]
    comment: str = ""


@dataclass
class Variables:
    """The variables, what could not be made one of them, and what is the user's own affair."""

    variables: list[Variable] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    asides: list[Remark] = field(default_factory=list)


def build(evidence: Evidence, values: Values, table: PortTable) -> Variables:
    """Rewrite each setting that names a port or a database of this checkout."""
    return _Builder(evidence, values, table).build()


class _Builder:
    def __init__(self, evidence: Evidence, values: Values, table: PortTable) -> None:
        self._evidence = evidence
        self._values = values
        self._table = table
        self._instance = evidence.instance[0] if evidence.instance else None
        self._literals = evidence.literals
        self._ports = {port.base: port.name for port in table.ports}
        self._exported = {port.exported for port in table.ports}
        self._shares_sql = any(kind in _SQL for kind, _ in table.shared.values())
        self._found = Variables()

    def build(self) -> Variables:
        by_name: dict[str, list[Variable]] = {}
        ordered = sorted(
            self._evidence.settings,
            key=lambda each: (each.private, each.place.directory, each.place.file, each.place.line),
        )
        seen: set[tuple[str, str]] = set()
        for setting in ordered:
            key = (setting.place.directory, setting.name)
            if key in seen or setting.name in (*self._exported, COMPOSE_VARIABLE, self._instance):
                continue
            seen.add(key)
            if variable := self._variable(self._values.settings[key]):
                by_name.setdefault(setting.name, []).append(variable)
        for name, found in list(by_name.items())[:VARIABLES]:
            self._add(name, found)
        return self._found

    def _add(self, name: str, found: list[Variable]) -> None:
        first, *others = found
        if objection := reserved.objection(name):
            self._remark(first.places[0], f"{name} {objection.partition(':')[0]}: left out")
        elif other := next((each for each in others if each.value != first.value), None):
            message = f"{name} has another value in {other.places[0]}: left out"
            self._remark(first.places[0], message)
        else:
            places = tuple(place for each in found for place in each.places)
            self._found.variables.append(Variable(name, first.value, places, first.comment))

    def _variable(self, setting: Setting) -> Variable | None:
        if alias := self._table.aliases.get(setting.name):
            return Variable(setting.name, f"{{ports.{alias}}}", (setting.place,))
        value = self._value(setting)
        if value is None or (made := self._rewritten(setting, value)) is None:
            self._see_portless(setting, value or "")
            return None
        if setting.private and self._is_secret(value):
            return self._without_secret(setting)
        template, comment = made
        return Variable(setting.name, template, (setting.place,), comment)

    def _see_portless(self, setting: Setting, value: str) -> None:
        """Say that an address leaves out a port that is another one in each instance."""
        match = _PORTLESS.fullmatch(value)
        name = match and self._ports.get(443 if match[2] else 80)
        # Not rewritten: with `:80` it would be another origin to browsers in slot 0.
        if match and name:
            address = f"{match[1]}:{{ports.{name}}}{match[3] or ''}"
            message = f"{setting.name} is slot 0's address in each instance"
            self._remark(
                setting.place, f'{message}: `{setting.name} = "{address}"` in [env] moves it'
            )

    def _value(self, setting: Setting) -> str | None:
        """Return the expanded value, with the slot where it names the instance's variable."""
        name, text = self._instance, setting.value
        if _SLOT in text:
            return None
        if name and not setting.literal:
            reference = rf"\$(?:\{{{name}(?::?[-?][^{{}}$]*)?\}}|{name}\b)"
            text = re.sub(reference, _SLOT, text)
        return self._values.of(Setting(setting.name, text, setting.place, literal=setting.literal))

    def _without_secret(self, setting: Setting) -> Variable | None:
        """Fall back to the value that the repository shares, if there is one."""
        shared = next(
            (
                each
                for each in self._evidence.settings
                if not each.private
                and (each.name, each.place.directory) == (setting.name, setting.place.directory)
            ),
            None,
        )
        message = f"{setting.name} holds a secret: your own value belongs in isoenv.local.toml"
        self._found.asides.append(Remark(setting.place, message))
        return self._variable(shared) if shared else None

    def _rewritten(self, setting: Setting, value: str) -> tuple[str, str] | None:
        """Return the template of a value and a comment on it; None if it stays as it is."""
        if setting.private and not _PLAIN.fullmatch(value.replace(_SLOT, "0")):
            return None
        text, comment = self._with_database(setting, value)
        if self._instance and (match := _NUMBERED.fullmatch(text.partition("?")[0])):
            text = text.replace(match[0], f"{match[1]}{_SLOT}", 1)
        text = text.replace("{", "{{").replace("}", "}}")
        text = LOCAL_PORT.sub(self._port, text).replace(_SLOT, "{id}")
        plain = value.replace("{", "{{").replace("}", "}}")
        return (text, comment) if text != plain else None

    def _port(self, match: re.Match[str]) -> str:
        name = self._ports.get(int(match[2]))
        return f"{match[1]}{{ports.{name}}}" if name else match[0]

    def _with_database(self, setting: Setting, value: str) -> tuple[str, str]:
        """Give each instance a database of its own where all use one server."""
        found = LOCAL_PORT.findall(value)
        shared = self._table.shared.get(int(found[0][1])) if len(found) == 1 else None
        if shared and _SLOT not in value:
            kind = shared[0]
            if kind == "redis" and (match := _REDIS.fullmatch(value)):
                return f"{match[1]}/{_SLOT}", "one server for all: Redis has databases 0 to 15"
            if kind in _SQL and (match := _URL_DATABASE.match(value)):
                text = f"{match[1]}{_numbered(match[2])}{value[match.end() :]}"
                return text, f"one server for all, slot 0 has {match[2]}_0"
        if self._shares_sql and _DATABASE.fullmatch(setting.name) and _IDENTIFIER.fullmatch(value):
            host = self._values.host(setting)
            if host is None or host in LOCAL_HOSTS:
                return _numbered(value), f"one server for all, slot 0 has {value}_0"
        return value, ""

    def _is_secret(self, value: str) -> bool:
        """Whether a value of the user's own holds what the repository does not show."""
        keys = (pair.partition("=")[0].lower() for pair in value.partition("?")[2].split("&"))
        if any(word in key for key in keys for word in _TELLTALE):
            return True
        for scheme, user, password in _CREDENTIALS.findall(value):
            known = {"", user, *self._literals}
            if unquote(password) not in known or (not password and scheme.startswith("http")):
                return True
        return False

    def _remark(self, place: Place, message: str) -> None:
        self._found.remarks.append(Remark(place, message))


def _numbered(name: str) -> str:
    return f"{name.removesuffix('_0')}_{_SLOT}"
