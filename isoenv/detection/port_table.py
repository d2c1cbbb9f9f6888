"""From the ports that the files name to the ``[ports]`` of a configuration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from isoenv import names, reserved
from isoenv.detection import servers
from isoenv.detection.evidence import (
    LOCAL_HOSTS,
    LOCAL_PORT,
    PORT_VARIABLE,
    Place,
    Remark,
    Setting,
    Sighting,
    name_in_variable,
    number,
    port_name,
)
from isoenv.detection.interpolation import expand

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.detection.scan import Evidence

# More than a person would name.
PORTS = 100

_HOSTS = ("HOST", "HOSTNAME", "SERVER", "ADDRESS", "ADDR")
_FRAMEWORKS = re.compile(
    r"^(?:NEXT_(?:PUBLIC|PRIVATE)|NUXT(?:_PUBLIC)?|VITE|REACT_APP|EXPO_PUBLIC|GATSBY|PUBLIC)_"
)
_ENDINGS = re.compile(r"(?:_(?:BASE|URL|URI|ENDPOINT|HOST|ORIGIN|DSN|ADDR|ADDRESS|SERVER))+$")
_ADDRESS = re.compile(r"(?:URL|URI|ENDPOINT|HOST|ORIGIN|DSN|ADDR|ADDRESS|SERVER)$")


@dataclass(frozen=True, slots=True)
class NamedPort:
    """A port of the configuration. ``variable`` is None where it is NAME_PORT."""

    name: str
    base: int
    variable: str | None
    places: tuple[Place, ...]

    @property
    def exported(self) -> str:
        """The variable that it is exported as."""
        return self.variable or _default_variable(self.name)


@dataclass
class PortTable:
    """The ports, and what else the numbers show.

    ``aliases`` are variables that hold a port which is exported as another one. ``shared`` are
    ports of servers that nothing here starts, with their kind: all instances use one.
    """

    ports: list[NamedPort] = field(default_factory=list)
    aliases: dict[str, str] = field(default_factory=dict)
    shared: dict[int, tuple[str, Place]] = field(default_factory=dict)
    remarks: list[Remark] = field(default_factory=list)

    @property
    def by_number(self) -> dict[int, NamedPort]:
        """The ports by their number in slot 0."""
        return {port.base: port for port in self.ports}


class Values:
    """The settings that hold in each directory, expanded."""

    def __init__(self, settings: Sequence[Setting]) -> None:
        """Take the settings, the stronger ones first."""
        self._known: dict[str, Mapping[str, str]] = {}
        self.settings: dict[tuple[str, str], Setting] = {}
        for setting in settings:
            stronger = self.settings.setdefault((setting.place.directory, setting.name), setting)
            if stronger.private and stronger.value == setting.value:
                # The user's own is no other: what everybody has is the better place to name.
                self.settings[setting.place.directory, setting.name] = setting

    def of(self, setting: Setting) -> str | None:
        """Return the value of a setting, None where it refers to what nobody sets."""
        if setting.literal:
            return servers.with_port(setting.value)
        value = expand(setting.value, self._around(setting.place.directory))
        return None if value is None else servers.with_port(value)

    def host(self, setting: Setting) -> str | None:
        """Return the host that stands beside a port or a database name, None for none."""
        around = self._around(setting.place.directory)
        words = setting.name.split("_")
        for length in range(len(words) - 1, 0, -1):
            for ending in _HOSTS:
                if (found := around.get("_".join((*words[:length], ending)))) is not None:
                    return expand(found, around) or ""
        return None

    def _around(self, directory: str) -> Mapping[str, str]:
        if directory not in self._known:
            by_place: dict[str, dict[str, str]] = {place: {} for place in ("", directory)}
            for (where, name), setting in self.settings.items():
                if where in by_place:
                    by_place[where][name] = setting.value
            self._known[directory] = {**by_place[""], **by_place[directory]}
        return self._known[directory]


def build(evidence: Evidence, values: Values) -> PortTable:
    """Give each number one name and one variable."""
    return _Builder(evidence, values).table()


class _Builder:
    def __init__(self, evidence: Evidence, values: Values) -> None:
        self._values = values
        self._table = PortTable()
        of_stacks = chain.from_iterable(stack.sightings for stack in evidence.stacks)
        self._sightings = [*of_stacks, *evidence.sightings]

    def table(self) -> PortTable:
        for setting in self._values.settings.values():
            self._see_variable(setting)
        for setting in self._values.settings.values():
            self._see_address(setting)
        conflicts = self._conflicts()
        by_number: dict[int, list[Sighting]] = {}
        for sighting in self._sightings:
            if sighting.port in by_number or len(by_number) < PORTS:
                by_number.setdefault(sighting.port, []).append(sighting)
        # Those with a variable have their name from it: they choose first.
        chosen = {
            port: next((s.variable for s in seen if self._is_usable(s.variable, conflicts)), None)
            for port, seen in by_number.items()
        }
        # Whatever a variable means elsewhere, a port that only looks like it must not set it.
        taken = {name.upper() for _, name in self._values.settings}
        taken |= {seen.variable.upper() for seen in self._sightings if seen.variable}
        named: dict[int, str] = {}
        for port in sorted(by_number, key=lambda port: chosen[port] is None):
            name = name_in_variable(chosen[port] or "") or by_number[port][0].name
            named[port] = _free_name(name, port, chosen[port], named, taken)
        for port, seen in by_number.items():
            self._add(named[port], port, chosen[port], seen, conflicts)
        self._remark_conflicts(conflicts)
        return self._table

    def _is_usable(self, variable: str | None, conflicts: Mapping[str, object]) -> bool:
        return bool(variable) and not (variable in conflicts or reserved.objection(variable or ""))

    def _add(
        self,
        name: str,
        base: int,
        variable: str | None,
        seen: list[Sighting],
        conflicts: Mapping[str, object],
    ) -> None:
        explicit = None if variable == _default_variable(name) else variable
        places = tuple(dict.fromkeys(sighting.place for sighting in seen))
        port = NamedPort(name, base, explicit, places)
        self._table.ports.append(port)
        for sighting in seen:
            other = sighting.variable
            if other and other != port.exported and self._is_usable(other, conflicts):
                self._table.aliases[other] = name
            if sighting.fixed is not None:
                self._remark(sighting.place, fixed(sighting, port.base, port.exported))
        if not any(sighting.listens for sighting in seen):
            message = f"nothing here says who listens on {base}: start it on `${port.exported}`"
            self._remark(places[0], message)

    def _see_variable(self, setting: Setting) -> None:
        """Take a variable such as ``WEB_PORT=3000`` for a port, if it is one of this checkout."""
        if not PORT_VARIABLE.fullmatch(setting.name):
            return
        value = self._values.of(setting)
        port = number(value)
        if port is None:
            if (value or "").strip("0123456789 -") == "" and value:
                self._remark(setting.place, f"{setting.name} is no port from 1 to 65535: left out")
            return
        host = None if setting.name == "PORT" else self._values.host(setting)
        known = {sighting.port for sighting in self._sightings}
        if any(sighting.variable == setting.name for sighting in self._sightings):
            pass  # read by what is published or started here, whatever else it means
        elif host and host not in LOCAL_HOSTS:
            # Another machine's, or, by the name of a service, one inside the containers.
            return
        elif port not in known and self._is_shared(setting, "", port, host):
            return
        where = setting.place.directory.rpartition("/")[2]
        name = name_in_variable(setting.name) or (port_name(where) if where else "web")
        self._sightings.append(Sighting(port, setting.place, name, setting.name))

    def _is_shared(self, setting: Setting, value: str, port: int, host: str | None) -> bool:
        kind = servers.kind(setting.name, value, port)
        if port in servers.MAIL and host not in LOCAL_HOSTS:
            return True
        if kind is not None:
            self._table.shared.setdefault(port, (kind, setting.place))
        return kind is not None

    def _see_address(self, setting: Setting) -> None:
        """Take the port of ``API_URL=http://localhost:4000`` for one of this checkout."""
        value = self._values.of(setting) or ""
        found = LOCAL_PORT.findall(value)
        port = number(found[0][1]) if len(found) == 1 else None
        if port is None or not _ADDRESS.search(setting.name):
            return
        known = any(sighting.port == port for sighting in self._sightings)
        if known or self._is_shared(setting, value, port, "localhost"):
            return
        name = _ENDINGS.sub("", _FRAMEWORKS.sub("", setting.name))
        self._sightings.append(Sighting(port, setting.place, port_name(name), listens=False))

    def _conflicts(self) -> dict[str, list[Sighting]]:
        """Return the variables that hold different numbers in different places."""
        found: dict[str, dict[int, Sighting]] = {}
        for sighting in self._sightings:
            if sighting.variable:
                found.setdefault(sighting.variable, {}).setdefault(sighting.port, sighting)
        return {name: list(by.values()) for name, by in found.items() if len(by) > 1}

    def _remark_conflicts(self, conflicts: Mapping[str, list[Sighting]]) -> None:
        exported = {port.base: port.exported for port in self._table.ports}
        for variable, seen in conflicts.items():
            kept = [each for each in seen if each.port in exported]
            how = " or ".join(f"`{variable}=${exported[each.port]}`" for each in kept)
            elsewhere = " and ".join(f"{other.port} in {other.place}" for other in kept[1:])
            if elsewhere:
                message = f"{variable} is {kept[0].port} here and {elsewhere}"
                self._remark(kept[0].place, f"{message}: start each with its own, {how}")

    def _remark(self, place: Place, message: str) -> None:
        self._table.remarks.append(Remark(place, message))


def _default_variable(name: str) -> str:
    return f"{name.upper().replace('-', '_')}_PORT"


def _free_name(
    name: str, port: int, variable: str | None, named: Mapping[int, str], taken: set[str]
) -> str:
    """Return a name that no port has yet, and whose own variable, where it counts, is free."""

    def is_taken() -> bool:
        clash = variable is None and _default_variable(name) in taken
        return clash or name in named.values()

    if name in names.SERVICE_ACTIONS:
        name = f"{name}_service"
    if reserved.objection(_default_variable(name)):
        name = f"port_{name}"
    if name not in named.values() and is_taken():
        name = f"{name}_host"
    while is_taken():
        name = f"{name}_{port}"
    if variable is None:
        taken.add(_default_variable(name))
    return name


def fixed(sighting: Sighting, base: int, variable: str) -> str:
    """Return what is wrong with a number that is written in a file, and how it is moved."""
    before, after = sighting.fixed or ("", "")
    if not before:
        return f"{base} is fixed here, in each instance"
    return f"{base} is fixed here: `{before}${{{variable}:-{base}}}{after}` moves it"
