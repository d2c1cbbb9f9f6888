"""Hold a lock while a command runs, or for a session; show which locks are held."""

from __future__ import annotations

import os
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from isoenv import launch
from isoenv.cli import output, params, start
from isoenv.coordination import current, lock_list, lock_record, lock_scope, sticky
from isoenv.coordination.lock import Lock

if TYPE_CHECKING:
    from isoenv.coordination.lock_record import Holder
    from isoenv.coordination.lock_scope import Scope

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


_timeout_option = click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Give up with 75; 0 does not wait at all.",
)
_global_option = click.option("--global", "everywhere", is_flag=True, help="For all projects.")


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
@_timeout_option
@click.option("--shared", is_flag=True, help="Beside other shared holders.")
@click.option(
    "--slots",
    type=click.IntRange(min=1),
    default=1,
    metavar="N",
    help="Wait until fewer than N have it.",
)
@_global_option
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

    With ISOENV_STORE it is one of all hosts that share the store, and COMMAND finds its token in
    ISOENV_LOCK_TOKEN. Should the connection be lost, and another have the lock, COMMAND is ended.

    \b
    Example:
      isoenv lock run enigma --timeout 10 -- python train.py
      isoenv lock run gpu --slots 2 -- python train.py
      isoenv lock run --global apt -- sudo apt-get update
    """
    scope = _scope(everywhere=everywhere)
    lock = Lock(name, timeout=timeout, shared=shared, slots=slots, scope=scope)
    lock.acquire(command)
    try:
        lock.bequeath(command, start.say)
        token = {} if lock.token is None else {sticky.TOKEN: str(lock.token)}
        launch.become(command, {**os.environ, **token})
    finally:
        lock.release()


@command.command()
@click.argument("name")
@_timeout_option
@click.option(
    "--ttl",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Until so long from now; default: as long as the session.",
)
@_global_option
@params.session_option
def acquire(
    name: str, timeout: float | None, ttl: float | None, session: str | None, *, everywhere: bool
) -> None:
    """Take the lock NAME for a session, and print its token.

    The session has it until `release`, the end of its process, or for SECONDS. Without
    `--session` and ISOENV_SESSION it is one that ends with the parent process. Each token of a
    lock is greater than the one before: what is written to can tell a holder that has lost it.

    \b
    Example:
      isoenv lock acquire enigma --timeout 10
      export ISOENV_LOCK_TOKEN=$(isoenv lock acquire enigma --ttl 600)
    """
    caller = start.caller()
    scope = _scope(everywhere=everywhere)
    # What is no name, or no time, is refused before a session is made.
    scope.lock(name)
    sticky.check_ttl(ttl)
    with closing(current.named_or_nameless(caller, session)) as handle:
        lock = Lock(name, timeout=timeout, scope=scope, session=handle.id)
        output.write(f"{sticky.acquire(lock, handle.record, ttl).token}\n")


@command.command()
@click.argument("name")
@_global_option
@params.session_option
def release(name: str, session: str | None, *, everywhere: bool) -> None:
    """Give back the lock NAME that a session has taken.

    1 says that the session does not have it, or not any more.

    \b
    Example:
      isoenv lock release enigma
    """
    caller = start.caller()
    lock = Lock(name, scope=_scope(everywhere=everywhere))
    with closing(current.named_or_nameless(caller, session)) as handle:
        sticky.release(lock, handle.record)


@command.command("list")
@params.json_option
def list_(*, as_json: bool) -> None:
    """List the locks that are held or waited for, of all projects.

    With ISOENV_STORE those of all hosts, and of those that wait on another host the next one.

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


def _scope(*, everywhere: bool) -> Scope:
    return lock_scope.machine(start.caller().state) if everywhere else lock_scope.of(start.here())


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
        "token": holder.token,
        "gone": holder.is_gone,
        "since": since and datetime.fromtimestamp(since, UTC).isoformat(timespec="seconds"),
    }
