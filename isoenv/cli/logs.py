"""Show what the services of an instance have written."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from isoenv.cli import output, params, start, targets
from isoenv.services import logs

if TYPE_CHECKING:
    from isoenv.cli.targets import Target

# Seconds between two looks of `-f`.
INTERVAL = 0.2


@click.command("logs")
@params.services_argument
@params.log_options
def command(operands: tuple[str, ...], *, follow: bool, lines: int) -> None:
    """Show the end of the log of each service of an instance, or of those named.

    Each start begins a new log; the last few stay beside it as NAME.log.1, NAME.log.2 and so on.

    \b
    Example:
      isoenv logs api
      isoenv logs 2 -f
    """
    show(targets.find(operands, lease=False), follow=follow, lines=lines)


def show(target: Target, *, follow: bool, lines: int) -> None:
    """Print the last lines of each log, and with ``follow`` what comes, until Ctrl-C."""
    found = target.shown
    if not found:
        start.say(f"{target.title} has no services")
    width = max((len(plan.name) for plan in found), default=0)
    prefixes = {
        plan.name: f"{plan.name:<{width}} | ".encode() if len(found) > 1 else b"" for plan in found
    }
    followers = {plan.name: logs.Follower(plan.log, lines) for plan in found}
    missing = [plan for plan in found if not followers[plan.name].is_there]
    for plan in missing:
        start.say(f"no log of {plan.name} yet: `isoenv up {plan.name}` begins one")
    while True:
        for name, follower in followers.items():
            lines_now = [*follower.lines(), *(() if follow else follower.rest())]
            output.write_bytes(b"".join(prefixes[name] + line + b"\n" for line in lines_now))
        if not follow:
            break
        time.sleep(INTERVAL)
    for follower in followers.values():
        follower.close()
