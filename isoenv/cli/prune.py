"""Give back what is gone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from isoenv import pruning
from isoenv.cli import start
from isoenv.coordination.pruning import prune_state
from isoenv.databases import orphans as databases
from isoenv.errors import IsoenvError
from isoenv.services import orphans as services

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.context import Caller
    from isoenv.registry import Registry

# Hours after which a session is given up that is silent and whose process cannot be seen.
SILENCE = 1.0


@dataclass(frozen=True, slots=True)
class Task:
    """One thing to be given back: how, in which words, and why it has to stay if it has to."""

    title: str
    will: str
    done: str
    remove: Callable[[], object] | None
    kept_because: str | None = None


@click.command("prune")
@click.option("--dry-run", is_flag=True, help="Say what would be given back, and do nothing.")
@click.option(
    "--purge", is_flag=True, help="Delete the instances' own directories and databases too."
)
@click.option(
    "--max-age",
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="Remove also registries set aside, notices and ready environments older than that, and "
    f"sessions that cannot be seen and have been silent for so long (otherwise {SILENCE:g}).",
)
def command(*, dry_run: bool, purge: bool, max_age: float | None) -> int:
    """Give back the slots of checkouts that are gone, and what dead sessions have left.

    What they have left running is ended first: services whose checkout is gone, processes that
    have outlived their service, compose projects where docker or podman answers.

    Gone means proven gone: the git directory is not there while its parent is, and no port of
    the instance is in use. Each thing is removed by itself; what cannot be removed stays on
    record, and the exit code is 1. A directory is deleted only if isoenv has made it. No lease
    is given back for its age.

    \b
    Example:
      isoenv prune --dry-run
      isoenv prune --purge
      isoenv prune --max-age 168
    """
    caller = start.caller()
    with start.registry(caller) as registry:
        done = [
            _do(task, dry_run=dry_run)
            for task in _tasks(caller, registry, purge=purge, max_age=max_age, dry_run=dry_run)
        ]
        if not dry_run:
            services.tidy(caller.state, registry)
        left = [] if purge else pruning.left_over(registry)
    dead = prune_state(caller.state, SILENCE if max_age is None else max_age, dry_run=dry_run)
    for session in dead:
        word = "would remove" if dry_run else "removed"
        start.say(f"{word} session {session}: its process is gone")
    if not done and not dead:
        start.say("nothing is gone")
    if left:
        are = "directory is" if len(left) == 1 else "directories are"
        start.say(f"{len(left)} {are} left of what is gone: `isoenv prune --purge` deletes them")
    return int(not all(done))


def _tasks(
    caller: Caller, registry: Registry, *, purge: bool, max_age: float | None, dry_run: bool
) -> Iterator[Task]:
    """Yield what is gone, each once all before it is done: the next may hang on that."""
    # While the server runs that they are in, which may be the instance's own; and before the
    # leases are given back, since a password may hang on the ports in them.
    for database in databases.orphans(caller, registry) if purge else []:
        yield Task(database.title, "drop", "dropped", partial(databases.drop, caller, database))
    left, notes = services.find(caller.state, registry)
    for note in notes:
        start.say(note)
    for orphan in left:
        end = partial(orphan.end, purge) if orphan.end else None
        yield Task(orphan.title, "end", "ended", end, orphan.reason or None)
    # What is only shown still has the ports that it would not have by now.
    is_freed = services.freed_by_ending(left if dry_run else ())
    for item in pruning.plan(registry, purge=purge, max_age=max_age, is_freed=is_freed):
        yield Task(item.title, *item.verb, item.remove, item.kept_because)


def _do(task: Task, *, dry_run: bool) -> bool:
    """Do a task, saying so; return whether nothing stays that should go."""
    reason = task.kept_because
    if reason is None and task.remove and not dry_run:
        # What is dropped is named first: it cannot be had again.
        if task.will == "drop":
            start.say(f"dropping {task.title}")
        try:
            task.remove()
        except IsoenvError as error:
            reason = str(error)
    if reason is not None:
        start.say(f"kept {task.title}: {reason}")
    else:
        start.say(f"would {task.will} {task.title}" if dry_run else f"{task.done} {task.title}")
    return reason is None
