"""Give back what is gone, only on proof."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import generated, instances, leasing, ports, tokens
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.context import Caller
    from isoenv.models import Lease
    from isoenv.registry import Registry


@dataclass(frozen=True, slots=True)
class Orphan:
    """A lease whose checkout is gone. ``kept_because`` says why it has to stay all the same."""

    lease: Lease
    directory: str
    kept_because: str | None = None


def orphans(caller: Caller, registry: Registry) -> list[Orphan]:
    """Return the leases whose checkout is proven gone; a missing disk proves nothing."""
    listening = ports.listening()
    found = []
    for lease in registry.leases():
        if not (lease.git_dir and tokens.is_gone(lease.git_dir, lease.device, lease.inode)):
            continue
        used = sorted(set(lease.ports.values()) & listening) if lease.slot else []
        reason = f"port {used[0]} is in use" if used else None
        found.append(Orphan(lease, instances.directory_of(caller, lease), reason))
    return found


def remove(caller: Caller, registry: Registry, orphan: Orphan, *, purge: bool) -> None:
    """Give one lease back, and with ``purge`` delete the instance's own directory first."""
    if purge and os.path.isdir(orphan.directory):
        try:
            shutil.rmtree(orphan.directory)
        except OSError as error:
            # The lease stays, so that the next run knows what is still to be removed.
            raise IsoenvError(f"cannot remove {error.filename}: {error.strerror}") from None
    leasing.give_back(registry, orphan.lease)
    if orphan.lease.root:
        generated.forget(caller.state, orphan.lease.root)
