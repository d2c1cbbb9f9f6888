"""How a checkout, or a bare number, comes to hold a slot and its ports.

Everything is decided and written in one registry transaction. A lease that exists is never moved
by itself: open shells, OAuth settings and databases hang on its ports.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isoenv import allocator, checkout, ports
from isoenv.errors import IsoenvError, UsageError
from isoenv.names import RESERVED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isoenv.models import Checkout, Config, Lease, Project
    from isoenv.registry import Registry

LAST_BLOCK_SLOT = 9999


@dataclass(frozen=True, slots=True)
class Claim:
    """What asks for a lease: a project, its configuration, and the checkout if there is one.

    ``base`` is the directory that the environment is for: the checkout's root, or the directory
    of an ``isoenv.toml`` below it. ``say`` gets each line that the user should read.
    """

    project: Project
    config: Config
    checkout: Checkout | None
    base: str
    say: Callable[[str], None]


def find(registry: Registry, claim: Claim) -> Lease | None:
    """Return the lease that the claim's checkout holds, changing nothing."""
    if claim.checkout is None or (token := checkout.read_token(claim.checkout)) is None:
        return None
    for lease in registry.with_token(token.value):
        if _same_project(lease.project, claim.project) and not _is_copy(lease, claim.checkout):
            return lease
    return None


def hold(registry: Registry, claim: Claim, slot: int | None = None) -> Lease:
    """Return the lease of the claim's checkout, taking one where it has none.

    ``slot`` decides a new lease only; it moves none.
    """
    if claim.checkout is None:
        raise UsageError("no checkout here: `isoenv exec 1 …` names an instance by number")
    lease = find(registry, claim)
    if lease and _is_settled(registry, lease, claim):
        return lease
    if not checkout.back_pointer_holds(claim.checkout):
        _refuse_copied_pointer(claim.checkout)
    with registry.transaction():
        lease = find(registry, claim)
        token = _token(registry, claim.checkout, lease)
        if lease is None:
            lease = _insert(registry, claim, slot, token)
        elif lease.project.key != claim.project.key:
            registry.move_project(lease.project, claim.project)
        registry.settle(lease, claim.checkout, claim.base, token.value)
        _reserve(registry, lease, claim)
        found = registry.with_slot(claim.project, lease.slot)
        assert found is not None  # noqa: S101  # it was just written
        entries = {**token.entries, claim.project.key: (found.slot, found.name)}
        checkout.write_token(claim.checkout, replace(token, entries=entries))
    return found


def hold_number(registry: Registry, claim: Claim, slot: int) -> Lease:
    """Return the lease of a slot that no checkout needs to hold, taking it where it is free."""
    lease = registry.with_slot(claim.project, slot)
    if lease and (lease.token or lease.ports == planned(registry, lease, claim)):
        return lease
    with registry.transaction():
        lease = registry.with_slot(claim.project, slot)
        if lease is None:
            check_slot(claim.config, slot)
            name = _free_name(registry, claim.project, f"{claim.project.name}-{slot}")
            lease = registry.insert(claim.project, slot, name)
            _reserve(registry, lease, claim, probe=True)
        elif lease.token is None:
            _reserve(registry, lease, claim)
        found = registry.with_slot(claim.project, slot)
    assert found is not None  # noqa: S101  # it was just written
    return found


def take(registry: Registry, claim: Claim, slot: int | None, name: str | None) -> Lease:
    """Give the claim's checkout this slot, this name, or both; its former slot is given back."""
    if name is not None:
        checkout.check_name(name, RESERVED)
    lease = hold(registry, claim, slot)
    with registry.transaction():
        if slot is not None and lease.slot != slot:
            lease = _move(registry, claim, lease, slot)
        if name is not None and lease.name != name:
            if other := registry.with_name(claim.project, name):
                raise IsoenvError(
                    f"the name {name} is taken by slot {other.slot} of {claim.project.name}: "
                    f"`isoenv list`"
                )
            registry.rename(lease, name)
        found = registry.with_slot(claim.project, lease.slot)
        assert found is not None  # noqa: S101  # it was just written
        _write_entry(claim, found)
    return found


def check_slot(config: Config, slot: int) -> None:
    """Refuse a number whose ports do not exist; everything else a user may ask for."""
    if config.numbering.ports == "block":
        return
    stride = config.numbering.stride
    for name, port in allocator.offset_ports(config.ports, stride, slot).items():
        if port > allocator.HIGHEST_PORT:
            last = allocator.last_slot(config.ports, stride)
            raise UsageError(
                f"slot {slot} has no port for {name}: {port} is above "
                f"{allocator.HIGHEST_PORT}; the last slot is {last}"
            )


def give_back(registry: Registry, lease: Lease) -> None:
    """Release a lease; its checkout, if it is still there, forgets the slot."""
    with registry.transaction():
        registry.delete(lease)


def planned(registry: Registry, lease: Lease, claim: Claim) -> Mapping[str, int] | None:
    """Return the ports that the configuration asks for in this lease's slot.

    None when a block, or a place in one, is still to be reserved.
    """
    config = claim.config
    if lease.slot == 0 or config.numbering.ports == "offset":
        return allocator.offset_ports(config.ports, config.numbering.stride, lease.slot)
    positions, blocks = registry.positions(lease.project), registry.blocks(lease)
    try:
        return {
            name: blocks[positions[name] // allocator.BLOCK] + positions[name] % allocator.BLOCK
            for name in config.ports
        }
    except KeyError:
        return None


def _same_project(known: Project, asked: Project) -> bool:
    """Whether it is the same project, perhaps one known by a path that has changed since."""
    if known.key == asked.key:
        return True
    paths = known.key.startswith("/") and asked.key.startswith("/")
    return paths and known.key.partition("//")[2] == asked.key.partition("//")[2]


def _is_copy(lease: Lease, place: Checkout) -> bool:
    """Whether ``place`` carries the token of another checkout that still exists.

    A copy (`cp -a`) has the token and another inode, while the old git dir is where it was. When
    the old one is gone, the checkout was moved to another file system.
    """
    directory = place.git_dir or place.root
    identity = os.stat(directory)
    if (identity.st_dev, identity.st_ino) == (lease.device, lease.inode):
        return False
    if lease.git_dir is None or lease.git_dir == directory:
        return False
    return checkout.is_gone(lease.git_dir, lease.device, lease.inode) is False


def _is_settled(registry: Registry, lease: Lease, claim: Claim) -> bool:
    assert claim.checkout is not None  # noqa: S101  # the callers have one
    directory = claim.checkout.git_dir or claim.checkout.root
    identity = os.stat(directory)
    return (
        lease.project.key == claim.project.key
        and lease.root == claim.base
        and lease.git_dir == directory
        and (lease.device, lease.inode) == (identity.st_dev, identity.st_ino)
        and lease.ports == planned(registry, lease, claim)
    )


def _refuse_copied_pointer(place: Checkout) -> None:
    """Refuse a directory whose ``.git`` file was copied together with its contents."""
    try:
        with open(f"{place.git_dir}/gitdir", "rb") as file:
            owner = os.path.dirname(os.fsdecode(file.read().removesuffix(b"\n")))
    except OSError:
        return
    if os.path.exists(owner) and not os.path.samefile(owner, place.root):
        raise IsoenvError(
            f"{place.root}/.git belongs to {owner}: `git worktree add` makes a checkout of its own"
        )


def _token(registry: Registry, place: Checkout, lease: Lease | None) -> checkout.Token:
    token = checkout.mint(place)
    if lease is None and any(_is_copy(known, place) for known in registry.with_token(token.value)):
        return checkout.fresh_token()
    return token


def _insert(registry: Registry, claim: Claim, slot: int | None, token: checkout.Token) -> Lease:
    assert claim.checkout is not None  # noqa: S101  # the caller has one
    taken = registry.slots(claim.project)
    if slot is None:
        remembered, _ = token.entries.get(claim.project.key, (None, None))
        slot = remembered if remembered not in taken else None
    if slot is None and claim.checkout.is_main:
        slot = _main_slot(registry, claim)
    asked = slot is not None
    if slot is None:
        slot = _choose(registry, claim)
    else:
        check_slot(claim.config, slot)
    if slot in taken and registry.with_slot(claim.project, slot):
        raise IsoenvError(
            f"slot {slot} of {claim.project.name} is held by {taken[slot]}: `isoenv list`"
        )
    wanted = checkout.instance_name(
        os.path.basename(claim.base) or claim.project.name, claim.project.name, RESERVED
    )
    lease = registry.insert(claim.project, slot, _free_name(registry, claim.project, wanted))
    if asked and slot:
        _reserve(registry, lease, claim, probe=True)
    return lease


def _main_slot(registry: Registry, claim: Claim) -> int | None:
    """Return 0 for the first main checkout, also after the former one is proven gone."""
    holder = registry.with_slot(claim.project, 0)
    if holder is None:
        return 0
    if holder.git_dir and checkout.is_gone(holder.git_dir, holder.device, holder.inode):
        claim.say(f"slot 0 was held by {holder.root}, which is gone")
        registry.delete(holder)
        return 0
    return None


def _choose(registry: Registry, claim: Claim) -> int:
    numbering, wanted = claim.config.numbering, claim.config.ports
    blocks = numbering.ports == "block"
    last = LAST_BLOCK_SLOT if blocks else allocator.last_slot(wanted, numbering.stride)
    name = os.fsencode(os.path.basename(claim.base))
    choice = allocator.choose(
        allocator.preferred_slots(numbering.prefer, name, last),
        registry.slots(claim.project),
        lambda slot: {} if blocks else allocator.offset_ports(wanted, numbering.stride, slot),
        lambda port: conflict(registry, port),
    )
    for line in allocator.explain(choice.skipped):
        claim.say(line)
    return choice.slot


def conflict(registry: Registry, port: int) -> str | None:
    """Return why a new lease cannot have this port: a reservation, or somebody's listener."""
    owner = registry.reserved_by(port)
    return f"reserved by {owner}" if owner else _listener(port)


def _listener(port: int) -> str | None:
    if not ports.is_held(port):
        return None
    found = ports.holders([port]).get(port)
    return f"held by {ports.describe(found[0])}" if found else "held by another process"


def _free_name(registry: Registry, project: Project, wanted: str) -> str:
    holder = registry.with_name(project, wanted)
    if holder is None:
        return wanted
    if holder.git_dir and checkout.is_gone(holder.git_dir, holder.device, holder.inode):
        registry.rename(holder, f"{wanted}@{holder.slot}")
        return wanted
    number = 2
    while registry.with_name(project, f"{wanted}-{number}"):
        number += 1
    return f"{wanted}-{number}"


def _reserve(registry: Registry, lease: Lease, claim: Claim, *, probe: bool = False) -> None:
    """Reserve the ports that the configuration asks for; what clashes is shared and said."""
    if lease.slot and claim.config.numbering.ports == "block":
        _extend_blocks(registry, lease, claim)
    wanted = planned(registry, lease, claim) or {}
    reservations: dict[str, tuple[int, bool]] = {}
    for name, port in wanted.items():
        owner = registry.reserved_by(port, other_than=lease.id)
        reservations[name] = (port, lease.slot == 0 or owner is not None)
        if lease.slot == 0 or lease.ports.get(name) == port:
            continue
        reason = f"also reserved by {owner}" if owner else _listener(port) if probe else None
        if reason:
            claim.say(f"port {port} ({name}) of {lease.project.name}:{lease.slot} is {reason}")
    registry.reserve(lease, reservations)


def _extend_blocks(registry: Registry, lease: Lease, claim: Claim) -> None:
    """Give every port name a position, and the lease the blocks that its positions lie in."""
    positions = registry.positions(lease.project)
    for name in claim.config.ports:
        if name not in positions:
            positions[name] = max(positions.values(), default=-1) + 1
            registry.add_position(lease.project, name, positions[name])
    blocks = registry.blocks(lease)
    needed = {positions[name] // allocator.BLOCK for name in claim.config.ports}
    for number in sorted(needed - blocks.keys()):
        preference = os.fsencode(f"{lease.project.key}\0{lease.slot}\0{number}")
        start, skipped = allocator.choose_block(
            allocator.block_starts(claim.config.numbering.range, preference),
            lambda port: conflict(registry, port),
        )
        for line in allocator.explain(skipped):
            claim.say(line)
        registry.add_block(lease, number, start)


def _move(registry: Registry, claim: Claim, lease: Lease, slot: int) -> Lease:
    """Move a checkout's lease to a slot that is free, or held by no checkout."""
    check_slot(claim.config, slot)
    assert claim.checkout is not None  # noqa: S101  # `take` has held a lease for it
    if other := registry.with_slot(claim.project, slot):
        if other.token is not None:
            raise IsoenvError(
                f"slot {slot} of {claim.project.name} is held by {other.root}: "
                f"`isoenv -C {other.root} release`"
            )
        registry.delete(other)
    registry.delete(lease)
    moved = registry.insert(claim.project, slot, lease.name)
    assert lease.token is not None  # noqa: S101  # a checkout's lease has one
    registry.settle(moved, claim.checkout, claim.base, lease.token)
    _reserve(registry, moved, claim, probe=True)
    return moved


def _write_entry(claim: Claim, lease: Lease) -> None:
    assert claim.checkout is not None  # noqa: S101  # the callers have one
    token = checkout.mint(claim.checkout)
    entries = {**token.entries, claim.project.key: (lease.slot, lease.name)}
    checkout.write_token(claim.checkout, replace(token, entries=entries))
