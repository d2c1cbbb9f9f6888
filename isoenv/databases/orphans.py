"""Databases that isoenv has made for checkouts that are gone, for `prune --purge`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isoenv import context, identity, instances
from isoenv.databases import isolation, lifecycle, records
from isoenv.databases.address import Postgres
from isoenv.databases.desk import Desk
from isoenv.databases.targets import Target
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isoenv.context import Caller
    from isoenv.databases.records import Record
    from isoenv.models import Lease
    from isoenv.registry import Registry

# Seconds for each; who is connected is not waited for.
PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Orphan:
    """A database whose checkout is gone."""

    target: Target
    project: str

    @property
    def title(self) -> str:
        """How people name it."""
        return f"database {self.target.place} ({self.target.mark.title})"


def orphans(caller: Caller, registry: Registry) -> list[Orphan]:
    """Return what isoenv has made for checkouts that are proven gone, their slots held by nobody.

    A slot that was given back by hand keeps its databases, and so does one that a checkout took
    over.
    """
    leases = registry.leases()
    found = []
    for record in records.every(caller.state):
        if record.mark.seat.isdigit() and record.is_gone and not _is_held(record, leases):
            place = record.place
            if isinstance(place, Postgres):
                place = replace(place, secrets=_secrets(caller, registry, record, place))
            found.append(Orphan(Target(record.name, place, record.mark), record.project))
    return found


def drop(caller: Caller, orphan: Orphan) -> None:
    """Drop one; raises IsoenvError for what stays, on record as before."""
    deadline = time.monotonic() + PATIENCE
    desk = Desk(caller.state, orphan.project, deadline, caller.say)
    lifecycle.open_database(orphan.target, desk).drop(force=False)


def _is_held(record: Record, leases: list[Lease]) -> bool:
    """Whether a checkout that lives holds the slot that a database was made for."""
    return any(
        str(lease.slot) == record.mark.seat
        and (lease.project.key == record.project or (lease.token and lease.token == record.token))
        and not identity.is_gone(lease)
        for lease in leases
    )


def _secrets(
    caller: Caller, registry: Registry, record: Record, place: Postgres
) -> Mapping[str, str]:
    """Return the password that a living checkout's configuration has for the same user.

    Passwords are on no record; without one, libpq has its own ways.
    """
    user = place.parameters.get("user")
    for known in _known_places(caller, registry, record):
        if known.parameters.get("user") == user and known.secrets:
            return known.secrets
    return {}


def _known_places(caller: Caller, registry: Registry, record: Record) -> Iterator[Postgres]:
    """Yield where living, trusted checkouts would have that database, the same slot's first."""
    slot = int(record.mark.seat)
    for lease in registry.leases():
        if lease.project.key != record.project or not lease.root or not os.path.isdir(lease.root):
            continue
        for number, held in ((slot, None), (lease.slot, lease)):
            try:
                here = context.find(replace(caller, directory=lease.root))
                context.require_trust(here)
                selected = instances.Selected(here, number, held)
                environment = instances.environment(selected, registry)
                place = isolation.place_of(environment, record.name)
            except (IsoenvError, KeyError, ValueError):
                continue
            if isinstance(place, Postgres):
                yield place
