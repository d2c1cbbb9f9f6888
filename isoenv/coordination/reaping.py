"""Find the sessions whose process is gone, and remove them with all that is theirs."""

from __future__ import annotations

import os
import time

from isoenv import liveness, paths

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from isoenv.coordination.records import Record
    from isoenv.coordination.store import Pulse, Store

    Made = TypeVar("Made")

# How many processes are looked at on the way, by calls that are about something else.
BOUND = 64
# Seconds without a heartbeat after which a process that cannot be seen is given up.
MAX_AGE = 3600.0
# Seconds without a heartbeat after which one is sent for a session that other hosts know.
SILENCE = 300.0


def is_gone(pulse: Pulse, max_age: float = MAX_AGE) -> bool:
    """Whether a session's process is proven dead, or cannot be seen and has long been silent."""
    _, pid, start, inode, boot, namespace, host, beat, beaten_at = pulse
    dead = liveness.is_dead(pid, start, inode, boot, namespace, host)
    if dead is not None:
        return dead
    if boot == liveness.boot_id():
        # Not by the wall clock: after a night's sleep everybody would be gone.
        return time.monotonic_ns() - beat > max_age * 1e9
    return time.time() - beaten_at > max_age


def pulse_of(record: Record) -> Pulse:
    """Return what tells whether a session's process is gone."""
    it = record.process
    return (
        *(record.id, it.pid, it.start, it.inode, it.boot, it.namespace, it.host),
        *(record.beat, record.beaten_at),
    )


def find(store: Store, limit: int | None = None, max_age: float = MAX_AGE) -> list[str]:
    """Return the ids of sessions that are gone, among ``limit`` that were longest unchecked."""
    pulses = store.pulses(limit)
    # Of many, most are told apart by one look at all processes.
    present = liveness.present() if len(pulses) > BOUND else frozenset()
    gone = [pulse[0] for pulse in pulses if _is_absent(pulse, present) or is_gone(pulse, max_age)]
    if len(pulses) == limit:
        # There may be more: the next call is to look at those.
        store.check_off([pulse[0] for pulse in pulses])
    if paths.store_url(os.environ):
        _beat_for_others(store, pulses)
    return gone


def _beat_for_others(store: Store, pulses: Iterable[Pulse]) -> None:
    """Tell other hosts of live sessions here that have nobody to do so, such as commands."""
    for session_id, pid, start, inode, boot, namespace, host, beat, _ in pulses:
        is_alive = liveness.is_dead(pid, start, inode, boot, namespace, host) is False
        if is_alive and time.monotonic_ns() - beat > SILENCE * 1e9:
            store.beat(session_id)


def _is_absent(pulse: Pulse, present: frozenset[str]) -> bool:
    return bool(present) and str(pulse[1]) not in present and liveness.is_near(*pulse[4:7])


def register(store: Store, start: Callable[[Callable[[Pulse], bool]], Made]) -> Made:
    """Register a session by ``start``, and clean up after dead ones on the way.

    ``start`` is given what tells whether a session that has the name is gone, and may go.
    """
    gone: list[str] = []

    def makes_way(holder: Pulse) -> bool:
        if not is_gone(holder):
            return False
        gone.append(holder[0])
        return True

    made = start(makes_way)
    remove_directories(store.state, gone)
    reap(store, BOUND)
    return made


def remove(store: Store, ids: Sequence[str]) -> None:
    """Remove sessions with their directories."""
    if ids:
        store.remove(ids)
        remove_directories(store.state, ids)


def reap(store: Store, limit: int | None = None, max_age: float = MAX_AGE) -> list[str]:
    """Remove the sessions that are gone, and return their ids."""
    gone = find(store, limit, max_age)
    remove(store, gone)
    return gone


def remove_directories(state: str, ids: Iterable[str]) -> None:
    """Remove the own directories of sessions; what cannot be removed is left for ``prune``."""
    try:
        present = set(os.listdir(os.path.dirname(paths.session_dir(state, ""))))
    except OSError:
        return
    for session_id in present.intersection(ids):
        import shutil

        shutil.rmtree(paths.session_dir(state, session_id), ignore_errors=True)
