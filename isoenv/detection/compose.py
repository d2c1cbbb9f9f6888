"""Compose files: published ports, and the fixed names that all instances would share.

YAML is read into nodes, not values: nodes know their lines, `5432:5432` stays text, and what an
alias or a merge repeats is not built anew each time.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from isoenv.detection.evidence import (
    LOCAL_HOSTS,
    Place,
    Remark,
    Sighting,
    name_in_variable,
    number,
    port_name,
)
from isoenv.detection.interpolation import expand, variable_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# More than a person would name; ranges and services above are passed over with a remark.
PORTS, RANGE = 60, 10

_FILE = re.compile(r"(?:docker-)?compose((?:[.-][\w.-]+)?)\.ya?ml")
_ELSEWHERE = frozenset(
    {"prod", "production", "staging", "stage", "test", "tests", "testing", "ci", "e2e", "deploy"}
)
_PROTOCOL = re.compile(r"/(?:tcp|udp)$")
# What the second port of a service is for, by the container's own number.
_PURPOSES = {
    "25": "smtp",
    "80": "http",
    "443": "https",
    "1025": "smtp",
    "8025": "web",
    "9001": "console",
    "15672": "management",
}


@dataclass(frozen=True)
class Named:
    """A name that a file reads from ``variable``, and what it is where nobody sets that."""

    variable: str
    value: str
    kind: str
    place: Place


@dataclass(frozen=True)
class Stack:
    """What a compose file shows. ``literals`` are values that everybody can read in it.

    ``project`` is the name that the file gives itself, ``external`` what it uses of others.
    ``named`` are names of containers, volumes and networks that are read from a variable.
    """

    file: str
    services: tuple[str, ...] = ()
    project: str | None = None
    external: tuple[Place, ...] = ()
    sightings: list[Sighting] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    literals: set[str] = field(default_factory=set)
    named: list[Named] = field(default_factory=list)


def is_compose(name: str) -> bool:
    """Whether a file of this name is for Compose, and for work on this machine."""
    match = _FILE.fullmatch(name)
    return bool(match) and not _ELSEWHERE & set(re.split(r"[._-]", match[1] if match else ""))


def parse(text: str, file: str, values: Mapping[str, str]) -> Stack:
    """Read a compose file; ``values`` are those of the .env beside it.

    Raises ValueError, with the line, for what is no YAML.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ValueError(f"line {line}: {error.problem}") from None
    except yaml.YAMLError:
        raise ValueError("a character that YAML does not allow") from None
    except RecursionError:
        raise ValueError("nested too deep") from None
    return _Reader(file, values).stack(root)


class _Reader:
    def __init__(self, file: str, values: Mapping[str, str]) -> None:
        self._file = file
        self._values = values
        self._known: dict[int, dict[str, Node]] = {}

    def stack(self, root: Node | None) -> Stack:
        top = self._entries(root)
        services = self._entries(top.get("services"))
        shared = [
            (kind.removesuffix("s"), self._entries(entry))
            for kind in ("volumes", "networks")
            for entry in self._entries(top.get(kind)).values()
        ]
        external = (_external(entries) for _, entries in shared)
        places = tuple(self._place(node) for node in external if node)
        stack = Stack(self._file, tuple(services), _text(top.get("name")), places)
        for name, service in services.items():
            entries = self._entries(service)
            stack.literals.update(self._environment(entries.get("environment")))
            self._see_ports(stack, name, entries.get("ports"))
            self._see_container_name(stack, entries.get("container_name"))
        for kind, entries in shared:
            self._see_shared(stack, kind, entries)
        return stack

    def _entries(self, node: Node | None) -> dict[str, Node]:
        """Return a mapping's own entries and those it merges, each mapping looked at once."""
        if not isinstance(node, MappingNode):
            return {}
        if id(node) in self._known:
            return self._known[id(node)]
        self._known[id(node)] = {}  # for one that merges itself
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                continue
            if key.value == "<<":
                for part in value.value if isinstance(value, SequenceNode) else [value]:
                    merged = self._entries(part) | merged
            else:
                own[key.value] = value
        self._known[id(node)] = merged | own
        return self._known[id(node)]

    @staticmethod
    def _items(node: Node | None) -> list[Node]:
        return node.value if isinstance(node, SequenceNode) else []

    def _place(self, node: Node) -> Place:
        return Place(self._file, node.start_mark.line + 1)

    def _environment(self, node: Node | None) -> Iterator[str]:
        if isinstance(node, SequenceNode):
            for item in node.value:
                yield (_text(item) or "").partition("=")[2]
        for value in self._entries(node).values():
            yield _text(value) or ""

    def _see_container_name(self, stack: Stack, node: Node | None) -> None:
        name = _text(node)
        self._see_named(stack, "container_name", node)
        if node and name and "$" not in name:
            message = f"container_name `{name}` is one for all instances: take the line out"
            stack.remarks.append(Remark(self._place(node), message, shares=True))

    def _see_shared(self, stack: Stack, kind: str, entries: Mapping[str, Node]) -> None:
        node = entries.get("name")
        name = _text(node)
        if not _external(entries):
            self._see_named(stack, kind, node)
        if node and name and not _external(entries) and "$" not in name:
            message = f"the {kind} `{name}` is one for all instances: take the `name` out"
            stack.remarks.append(Remark(self._place(node), message, shares=True))
        for pool in self._items(self._entries(entries.get("ipam")).get("config")):
            subnet = self._entries(pool).get("subnet")
            text = _text(subnet)
            if subnet and text and "$" not in text:
                message = f"the subnet `{text}` is one for all instances: let Docker choose"
                stack.remarks.append(Remark(self._place(subnet), message, shares=True))

    def _see_named(self, stack: Stack, kind: str, node: Node | None) -> None:
        text = _text(node) or ""
        variable, value = variable_of(text), expand(text, self._values)
        if node and variable and value:
            stack.named.append(Named(variable, value, kind, self._place(node)))

    def _see_ports(self, stack: Stack, service: str, node: Node | None) -> None:
        for item in self._items(node):
            if len(stack.sightings) >= PORTS:
                message = f"more than {PORTS} published ports: the rest is left out"
                stack.remarks.append(Remark(self._place(item), message))
                return
            taken = any(seen.name == port_name(service) for seen in stack.sightings)
            published = self._published(item)
            if published:
                for sighting in self._sightings(stack, service, published, taken=taken):
                    stack.sightings.append(sighting)

    def _published(self, item: Node) -> _Published | None:
        """Return what a short or a long entry publishes, None for a port that Docker chooses."""
        place = self._place(item)
        if isinstance(item, MappingNode):
            entries = self._entries(item)
            host, target = _text(entries.get("published")), _text(entries.get("target"))
            return _Published(place, host, target or "", ('published: "', '"')) if host else None
        text = _PROTOCOL.sub("", _text(item) or "")
        parts = _split(text)
        if len(parts) not in (2, 3) or not parts[-2]:
            return None
        before = "".join(f"{part}:" for part in parts[:-2])
        return _Published(place, parts[-2], parts[-1], (f'"{before}', f':{parts[-1]}"'))

    def _sightings(
        self, stack: Stack, service: str, published: _Published, *, taken: bool
    ) -> Iterator[Sighting]:
        place, host = published.place, published.host
        variable = variable_of(host)
        container = expand(published.container, self._values) or ""
        name = port_name(service)
        if taken:
            name = port_name(f"{service}_{_PURPOSES.get(container, container)}")
        text = expand(host, self._values)
        if text is None and variable:
            text = container  # without a default, most people give the same number
        address, colon, number_ = (text or "").rpartition(":")
        if variable and colon and address in LOCAL_HOSTS and (port := number(number_)):
            # The variable holds an address with the port, and is rewritten as such.
            yield Sighting(port, place, name)
            return
        low, dash, high = (text or "").partition("-")
        first, last = number(low), number(high if dash else low)
        if first is None or last is None or last < first:
            message = f"`{host[:40]}` is no port from 1 to 65535: left out"
            stack.remarks.append(Remark(place, message))
        elif last - first >= RANGE:
            message = f"`{text}` is {last - first + 1} ports: left out, name those that matter"
            stack.remarks.append(Remark(place, message))
        elif dash:
            for port in range(first, last + 1):
                yield Sighting(port, place, port_name(f"{service}_{port}"), fixed=("", ""))
        elif variable:
            yield Sighting(first, place, name_in_variable(variable) or name, variable)
        else:
            yield Sighting(first, place, name, fixed=published.around)


@dataclass(frozen=True)
class _Published:
    place: Place
    host: str
    container: str
    around: tuple[str, str]


def _external(entries: Mapping[str, Node]) -> Node | None:
    """Return what says that a volume or network is made elsewhere: true, or its name there."""
    node = entries.get("external")
    return node if node and _text(node) != "false" else None


def _text(node: Node | None) -> str | None:
    return node.value if isinstance(node, ScalarNode) else None


def _split(text: str) -> list[str]:
    """Cut at the colons outside of `${…}` and `[…]`."""
    parts, depth = [""], 0
    for char in text:
        depth += (char in "{[") - (char in "}]")
        if char == ":" and depth == 0:
            parts.append("")
        else:
            parts[-1] += char
    return parts
