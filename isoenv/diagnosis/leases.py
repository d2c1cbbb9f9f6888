"""What is wrong with leases: strangers on their ports, checkouts that are gone."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv import ports, pruning, skypilot
from isoenv.diagnosis import clashes
from isoenv.diagnosis.finding import FIX, Finding, several, title
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isoenv.context import Caller
    from isoenv.models import Lease


def findings(caller: Caller, registry: Registry, leases: Sequence[Lease]) -> Iterator[Finding]:
    """Look at the ports of all leases, and at the checkouts that hold them."""
    yield from _strangers(leases)
    yield from clashes.findings(leases)
    yield from _gone(caller, registry)
    yield from _ephemeral(leases)


def _strangers(leases: Sequence[Lease]) -> Iterator[Finding]:
    """Find listeners on leased ports that are not the instance's own."""
    wanted = {port for lease in leases for port in lease.ports.values()} & ports.listening()
    holders = ports.holders(wanted) if wanted else {}
    for lease in leases:
        for name, port in lease.ports.items():
            for holder in holders.get(port, [])[:1]:
                if not belongs(holder, lease):
                    yield _stranger(holder, lease, name)


def _stranger(holder: ports.Holder, lease: Lease, name: str) -> Finding:
    message = f"port {holder.port} ({name}) of {title(lease)} is held by {evidence(holder)}"
    if _is_own_skypilot(holder, lease):
        message += ": your own SkyPilot API server, which isoenv leaves alone"
        return Finding(
            "own-server",
            message,
            "`sky api stop` ends it",
            harmless=True,
            port=holder.port,
            holder=holder,
        )
    if ports.is_publisher(holder):
        remedy = "`docker ps` shows whether that is a container of this instance"
        return Finding("container", message, remedy, harmless=True, port=holder.port, holder=holder)
    remedy = "end that process, or give the port another base in `isoenv.toml`"
    if lease.slot:
        remedy = "end that process, or `isoenv claim` another slot"
    return Finding("stranger", message, remedy, port=holder.port, holder=holder)


def _is_own_skypilot(holder: ports.Holder, lease: Lease) -> bool:
    """Whether this is SkyPilot's server, or one of its children, where slot 0 is the user's own."""
    import psutil

    if lease.slot or lease.project.key != skypilot.PROJECT or not holder.pid:
        return False
    try:
        process = psutil.Process(holder.pid)
        if process.uids().effective != os.geteuid():
            return False
        lines = [each.cmdline() for each in (process, *process.parents())]
    except (psutil.Error, OSError):
        return False
    return any(skypilot.SERVER_MODULE in line[1:] for line in lines)


def evidence(holder: ports.Holder) -> str:
    """Return who a process is: command, pid, directory and user, as far as the kernel says."""
    where = f", in {holder.cwd}" if holder.cwd else ""
    whose = f", of user {holder.user}" if holder.pid and holder.user else ""
    return f"{ports.describe(holder)}{where}{whose}"


def belongs(holder: ports.Holder, lease: Lease) -> bool:
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


def _gone(caller: Caller, registry: Registry) -> Iterator[Finding]:
    for orphan in pruning.orphans(registry):
        message = f"{title(orphan.lease)} has lost its checkout {orphan.lease.root}"
        if orphan.kept_because:
            yield Finding("gone", f"{message}, and {orphan.kept_because}", "`isoenv prune`")
        else:
            yield Finding("gone", message, FIX, repair=_pruning(caller, orphan))


def _pruning(caller: Caller, orphan: pruning.Orphan) -> Callable[[], str]:
    def prune() -> str:
        with Registry(caller.state) as registry:
            pruning.LeaseItem(registry, title(orphan.lease), None, orphan.lease).remove()
        return f"gave {title(orphan.lease)} back"

    return prune


def _ephemeral(leases: Sequence[Lease]) -> Iterator[Finding]:
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
        line = ",".join(_ranges(sorted(exposed | protected)))
        yield Finding(
            "ephemeral",
            f"{several(len(exposed), 'leased port')} in the kernel's ephemeral range "
            f"{bounds[0]}-{bounds[1]}: an outgoing connection may take one",
            f"`sudo sysctl -w net.ipv4.ip_local_reserved_ports={line}`",
            harmless=True,
        )


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """Yield sorted numbers as the kernel writes them: 3, 5-7."""
    first = 0
    for index, number in enumerate(numbers):
        if index + 1 == len(numbers) or numbers[index + 1] != number + 1:
            yield f"{numbers[first]}-{number}" if numbers[first] < number else str(number)
            first = index + 1
