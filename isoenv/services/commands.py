"""Services that are started and stopped by commands that return, as `docker compose up -d`."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv import files, liveness
from isoenv.services import health, logs, record
from isoenv.services.failure import ServiceError, describe_exit
from isoenv.services.record import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.services.plans import Plan

# Seconds that a command has to end after it was asked to.
GRACE = 10.0
# As many a stop command may take at least.
STOP_TIMEOUT = 60.0


def start(plan: Plan) -> bool:
    """Run the start command unless the service is up; return whether it was."""
    assert plan.start is not None  # noqa: S101  # a plan has one of the two
    found = record.read(plan.place)
    if found and _is_up(plan, found):
        return True
    logs.rotate(plan.log)
    begun = Record(
        {
            **plan.facts,
            "state": record.UP,
            "boot": liveness.boot_id(),
            "host": liveness.hostname(),
            "started": f"{time.time():.3f}",
            "start_timeout": f"{plan.start_timeout:g}",
            "log": plan.log,
        }
    )
    # First, so that what was half started is stopped too.
    record.write(plan.place, begun)
    status = run(plan, plan.start, plan.start_timeout)
    if status:
        record.write(plan.place, begun.changed(failed=str(status)))
        raise ServiceError(
            f"the start command of {plan.title} ended with {describe_exit(status)}: "
            f"`isoenv logs {plan.name}`",
            plan.log,
        )
    return False


def _is_up(plan: Plan, found: Record) -> bool:
    if found.text("state") != record.UP or found.text("boot") != liveness.boot_id():
        return False
    if found.text("failed") or not found.text("ready"):
        return False
    return plan.health is None or health.check(plan.health) is None


def stop(plan: Plan) -> bool:
    """Run the stop command if the service may be up; return whether it ran."""
    assert plan.stop is not None  # noqa: S101  # the configuration demands it
    found = record.read(plan.place)
    is_recorded = bool(found and found.text("state") != record.DOWN)
    if not is_recorded and not (plan.health and health.check(plan.health) is None):
        return False
    status = run(plan, plan.stop, max(plan.start_timeout, STOP_TIMEOUT))
    if status:
        raise ServiceError(
            f"the stop command of {plan.title} ended with {describe_exit(status)}: "
            f"`isoenv logs {plan.name}`",
            plan.log,
        )
    down = {"state": record.DOWN, "stopped": f"{time.time():.3f}"}
    record.write(plan.place, (found or Record(plan.facts)).changed(**down))
    return True


def run(plan: Plan, command: Sequence[str], timeout: float) -> int:
    """Run a command with its output in the log; return its exit status, 128 + N for signal N.

    It has a process group of its own: Ctrl-C is passed on and waited for, and a command that
    takes too long ends with all it has started.
    """
    output = logs.open_to_append(plan.log)
    try:
        child = subprocess.Popen(
            command,
            cwd=plan.directory,
            env=dict(plan.environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    except OSError as error:
        where = error.filename or command[0]
        raise ServiceError(
            f"cannot run a command of {plan.title}: {where}: {files.reason(error)}"
        ) from None
    finally:
        os.close(output)
    try:
        status = child.wait(timeout)
    except KeyboardInterrupt:
        _end(child, signal.SIGINT)
        raise
    except subprocess.TimeoutExpired:
        _end(child, signal.SIGTERM)
        raise ServiceError(
            f"a command of {plan.title} was not done after {timeout:g} s, and was ended: "
            "`start_timeout` in isoenv.toml gives it longer",
            plan.log,
        ) from None
    return status if status >= 0 else 128 - status


def _end(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(child.pid, number)
    try:
        child.wait(GRACE)
    except subprocess.TimeoutExpired:
        # Not waited for yet, so the number is still its own.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
