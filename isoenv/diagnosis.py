"""What is wrong on this machine, each finding with its evidence and its remedy."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import ports, pruning

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.context import Caller
    from isoenv.models import Lease
    from isoenv.registry import Registry

# What holds a port on behalf of a container, whose own process nobody sees.
PUBLISHERS = ("docker-proxy", "rootlessport", "com.docker.")


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
        *(finding for _, finding in clashes(leases)),
        *_gone(caller, registry),
        *_ephemeral(leases),
    ]


def _title(lease: Lease) -> str:
    return f"{lease.project.name}/{lease.slot} {lease.name}"


def _strangers(leases: list[Lease]) -> Iterator[Finding]:
    """Find listeners on leased ports that are not the instance's own."""
    wanted = {port for lease in leases for port in lease.ports.values()} & ports.listening()
    holders = ports.holders(wanted) if wanted else {}
    for lease in leases:
        for name, port in lease.ports.items():
            for holder in holders.get(port, [])[:1]:
                if not _belongs(holder, lease):
                    yield _stranger(holder, lease, name)


def _stranger(holder: ports.Holder, lease: Lease, name: str) -> Finding:
    where = f", in {holder.cwd}" if holder.cwd else ""
    message = f"port {holder.port} ({name}) of {_title(lease)} is held by {ports.describe(holder)}"
    if (holder.command or "").startswith(PUBLISHERS):
        remedy = "`docker ps` shows whether that is a container of this instance"
        return Finding("container", message, remedy, harmless=True)
    remedy = "end that process, or give the port another base in `isoenv.toml`"
    if lease.slot:
        remedy = "end that process, or `isoenv claim` another slot"
    return Finding("stranger", f"{message}{where}", remedy)


def _belongs(holder: ports.Holder, lease: Lease) -> bool:
    """Whether a process works in the checkout, or was started in the instance's environment."""
    if holder.cwd and lease.root:
        root = os.path.realpath(lease.root).rstrip("/")
        if f"{holder.cwd}/".startswith(f"{root}/"):
            return True
    environ = _environment_of(holder.pid)
    return (environ.get("ISOENV_PROJECT"), environ.get("ISOENV_INSTANCE")) == (
        lease.project.name,
        str(lease.slot),
    )


def _environment_of(pid: int | None) -> dict[str, str]:
    """Return the environment that a process was started with; empty where the kernel hides it."""
    import psutil

    try:
        return psutil.Process(pid).environ() if pid else {}
    except (psutil.Error, OSError):
        return {}


def clashes(leases: list[Lease]) -> Iterator[tuple[int, Finding]]:
    """Find ports that two instances have reserved.

    Two main checkouts with one base are something to know: nobody can move either.
    """
    owners: dict[int, list[tuple[Lease, str]]] = {}
    for lease in leases:
        for name, port in lease.ports.items():
            owners.setdefault(port, []).append((lease, name))
    for port, held in sorted(owners.items()):
        if len(held) > 1:
            whose = " and ".join(f"{_title(lease)} ({name})" for lease, name in held)
            yield (
                port,
                Finding(
                    "clash",
                    f"port {port} is reserved by {whose}",
                    "give one project another base in `isoenv.toml`, or `isoenv claim` a slot",
                    harmless=not any(lease.slot for lease, _ in held),
                ),
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
