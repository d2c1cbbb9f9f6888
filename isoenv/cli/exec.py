"""Run a command in an instance."""

from __future__ import annotations

import os

import click

from isoenv import running
from isoenv.cli import params, start
from isoenv.errors import UsageError


@click.command("exec", context_settings={"allow_interspersed_args": False})
@click.option("--cd", "change", is_flag=True, help="Run in the instance's checkout.")
@click.argument("instance", type=params.InstanceParam())
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def command(instance: str, command: tuple[str, ...], *, change: bool) -> None:
    """Become COMMAND in the environment of INSTANCE.

    It stays in the current directory, and isoenv leaves no process behind: the exit status and
    the signals are the command's own. A number that nobody holds is leased. 127: not found,
    126: not executable.

    \b
    Example:
      isoenv exec 2 sky launch task.yaml
      isoenv exec feature-auth npm test
      isoenv exec . -- env
    """
    words = command[1:] if command[0] == "--" else command
    if not words:
        raise UsageError("no command to run: `isoenv exec 2 COMMAND`")
    caller = start.caller(program=os.path.basename(words[0]))
    running.run(caller, instance, words, change=change)
