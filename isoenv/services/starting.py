"""Start a service once, wait until it is healthy, and say what went wrong if it is not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import files, ports, resolver, scripts
from isoenv.errors import IsoenvError, PortTakenError
from isoenv.process import Life
from isoenv.services import commands, health, locks, logs, members, record, stopping
from isoenv.services.failure import CancelledError, ServiceError, describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.services.plans import Plan
    from isoenv.services.record import Record

# Seconds that a service without `health` has to stay alive, to be taken for started.
MOMENT = 1.0
# Between two looks at one that is starting: the first, and the longest.
FIRST_WAIT, LONGEST_WAIT = 0.02, 0.2
# On top of a start time-out, for who starts or stops it before us.
PATIENCE = 60.0
ENTRY = """\
import sys
sys.path.insert(0, sys.argv.pop(1))
from isoenv.services.become import main
main(*sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Started:
    """A service that is up. ``seconds`` is how long that took, ``already`` that it was before."""

    seconds: float
    already: bool = False


def start(plan: Plan, cancellation: str) -> Started:
    """Start a service unless it runs, and wait until it is healthy.

    ``cancellation`` is what the record's was when the whole command began: a `down` meanwhile
    raises CancelledError. Raises PortTakenError, before anything is started, where somebody else
    has its port, and ServiceError when it dies or is not healthy in time.
    """
    began = time.monotonic()

    def is_cancelled() -> bool:
        return record.cancellation(plan.place) != cancellation

    with locks.hold(plan.place, plan.title, plan.start_timeout + PATIENCE) as lock:
        if is_cancelled():
            raise CancelledError(f"{plan.title} was stopped meanwhile by another command")
        already = commands.start(plan) if plan.run is None else _ensure_runs(plan, lock)
        _wait(plan, is_cancelled)
        found = record.read(plan.place)
        if found and not found.text("ready"):
            record.write(plan.place, found.changed(ready=f"{time.time():.3f}"))
    return Started(time.monotonic() - began, already)


def _ensure_runs(plan: Plan, lock: int) -> bool:
    """Spawn the service unless it runs; return whether it did."""
    found = record.read(plan.place)
    if found:
        life = members.life(found)
        if life is Life.UNKNOWN:
            raise ServiceError(
                f"{plan.title} was started on another host or in another pid namespace: "
                f"stop it there, or `rm {plan.place}/record` when it is gone"
            )
        if life is Life.ALIVE and found.text("state") == record.UP:
            return True
        if left := [str(each.pid) for each in members.find(plan.place, found)]:
            raise ServiceError(
                f"{plan.title} has left processes behind (pid {', '.join(left)}): "
                f"`isoenv down {plan.name}` ends them"
            )
    plan = plan.prepare(plan) if plan.prepare else plan
    require_free(plan)
    _spawn(plan, lock)
    return False


def require_free(plan: Plan) -> None:
    """Raise PortTakenError where somebody holds a port that the service will listen on."""
    for port in plan.ports:
        if ports.is_held(port):
            raise taken(plan, port)


def taken(plan: Plan, port: int) -> PortTakenError:
    """Return the error that names who holds a port."""
    found = ports.holders([port]).get(port)
    whose = ports.describe(found[0]) if found else "another user's process"
    return PortTakenError(
        f"port {port} of {plan.title} is held by {whose}: end that process, or `isoenv doctor`"
    )


def _spawn(plan: Plan, lock: int) -> None:
    """Start the service below its resident parent, and wait until its record is written."""
    assert plan.run is not None  # noqa: S101  # the caller has looked
    record.forget_runs(plan.place)
    logs.rotate(plan.log)
    run = uuid.uuid4().hex
    fields = {
        **plan.facts,
        "id": run,
        "state": record.UP,
        "started": f"{time.time():.3f}",
        "start_timeout": f"{plan.start_timeout:g}",
        "log": plan.log,
    }
    start_file = f"{plan.place}/start.{run}"
    record.replace(
        start_file,
        json.dumps(
            {
                "fields": fields,
                "argv": plan.run,
                "environ": {**plan.environ, record.MARK: run},
                "directory": plan.directory,
            }
        ).encode("ascii"),
    )
    try:
        parent = _spawn_parent(plan, run, lock)
        while not ((found := record.read(plan.place)) and found.text("id") == run):
            if parent.poll() is not None or record.ended(plan.place, run):
                raise died(plan, record.ended(plan.place, run))
            time.sleep(FIRST_WAIT)
    except ServiceError:
        # Who would have read and removed it is no more; it holds the caller's variables.
        with suppress(FileNotFoundError):
            os.unlink(start_file)
        raise
    # It outlives this process, and is nobody's to wait for here.
    parent.returncode = 0


def _spawn_parent(plan: Plan, run: str, lock: int) -> subprocess.Popen[bytes]:
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    words = [sys.executable, "-I", "-c", ENTRY, package, plan.place, run]
    output = logs.open_to_append(plan.log)
    try:
        return subprocess.Popen(
            ["/bin/sh", scripts.path("supervise.sh"), record.exit_file(plan.place, run), *words],
            stdin=lock,
            stdout=output,
            stderr=output,
            # The service gets its own environment; nothing of it is for the shell.
            env={"PATH": os.defpath},
            start_new_session=True,
        )
    except OSError as error:
        raise ServiceError(f"cannot start {plan.title}: {files.reason(error)}") from None
    finally:
        os.close(output)


def _wait(plan: Plan, is_cancelled: Callable[[], bool]) -> None:
    """Wait until the service is healthy; a failed start leaves nothing running."""
    deadline = time.monotonic() + plan.start_timeout
    wait = FIRST_WAIT
    problem: str | None = None
    while True:
        found = record.read(plan.place)
        if is_cancelled():
            raise CancelledError(f"{plan.title} was stopped meanwhile by another command")
        if found and plan.run and members.life(found) is not Life.ALIVE:
            raise _death(plan, found)
        problem = _problem(plan, found, lambda: is_cancelled() or _has_ended(plan))
        if problem is None:
            return
        if time.monotonic() > deadline:
            raise _too_late(plan, problem)
        time.sleep(wait)
        wait = min(wait * 1.5, LONGEST_WAIT)


def _problem(plan: Plan, found: Record | None, give_up: Callable[[], bool]) -> str | None:
    """Return what is still missing, None for nothing."""
    if plan.health:
        return health.check(plan.health, give_up=give_up)
    started = found.seconds("started") if found else None
    if plan.run is None or started is None:
        return None
    age = time.time() - started
    # A clock that was set back makes nobody young.
    return "it has just begun" if 0 <= age < MOMENT else None


def _has_ended(plan: Plan) -> bool:
    found = record.read(plan.place)
    return bool(found and plan.run and members.life(found) is not Life.ALIVE)


def _death(plan: Plan, found: Record) -> IsoenvError:
    ended = record.ended(plan.place, found.text("id"))
    deadline = time.monotonic() + MOMENT / 2
    while ended is None and time.monotonic() < deadline:
        time.sleep(FIRST_WAIT)
        ended = record.ended(plan.place, found.text("id"))
    members.end(plan.place, found, plan.stop_patience)
    for port in plan.mentioned:
        if ports.is_held(port) and _is_stranger(port):
            return taken(plan, port)
    return died(plan, ended)


def _is_stranger(port: int) -> bool:
    """Whether a process that we see holds the port, and not on behalf of a container."""
    found = ports.holders([port]).get(port, [])
    return any(each.pid and not ports.is_publisher(each) for each in found)


def died(plan: Plan, ended: tuple[int, float | None] | None) -> ServiceError:
    """Return the error for a service that ended while it was starting."""
    how = describe_exit(ended[0]) if ended else "unknown exit status"
    hint = ""
    if ended and ended[0] == 0:
        hint = ": `run` has to stay in the foreground"
    return ServiceError(
        f"{plan.title} ended while starting, with {how}{hint or f': `isoenv logs {plan.name}`'}",
        plan.log,
    )


def _too_late(plan: Plan, problem: str) -> ServiceError:
    found = record.read(plan.place)
    if plan.run and found:
        stopping.end_run(plan, found)
    ended = " and was stopped" if plan.run else ""
    return ServiceError(
        f"{plan.title} was not healthy after {plan.start_timeout:g} s{ended} "
        f"({resolver.mask(plan.health or '')}: {problem}): "
        "`start_timeout` in isoenv.toml gives it longer",
        plan.log,
    )
