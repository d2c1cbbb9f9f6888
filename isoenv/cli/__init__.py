"""The commands, one module each, imported when named."""

from __future__ import annotations

import os
from importlib import import_module

import click

from isoenv import __version__
from isoenv.errors import UsageError

# In the order of the help: what a person needs first stands first.
COMMANDS = (
    "hook",
    "allow",
    "deny",
    "direnv",
    "agent",
    "export",
    "exec",
    "up",
    "down",
    "restart",
    "ps",
    "logs",
    "api",
    "setup",
    "list",
    "show",
    "port",
    "path",
    "claim",
    "release",
    "enable",
    "disable",
    "init",
    "check",
    "schema",
    "render",
    "db",
    "lock",
    "session",
    "send",
    "receive",
    "metrics",
    "statusline",
    "prune",
    "doctor",
    "on",
    "off",
    "reload",
    "completion",
)


class LazyGroup(click.Group):
    """Import a command's module when the command is named, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the commands in the order help shows them."""
        # `list` is this package's own command, as soon as it has been imported.
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Return the command called ``cmd_name``, or None."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"isoenv.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that is named; for an unknown one, say which was perhaps meant."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from isoenv.tables import did_you_mean

            hint = did_you_mean(name, COMMANDS) or "`isoenv --help` lists them"
            ctx.fail(f"No such command {name!r}: {hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "directory",
    metavar="DIR",
    type=click.Path(exists=True, file_okay=False),
    help="Act as if started in DIR.",
)
@click.version_option(__version__, prog_name="isoenv", message="%(prog)s %(version)s")
def group(directory: str | None) -> None:
    """Give every checkout its own ports, names, directories and endpoints.

    INSTANCE is a slot (2), a name (feature-auth), `.` (the one of the current directory), or any
    of these with a project in front (orienter:2).

    \b
    Example:
      isoenv list
      isoenv exec 2 sky status
    """
    if directory is None:
        return
    try:
        os.chdir(directory)
        os.environ["PWD"] = os.getcwd()
    except OSError as error:
        raise UsageError(
            f"cannot enter {directory}: {(error.strerror or str(error)).lower()}"
        ) from None
    # A directory that was named beats the instance that an outer `exec 3` keeps.
    os.environ.pop("__ISOENV_PIN", None)
