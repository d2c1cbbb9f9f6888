"""How a checkout, or a bare number, comes to hold a slot and its ports.

Everything is decided and written in one registry transaction. A lease that exists is never moved
by itself: open shells, OAuth settings and databases hang on its ports.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import TYPE_CHECKING

from isoenv import allocator, checkout, identity, reserving, tokens
from isoenv.errors import IsoenvError, UsageError
from isoenv.models import Checkout
from isoenv.names import RESERVED
from isoenv.reserving import Note

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator

    from isoenv.models import Config, Lease, Project
    from isoenv.registry import Registry


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
    """Return the lease that the claim's checkout holds, changing nothing.

    Raises IsoenvError for a directory whose ``.git`` file was copied from another checkout.
    """
    if claim.checkout is None:
        return None
    token = tokens.read_token(claim.checkout)
    for lease in registry.with_token(token.value) if token else []:
        if identity.is_same_project(lease.project, claim.project) and not identity.is_copy(
            lease, claim.checkout
        ):
            if lease.root != claim.base:
                identity.refuse_copied_pointer(claim.checkout)
            return lease
    return None


def hold(registry: Registry, claim: Claim, slot: int | None = None) -> Lease:
    """Return the lease of the claim's checkout, taking one where it has none.

    ``slot`` decides a new lease only; it moves none.
    """
    lease = find(registry, claim)
    # Where nothing can be written, what is held is good as it is.
    if lease and (registry.unwritable or _is_settled(registry, lease, claim)):
        return lease
    with _transaction(registry, claim) as notes:
        return _hold(registry, claim, slot, notes)


def hold_number(registry: Registry, claim: Claim, slot: int) -> Lease:
    """Return the lease of a slot that no checkout needs to hold, taking it where it is free."""
    lease = registry.with_slot(claim.project, slot)
    if lease and (lease.token or registry.unwritable or _has_ports(registry, lease, claim.config)):
        return lease
    with _transaction(registry, claim) as notes:
        lease = registry.with_slot(claim.project, slot)
        is_new = lease is None
        if lease is None:
            check_slot(claim.config, slot)
            name = _free_name(registry, claim.project, f"{claim.project.name}-{slot}")
            lease = registry.insert(claim.project, slot, name)
        if lease.token is None:
            notes.extend(reserving.reserve(registry, lease, claim.config, probe=is_new))
        return _written(registry, claim.project, slot)


def take(registry: Registry, claim: Claim, slot: int | None, name: str | None) -> Lease:
    """Give the claim's checkout this slot, this name, or both; its former slot is given back."""
    if name is not None:
        checkout.check_name(name, RESERVED)
    if slot is not None:
        check_slot(claim.config, slot)
    with _transaction(registry, claim) as notes:
        place, lease = _place(claim), find(registry, claim)
        # All that can be refused comes before anything is written.
        if name is not None:
            _check_free(claim.project, lease, registry.with_name(claim.project, name), name)
        if slot is not None and lease and lease.slot != slot:
            _make_room(registry, claim.project, slot)
        lease = _hold(registry, claim, slot, notes)
        if slot is not None and lease.slot != slot:
            registry.move(lease, slot)
            lease = replace(lease, slot=slot, ports={})
            notes.extend(reserving.reserve(registry, lease, claim.config, probe=True))
        if name is not None and lease.name != name:
            registry.rename(lease, name)
        lease = _written(registry, claim.project, lease.slot)
        identity.write_entry(place, identity.own_token(registry, place), lease)
        return lease


def check_slot(config: Config, slot: int) -> None:
    """Refuse a number whose ports do not exist; everything else a user may ask for."""
    reserving.check_slot(config, slot)


def give_back(registry: Registry, lease: Lease) -> None:
    """Release a lease; its checkout, if it is still there, forgets the slot."""
    with registry.transaction():
        registry.delete(lease)
        if lease.root and lease.git_dir:
            plain = lease.git_dir == lease.root
            place = Checkout(lease.root, None if plain else lease.git_dir)
            # What a checkout remembers is a wish; where it cannot be written it does no harm.
            with suppress(IsoenvError):
                identity.drop_entry(place, lease)


@contextmanager
def _transaction(registry: Registry, claim: Claim) -> Iterator[list[Note]]:
    """Begin a transaction; what is noted in it is said after it, when others may lease."""
    notes: list[Note] = []
    with registry.transaction():
        yield notes
    notes.extend(map(Note, registry.take_notes()))
    reserving.tell(claim.say, notes)


def _place(claim: Claim) -> Checkout:
    if claim.checkout is None:
        raise UsageError("no checkout here: `isoenv exec 1 …` names an instance by number")
    return claim.checkout


def _written(registry: Registry, project: Project, slot: int) -> Lease:
    lease = registry.with_slot(project, slot)
    assert lease is not None  # noqa: S101  # the callers have just written it
    return lease


def _is_settled(registry: Registry, lease: Lease, claim: Claim) -> bool:
    directory = _place(claim).git_dir or _place(claim).root
    status = os.stat(directory)
    return (
        lease.project.key == claim.project.key
        and lease.root == claim.base
        and lease.git_dir == directory
        and (lease.device, lease.inode) == (status.st_dev, status.st_ino)
        and _has_ports(registry, lease, claim.config)
    )


def _has_ports(registry: Registry, lease: Lease, config: Config) -> bool:
    """Whether a lease has the ports that it should have, in the registry and on this host."""
    planned = reserving.planned(registry, lease, config)
    return lease.ports == planned and reserving.is_claimed(registry, lease)


def _hold(registry: Registry, claim: Claim, slot: int | None, notes: list[Note]) -> Lease:
    """Find or insert the lease of the claim's checkout, and bring it up to date."""
    place, lease = _place(claim), find(registry, claim)
    is_new = lease is None
    if lease is None:
        identity.refuse_copied_pointer(place)
        lease = _insert(registry, claim, place, slot, notes)
    elif lease.project.key != claim.project.key:
        registry.move_project(lease.project, claim.project)
        lease = replace(lease, project=claim.project)
    # A slot that was chosen has been probed, and a remembered one may be held by its own services.
    probe = is_new and lease.slot == slot
    notes.extend(reserving.reserve(registry, lease, claim.config, probe=probe))
    token = identity.own_token(registry, place)
    registry.settle(lease, place, claim.base, token.value)
    lease = _written(registry, claim.project, lease.slot)
    identity.write_entry(place, token, lease)
    return lease


def _insert(
    registry: Registry, claim: Claim, place: Checkout, asked: int | None, notes: list[Note]
) -> Lease:
    project, token = claim.project, tokens.read_token(place)
    registry.disown(place.git_dir or place.root, token.value if token else None)
    own = token if token and not identity.is_copied(registry, place, token) else None
    remembered = own.entries.get(project.key) if own else None
    rested = registry.resting(project, own.value if own else None)
    slot, name = asked, remembered[1] if remembered else os.path.basename(place.root)
    if asked is not None:
        check_slot(claim.config, asked)
        _make_room(registry, project, asked)
    elif remembered and _is_open(registry, claim, remembered[0], rested):
        slot = remembered[0]
    elif place.is_main and _open_main_slot(registry, claim.project, notes):
        slot = 0
    if slot is None:
        slot = _choose(registry, claim, os.path.basename(place.root), rested, notes)
    wanted = checkout.instance_name(name or project.name, project.name, RESERVED)
    return registry.insert(project, slot, _free_name(registry, project, wanted))


def _is_open(registry: Registry, claim: Claim, slot: int, rested: set[int]) -> bool:
    """Whether nobody has had a slot since, that a checkout remembers, or has reserved its ports."""
    if slot > reserving.last_slot(claim.config) or registry.with_slot(claim.project, slot):
        return False
    if slot == 0:
        return True
    ports = reserving.formula(claim.config, slot).values()
    return slot not in rested and not any(
        registry.reserved_by(port) or registry.host.claim(port) for port in ports
    )


def _open_main_slot(registry: Registry, project: Project, notes: list[Note]) -> bool:
    """Whether slot 0 is to be had; it is taken from a bare number, and from who is gone."""
    holder = registry.with_slot(project, 0)
    if holder is None:
        return True
    if holder.token and not identity.is_gone(holder):
        return False
    if holder.token:
        notes.append(Note(f"slot 0 was held by {holder.root}, which is gone"))
    registry.delete(holder)
    return True


def _choose(
    registry: Registry, claim: Claim, name: str, rested: set[int], notes: list[Note]
) -> int:
    prefer, last = claim.config.numbering.prefer, reserving.last_slot(claim.config)
    bases = reserving.bases(claim.config)

    def conflict(port: int) -> str | None:
        # Whether or not a checkout holds slot 0 yet, its ports are known.
        return bases.get(port) or reserving.conflict(registry, port)

    def choose(taken: Container[int]) -> allocator.Choice:
        wanted = allocator.preferred_slots(prefer, os.fsencode(name), last)
        return allocator.choose(
            wanted, taken, lambda slot: reserving.formula(claim.config, slot), conflict
        )

    held = registry.slots(claim.project).keys()
    try:
        choice = choose(held | rested)
    except IsoenvError:
        if not rested:
            raise
        choice = choose(held)
    notes.extend(reserving.notes_of(choice.skipped))
    return choice.slot


def _make_room(registry: Registry, project: Project, slot: int) -> None:
    """Take a slot from a bare number; refuse to take it from a checkout."""
    holder = registry.with_slot(project, slot)
    if holder is None:
        return
    if holder.token:
        raise IsoenvError(
            f"slot {slot} of {project.name} is held by {holder.root}: "
            f"`isoenv release {slot}` gives it back"
        )
    registry.delete(holder)


def _check_free(project: Project, lease: Lease | None, holder: Lease | None, name: str) -> None:
    """Refuse a name that an instance other than the one of ``lease`` has."""
    if holder and not (lease and lease.id == holder.id):
        raise IsoenvError(
            f"the name {name} is taken by slot {holder.slot} of {project.name}: "
            "`isoenv list` shows them"
        )


def _free_name(registry: Registry, project: Project, wanted: str) -> str:
    holder = registry.with_name(project, wanted)
    if holder and identity.is_gone(holder):
        registry.rename(holder, _numbered(registry, project, f"{wanted}@{holder.slot}"))
        return wanted
    return _numbered(registry, project, wanted)


def _numbered(registry: Registry, project: Project, wanted: str) -> str:
    candidates = chain([wanted], (f"{wanted}-{number}" for number in count(2)))
    return next(name for name in candidates if registry.with_name(project, name) is None)
