"""What happens to the databases of an instance: made, dropped, made anew, looked at."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import directories
from isoenv.databases import ownership, records, targets
from isoenv.databases.address import Postgres
from isoenv.databases.desk import Desk
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.databases import postgresql, sqlite
    from isoenv.databases.ownership import Found
    from isoenv.databases.targets import Target
    from isoenv.instances import Selected
    from isoenv.models import Environment

# Seconds that a template in use, or another isoenv, is waited for unless the user says otherwise.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Look:
    """What `db list` says of a database.

    ``state`` is ``whole``; ``foreign``, there and not made by isoenv; ``other``, made for another
    instance; ``unfinished``, which the next `db create` replaces; ``missing``; ``unreachable``,
    for the reason in ``problem``.
    """

    target: Target
    state: str
    found: Found | None = None
    problem: str = ""


def create_missing(
    selected: Selected,
    environment: Environment,
    say: Callable[[str], None],
    timeout: float = PATIENCE,
) -> int:
    """Make the databases of an instance that are missing; return how many there are.

    Each is told through ``say``, also one that is there already.
    """
    found = targets.of(selected, environment)
    for target in found:
        if not create(target, selected, environment, say, timeout):
            say(f"{target.place} is there")
    return len(found)


def create(
    target: Target,
    selected: Selected,
    environment: Environment,
    say: Callable[[str], None],
    timeout: float = PATIENCE,
) -> bool:
    """Make one of these databases if it is missing, and tell; return whether it was."""
    _make_dirs(selected, environment)
    start, desk = time.monotonic(), _desk(selected, say, timeout)
    is_made = open_database(target, desk).create()
    if is_made:
        say(f"made {target.place}{_origin(target)} in {time.monotonic() - start:.1f} s")
    return is_made


def drop(
    selected: Selected,
    environment: Environment,
    say: Callable[[str], None],
    timeout: float,
    *,
    force: bool,
) -> int:
    """Drop the databases of an instance; return how many it has."""
    found = targets.of(selected, environment)
    for target in found:
        ownership.refuse_main(target, "drop", force=force)
    for target in found:
        dropped = open_database(target, _desk(selected, say, timeout)).drop(force=force)
        say(f"dropped {target.place}" if dropped else f"{target.place} is not there")
    return len(found)


def reset(
    selected: Selected,
    environment: Environment,
    say: Callable[[str], None],
    timeout: float,
    *,
    force: bool,
) -> int:
    """Make the databases of an instance anew; return how many it has."""
    found = targets.of(selected, environment)
    for target in found:
        ownership.refuse_main(target, "reset", force=force)
    _make_dirs(selected, environment)
    for target in found:
        start = time.monotonic()
        open_database(target, _desk(selected, say, timeout)).reset(force=force)
        say(f"made {target.place} anew{_origin(target)} in {time.monotonic() - start:.1f} s")
    return len(found)


def freeze(main: Selected, target: Target, say: Callable[[str], None], timeout: float) -> None:
    """Freeze the template of slot 0's database ``target``, made from it where it is missing."""
    template = targets.template_of(target, main.context.project.key)
    if open_database(template, _desk(main, say, timeout)).freeze():
        say(f"made {template.place}{_origin(template)}, frozen")
    else:
        say(f"froze {template.place}")


def refresh(
    main: Selected, target: Target, say: Callable[[str], None], timeout: float, *, force: bool
) -> None:
    """Make the template of slot 0's database ``target`` anew from it, and freeze it."""
    template = targets.template_of(target, main.context.project.key)
    open_database(template, _desk(main, say, timeout)).refresh(force=force)
    say(f"made {template.place} anew{_origin(template)}, frozen")


def look(selected: Selected, environment: Environment) -> Iterator[Look]:
    """Yield what there is of the databases of an instance, changing nothing."""
    desk = _desk(selected, lambda _line: None, 0.0)
    for target in targets.of(selected, environment):
        try:
            found, left = open_database(target, desk).look()
        except IsoenvError as error:
            yield Look(target, "unreachable", problem=str(error))
            continue
        yield Look(target, _state(desk, target, found, left=left), found)


def _state(desk: Desk, target: Target, found: Found | None, *, left: bool) -> str:
    if found is None:
        return "unfinished" if left else "missing"
    if found.mark is None:
        return "foreign"
    record = records.read(desk.state, target.place)
    return "whole" if ownership.is_ours(target, record, found.mark) else "other"


def _make_dirs(selected: Selected, environment: Environment) -> None:
    found = selected.context.checkout
    directories.make(environment.dirs.values(), found.root if found else None)


def _desk(selected: Selected, say: Callable[[str], None], timeout: float) -> Desk:
    here = selected.context
    return Desk(here.caller.state, here.project.key, time.monotonic() + timeout, say)


def open_database(target: Target, desk: Desk) -> postgresql.Database | sqlite.Database:
    """Return what can be done with a database, of either kind."""
    if isinstance(target.place, Postgres):
        from isoenv.databases import postgresql

        return postgresql.Database(target, target.place, desk)
    from isoenv.databases import sqlite

    return sqlite.Database(target, target.place, desk)


def _origin(target: Target) -> str:
    """Say what a database was made from."""
    source = target.template
    if source is None:
        return ""
    if isinstance(source, targets.Dump):
        return f" from {source.path}"
    return f" from {source.database if isinstance(source, Postgres) else source}"
