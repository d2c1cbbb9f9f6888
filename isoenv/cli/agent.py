"""Give coding agents the environment of the directory that they work in."""

from __future__ import annotations

import difflib
import os
import shlex
import sys
from typing import TYPE_CHECKING

import click

from isoenv.agents import envfile, installation, recipes
from isoenv.cli import output, start
from isoenv.errors import IsoenvError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from isoenv.agents.installation import Plan
    from isoenv.agents.settings import Note
    from isoenv.context import Caller

AGENT = click.argument("agent", metavar="claude", type=click.Choice(["claude"]))


@click.group("agent")
def command() -> None:
    """Give coding agents the environment of the directory that they work in.

    An agent's shell has no prompt, so a shell's hook does nothing there. BASH_ENV does: each
    command finds the environment by the directory that it runs in.

    \b
    Example:
      isoenv agent install claude
      isoenv agent env codex
    """


def _level_options(command: Callable[..., Any]) -> Callable[..., Any]:
    user = click.option("--user", is_flag=True, help="Your own settings, for all projects.")
    shared = click.option("--shared", is_flag=True, help="The settings that the team shares.")
    yes = click.option("--yes", is_flag=True, help="Write without asking.")
    return user(shared(yes(command)))


@command.command()
@AGENT
@_level_options
def install(agent: str, *, user: bool, shared: bool, yes: bool) -> None:  # noqa: ARG001  # one so far
    """Put isoenv into the settings of Claude Code.

    Into this checkout's .claude/settings.local.json, which is yours alone: BASH_ENV, hooks that
    keep the sessions in step, and the status line. The change is shown first. What is there
    stays, byte for byte, and twice is once. With --shared nothing in it depends on this machine.

    \b
    Example:
      isoenv agent install claude
      isoenv agent install claude --user --yes
    """
    level = _level(user=user, shared=shared)
    caller = _acting(level)
    plan = installation.installing(caller, level)
    written = _carry_out(plan, yes=yes)
    for note in plan.notes:
        start.say(_left_alone(note, plan.file, caller.state))
    # Once more where nothing was to be changed: another version may have written it.
    envfile.write(caller.state)
    if written and plan.before is None and not user and not shared:
        _say_unless_ignored(plan.file)


@command.command()
@AGENT
@_level_options
def uninstall(agent: str, *, user: bool, shared: bool, yes: bool) -> None:  # noqa: ARG001  # one so far
    """Take out of the settings of Claude Code what `install` has put in.

    What you have written around it stays. A file that `install` has made goes, unless something
    else is in it now.

    \b
    Example:
      isoenv agent uninstall claude
    """
    level = _level(user=user, shared=shared)
    plan = installation.removing(_acting(level), level)
    _carry_out(plan, yes=yes)


@command.command()
@AGENT
def hook(agent: str) -> None:  # noqa: ARG001  # one so far
    """Act on an event of Claude Code, given as JSON on standard input.

    The settings that `install` writes call it. It never fails the agent: what went wrong is one
    line on standard error, and the exit code is 0.

    \b
    Example:
      echo '{"hook_event_name": "SessionEnd", "session_id": "1"}' | isoenv agent hook claude
    """
    from isoenv.__main__ import agent_hook

    agent_hook()


@command.command()
@click.argument("name", type=click.Choice(recipes.agents()))
def env(name: str) -> None:
    """Print how the agent NAME is told to give its commands the environment.

    The file that the lines name is written, where it is missing.

    \b
    Example:
      isoenv agent env codex
      isoenv agent env other
    """
    file = envfile.write(start.caller().state)
    output.write(recipes.recipe(name, file))


@command.command()
def rules() -> None:
    """Print what an agent should know, for AGENTS.md or CLAUDE.md.

    \b
    Example:
      isoenv agent rules >> AGENTS.md
    """
    output.write(recipes.RULES)


def _level(*, user: bool, shared: bool) -> str:
    if user and shared:
        raise UsageError("`--user` or `--shared`: these are two files")
    return installation.USER if user else installation.SHARED if shared else installation.LOCAL


def _acting(level: str) -> Caller:
    """Return the caller; all settings but the user's own are those of the directory."""
    return start.caller() if level == installation.USER else start.here()


def _carry_out(plan: Plan, *, yes: bool) -> bool:
    """Show a change, ask, and make it; return whether it was made."""
    if not plan.is_change:
        there = plan.before is not None
        start.say(f"nothing to change in {plan.file}" if there else f"there is no {plan.file}")
        return False
    output.write(_difference(plan))
    if not yes:
        _ask(plan)
    installation.apply(start.caller(), plan)
    start.say(f"removed {plan.file}" if plan.after is None else f"wrote {plan.file}")
    return True


def _ask(plan: Plan) -> None:
    if not (sys.stdin and sys.stdin.isatty()):
        raise IsoenvError(f"{plan.file} was left as it is: `--yes` writes it without asking")
    if not click.confirm("Write this?", default=True, err=True):
        raise IsoenvError(f"{plan.file} was left as it is")


def _difference(plan: Plan) -> str:
    """Return a change as a unified diff, without what could move a terminal's cursor."""
    before, after = (
        (content or b"").decode("utf-8", "backslashreplace").splitlines()
        for content in (plan.before, plan.after)
    )
    names = [os.devnull if each is None else plan.file for each in (plan.before, plan.after)]
    lines = difflib.unified_diff(before, after, names[0], names[1], lineterm="")
    return "".join(f"{output.clean(line.replace(chr(9), '  '))}\n" for line in lines)


def _left_alone(note: Note, file: str, state: str) -> str:
    """Say what of the user's own stays, and how it and isoenv get along."""
    said = f"{note.name} in {note.file or file} stays {note.value}"
    if note.name == "BASH_ENV":
        return f"{said}: `{envfile.line(state).strip()}` at that file's end does the same"
    if note.name == "statusLine":
        wrapped = shlex.quote(note.value)
        return f"{said}: `isoenv statusline --wrap {wrapped}` in its place adds isoenv's line"
    return f"{said}: until it is taken out, only BASH_ENV has an effect"


def _say_unless_ignored(file: str) -> None:
    if not installation.is_ignored(file):
        start.say(
            "git takes it for a new file: `echo .claude/settings.local.json >> .git/info/exclude`"
        )
