"""Print what a shell must evaluate to be in an instance."""

from __future__ import annotations

import os

import click

from isoenv import entering, envdiff, launch, shells
from isoenv.cli import output, params, start


@click.command("export")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@params.instance_argument
@click.option("--no-diff", is_flag=True, help="Print plain exports, without a way back.")
@click.option("--watch", is_flag=True, hidden=True)
def command(shell: str, instance: str | None, *, no_diff: bool, watch: bool) -> None:
    """Print what SHELL must evaluate to load the environment of INSTANCE.

    What isoenv has set before is undone first; variables you changed since are left alone.
    With --no-diff nothing is undone and nothing is recorded, for direnv and other tools that
    keep their own record.

    \b
    Example:
      eval "$(isoenv export bash)"
      isoenv export fish 2 | source
    """
    caller = start.caller()
    spelling = shells.named(shell)
    with start.registry(caller) as registry:
        _, ready = entering.enter(caller, registry, instance)
    if watch:
        # direnv alone keeps a record then: what was loaded before is undone, and ours goes with it.
        after = launch.environment(os.environ, ready)
        after.pop(envdiff.RECORD, None)
        changed = envdiff.changes(os.environ, after)
    elif no_diff:
        changed = output.plain_changes(ready.variables, ready.path_prepend)
    else:
        changed = envdiff.changes(os.environ, launch.environment(os.environ, ready))
    output.write_statements(spelling, changed)
    if watch:
        output.write(f"watch_file {' '.join(map(spelling.quote, ready.watched))};\n")
