"""Show how the services of an instance are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from isoenv import columns, ports
from isoenv.cli import output, params, start, targets
from isoenv.services import logs, states
from isoenv.services.failure import describe_exit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.cli.targets import Target
    from isoenv.services.plans import Plan
    from isoenv.services.states import Status

# Exit codes: something is neither up nor down; something is down.
NOT_HEALTHY, NOT_RUNNING = 1, 3
# Lines of its log that a crashed service is shown with.
LAST_WORDS = 5


@click.command("ps")
@params.services_argument
@params.json_option
def command(operands: tuple[str, ...], *, as_json: bool) -> int:
    """Show how the services of an instance are, or those named.

    Exit code 0: all are healthy. 1: one is starting, or does not answer. 3: one does not run.

    \b
    Example:
      isoenv ps
      isoenv ps 2 api --json
    """
    return show(targets.find(operands, lease=False), as_json=as_json)


def show(target: Target, *, as_json: bool) -> int:
    """Print the state of the services that are meant, and return the exit code."""
    found = [look(plan) for plan in target.shown]
    if as_json:
        output.write_json({"services": [describe(status) for status in found]})
    elif found:
        _write(found, target)
    else:
        start.say(f"{target.title} has no services: `[services.NAME]` in isoenv.toml makes one")
    return exit_code(found)


def look(plan: Plan) -> Status:
    """Look at one service."""
    return states.look(
        plan.name, plan.place, asked=plan.health, timeout=plan.start_timeout, wanted=plan.ports
    )


def exit_code(found: Sequence[Status]) -> int:
    """Return the exit code for services in these states."""
    if any(status.state in states.DOWN_STATES for status in found):
        return NOT_RUNNING
    return 0 if all(status.state in states.UP_STATES for status in found) else NOT_HEALTHY


def describe(status: Status) -> dict[str, object]:
    """Return what JSON says of a service."""
    holder = status.holder
    return {
        "name": status.name,
        "state": status.state,
        "pid": status.pid,
        "since": status.since,
        "exit_status": status.exit_status,
        "problem": status.problem,
        "leftovers": list(status.leftovers),
        "held_by": holder and {"port": holder.port, "pid": holder.pid, "command": holder.command},
    }


def _write(found: Sequence[Status], target: Target) -> None:
    rows = [
        [
            status.name,
            status.state,
            str(status.pid or "-"),
            "-" if status.since is None else columns.age(time.time() - status.since),
            " ".join(map(str, plan.ports)) or "-",
            note(status) or ("no more in isoenv.toml" if plan.name in target.left_over else ""),
        ]
        for status, plan in zip(found, target.shown, strict=True)
    ]
    output.write_table(columns.SERVICES, rows)
    for status, plan in zip(found, target.shown, strict=True):
        if status.state == states.CRASHED:
            for line in logs.tail(plan.log, LAST_WORDS):
                start.say(f"{status.name} | {line.decode('utf-8', 'surrogateescape')}")


def note(status: Status) -> str:
    """Return what there is to say beside the state."""
    notes = []
    if status.problem:
        notes.append(status.problem)
    if status.exit_status is not None:
        notes.append(describe_exit(status.exit_status))
    if status.leftovers:
        notes.append(f"left processes behind: pid {', '.join(map(str, status.leftovers))}")
    if status.holder:
        notes.append(f"port {status.holder.port} is held by {ports.describe(status.holder)}")
    return "; ".join(notes)
