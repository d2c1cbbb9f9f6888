"""Ports that two instances have reserved. Cheap to import: `list` says them too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv.diagnosis.finding import Finding, title

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from isoenv.models import Lease

    Owners = Mapping[int, list[tuple[Lease, str]]]

# More than a person reads; the rest is counted.
NAMED = 5


def owners(leases: Iterable[Lease]) -> Owners:
    """Return which instances have reserved each port, and under which name."""
    found: dict[int, list[tuple[Lease, str]]] = {}
    for lease in leases:
        for name, port in lease.ports.items():
            found.setdefault(port, []).append((lease, name))
    return found


def findings(leases: Iterable[Lease]) -> Iterator[Finding]:
    """Find ports that two instances have reserved.

    Two main checkouts with one base are something to know: nobody can move either.
    """
    for port, held in sorted(owners(leases).items()):
        if len(held) > 1:
            whose = " and ".join(f"{title(lease)} ({name})" for lease, name in held[:NAMED])
            more = f" and {len(held) - NAMED} more" if len(held) > NAMED else ""
            yield Finding(
                "clash",
                f"port {port} is reserved by {whose}{more}",
                "give one project another base in `isoenv.toml`, or `isoenv claim` a slot",
                harmless=not any(lease.slot for lease, _ in held),
                port=port,
            )
