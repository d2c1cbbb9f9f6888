"""What it costs to ask for a service that runs, beside an empty Python, and to start one."""

from __future__ import annotations

import http.client
import socket
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING

from commands import judge_limit, run
from figures import NOTHING, Table, figure, interleave, judged, text, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tools import Tool
    from world import World

# `api status` may take as many empty Pythons, and the request itself.
LIMIT = 3
# Seconds within which a death is told.
TOLD_LIMIT = 1
NOT_RUNNING = 3

_TOML = """\
project = "served"
[ports]
web = {port}
[services.api]
run = "exec {python} -m http.server --bind 127.0.0.1 {{ports.web}}"
health = "http://127.0.0.1:{{ports.web}}/"
[services.dies]
run = "date +%s.%N >died; exit 7"
"""


def measure(world: World, tools: Sequence[Tool], rounds: int) -> Table:
    """Measure `api status` of a service that runs and of one that was stopped, and its start."""
    ours = next((tool for tool in tools if tool.name == "isoenv"), None)
    if ours is None:
        raise RuntimeError("it is about isoenv alone")
    python = str(Path(ours.executable).with_name("python"))
    port = _free_port()
    root = world.repository("code/served", {"isoenv.toml": _TOML.format(port=port, python=python)})
    world.run(ours.executable, ours.trust, cwd=root)
    world.run(*ours.exec("true"), cwd=root)
    status = [ours.executable, "api", "status"]

    def restart(_name: str) -> float:
        world.run(ours.executable, "api", "stop", cwd=root)
        return run([ours.executable, "api", "start"], root, world.environ)

    started = interleave(["start"], restart, max(1, rounds // 10))["start"]
    try:
        samples = interleave(
            ["python", "request", "running"],
            lambda name: {
                "python": lambda: run([python, "-c", "pass"], root, world.environ),
                "request": lambda: _request(port),
                "running": lambda: run(status, root, world.environ),
            }[name](),
            rounds,
        )
    finally:
        world.run(ours.executable, "api", "stop", cwd=root)
    told = interleave(["told"], lambda _name: _die(ours, root, world), max(1, rounds // 10))["told"]
    stopped = interleave(
        ["stopped"], lambda _name: run(status, root, world.environ, NOT_RUNNING), rounds
    )
    found = {name: figure(taken) for name, taken in {**samples, **stopped}.items()}
    limit = LIMIT * found["python"].median + found["request"].median
    goal = judged(f"≤ {LIMIT}× python + request", good=found["running"].median <= limit)
    return Table(
        "A service: `isoenv api status`",
        "Wall time of the process, of `python -c pass` with the same interpreter, and of the"
        " request for the service's health by itself; `api start` waits until it is healthy."
        f" Median (p10) of {rounds} rounds.",
        ["", "time", "this / python", "goal"],
        [
            ["python -c pass", text(found["python"]), "1×", NOTHING],
            ["the request", text(found["request"]), NOTHING, NOTHING],
            [
                "`api status`, running",
                text(found["running"]),
                times(found["running"], found["python"]),
                goal,
            ],
            [
                "`api status`, stopped",
                text(found["stopped"]),
                times(found["stopped"], found["python"]),
                NOTHING,
            ],
            ["`api start`", text(figure(started)), NOTHING, NOTHING],
            [
                "from a death while starting to the end of `up`",
                text(figure(told)),
                NOTHING,
                judge_limit(figure(told), TOLD_LIMIT),
            ],
        ],
    )


def _die(ours: Tool, root: str, world: World) -> float:
    """Start a service that dies; return the seconds from its death to the end of the command."""
    run([ours.executable, "up", "dies"], root, world.environ, 1)
    return time() - float(Path(root, "died").read_text(encoding="ascii"))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def _request(port: int) -> float:
    start = perf_counter()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()
    return perf_counter() - start
