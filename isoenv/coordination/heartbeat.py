"""Say again and again that a process lives, where others may not be able to see it."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from isoenv import liveness, paths
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.coordination.store import Store

# Seconds between two heartbeats.
INTERVAL = 30.0
# The pid namespace that all others are in: whoever shares the machine sees its processes.
FIRST_NAMESPACE = 0xEFFFFFFC


class Heartbeat:
    """A thread that beats until it is stopped, or until the session is gone."""

    def __init__(self, store: Store, session_id: str, interval: float = INTERVAL) -> None:
        """Begin."""
        self._store = store
        self._session_id = session_id
        self._interval = interval
        self._stopped = threading.Event()
        # A daemon: it must not keep a process that has nothing else to do.
        self._thread = threading.Thread(target=self._run, daemon=True, name="isoenv heartbeat")
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._interval):
            try:
                if not self._store.beat(self._session_id):
                    return
            except IsoenvError:
                # A full disk may have room again at the next beat.
                continue

    def stop(self) -> None:
        """Stop, and wait until it has."""
        self._stopped.set()
        self._thread.join()


def keep(store: Store, session_id: str) -> Heartbeat | None:
    """Beat where others cannot see the process: in a container, and for other hosts."""
    if paths.store_url(os.environ):
        return Heartbeat(store, session_id)
    if sys.platform != "linux" or liveness.namespace() == FIRST_NAMESPACE:
        return None
    return Heartbeat(store, session_id)
