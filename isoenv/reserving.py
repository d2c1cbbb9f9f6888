"""Which ports a lease reserves, and what speaks against a port.

All of it runs inside a registry transaction. What there is to say is collected as notes, so that
others need not wait while it is found out which process holds a port.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from isoenv import allocator, ports
from isoenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from isoenv.models import Config, Lease
    from isoenv.registry import Registry

HELD = "held by another process"


class Note(NamedTuple):
    """A line for the user; of a port it ends in why it is not to be had."""

    line: str
    port: int | None = None


def tell(say: Callable[[str], None], notes: Iterable[Note]) -> None:
    """Say the notes, with the processes that hold the ports."""
    notes = list(notes)
    held = {port for line, port in notes if port and line.endswith(HELD)}
    found = ports.holders(held) if held else {}
    for line, port in notes:
        if line.endswith(HELD) and port in found:
            say(f"{line.removesuffix(HELD)}held by {ports.describe(found[port][0])}")
        else:
            say(line)


def last_slot(config: Config) -> int:
    """Return the highest slot that the configuration has ports for."""
    if config.numbering.ports == "block":
        return allocator.HIGHEST_SLOT
    return allocator.last_slot(config.ports, config.numbering.stride)


def check_slot(config: Config, slot: int) -> None:
    """Refuse a number whose ports do not exist; everything else a user may ask for."""
    last = last_slot(config)
    if slot <= last:
        return
    for name, port in formula(config, slot).items():
        if port > allocator.HIGHEST_PORT:
            raise UsageError(
                f"slot {slot} has no port for {name}: {port} is above "
                f"{allocator.HIGHEST_PORT}; the last slot is {last}"
            )
    raise UsageError(f"there is no slot {slot}: the last one is {last}")


def formula(config: Config, slot: int) -> dict[str, int]:
    """Return the ports of a slot where they follow from its number; none where blocks do it."""
    if slot and config.numbering.ports == "block":
        return {}
    return allocator.offset_ports(config.ports, config.numbering.stride, slot)


def bases(config: Config) -> dict[int, str]:
    """Return the ports that belong to slot 0, each with what to say of it."""
    if config.numbering.main == "none":
        return {}
    return {port.base: f"the port of {port.name} in slot 0" for port in config.ports.values()}


def planned(registry: Registry, lease: Lease, config: Config) -> Mapping[str, int] | None:
    """Return the ports that the configuration asks for in this lease's slot.

    None when a block, or a place in one, is still to be reserved.
    """
    if lease.slot == 0 or config.numbering.ports == "offset":
        return formula(config, lease.slot)
    positions, blocks = registry.positions(lease.project), registry.blocks(lease)
    try:
        return {
            name: blocks[positions[name] // allocator.BLOCK] + positions[name] % allocator.BLOCK
            for name in config.ports
        }
    except KeyError:
        return None


def conflict(registry: Registry, port: int) -> str | None:
    """Return why a new lease cannot have this port: a reservation, a listener, another user.

    A port that it can have is claimed on this host, until the transaction ends without it.
    """
    if owner := registry.reserved_by(port):
        return f"reserved by {owner}"
    return HELD if ports.is_held(port) else registry.host.seek(port)


def notes_of(skipped: Iterable[allocator.Skip]) -> list[Note]:
    """Return the lines about what was passed over."""
    return [Note(allocator.explain([skip])[0], skip.port) for skip in skipped]


def reserve(registry: Registry, lease: Lease, config: Config, *, probe: bool) -> list[Note]:
    """Reserve the ports that the configuration asks for; what clashes is shared and noted.

    With ``probe`` a listener is a clash too.
    """
    notes: list[Note] = []
    if lease.slot and config.numbering.ports == "block":
        notes = _extend_blocks(registry, lease, config)
    reservations: dict[str, tuple[int, bool]] = {}
    shared = {port for port, shared in registry.reservations(lease) if shared}
    for name, port in (planned(registry, lease, config) or {}).items():
        owner = registry.reserved_by(port, other_than=lease.id)
        claimant = registry.host.claim(port) if lease.slot else None
        reservations[name] = (port, bool(owner or claimant))
        is_known = lease.ports.get(name) == port and (port in shared or not claimant)
        if lease.slot == 0 or is_known:
            continue
        if reason := _clash(port, owner, claimant, probe=probe):
            title = f"port {port} ({name}) of {lease.project.name}:{lease.slot}"
            notes.append(Note(f"{title} is {reason}", port))
    registry.reserve(lease, reservations)
    return notes


def is_claimed(registry: Registry, lease: Lease) -> bool:
    """Whether the other users of this host can see which ports a lease has."""
    return lease.slot == 0 or registry.host.is_whole(registry.reservations(lease))


def _clash(port: int, owner: str | None, claimant: str | None, *, probe: bool) -> str | None:
    if port > allocator.HIGHEST_PORT:
        return f"above {allocator.HIGHEST_PORT}: no server can have it"
    if owner:
        return f"also reserved by {owner}"
    if claimant:
        return f"also {claimant}"
    return HELD if probe and ports.is_held(port) else None


def _extend_blocks(registry: Registry, lease: Lease, config: Config) -> list[Note]:
    """Give every port name a position, and the lease the blocks that its positions lie in."""
    positions = registry.positions(lease.project)
    for name in config.ports:
        if name not in positions:
            positions[name] = max(positions.values(), default=-1) + 1
            registry.add_position(lease.project, name, positions[name])
    blocks = registry.blocks(lease)
    for start in blocks.values():
        for port in range(start, start + allocator.BLOCK):
            registry.host.claim(port)
    needed = {positions[name] // allocator.BLOCK for name in config.ports}
    # Passed over without a word, like slots that are taken.
    others = registry.block_starts()
    notes: list[Note] = []
    for number in sorted(needed - blocks.keys()):
        preference = os.fsencode(f"{lease.project.key}\0{lease.slot}\0{number}")
        start, skipped = allocator.choose_block(
            allocator.block_starts(config.numbering.range, preference),
            lambda port: conflict(registry, port),
        )
        notes += notes_of(
            each for each in skipped if each.port - each.port % allocator.BLOCK not in others
        )
        registry.add_block(lease, number, start)
    return notes
