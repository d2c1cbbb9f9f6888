"""What a service is doing now, from its record, its processes and its answer."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import liveness, ports, process
from isoenv.process import Life
from isoenv.services import health, members, record

if TYPE_CHECKING:
    from isoenv.ports import Holder
    from isoenv.services.record import Record

# The states, as JSON has them.
HEALTHY, RUNNING, STARTING = "healthy", "running", "starting"
UNHEALTHY, STOPPED, CRASHED, UNKNOWN = "unhealthy", "stopped", "crashed", "unknown"

UP_STATES = (HEALTHY, RUNNING)
DOWN_STATES = (STOPPED, CRASHED)
# Seconds that an answer may take when somebody wants to know, and no more.
PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class Status:
    """A service as it is. ``since`` is in seconds since the epoch: of its start, or of its end.

    ``problem`` is why its health is bad. ``leftovers`` are processes that have outlived the first
    one. ``holder`` has the service's port and is none of its processes. ``exit_status`` is as sh
    counts it, 128 + N for signal N.
    """

    name: str
    state: str
    pid: int | None = None
    since: float | None = None
    exit_status: int | None = None
    problem: str | None = None
    leftovers: tuple[int, ...] = ()
    holder: Holder | None = None


def look(
    name: str, place: str, *, asked: str | None, timeout: float, wanted: tuple[int, ...] = ()
) -> Status:
    """Look at a service: ``asked`` is its health, ``timeout`` that of its start."""
    found = record.read(place)
    if found is None:
        return Status(name, STOPPED, holder=_holder(wanted))
    if not found.number("pid"):
        return _of_command(name, found, asked, timeout)
    life = members.life(found)
    since = found.seconds("started")
    if life is Life.UNKNOWN:
        return Status(name, UNKNOWN, found.number("pid"), since, problem=_where(found))
    if life is Life.ALIVE:
        return _alive(name, found, asked, timeout)
    return _ended(name, place, found, wanted)


def _alive(name: str, found: Record, asked: str | None, timeout: float) -> Status:
    pid, since = found.number("pid") or None, found.seconds("started")
    if asked is None:
        return Status(name, RUNNING, pid, since)
    problem = health.check(asked, PATIENCE)
    if problem is None:
        return Status(name, HEALTHY, pid, since)
    is_new = not found.text("ready") and time.time() - (since or 0) < timeout
    return Status(name, STARTING if is_new else UNHEALTHY, pid, since, problem=problem)


def _ended(name: str, place: str, found: Record, wanted: tuple[int, ...]) -> Status:
    run = found.text("id")
    left = tuple(each.pid for each in members.find(place, found))
    if found.text("boot") != liveness.boot_id() or found.text("state") != record.UP:
        holder = None if left else _holder(wanted)
        since = record.ended_at(place, run)
        return Status(name, STOPPED, since=since, leftovers=left, holder=holder)
    ended = _exit(place, run, found)
    status = ended[0] if ended else None
    return Status(
        name,
        STOPPED if status == 0 else CRASHED,
        since=record.ended_at(place, run),
        exit_status=status,
        leftovers=left,
        holder=None if left else _holder(wanted),
    )


def _exit(place: str, run: str, found: Record) -> tuple[int, float | None] | None:
    """Return how a run has ended; its parent may need a moment to write it down."""
    deadline = time.monotonic() + 1
    while True:
        ended = record.ended(place, run)
        parent = found.number("parent")
        still = process.identify(parent) if parent else None
        if ended or still is None or still.start != found.number("parent_start"):
            return ended or record.ended(place, run)
        if time.monotonic() > deadline:
            return None
        time.sleep(members.POLL)


def _of_command(name: str, found: Record, asked: str | None, timeout: float) -> Status:
    """Return what is known of a service that commands start and stop."""
    since = found.seconds("started")
    if found.text("state") == record.DOWN or found.text("boot") != liveness.boot_id():
        return Status(name, STOPPED, since=found.seconds("stopped"))
    if found.text("failed"):
        return Status(name, CRASHED, since=since, exit_status=found.number("failed"))
    if not found.text("ready"):
        return Status(name, STARTING, since=since)
    return _alive(name, found, asked, timeout)


def _where(found: Record) -> str:
    if found.text("host") != liveness.hostname():
        return f"it was started on {found.text('host')}"
    return "it was started in another pid namespace"


def _holder(wanted: tuple[int, ...]) -> Holder | None:
    held = tuple(port for port in wanted if ports.is_held(port))
    found = ports.holders(held) if held else {}
    for port in held:
        if port in found:
            return next((each for each in found[port] if each.pid != os.getpid()), None)
    return ports.Holder(held[0], "") if held else None
