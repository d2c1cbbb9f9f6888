"""The limit of `[limits] agents`: how many subagents the sessions of a project have at once.

Claude Code asks for several agents in one breath, before the first of them has started: who is
let in holds a place from then on, until its SubagentStart comes.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv import context, files, flock, paths
from isoenv.errors import IsoenvError, NotTrustedError

if TYPE_CHECKING:
    from isoenv.agents.claude import Event
    from isoenv.coordination.session import Handle

METRIC = "agents"
TOOLS = ("Task", "Agent")
# Who has been let in and has not started; with the time, and the id of the tool's use.
PLACE = "place"
# Seconds that a place is held: a person may have refused the tool meanwhile.
HELD = 120.0


def refusal(event: Event) -> str | None:
    """Return why one agent more must not start, or None, with a place for it taken."""
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
    session = event.session()
    assert session is not None  # noqa: S101  # registered by the call
    descriptor = _locked(event.state)
    try:
        _leave_stale(session)
        agents = session.agents()
        place = f"{PLACE} {int(time.time())} {event.fields.get('tool_use_id') or os.getpid()}"
        if any(_use(known) == _use(place) for known in agents):
            return None
        running = session.metrics.total(METRIC)
        if running >= limit:
            return (
                f"{running:g} agents are running and `[limits] agents` of isoenv.toml is {limit}: "
                "wait until one has finished, or do this without another agent"
            )
        session.agent_started(place, PLACE)
    finally:
        os.close(descriptor)
    return None


def arrived(session: Handle) -> None:
    """Give back the place of the agent that has started; the oldest, for all are alike."""
    for known in session.agents():
        if known.startswith(f"{PLACE} "):
            session.agent_ended(known)
            return


def _use(place: str) -> str:
    kind, _, rest = place.partition(" ")
    return rest.partition(" ")[2] if kind == PLACE else ""


def _leave_stale(session: Handle) -> None:
    for known in session.agents():
        kind, _, rest = known.partition(" ")
        since = rest.partition(" ")[0]
        if kind == PLACE and since.isdigit() and time.time() - int(since) > HELD:
            session.agent_ended(known)


def _locked(state: str) -> int:
    """Open and lock what all who ask for a place queue on; the kernel frees it with the file."""
    from isoenv.agents import claude

    file = f"{paths.coordination_file(state)}.pool"
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise IsoenvError(f"cannot open {file}: {files.reason(error)}") from None
    if not flock.acquire(descriptor, claude.PATIENCE):
        os.close(descriptor)
        raise IsoenvError(f"{file} is locked by another process for {claude.PATIENCE:g} s")
    return descriptor
