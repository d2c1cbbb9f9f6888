"""Give back what is gone."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isoenv import pruning
from isoenv.cli import start
from isoenv.coordination.pruning import prune_state
from isoenv.databases import orphans as databases
from isoenv.errors import IsoenvError
from isoenv.services import orphans as services

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.context import Caller
    from isoenv.registry import Registry


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would be given back, and do nothing.")
@click.option(
    "--max-age",
    type=click.FloatRange(0),
    default=1.0,
    metavar="HOURS",
    help="How long a session that cannot be seen may be silent; default: 1.",
)
@click.option(
    "--purge", is_flag=True, help="Delete the instances' own directories and databases too."
)
def command(max_age: float, *, dry_run: bool, purge: bool) -> int:
    """Give back the slots of checkouts that are gone, and what dead sessions have left.

    What they have left running is ended first: services whose checkout is gone, processes that
    have outlived their service, compose projects where docker or podman answers.

    Gone means proven gone: the git directory is not there while its parent is, and no port of
    the instance is in use. What cannot be removed stays on record, and the exit code is 1.

    \b
    Example:
      isoenv prune --dry-run
      isoenv prune --purge
    """
    caller = start.caller()
    with start.registry(caller) as registry:
        # While the server runs that they are in, which may be the instance's own.
        failed = purge and _drop_databases(caller, registry, dry_run=dry_run)
        left = services.find(caller.state, registry)
        failed |= _end(*left, dry_run=dry_run, purge=purge)
        found = pruning.orphans(caller, registry)
        for orphan in found:
            lease = orphan.lease
            title = f"{lease.project.name}/{lease.slot} {lease.name} ({lease.root})"
            if orphan.kept_because:
                start.say(f"kept {title}: {orphan.kept_because}")
                failed = True
                continue
            if dry_run:
                start.say(f"would free {title}" + (f" and {orphan.directory}" if purge else ""))
                continue
            try:
                pruning.remove(caller, registry, orphan, purge=purge)
                start.say(f"freed {title}")
            except IsoenvError as error:
                start.say(f"kept {title}: {error}")
                failed = True
        if not dry_run:
            services.tidy(caller.state, registry)
    dead = prune_state(caller.state, max_age, dry_run=dry_run)
    for session in dead:
        start.say(
            f"{'would remove' if dry_run else 'removed'} session {session}: its process is gone"
        )
    if not found and not left[0] and not dead:
        start.say("nothing is gone")
    return int(failed)


def _drop_databases(caller: Caller, registry: Registry, *, dry_run: bool) -> bool:
    """Drop the databases of checkouts that are gone, naming each first; return whether one stays.

    Before their leases are given back: a password may hang on the ports in them.
    """
    failed = False
    for orphan in databases.orphans(caller, registry):
        start.say(f"{'would drop' if dry_run else 'dropping'} {orphan.title}")
        if dry_run:
            continue
        try:
            databases.drop(caller, orphan)
        except IsoenvError as error:
            start.say(f"kept {orphan.title}: {error}")
            failed = True
    return failed


def _end(
    left: Sequence[services.Orphan], notes: Sequence[str], *, dry_run: bool, purge: bool
) -> bool:
    """End what runs although nobody can want it any more; return whether something stays."""
    failed = False
    for note in notes:
        start.say(note)
    for orphan in left:
        if orphan.end is None:
            start.say(f"kept {orphan.title}: {orphan.reason}")
            failed = True
        elif dry_run:
            start.say(f"would end {orphan.title}")
        else:
            try:
                orphan.end(purge)
                start.say(f"ended {orphan.title}")
            except IsoenvError as error:
                start.say(f"kept {orphan.title}: {error}")
                failed = True
    return failed
