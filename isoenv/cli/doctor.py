"""Say what is wrong on this machine, and what to do about it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from isoenv import files
from isoenv.cli import output, params, start
from isoenv.diagnosis import survey
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.diagnosis.finding import Finding


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Put right what can be put right safely, and say what.")
@params.json_option
def command(*, fix: bool, as_json: bool) -> int:
    """Say what is wrong on this machine, with the evidence and the remedy.

    Looks at leases and who listens on their ports; at what this project's compose files, .env and
    scripts say; at the claims of other users; at the registry and its directory; at hooks, at
    what this shell has inherited, and at other versions of isoenv. Nothing is changed without
    --fix, which gives back what is gone, removes what is out of date, closes the state directory
    to others, and never touches a file of yours. The exit code is 1 when something is wrong.

    \b
    Example:
      isoenv doctor
      isoenv doctor --fix
      isoenv doctor --json
    """
    caller = start.caller()
    # Only where a person has typed it is a hook to be expected.
    found = list(survey.findings(caller, interactive=sys.stdin is not None and sys.stdin.isatty()))
    done = [_outcome(finding) if fix else None for finding in found]
    if as_json:
        rows = [each.described() for each in found]
        for row, (fixed, said) in zip(rows, (each or (False, None) for each in done), strict=True):
            row |= {"fixed": fixed, "outcome": said}
        output.write_json({"doctor": rows})
    else:
        for finding, outcome in zip(found, done, strict=True):
            output.write(output.clean(_line(finding, outcome)) + "\n")
        if not found:
            output.write("nothing is wrong\n")
    left = (f for f, outcome in zip(found, done, strict=True) if not (outcome and outcome[0]))
    return int(any(not finding.harmless for finding in left))


def _outcome(finding: Finding) -> tuple[bool, str] | None:
    """Repair what can be repaired; return whether that worked, and what was done or why not."""
    if finding.repair is None:
        return None
    try:
        return True, finding.repair()
    except IsoenvError as error:
        return False, str(error)
    except OSError as error:
        return False, f"{error.filename}: {files.reason(error)}"


def _line(finding: Finding, outcome: tuple[bool, str] | None) -> str:
    if outcome and outcome[0]:
        return f"fixed: {finding.message}: {outcome[1]}"
    mark = "note" if finding.harmless else "wrong"
    return f"{mark}: {finding.message}: {outcome[1] if outcome else finding.remedy}"
