"""The limit of `[limits] agents`: how many subagents the sessions of a project have at once.

Claude Code asks for several agents in one breath, before the first of them has started: who is
let in holds a place from then on, until its SubagentStart comes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv import context, files, flock, paths
from isoenv.agents import sessions, surroundings
from isoenv.agents.sessions import PLACE
from isoenv.coordination import reaping
from isoenv.errors import IsoenvError, NotTrustedError

if TYPE_CHECKING:
    from isoenv.agents.claude import Event
    from isoenv.agents.sessions import Window

METRIC = "agents"
TOOLS = ("Task", "Agent")
# Seconds that a place is held: a person may have refused the tool meanwhile.
HELD = 120.0
# Seconds to wait for others who ask: many come at once, and the limit is to hold for them all.
PATIENCE = 0.8


def refusal(event: Event) -> str | None:
    """Return why one agent more must not start, or None, with a place for it taken."""
    from isoenv.agents.claude import plain

    if event.fields.get("tool_name") not in TOOLS:
        return None
    caller = event.caller()
    here = context.find(caller)
    limit = here.config.limits.get(METRIC)
    if limit is None:
        return None
    try:
        context.require_trust(here)
    except NotTrustedError:
        return None
    # All that takes time comes before the lock.
    window = sessions.need(event, surroundings.where_known(event))
    reaping.reap(window.store, reaping.BOUND)
    descriptor = _locked(event.state)
    try:
        _leave_stale(window)
        agents = window.store.agents(window.id)
        use = plain(event.fields.get("tool_use_id") or str(os.getpid()))
        place = f"{PLACE} {int(time.time())} {use}"
        if any(_use(known) == use for known in agents):
            return None
        running = window.store.total(METRIC)
        if running >= limit:
            return (
                f"{running:g} agents are running and `[limits] agents` of isoenv.toml is {limit}: "
                "wait until one has finished, or do this without another agent"
            )
        window.store.agent_started(window.id, place, PLACE)
    finally:
        os.close(descriptor)
    return None


def _use(place: str) -> str:
    kind, _, rest = place.partition(" ")
    return rest.partition(" ")[2] if kind == PLACE else ""


def _leave_stale(window: Window) -> None:
    for known in window.store.agents(window.id):
        kind, _, rest = known.partition(" ")
        since = rest.partition(" ")[0]
        if kind == PLACE and since.isdigit() and time.time() - int(since) > HELD:
            window.store.agent_ended(window.id, known)


def _locked(state: str) -> int:
    """Open and lock what all who ask for a place queue on; the kernel frees it with the file."""
    file = f"{paths.coordination_file(state)}.pool"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IsoenvError(f"cannot open {file}: {files.reason(error)}") from None
    if not flock.acquire(descriptor, PATIENCE):
        os.close(descriptor)
        raise IsoenvError(f"{file} is locked by another process for {PATIENCE:g} s")
    return descriptor
