"""What a database for an instance costs, beside PostgreSQL's own `createdb`."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from commands import run
from figures import NOTHING, Table, figure, interleave, judged, text, times

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from servers import Postgres, binaries, make_postgres, start_postgres, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from figures import Figure
    from tools import Tool
    from world import World

# The large template, in MB, and what a copy of it by isoenv may take of the time of `createdb`.
LARGE = 200
GOAL = 1.2
# Rows of a table that fill a MB.
ROWS = 1490

_TOML = """\
project = "databases"
[databases.main]
url = "postgresql:///{name}_{{id}}?host={socket}&port={port}&user=postgres"
template = "{name}"
"""


def measure(world: World, tools: Sequence[Tool], megabytes: int, rounds: int) -> Table:
    """Measure `isoenv db create` beside `createdb -T`, from a large template and a small one."""
    tool = next(tool for tool in tools if tool.name == "isoenv")
    if binaries() is None:
        raise RuntimeError("PostgreSQL is not installed: `scripts/packages postgresql`")
    table = Table(
        "A database for an instance",
        f"`isoenv db create` beside `createdb -T` on one PostgreSQL with its default settings, from"
        f" a template of {megabytes} MB and from an empty one. With the database there already,"
        f" `isoenv db create` is its own start-up. Median (p10) of {rounds} rounds.",
        ["", "time", "this / createdb -T", "goal"],
    )
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        os.chmod(directory, 0o755)  # noqa: S103  # the server runs as nobody
        make_postgres(directory, settings="")
        port, server = start_postgres(directory, free_port)
        try:
            place = Postgres(port, directory)
            for label, rows in ((f"{megabytes} MB", ROWS * megabytes), ("an empty one", 0)):
                _add_rows(table, label, _measured(world, tool, place, rows, rounds), judge=rows)
        finally:
            stop(server)
    return table


def free_port() -> int:
    """Return a port that nobody holds."""
    with socket.create_server(("127.0.0.1", 0)) as chosen:
        port: int = chosen.getsockname()[1]
        return port


def _add_rows(table: Table, label: str, found: dict[str, Figure], *, judge: int) -> None:
    plain = found["createdb -T"]
    for name, measured in found.items():
        met = measured.median <= GOAL * plain.median
        judged_here = judge and name == "isoenv db create"
        goal = judged(f"≤ {GOAL:g}×", good=met) if judged_here else NOTHING
        ratio = NOTHING if measured is plain else times(measured, plain)
        table.rows.append([f"{label}: `{name}`", text(measured), ratio, goal])


def _measured(
    world: World, tool: Tool, place: Postgres, rows: int, rounds: int
) -> dict[str, Figure]:
    name = f"bench{rows}"
    place.ask(f"CREATE DATABASE {name}")
    fill = "CREATE TABLE a AS SELECT repeat(md5(n::text), 20) FROM generate_series(1, {}) n"
    place.ask(fill.format(rows), name)
    toml = _TOML.format(name=name, socket=place.socket, port=place.port)
    repository = world.repository(f"databases-{rows}", {"isoenv.toml": toml})
    world.run(tool.executable, tool.trust, cwd=repository)
    environ = {
        **world.environ,
        "PGHOST": place.socket,
        "PGPORT": str(place.port),
        "PGUSER": "postgres",
    }
    create = [tool.executable, "db", "create", "1"]

    def timed(argv: list[str], database: str) -> Callable[[], float]:
        def time() -> float:
            taken = run(argv, repository, environ)
            place.ask(f"DROP DATABASE {database}")
            place.ask("CHECKPOINT")
            return taken

        return time

    measures = {
        "createdb -T": timed(["createdb", "-T", name, "copy"], "copy"),
        "isoenv db create": timed(create, f"{name}_1"),
    }
    if not rows:
        place.ask(f"CREATE DATABASE {name}_2")
        nothing = [*create[:-1], "2"]
        measures["isoenv db create, there already"] = lambda: run(nothing, repository, environ)
    for once in measures.values():
        once()
    samples = interleave(measures, lambda each: measures[each](), rounds)
    return {each: figure(taken) for each, taken in samples.items()}
