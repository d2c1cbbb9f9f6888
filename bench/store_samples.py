"""Take samples of what a store costs on this machine and on a PostgreSQL server, in turn.

`store_samples.py URL ROUNDS CALLS` prints {what: {"machine": [s], "server": [s], "raw": [s]}}.
"""

from __future__ import annotations

import json
import os
import sys
from time import perf_counter
from typing import TYPE_CHECKING

import psycopg
from isoenv import Lock, Session

if TYPE_CHECKING:
    from collections.abc import Callable

STORE = "ISOENV_STORE"


def main() -> None:
    """Measure all, and print it."""
    url, rounds, calls = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    os.environ.pop(STORE, None)
    samples: dict[str, dict[str, list[float]]] = {}
    with psycopg.connect(url, autocommit=True) as plain, Session("here") as here:
        os.environ[STORE] = url
        with Session("there") as there:
            measures: dict[tuple[str, str], Callable[[], object]] = {
                ("update", "machine"): lambda: here.metrics.add("agents"),
                ("update", "server"): lambda: there.metrics.add("agents"),
                ("message", "machine"): lambda: _hand_over(here),
                ("message", "server"): lambda: _hand_over(there),
                ("lock", "machine"): _lock,
                ("lock", "server"): _lock,
                ("lock", "raw"): lambda: _lock_plainly(plain),
            }
            for turn in range(rounds + 1):
                for (what, where), call in measures.items():
                    _name_store(url if where == "server" else None)
                    began = perf_counter()
                    for _ in range(calls):
                        call()
                    taken = (perf_counter() - began) / calls
                    # The first turn makes tables and connections.
                    if turn:
                        samples.setdefault(what, {}).setdefault(where, []).append(taken)
            _name_store(url)
        _name_store(None)
    print(json.dumps(samples))


def _name_store(url: str | None) -> None:
    if url is None:
        os.environ.pop(STORE, None)
    else:
        os.environ[STORE] = url


def _hand_over(session: Session) -> None:
    session.send(session.id, "done")
    (message,) = session.receive()
    assert message.text == "done"


def _lock() -> None:
    with Lock("it"):
        pass


def _lock_plainly(connection: psycopg.Connection) -> None:
    connection.execute("SELECT pg_advisory_lock(1)")
    connection.execute("SELECT pg_advisory_unlock(1)")


main()
