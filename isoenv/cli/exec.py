"""Run a command in an instance."""

from __future__ import annotations

import os

import click

from isoenv import running
from isoenv.cli import params, start
from isoenv.errors import UsageError


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--cd", "change", is_flag=True, help="Run in the instance's checkout.")
@click.option("--session", metavar="NAME", help="Register COMMAND as a session of that name.")
@click.argument("instance", type=params.InstanceParam())
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(instance: str, command: tuple[str, ...], session: str | None, *, change: bool) -> None:
    """Become COMMAND in the environment of INSTANCE.

    It stays in the current directory, and isoenv leaves no process behind: the exit status and
    the signals are the command's own. A number that nobody holds is leased. 127: not found,
    126: not executable.

    With `--session` COMMAND is a session for as long as it lives: `isoenv session list` shows it,
    and it finds its id in ISOENV_SESSION.

    \b
    Example:
      isoenv exec 2 sky launch task.yaml
      isoenv exec feature-auth npm test
      isoenv exec . -- env
      isoenv exec --session trainer 2 python train.py
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise UsageError("no command to run: `isoenv exec 2 COMMAND`")
    caller = start.caller(program=os.path.basename(words[0]))
    running.run(caller, instance, words, change=change, session=session)
