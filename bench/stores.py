"""What sessions, messages and locks cost with the store of several hosts, beside the machine's."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from databases import free_port
from figures import NOTHING, Table, figure, text, times

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from servers import binaries, make_postgres, start_postgres, stop

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools import Tool
    from world import World

SAMPLES = Path(__file__).with_name("store_samples.py")
LABELS = {
    "update": "a metric is added to",
    "message": "a message is sent, received and acknowledged",
    "lock": "a lock is taken and given back",
}


def measure(world: World, tools: Sequence[Tool], calls: int, rounds: int) -> Table:
    """Measure both stores, and the server's own lock, in turn in one process."""
    tool = next(tool for tool in tools if tool.name == "isoenv")
    if binaries() is None:
        raise RuntimeError("PostgreSQL is not installed: `scripts/packages postgresql`")
    table = Table(
        "The store of several hosts",
        "In Python, by one process with its session open: this machine's SQLite and locks beside"
        " PostgreSQL with its default settings on the same disk, by its socket. Beside the lock"
        " `SELECT pg_advisory_lock` and its unlock by psycopg on an open connection: one of isoenv"
        " is counted and recorded as well, in one transaction on the disk."
        f" Median (p10) of {rounds} rounds of {calls}.",
        ["", "this machine", "PostgreSQL", "psycopg alone", "PostgreSQL / psycopg", "goal"],
    )
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)  # noqa: S103  # the server runs as nobody
        make_postgres(directory, settings="")
        port, server = start_postgres(directory, free_port)
        try:
            url = f"postgresql://postgres@/postgres?host={directory}&port={port}"
            python = str(Path(tool.executable).with_name("python"))
            state = world.directory("stores")
            words = [python, str(SAMPLES), url, str(rounds), str(calls)]
            taken = json.loads(world.run(*words, ISOENV_STATE_DIR=state))
        finally:
            stop(server)
    for what, label in LABELS.items():
        table.rows += _rows(label, taken[what])
    return table


def _rows(label: str, samples: Mapping[str, Sequence[float]]) -> list[list[str]]:
    found = {where: figure(taken) for where, taken in samples.items()}
    machine, server, raw = (found.get(where) for where in ("machine", "server", "raw"))
    rates = [f"{1 / it.median:,.0f}/s" if it else NOTHING for it in (machine, server, raw)]
    ratio = times(server, raw)
    return [
        [label, text(machine), text(server), text(raw), ratio, NOTHING],
        [f"{label}, as a rate", *rates, NOTHING, NOTHING],
    ]
