"""The rows that every store has: their columns in one order, and the values in them."""

from __future__ import annotations

import os
import time

from isoenv import liveness

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from isoenv.coordination.records import Claim, Place, Record
    from isoenv.process import Identity

COLUMNS = (
    "id, name, state, pid, start, inode, boot, namespace, host, project_key, project, slot,"
    " instance, labels, started_at, beat, beaten_at"
)


def brief_of(rows: Sequence[tuple[str, bytes | None]]) -> tuple[str, str | None] | None:
    """Return id and project of the first row, if there is one."""
    if not rows:
        return None
    session_id, key = rows[0]
    return session_id, None if key is None else os.fsdecode(key)


def process_values(process: Identity) -> tuple[object, ...]:
    """Return the six columns that say which process it is."""
    return (
        *(process.pid, process.start, process.inode),
        *(process.boot, process.namespace, process.host),
    )


def place_values(place: Place | None) -> tuple[object, ...]:
    """Return the four columns that say where a session belongs."""
    if place is None:
        return (None,) * 4
    return os.fsencode(place.project.key), place.project.name, place.slot, place.name


def values_of(record: Record) -> tuple[object, ...]:
    """Return a session's columns."""
    import json

    return (
        *(record.id, record.name, record.state, *process_values(record.process)),
        *place_values(record.place),
        # As escapes: what came from a command line may be no Unicode.
        json.dumps(dict(record.labels)),
        *(record.started_at, record.beat, record.beaten_at),
    )


def record_of(row: tuple[object, ...]) -> Record:
    """Return the session of a row."""
    import json
    from typing import cast

    from isoenv.coordination.records import Place, Record
    from isoenv.models import Project
    from isoenv.process import Identity

    (session_id, name, state, *process, key, project, slot, instance, labels, started, beat, at) = (
        cast("tuple[Any, ...]", row)
    )
    place = None if key is None else Place(Project(os.fsdecode(key), project), slot, instance)
    return Record(
        *(session_id, name, Identity(*process), place, state, json.loads(labels)),
        *(started, beat, at),
    )


def claim_of(row: tuple[Any, ...] | None) -> Claim | None:
    """Return who holds a lock by a row of what is known of both."""
    from isoenv.coordination.records import Claim

    if row is None:
        return None
    path, name, project, token, since, boot, expires, title, of, slot, *pulse = row
    is_over = expires is not None and (boot != liveness.boot_id() or expires <= time.monotonic_ns())
    return Claim(
        path=path,
        name=os.fsdecode(name),
        project=None if project is None else os.fsdecode(project),
        token=token,
        since=since,
        expires=expires,
        is_over=is_over,
        title=title or pulse[0],
        is_named=title is not None,
        instance=None if slot is None else f"{of}:{slot}",
        pulse=(*pulse,),
    )
