"""What a project's own files say that its instances would meet in: ports, names, addresses."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING

from isoenv import context, files, identity, ports
from isoenv.detection import dotenv, port_table, scan, servers
from isoenv.detection.evidence import LOCAL_PORT, PORT_VARIABLE, number
from isoenv.detection.variables import COMPOSE_VARIABLE
from isoenv.diagnosis import clashes
from isoenv.diagnosis.finding import Finding, title
from isoenv.diagnosis.leases import belongs, evidence
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isoenv.context import Caller, Context
    from isoenv.detection.evidence import Place, Setting, Sighting
    from isoenv.models import Lease

# The files of settings at the top of a checkout that programs read by themselves.
LOADED = (".env", ".env.local", ".env.development", ".env.development.local")


@dataclass(frozen=True, slots=True)
class Examined:
    """A checkout with what it shows, among all ``leases``; ``own`` is its lease, if it has one."""

    here: Context
    root: str
    found: scan.Evidence
    table: port_table.PortTable
    own: Lease | None
    leases: Sequence[Lease]

    @property
    def is_shared(self) -> bool:
        """Whether the project has more than one instance, not counting those that are gone."""
        key = self.here.project.key
        found = (lease for lease in self.leases if lease.project.key == key)
        return sum(not identity.is_gone(lease) for lease in found) > 1

    @property
    def exported(self) -> set[str]:
        """The variables that isoenv sets in each instance."""
        return exported(self.here)

    @property
    def set_by_hand(self) -> set[str]:
        """The variables that the user sets in a file of this checkout's own."""
        return {each.name for each in self.found.settings if each.private}

    def file(self, place: Place) -> str:
        """Return the absolute path of a place's file."""
        return f"{self.root}/{place.file}"


def findings(caller: Caller, leases: Sequence[Lease]) -> Iterator[Finding]:
    """Look at the files of the caller's checkout, and at the settings of all that hold a lease."""
    yield from _settings(caller, leases)
    try:
        here = context.find(caller)
    except IsoenvError as error:
        yield Finding("config", str(error), "`isoenv check`")
        return
    own = next((lease for lease in leases if here.base and lease.root == here.base), None)
    if here.base is None or not (here.configured or own):
        return
    found = scan.scan(here.base)
    table = port_table.build(found, port_table.Values(found.settings))
    examined = Examined(here, here.base, found, table, own, leases)
    yield from _names(examined)
    yield from _fixed_ports(examined)
    yield from _held_ports(examined)


def exported(here: Context) -> set[str]:
    """Return the variables that isoenv sets in each instance of a place."""
    of_ports = {port.variable for port in here.config.ports.values() if port.variable}
    return of_ports | here.config.env.keys()


# -- names -------------------------------------------------------------------------------------


def _names(of: Examined) -> Iterator[Finding]:
    """Find names in compose files that all instances would share."""
    for stack in of.found.stacks:
        for remark in stack.remarks:
            if remark.shares:
                message, _, remedy = remark.message.partition(": ")
                yield _finding(of, "fixed-name", remark.place, message, remedy)
        for named in stack.named:
            if named.variable not in of.exported | of.set_by_hand | {COMPOSE_VARIABLE}:
                message = f"{named.kind} `{named.value}` is one for all instances"
                remedy = f'`{named.variable} = "{named.value}-{{id}}"` in `[env]` of isoenv.toml'
                yield _finding(of, "fixed-name", named.place, message, remedy)
        for place in stack.external:
            message = "made elsewhere, one for all instances: right if they are to share it"
            yield replace(
                _finding(of, "external", place, "a volume or network", message), harmless=True
            )
    if of.found.stacks and COMPOSE_VARIABLE not in exported(of.here):
        stack = of.found.stacks[0]
        name = f"`name: {stack.project}`" if stack.project else "the name of the directory"
        yield Finding(
            "compose-project",
            f"{of.root}/{stack.file}: {name} is what Compose tells instances apart by",
            f'`{COMPOSE_VARIABLE} = "{{project}}-{{id}}"` in `[env]` of isoenv.toml',
            harmless=not (stack.project and of.is_shared),
            file=f"{of.root}/{stack.file}",
        )


def _finding(of: Examined, kind: str, place: Place, message: str, remedy: str) -> Finding:
    """Return a finding that does harm once the project has a second instance."""
    where = f"{of.root}/{place}"
    file = of.file(place)
    harmless = not of.is_shared
    return Finding(
        kind, f"{where}: {message}", remedy, harmless=harmless, file=file, line=place.line
    )


# -- ports -------------------------------------------------------------------------------------


def _fixed_ports(of: Examined) -> Iterator[Finding]:
    """Find ports that are written in a file, or read from a variable that nobody sets."""
    owners = clashes.owners(of.leases)
    by_base = {port.base: port for port in of.here.config.ports.values()}
    named = of.table.by_number
    for sighting in _sightings(of):
        is_read = bool(sighting.variable)
        if not sighting.listens or sighting.port not in named:
            continue
        if is_read and sighting.variable in of.exported | of.set_by_hand:
            continue
        if not is_read and sighting.fixed is None:
            continue
        configured = by_base.get(sighting.port)
        variable = (configured and configured.variable) or named[sighting.port].exported
        if is_read:
            message = f"{sighting.variable} is {sighting.port} in each instance, nothing sets it"
            remedy = (
                f'`{{ base = {sighting.port}, variable = "{sighting.variable}" }}` in `[ports]`'
            )
        else:
            message, _, remedy = port_table.fixed(sighting, sighting.port, variable).partition(": ")
        others = [
            f"{title(lease)} ({name})"
            for lease, name in owners.get(sighting.port, ())
            if lease.project.key != of.here.project.key
        ]
        if others:
            message += f", and reserved by {' and '.join(others[: clashes.NAMED])}"
        found = _finding(
            of, "fixed-port", sighting.place, message, remedy or "let a variable say it"
        )
        yield replace(found, port=sighting.port, harmless=found.harmless and not others)


def _sightings(of: Examined) -> Iterator[Sighting]:
    """Yield each port of a line once."""
    stacks = chain.from_iterable(stack.sightings for stack in of.found.stacks)
    seen: set[tuple[object, int]] = set()
    for sighting in chain(stacks, of.found.sightings):
        if (key := (sighting.place, sighting.port)) not in seen:
            seen.add(key)
            yield sighting


def _held_ports(of: Examined) -> Iterator[Finding]:
    """Find ports that the files name, that no lease has, and that somebody else listens on."""
    leased = {port for lease in of.leases for port in lease.ports.values()}
    wanted = {
        port.base: port
        for port in of.table.ports
        if port.base not in leased and port.exported not in of.exported
    }
    busy = wanted.keys() & ports.listening()
    holders = ports.holders(busy) if busy else {}
    for base in sorted(busy):
        for holder in holders.get(base, [])[:1]:
            inside = f"{holder.cwd or ''}/".startswith(f"{of.root}/")
            if inside or (of.own and belongs(holder, of.own)):
                continue
            place = wanted[base].places[0]
            yield Finding(
                "file-port-held",
                f"{of.root}/{place}: port {base} is held by {evidence(holder)}",
                "end that process, or give the port a name in `[ports]` of isoenv.toml",
                harmless=ports.is_publisher(holder),
                file=of.file(place),
                line=place.line,
                port=base,
                holder=holder,
            )


# -- settings ----------------------------------------------------------------------------------


def _settings(caller: Caller, leases: Sequence[Lease]) -> Iterator[Finding]:
    """Find settings that lead a checkout to a port of another instance."""
    owners = clashes.owners(leases)
    for lease in leases:
        for setting in _loaded(lease.root) if lease.root else ():
            named = [port for port in _ports_of(setting) if port in owners]
            strangers = {
                port: owners[port]
                for port in named
                if all(owner.id != lease.id for owner, _ in owners[port])
            }
            if strangers and setting.name not in _exported_in(caller, lease.root or ""):
                yield from _led_astray(lease, setting, strangers)


def _loaded(root: str) -> Iterator[Setting]:
    for name in LOADED:
        try:
            raw = files.read(f"{root}/{name}", scan.SIZE)
        except IsoenvError:
            continue
        if raw and (b"PORT" in raw.upper() or b":" in raw):
            yield from dotenv.parse(os.fsdecode(raw), name)


def _ports_of(setting: Setting) -> Iterator[int]:
    """Yield the ports of this machine that a setting names."""
    value = servers.with_port(setting.value)
    if PORT_VARIABLE.fullmatch(setting.name) and (port := number(value)):
        yield port
    for _host, text in LOCAL_PORT.findall(value):
        if port := number(text):
            yield port


def _exported_in(caller: Caller, root: str) -> set[str]:
    try:
        return exported(context.find(replace(caller, directory=root)))
    except IsoenvError:
        return set()


def _led_astray(lease: Lease, setting: Setting, owners: clashes.Owners) -> Iterator[Finding]:
    for port, held in owners.items():
        owner, name = held[0]
        own = lease.ports.get(name) if owner.project.key == lease.project.key else None
        yours = f", where {title(lease)} has {own}" if own else f", not of {title(lease)}"
        yield Finding(
            "settings-clash",
            f"{lease.root}/{setting.place}: {setting.name} names port {port}, which is {name} of "
            f"{title(owner)}{yours}",
            f"set {setting.name} in `[env]` of isoenv.toml, or take the line out",
            # A server that all projects share is nobody's to move.
            harmless=owner.project.key != lease.project.key and not owner.slot,
            file=f"{lease.root}/{setting.place.file}",
            line=setting.place.line,
            port=port,
        )
