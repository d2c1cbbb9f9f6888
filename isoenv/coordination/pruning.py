"""Remove what dead sessions have left behind."""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress

from isoenv import paths
from isoenv.coordination import reaping
from isoenv.coordination.store import open_store

# Seconds for which a pipe without a reader may be one that is just being opened.
GRACE = 60.0


def prune(max_age: float = 1.0, *, dry_run: bool = False) -> list[str]:
    """Remove the sessions that are gone, with all that is left of earlier ones; return their ids.

    ``max_age`` is in hours: after so long without a heartbeat a session is given up whose process
    cannot be seen from here. With ``dry_run`` nothing is removed.
    """
    return prune_state(paths.state_dir(os.environ), max_age, dry_run=dry_run)


def prune_state(state: str, max_age: float = 1.0, *, dry_run: bool = False) -> list[str]:
    """Do the same in a state directory; where nothing is kept, nothing is made."""
    if not paths.has_store(os.environ, state):
        return []
    # Looked for before the sessions are: who is new has a directory only after it is known.
    directories = _listed(os.path.dirname(paths.session_dir(state, "")))
    with closing(open_store(state)) as store:
        gone = reaping.find(store, max_age=max_age * 3600)
        if dry_run:
            return gone
        reaping.remove(store, gone)
        store.forget_expired()
        known = {pulse[0] for pulse in store.pulses()}
    reaping.remove_directories(state, set(directories) - known)
    _remove_pipes(paths.wake_dir(state))
    return gone


def _listed(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


def _remove_pipes(directory: str) -> None:
    """Remove the pipes of waiters that were killed: nobody has those open."""
    for name in _listed(directory):
        path = f"{directory}/{name}"
        with suppress(OSError):
            if time.time() - os.stat(path).st_mtime < GRACE:
                continue
            try:
                os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
            except OSError:
                os.unlink(path)
