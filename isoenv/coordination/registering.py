"""Register processes as sessions, and find those that are."""

from __future__ import annotations

import os
import re
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from isoenv import paths, process
from isoenv.coordination import reaping
from isoenv.coordination.addresses import EVERYONE
from isoenv.coordination.records import Record, new_id
from isoenv.coordination.store import open_store
from isoenv.errors import IsoenvError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.coordination.records import Place
    from isoenv.coordination.store import Store

_ID = re.compile(r"\d{8}_\d{6}_\d+_[0-9a-f]{8}")
# The longest name of a session, in characters.
LONGEST_NAME = 200


def draft(
    identity: process.Identity,
    name: str | None,
    where: Place | None,
    labels: Mapping[str, str] | None = None,
) -> Record:
    """Return what is to be registered. Raises UsageError for a name that cannot be one."""
    if name is not None:
        check_name(name)
    return Record(new_id(identity.pid), name, identity, where, labels=dict(labels or {}))


def start(store: Store, record: Record, *, new: bool = False) -> Record:
    """Register a session, and clean up after dead ones on the way.

    Raises IsoenvError where a live session has the name, unless ``new`` asks for another.
    """
    return reaping.register(store, lambda is_gone: store.start(record, is_gone, new=new))


def check_name(name: str) -> None:
    """Raise UsageError for a name that an address could not mean."""
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UsageError(f"{name!r} is no name of a session: use up to 200 printable characters")
    if set(name) & {":", "/"}:
        raise UsageError(f"{name} is no name of a session: leave out `:` and `/`")
    if name in (".", EVERYONE) or name.isdecimal() or is_id(name):
        raise UsageError(
            f"{name} is no name of a session, it means something else: `bot-{name}` would be one"
        )


def is_id(word: str) -> bool:
    """Whether a word has the form of a session id."""
    return bool(_ID.fullmatch(word))


def named(store: Store, word: str) -> Record:
    """Return the session of that id or name. Raises NotFoundError where there is none."""
    found = store.find(word)
    if found is None or reaping.is_gone(reaping.pulse_of(found)):
        raise NotFoundError(f"no session {word}: `isoenv session list` shows them")
    return found


def nameless(store: Store, pid: int, where: Place | None) -> Record:
    """Return the session without a name that ends with a process, made where it is missing."""
    identity = identify(pid)
    return store.nameless(identity) or start(store, draft(identity, None, where))


def identify(pid: int) -> process.Identity:
    """Return who has this pid. Raises IsoenvError where nobody has."""
    found = process.identify(pid)
    if found is None:
        raise IsoenvError(f"there is no process {pid}: `ps -p {pid}` shows none")
    return found


def sessions() -> list[Record]:
    """Return the live sessions of this machine, the oldest first."""
    with closing(open_store(paths.state_dir(os.environ))) as store:
        return live(store)


def counts(state: str) -> dict[tuple[str, int | None], int]:
    """Return how many live sessions there are by project key and slot; makes no store."""
    if not paths.has_store(os.environ, state):
        return {}
    with closing(open_store(state)) as store:
        places = [record.place for record in live(store) if record.place]
    return Counter((place.project.key, place.slot) for place in places)


def live(store: Store) -> list[Record]:
    """Return the live sessions, after those that are gone have been removed."""
    reaping.reap(store)
    return store.sessions()
