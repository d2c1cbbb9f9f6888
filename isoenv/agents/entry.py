"""What an agent's event needs the registry for: a first lease, and leases to be given back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import entering, pruning
from isoenv.agents import leases
from isoenv.registry import Registry

if TYPE_CHECKING:
    from isoenv import generated
    from isoenv.agents.claude import Event


def ready(event: Event, patience: float) -> generated.Ready | None:
    """Return the environment of the event's directory, computed, with its lease taken."""
    found = entering.prepare(event.caller(), patience)
    return found[0] if found else None


def prune(event: Event, patience: float) -> None:
    """Give back the leases of linked worktrees that are proven gone, and unused."""
    with Registry(event.state, patience=patience) as registry:
        for orphan in pruning.orphans(registry):
            git_dir = orphan.lease.git_dir
            if git_dir and leases.is_worktree(git_dir) and not orphan.kept_because:
                pruning.LeaseItem(registry, orphan.lease.name, None, orphan.lease).remove()
