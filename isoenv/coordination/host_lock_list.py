"""Which locks of all hosts are held and waited for, by the server's word."""

from __future__ import annotations

import json
import os
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from isoenv import liveness, paths
from isoenv.coordination import lock_record, sticky
from isoenv.coordination.lock_list import Locked
from isoenv.coordination.store.postgres import PostgresStore
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.coordination.lock_record import Holder

    # Project and name of a lock.
    Name = tuple[str | None, str]


def holders(state: str, project: str | None, name: str) -> tuple[Holder, ...]:
    """Return who holds a lock of all hosts."""
    held, _ = holders_and_waiters(state)
    return tuple(held.get((project, name), ()))


def holders_and_waiters(
    state: str,
) -> tuple[dict[Name, list[Holder]], dict[Name, list[Holder]]]:
    """Return who holds locks of all hosts, and who waits for them: of each host the next one."""
    with closing(_store(state)) as store:
        askers, claims = store.lock_askers(), store.claims()
    held: dict[Name, list[Holder]] = {}
    waiting: dict[Name, list[Holder]] = {}
    for name, project, mode, about, is_held in askers:
        into = held if is_held else waiting
        into.setdefault((project, name), []).append(_holder(about, mode))
    for claim in claims:
        if not sticky.is_free(claim):
            held.setdefault((claim.project, claim.name), []).append(sticky.holder_of(claim))
    return held, waiting


def joined(state: str, local: Sequence[Locked]) -> list[Locked]:
    """Return the locks of all hosts, with those that wait behind the next one of this host.

    The kernel's lock is held by who waits for that of all hosts, and by who knows of no store.
    """
    held, waiting = holders_and_waiters(state)
    names = {(locked.project, locked.name) for locked in local} | held.keys() | waiting.keys()
    found = []
    for project, name in sorted(names, key=lambda it: (it[0] or "", it[1])):
        holders, next_ones = held.get((project, name), []), waiting.get((project, name), [])
        known = {it.pid for it in (*holders, *next_ones) if it.host == liveness.hostname()}
        here = [it for it in local if (it.project, it.name) == (project, name)]
        holders += [one for it in here for one in it.holders if one.pid not in known]
        pids = [it.pid for it in next_ones if it.pid is not None]
        pids += [pid for it in here for pid in it.waiters if pid not in known]
        if holders or pids:
            found.append(Locked(name, project, tuple(holders), tuple(pids)))
    return found


def _store(state: str) -> PostgresStore:
    url = paths.store_url(os.environ)
    if url is None:
        raise IsoenvError(f"{paths.STORE_SETTING} names no store any more")
    return PostgresStore(state, url)


def _holder(about: str, mode: str) -> Holder:
    record: dict[str, object] = {}
    with suppress(ValueError):
        record = json.loads(about)
    return lock_record.holder(record, mode)
