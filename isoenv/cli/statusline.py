"""Print the status line of a session."""

from __future__ import annotations

import os
import subprocess

import click

from isoenv.cli import output, params
from isoenv.coordination import glance, statusline
from isoenv.errors import UsageError


@click.command("statusline")
@click.option("--compact", is_flag=True, help="The short form: `A:25/145(5) T:7.5% C:99.2%`.")
@click.option("--json", "as_json", is_flag=True, help="The same as a JSON object.")
@click.option("--shared", is_flag=True, help="Only the total of agents, without this session's.")
@click.option("--project", is_flag=True, help="Totals of this project's sessions alone.")
@click.option("--format", "template", metavar="T", help="Fill in a template: {agents}, {total} …")
@click.option("--segment", type=click.Choice(statusline.SEGMENTS), help="One part alone.")
@click.option("--wrap", metavar="CMD", help="Print what CMD prints, and this line below it.")
@params.session_option
def command(  # noqa: PLR0913  # its options
    template: str | None,
    segment: str | None,
    wrap: str | None,
    session: str | None,
    *,
    compact: bool,
    as_json: bool,
    shared: bool,
    project: bool,
) -> None:
    """Print the status line: agents, tokens, confidence, status.

    On standard input it takes the JSON that Claude Code gives a status line command; without
    that, what `isoenv metrics set` has set. The first number is this session's, the second that
    of all live sessions, the one in brackets how many these are. A template may name {agents}
    {total} {sessions} {tokens_used} {tokens_total} {percentage} {confidence} {status} {model}
    {cost} {worktree}. CMD of `--wrap` gets the same input.

    \b
    Example:
      isoenv statusline --compact
      isoenv statusline --format '{agents} of {total} agents'
      isoenv statusline --wrap 'npx ccstatusline'
    """
    if sum((compact, as_json, template is not None, segment is not None)) > 1:
        raise UsageError("one of `--compact`, `--json`, `--format` and `--segment` is enough")
    given = glance.read_input()
    if wrap is not None:
        output.write(_printed(wrap, given))
    line = glance.line(
        os.environ,
        given,
        style="compact" if compact else "json" if as_json else "full",
        shared=shared,
        project=project,
        session=session,
        segment=segment,
        template=template,
    )
    output.write(f"{line}\n")


def _printed(wrapped: str, given: bytes) -> str:
    """Return what another status line prints, with a line end; its failures are its own."""
    done = subprocess.run(
        ["/bin/sh", "-c", wrapped], input=given, stdout=subprocess.PIPE, check=False
    )
    printed = os.fsdecode(done.stdout)
    return printed if not printed or printed.endswith("\n") else f"{printed}\n"
