"""What is wrong on this machine, each finding with its evidence and its remedy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import ports, pruning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.instances import Caller
    from isoenv.models import Lease
    from isoenv.registry import Registry


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or with ``harmless`` something to know; ``kind`` is stable for programs."""

    kind: str
    message: str
    remedy: str
    harmless: bool = False


def findings(caller: Caller, registry: Registry) -> list[Finding]:
    """Look at everything that can be wrong."""
    leases = registry.leases()
    return [
        *_strangers(leases),
        *_clashes(leases),
        *_gone(caller, registry),
        *_ephemeral(leases),
    ]


def _title(lease: Lease) -> str:
    return f"{lease.project.name}/{lease.slot} {lease.name}"


def _strangers(leases: list[Lease]) -> Iterator[Finding]:
    """Find listeners on leased ports whose process works somewhere else."""
    wanted = {port for lease in leases for port in lease.ports.values()} & ports.listening()
    holders = ports.holders(wanted) if wanted else {}
    for lease in leases:
        for name, port in lease.ports.items():
            for holder in holders.get(port, [])[:1]:
                if lease.root and _is_below(holder.cwd, lease.root):
                    continue
                where = f", in {holder.cwd}" if holder.cwd else ""
                yield Finding(
                    "stranger",
                    f"port {port} ({name}) of {_title(lease)} is held by "
                    f"{ports.describe(holder)}{where}",
                    "end that process, or `isoenv claim` another slot",
                )


def _is_below(directory: str | None, root: str) -> bool:
    return directory is not None and f"{directory}/".startswith(f"{os.path.realpath(root)}/")


def _clashes(leases: list[Lease]) -> Iterator[Finding]:
    """Find ports that two instances have reserved."""
    owners: dict[int, list[tuple[Lease, str]]] = {}
    for lease in leases:
        for name, port in lease.ports.items():
            owners.setdefault(port, []).append((lease, name))
    for port, held in sorted(owners.items()):
        if len(held) > 1:
            yield Finding(
                "clash",
                f"port {port} is reserved by "
                + " and ".join(f"{_title(lease)} ({name})" for lease, name in held),
                "give one project other base ports, or `isoenv claim` another slot",
            )


def _gone(caller: Caller, registry: Registry) -> Iterator[Finding]:
    for orphan in pruning.orphans(caller, registry):
        yield Finding(
            "gone",
            f"{_title(orphan.lease)} has lost its checkout {orphan.lease.root}",
            "`isoenv prune`",
        )


def _ephemeral(leases: list[Lease]) -> Iterator[Finding]:
    """Find leased ports that the kernel may give to any outgoing connection."""
    bounds = ports.ephemeral_range()
    if bounds is None:
        return
    protected = ports.reserved_ports()
    exposed = {
        port
        for lease in leases
        for port in lease.ports.values()
        if bounds[0] <= port <= bounds[1] and port not in protected
    }
    if exposed:
        line = ",".join(map(str, sorted(exposed | protected)))
        yield Finding(
            "ephemeral",
            f"{len(exposed)} leased ports lie in the kernel's ephemeral range "
            f"{bounds[0]}-{bounds[1]}: an outgoing connection may take one",
            f"`sudo sysctl -w net.ipv4.ip_local_reserved_ports={line}`",
            harmless=True,
        )
