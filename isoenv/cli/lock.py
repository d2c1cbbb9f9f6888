"""Hold a lock while a command runs; show which locks are held."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from isoenv import launch
from isoenv.cli import output, params, start
from isoenv.coordination import lock_list, lock_record, lock_scope
from isoenv.coordination.lock import Lock

if TYPE_CHECKING:
    from isoenv.coordination.lock_record import Holder

# The options with a value, which may stand behind NAME as well as in front of it.
VALUED = ("--timeout", "--slots")


class _Runs(click.Command):
    """A command whose own options end where the command that it runs begins."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the options in front of NAME; click would look for them in all of the line."""
        rest = list(args)
        options: list[str] = []
        name: list[str] = []
        while rest and not (rest[0] == "--" or (name and not rest[0].startswith("-"))):
            word = rest.pop(0)
            if not word.startswith("-"):
                name = [word]
                continue
            options.append(word)
            if word in VALUED:
                options += rest[:1]
                if not rest:
                    return super().parse_args(ctx, options)
                del rest[0]
        return super().parse_args(ctx, [*options, "--", *name, *rest[rest[:1] == ["--"] :]])


@click.group("lock")
def command() -> None:
    """Take turns: at most one command of a name at a time, or at most N.

    \b
    Example:
      isoenv lock run build -- make
      isoenv lock list
    """


@command.command(
    cls=_Runs,
    context_settings={"allow_interspersed_args": False},
    options_metavar="",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up with 75; 0 does not wait at all.",
)
@click.option("--shared", is_flag=True, help="Beside other shared holders.")
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Wait until fewer than N have it.",
)
@click.option("--global", "everywhere", is_flag=True, help="For all projects of this machine.")
@click.argument("name")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def run(  # noqa: PLR0913  # click passes each option by name
    *,
    name: str,
    command: tuple[str, ...],
    timeout: float | None,
    shared: bool,
    slots: int,
    everywhere: bool,
) -> None:
    """Become COMMAND as soon as it has the lock NAME.

    It is held exactly as long as COMMAND and what it starts live, whatever ends them, and waited
    for in turn. Inside a checkout it is one of the project, elsewhere of the machine.

    \b
    Example:
      isoenv lock run enigma --timeout 10 -- python train.py
      isoenv lock run gpu --slots 2 -- python train.py
      isoenv lock run --global apt -- sudo apt-get update
    """
    caller = start.caller()
    scope = lock_scope.machine(caller.state) if everywhere else lock_scope.of(caller)
    lock = Lock(name, timeout=timeout, shared=shared, slots=slots, scope=scope)
    lock.acquire(command)
    try:
        lock.bequeath()
        launch.become(command, os.environ)
    finally:
        lock.release()


@command.command("list")
@params.json_option
def list_(*, as_json: bool) -> None:
    """List the locks that are held or waited for, of all projects.

    \b
    Example:
      isoenv lock list
      isoenv lock list --json
    """
    found = lock_list.locks()
    if as_json:
        output.write_json({"locks": [_describe(locked) for locked in found]})
        return
    if not found:
        start.say("no lock is held")
        return
    headers = ["NAME", "PROJECT", "MODE", "HOLDER", "SINCE", "WAITING"]
    output.write_table(headers, [row for locked in found for row in _rows(locked)])


def _rows(locked: lock_list.Locked) -> list[list[str]]:
    place = [locked.name, locked.project or "-"]
    waiting = str(len(locked.waiters))
    if not locked.holders:
        return [[*place, "-", "-", "-", waiting]]
    return [
        [*place, holder.mode, holder.who, lock_record.moment(holder.since), waiting]
        for holder in locked.holders
    ]


def _describe(locked: lock_list.Locked) -> dict[str, object]:
    return {
        "name": locked.name,
        "project": locked.project,
        "holders": [_describe_holder(holder) for holder in locked.holders],
        "waiters": list(locked.waiters),
    }


def _describe_holder(holder: Holder) -> dict[str, object]:
    since = holder.since
    return {
        "session": holder.session,
        "pid": holder.pid,
        "command": holder.command,
        "instance": holder.instance,
        "host": holder.host,
        "mode": holder.mode,
        "gone": holder.is_gone,
        "since": since and datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds"),
    }
