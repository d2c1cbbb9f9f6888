"""The text of an ``isoenv.toml`` that is made of what a checkout shows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from isoenv import reserved
from isoenv.detection import port_table, stride, variables
from isoenv.detection.evidence import Place
from isoenv.detection.variables import Variable
from isoenv.models import Port

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isoenv.detection.evidence import Remark
    from isoenv.detection.port_table import NamedPort, PortTable
    from isoenv.detection.scan import Evidence

# How many of the places that name a port a comment lists.
PLACES = 3

_EMPTY = """
# Nothing here names a port: no compose file, .env, Procfile or script of package.json.
# For example:
#
# [ports]
# web = 3000
#
# [env]
# WEB_URL = "http://localhost:{ports.web}"
"""
_COMPOSE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")


@dataclass(frozen=True, slots=True)
class Proposal:
    """A configuration, what has to change in the project's own files, and asides.

    Asides are about what was not read, and about settings that are the user's own.
    """

    text: str
    todo: tuple[Remark, ...] = ()
    asides: tuple[Remark, ...] = ()

    @property
    def remarks(self) -> tuple[Remark, ...]:
        """All that a person should know."""
        return (*self.asides, *self.todo)


def make(evidence: Evidence, project: str) -> Proposal:
    """Return the configuration that a checkout asks for."""
    values = port_table.Values(evidence.settings)
    table = port_table.build(evidence, values)
    found = variables.build(evidence, values, table)
    env = [*_compose_project(evidence, values, project), *_compose_names(evidence)]
    named = {variable.name for variable in env}
    env += [variable for variable in found.variables if variable.name not in named]
    of_stacks = [remark for stack in evidence.stacks for remark in stack.remarks]
    remarks = tuple(dict.fromkeys((*of_stacks, *table.remarks, *found.remarks)))
    blocks = [
        _pair("project", project),
        _instance(evidence, table.ports),
        _ports(table.ports),
        _env(env),
        _shared(table),
        _remarks(remarks),
    ]
    text = "\n".join(f"{block}\n" for block in blocks if block)
    if not (table.ports or env):
        text += _EMPTY
    return Proposal(text, remarks, (*evidence.unread, *found.asides))


def _compose_project(
    evidence: Evidence, values: port_table.Values, project: str
) -> Iterable[Variable]:
    if not evidence.stacks:
        return
    own = values.settings.get(("", variables.COMPOSE_VARIABLE))
    name = (own and values.of(own)) or project
    if name == project and _COMPOSE_NAME.fullmatch(project):
        name = "{project}"
    else:
        name = re.sub(r"[^a-z0-9_-]+", "-", name.lower()).strip("-_") or "project"
    places = tuple(Place(stack.file, 1) for stack in evidence.stacks)
    comment = "containers and volumes of its own for each, slot 0 too"
    yield Variable(variables.COMPOSE_VARIABLE, f"{name}-{{id}}", places, comment)


def _compose_names(evidence: Evidence) -> Iterable[Variable]:
    """Yield the variables that containers, volumes and networks are named by."""
    found: dict[str, Variable] = {}
    for named in chain.from_iterable(stack.named for stack in evidence.stacks):
        name = named.variable
        if name == variables.COMPOSE_VARIABLE or reserved.objection(name):
            continue
        mark = "_" if "_" in named.value and "-" not in named.value else "-"
        value = named.value.replace("{", "{{").replace("}", "}}")
        known = found.get(name)
        places = (*known.places, named.place) if known else (named.place,)
        found[name] = Variable(name, f"{value}{mark}{{id}}", places)
    return found.values()


def _instance(evidence: Evidence, ports: Sequence[NamedPort]) -> str:
    rows = []
    if evidence.instance:
        name, place = evidence.instance
        rows.append(f"{_pair('variable', name)} # in use: {_clean(str(place))}")
    if ports:
        step, reason = stride.choose({p.name: Port(p.name, p.base, None) for p in ports})
        rows.append(f"{_pair('stride', step)} # {reason}")
    return "\n".join(("[instance]", *rows)) if rows else ""


def _ports(ports: Sequence[NamedPort]) -> str:
    if not ports:
        return ""
    rows = ["[ports] # of slot 0; slot N has N * stride more"]
    for port in ports:
        long = {"base": port.base, "variable": port.variable}
        value = _pair(port.name, port.base)
        if port.variable:
            value = f"{port.name} = {_inline(long)}"
        rows.append(f"{value} # {_places(port.places)}")
    return "\n".join(rows)


def _env(env: Sequence[Variable]) -> str:
    if not env:
        return ""
    rows = ["[env]"]
    for variable in env:
        comments = [part for part in (_places(variable.places), _clean(variable.comment)) if part]
        rows.append(f"{_pair(variable.name, variable.value)} # {': '.join(comments)}")
    return "\n".join(rows)


def _shared(table: PortTable) -> str:
    rows = [
        f"# - {kind}: {port} ({_clean(str(place))})"
        for port, (kind, place) in sorted(table.shared.items())
        if port not in table.by_number
    ]
    if not rows:
        return ""
    return "\n".join(("# Nothing here starts these servers, so all instances use one:", *rows))


def _remarks(remarks: Sequence[Remark]) -> str:
    if not remarks:
        return ""
    rows = ["# Still to do in the project's own files, or the instances meet:"]
    rows += [f"# - {_clean(str(remark))}" for remark in remarks]
    return "\n".join(rows)


def _places(places: Sequence[Place]) -> str:
    text = ", ".join(str(place) for place in places[:PLACES])
    return _clean(text + (", …" if len(places) > PLACES else ""))


def _pair(key: str, value: object) -> str:
    import tomli_w

    return tomli_w.dumps({key: value}).rstrip("\n")


def _inline(table: Mapping[str, object]) -> str:
    return "{ " + ", ".join(_pair(key, value) for key, value in table.items()) + " }"


def _clean(text: str) -> str:
    """Return text that may stand in a comment: a name of a file may hold any byte."""
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode()
        for char in text
    )
