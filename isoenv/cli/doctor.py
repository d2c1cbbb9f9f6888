"""Say what is wrong on this machine, and what to do about it."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from isoenv import diagnosis, hook_diagnosis
from isoenv.cli import output, params, start


@click.command("doctor")
@params.json_option
def command(*, as_json: bool) -> int:
    """Say what is wrong on this machine, with the evidence and the remedy.

    Looks for strangers on leased ports (with pid and command), ports that two instances have
    reserved, checkouts that are gone, ports in the kernel's ephemeral range, a hook that is
    missing, lost or doubled, another tool that manages the same variables, and an environment
    that came from another checkout. The exit code is 1 when something is wrong.

    \b
    Example:
      isoenv doctor
      isoenv doctor --json
    """
    caller = start.caller()
    with start.registry(caller) as registry:
        found = diagnosis.findings(caller, registry)
    # Only where a person has typed it is a hook to be expected.
    found += hook_diagnosis.findings(caller, interactive=sys.stdin.isatty())
    if as_json:
        output.write_json({"doctor": [asdict(finding) for finding in found]})
    else:
        for finding in found:
            mark = "note" if finding.harmless else "wrong"
            output.write(output.clean(f"{mark}: {finding.message}: {finding.remedy}") + "\n")
        if not found:
            output.write("nothing is wrong\n")
    return int(any(not finding.harmless for finding in found))
