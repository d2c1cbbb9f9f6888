"""Stop a service with all its processes, and see that its ports are free."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import ports
from isoenv.process import Life
from isoenv.services import commands, locks, members, record
from isoenv.services.failure import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from isoenv.process import Identity
    from isoenv.services.plans import Plan
    from isoenv.services.record import Record

# Seconds that a port may stay held after the last process is gone.
PORT_PATIENCE = 5.0


@dataclass(frozen=True, slots=True)
class Stopped:
    """A service that is down. ``was_up`` says that there was something to stop."""

    seconds: float
    was_up: bool
    killed: int = 0


def stop(
    plans: Sequence[Plan],
    token: str,
    after: Callable[[Plan, Stopped], None] = lambda _plan, _stopped: None,
) -> list[Exception]:
    """Stop services, in this order, and return what went wrong with some of them.

    Who is starting one of them is told to leave off, and waits with the next start until all are
    down: a `down` during an `up` ends with nothing running.
    """
    for plan in plans:
        record.cancel(plan.place, token)
    problems: list[Exception] = []
    with ExitStack() as held:
        # By name: two that stop the same services in another order must not wait for each other.
        for plan in sorted(plans, key=lambda plan: plan.place):
            held.enter_context(locks.hold(plan.place, plan.title, plan.start_timeout + 60))
        for plan in plans:
            try:
                after(plan, _stop(plan))
            except ServiceError as error:
                problems.append(error)
    return problems


def _stop(plan: Plan) -> Stopped:
    began = time.monotonic()
    if plan.run is None:
        was_up = commands.stop(plan)
        return Stopped(time.monotonic() - began, was_up)
    found = record.read(plan.place)
    if found is None:
        return Stopped(0.0, was_up=False)
    life = members.life(found)
    if life is Life.UNKNOWN:
        raise ServiceError(
            f"{plan.title} was started on another host or in another pid namespace: "
            f"stop it there, or `rm {plan.place}/record` when it is gone"
        )
    was_up = life is Life.ALIVE or bool(members.find(plan.place, found))
    command = plan.stop or json.loads(found.text("stop") or "null")
    if life is Life.ALIVE and command:
        record.write(plan.place, found.changed(state=record.STOPPING))
        # It only has the first word: the processes are ended in any case.
        with suppress(ServiceError):
            commands.run(plan, command, commands.STOP_TIMEOUT)
    killed = end_run(plan, found)
    return Stopped(time.monotonic() - began, was_up, killed)


def end_run(plan: Plan, found: Record) -> int:
    """End what a run has started, see that its ports are free, and return how many were killed."""
    # First, so that a death on the way is not taken for a crash.
    record.write(plan.place, found.changed(state=record.STOPPING))
    listened = _ports_of(plan, members.find(plan.place, found))
    killed = members.end(plan.place, found, plan.stop_patience)
    if left := members.find(plan.place, found):
        pids = ", ".join(str(each.pid) for each in left)
        raise ServiceError(f"{plan.title} still has processes that cannot be ended: pid {pids}")
    record.write(plan.place, found.changed(state=record.DOWN, stopped=f"{time.time():.3f}"))
    if held := _still_held(listened):
        whose = ports.holders(held)
        names = [ports.describe(each[0]) for each in whose.values()] or ["another user's process"]
        raise ServiceError(
            f"{plan.title} is stopped, and port {held[0]} is still held by {names[0]}: "
            "`isoenv doctor`"
        )
    return killed


def _ports_of(plan: Plan, found: Sequence[Identity]) -> set[int]:
    """Return the ports that a run's processes listen on, or should."""
    pids = {each.pid for each in found}
    if not pids:
        return set()
    holders = ports.holders().values()
    return {each.port for held in holders for each in held if each.pid in pids} | {*plan.ports}


def _still_held(listened: Iterable[int]) -> list[int]:
    deadline = time.monotonic() + PORT_PATIENCE
    while held := [port for port in sorted(listened) if ports.is_held(port)]:
        if time.monotonic() > deadline:
            return held
        time.sleep(members.POLL)
    return []
