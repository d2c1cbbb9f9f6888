"""What instances have left running although nobody can want it any more."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import paths, ports, tokens
from isoenv.process import Life
from isoenv.services import engines, locks, members, record
from isoenv.services.failure import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from isoenv.models import Lease
    from isoenv.registry import Registry
    from isoenv.services.record import Record

# Seconds between TERM and KILL, and that somebody else may be at work on a service.
STOP_PATIENCE, LOCK_PATIENCE = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Orphan:
    """Something left over. ``end`` ends it; None where that is not ours, for ``reason``.

    ``pids`` are its processes, ``ports`` what containers of it have.
    """

    title: str
    end: Callable[[bool], None] | None
    reason: str = ""
    pids: frozenset[int] = frozenset()
    ports: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class _Found:
    """A service's record with the lease of its instance, and whether its checkout is gone."""

    place: str
    record: Record
    lease: Lease | None
    is_gone: bool

    @property
    def title(self) -> str:
        name = self.record.text("project_name")
        return f"{self.record.text('service')} of {name}/{self.record.text('slot')}"


def find(state: str, registry: Registry) -> tuple[list[Orphan], list[str]]:
    """Return what is left over, and notes: what could not be looked for."""
    leases = {
        paths.services_dir(state, lease.project.key, lease.slot): lease
        for lease in registry.leases()
    }
    known = list(_records(state, leases))
    found = [orphan for each in known if (orphan := _processes(each))]
    gone = [lease for lease in leases.values() if _is_gone(lease)]
    roots = {lease.root for lease in gone if lease.root}
    roots |= {each.record.text("root") for each in known if each.is_gone}
    if not roots:
        return found, []
    clients = engines.engines()
    if not clients:
        return found, ["no docker or podman engine answers: compose projects were not looked for"]
    names = {each.record.text("compose") for each in known if each.is_gone} - {""}
    names -= {each.record.text("compose") for each in known if not each.is_gone}
    for client in clients:
        found += _containers(client, roots, names)
    return found, []


def freed_by_ending(left: Collection[Orphan]) -> Callable[[int], bool]:
    """Return whether a port that is in use would be free once all these had been ended."""
    ended = [each for each in left if each.end]
    published = frozenset().union(*(each.ports for each in ended))
    pids = frozenset().union(*(each.pids for each in ended))

    def is_freed(port: int) -> bool:
        if port in published:
            return True
        held = ports.holders([port]).get(port) if pids else None
        return bool(held) and all(holder.pid in pids for holder in held or ())

    return is_freed


def tidy(state: str, registry: Registry) -> None:
    """Remove the records of instances that are gone and have nothing left that runs."""
    leases = {
        paths.services_dir(state, lease.project.key, lease.slot): lease
        for lease in registry.leases()
    }
    for each in _records(state, leases):
        if each.lease is None and each.is_gone and _processes(each) is None:
            shutil.rmtree(os.path.dirname(each.place), ignore_errors=True)


def _records(state: str, leases: dict[str, Lease]) -> Iterator[_Found]:
    top = f"{state}/services"
    for instance in _names(top):
        lease = leases.get(f"{top}/{instance}")
        for service in _names(f"{top}/{instance}"):
            place = f"{top}/{instance}/{service}"
            if found := record.read(place):
                is_gone = _is_gone(lease) if lease else _has_lost(found.text("base"))
                yield _Found(place, found, lease, is_gone)


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _is_gone(lease: Lease) -> bool:
    return bool(lease.git_dir and tokens.is_gone(lease.git_dir, lease.device, lease.inode))


def _has_lost(base: str) -> bool:
    """Whether a checkout is gone whose instance has no lease; a missing disk proves nothing."""
    return bool(base) and not os.path.lexists(base) and os.path.isdir(os.path.dirname(base))


def _processes(each: _Found) -> Orphan | None:
    """Return what still runs of a service without a master, or of an instance that is gone."""
    first = members.life(each.record)
    left = members.find(each.place, each.record)
    if not left:
        return None
    pids = frozenset(process.pid for process in left)
    title = f"{each.title} (pid {', '.join(str(process.pid) for process in left)})"

    def end(_purge: object) -> None:
        _end(each)

    if first is not Life.ALIVE:
        return Orphan(f"processes that outlived {title}", end, pids=pids)
    if each.is_gone:
        return Orphan(f"{title}, whose checkout is gone", end, pids=pids)
    if each.lease is None:
        slot = each.record.text("slot")
        remedy = f"`isoenv claim {slot}`, then `isoenv down`"
        return Orphan(title, None, f"it runs, and its slot was given back: {remedy}")
    return None


def _end(each: _Found) -> None:
    with locks.hold(each.place, each.title, LOCK_PATIENCE):
        found = record.read(each.place)
        if found is None or found.text("id") != each.record.text("id"):
            raise ServiceError(f"{each.title} was started anew meanwhile")
        members.end(each.place, found, STOP_PATIENCE)
        if left := members.find(each.place, found):
            pids = ", ".join(str(process.pid) for process in left)
            raise ServiceError(f"{each.title} cannot be ended: pid {pids}")
        down = found.changed(state=record.DOWN, stopped=f"{time.time():.3f}")
        record.write(each.place, down)


def _containers(client: str, roots: set[str], names: set[str]) -> Iterator[Orphan]:
    for project in engines.compose_projects(client):
        inside = any(f"{project.directory}/".startswith(f"{root}/") for root in roots)
        if inside or project.name in names:
            title = (
                f"compose project {project.name} ({client}, {len(project.containers)} containers)"
            )
            yield Orphan(title, _remover(project), ports=project.ports)


def _remover(project: engines.Compose) -> Callable[[bool], None]:
    return lambda purge: engines.remove(project, volumes=purge)
