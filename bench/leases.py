"""What leases cost: many first ones at once, and a registry that is full of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from commands import judge_limit, run, spend
from figures import NOTHING, Table, figure, interleave, judged, text, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from figures import Figure
    from tools import Tool
    from world import World

RUSH_LIMIT = 5
# Seconds of CPU, with as many checkouts on the machine as the large registry has leases.
DOCTOR_LIMIT, LIST_LIMIT = 1.5, 0.3
# How much longer a look-up may take in the large registry and count as the same time.
SAME = 1.25
SMALL = 10
LOOKS = 500

_TOML = """\
project = "rush"
[instance]
ports = "block"
[ports]
web = 3000
api = 8000
postgres = 5432
"""

# Run by the Python that isoenv is installed with: SLOTS leases of a project, the ports in blocks.
_FILL = """\
import sys
from isoenv.models import Project
from isoenv.registry import Registry

state, count = sys.argv[1], int(sys.argv[2])
project = Project("filled", "filled")
with Registry(state) as registry, registry.transaction():
    for slot in range(1, count + 1):
        lease = registry.insert(project, slot, f"filled-{slot}")
        ports = {"web": (20000 + slot * 5, False), "api": (20001 + slot * 5, False)}
        registry.reserve(lease, ports)
        registry.connection.execute(
            "UPDATE lease SET token = ? WHERE id = ?", (f"token-{slot}", lease.id)
        )
"""

# Checkouts of twenty projects that are really there, each with a configuration that is allowed,
# settings, a compose file and a lease.
_CROWD = """\
import os, sys
from isoenv import context, leasing, trust
from isoenv.registry import Registry

top, count = sys.argv[1], int(sys.argv[2])
caller = context.Caller(top, os.environ)
with Registry(caller.state) as registry:
    for number in range(count):
        root = f"{top}/{number}"
        for folder in ("objects", "refs"):
            os.makedirs(f"{root}/.git/{folder}")
        files = {
            ".git/HEAD": "ref: refs/heads/main\\n",
            ".git/config": "[core]\\n\\trepositoryformatversion = 0\\n\\tbare = false\\n",
            ".env": "API_PORT=8000\\nSECRET=x\\n",
            "compose.yaml": "services: {db: {ports: ['${DB_PORT:-5432}:5432']}}\\n",
            "isoenv.toml": f'project = "p{number % 20}"\\n'
                '[instance]\\nports = "block"\\n[ports]\\nweb = 3000\\napi = 8000\\ndb = 5432\\n'
                '[env]\\nCOMPOSE_PROJECT_NAME = "{project}-{id}"\\n'
                'DATABASE_URL = "postgresql://u@localhost:{ports.db}/x_{id}"\\n',
        }
        for name, text in files.items():
            with open(f"{root}/{name}", "w") as file:
                file.write(text)
        here = context.find(context.Caller(root, os.environ))
        trust.write(caller.state, here.checkout, here.subjects, trust.ALLOWED)
        leasing.hold(registry, here.claim)
"""

# Both registries in one process and in turn, so that the same machine is behind both.
_LOOK = """\
import sys
from time import perf_counter
from isoenv.registry import Registry

rounds, looks = map(int, sys.argv[1:3])
open_ones = [(Registry(state), int(count)) for state, count in zip(sys.argv[3::2], sys.argv[4::2])]
for _ in range(rounds):
    for registry, count in open_ones:
        tokens = [f"token-{1 + turn * 7 % count}" for turn in range(looks)]
        start = perf_counter()
        found = [registry.with_token(token) for token in tokens]
        print((perf_counter() - start) / looks)
        assert all(len(leases) == 1 for leases in found)
"""


@dataclass(frozen=True)
class Size:
    """How many checkouts lease at once, and how many leases are in the large registry."""

    checkouts: int
    leases: int


def measure(world: World, tools: Sequence[Tool], size: Size, rounds: int) -> Table:
    """Measure a rush of first leases, and the registry with few and with many."""
    tool = next(tool for tool in tools if tool.name == "isoenv")
    table = Table(
        "Leases",
        f"{size.checkouts} linked worktrees take their first lease at once, each by"
        f" `isoenv exec . true` ({rounds} rounds); a look-up is that of a checkout's lease in an"
        f" open registry with {SMALL} and with {size.leases} leases in it. CPU is that of the"
        f" process, user and system, on a machine with {size.leases} checkouts of 20 projects, each"
        " with a lease, an allowed isoenv.toml, a .env and a compose file; the ratio is to"
        " `python -c pass`.",
        ["", "time", "ratio", "goal"],
    )
    rush = figure([_rush(world, tool, turn, size.checkouts) for turn in range(rounds)])
    goal = judge_limit(rush, RUSH_LIMIT)
    table.rows.append([f"{size.checkouts} first leases at once", text(rush), NOTHING, goal])
    python = str(Path(tool.executable).with_name("python"))
    states = {}
    for count in (SMALL, size.leases):
        states[count] = world.directory(f"registry-{count}")
        world.run(python, "-c", _FILL, states[count], str(count))
    turns = rounds * 7
    few, many = _look_ups(world, python, states, turns)
    same = judged("the same time", good=many.median < few.median * SAME)
    lists = _lists(world, tool, states, turns)
    for label, (one, other), goal in (
        ("a look-up", (few, many), same),
        ("`isoenv list --all`", lists, NOTHING),
    ):
        table.rows.append([f"{label}, {SMALL} leases", text(one), NOTHING, NOTHING])
        table.rows.append([f"{label}, {size.leases} leases", text(other), times(other, one), goal])
    table.rows += _crowd(world, tool, size.leases, turns)
    return table


def _crowd(world: World, tool: Tool, count: int, turns: int) -> list[list[str]]:
    """Return what looking at many checkouts costs, beside a Python that does nothing."""
    python = str(Path(tool.executable).with_name("python"))
    top = world.directory("crowd")
    environ = {**world.environ, "ISOENV_STATE_DIR": world.directory("crowd-state")}
    Path(environ["ISOENV_STATE_DIR"]).chmod(0o700)
    world.run(python, "-c", _CROWD, top, str(count), **environ)
    words = {
        "`python -c pass`": [python, "-c", "pass"],
        "`isoenv list --all`": [tool.executable, "list", "--all"],
        "`isoenv doctor`": [tool.executable, "doctor"],
    }

    def spent(name: str) -> float:
        return spend(words[name], f"{top}/{count - 1}", environ)

    interleave(words, spent, 1)
    found = {name: figure(taken) for name, taken in interleave(words, spent, turns).items()}
    plain, listed, examined = found.values()
    limits = [NOTHING, judge_limit(listed, LIST_LIMIT), judge_limit(examined, DOCTOR_LIMIT)]
    return [
        [
            f"{name}, CPU, {count} checkouts" if limit != NOTHING else f"{name}, CPU",
            text(each),
            times(each, plain),
            limit,
        ]
        for (name, each), limit in zip(found.items(), limits, strict=True)
    ]


def _look_ups(
    world: World, python: str, states: Mapping[int, str], turns: int
) -> tuple[Figure, Figure]:
    words = [str(word) for count, state in states.items() for word in (state, count)]
    printed = world.run(python, "-c", _LOOK, str(turns), str(LOOKS), *words).split()
    samples = [float(word) for word in printed]
    return figure(samples[::2]), figure(samples[1::2])


def _lists(
    world: World, tool: Tool, states: Mapping[int, str], turns: int
) -> tuple[Figure, Figure]:
    def list_all(state: str) -> float:
        environ = {**world.environ, "ISOENV_STATE_DIR": state}
        return run([tool.executable, "list", "--all"], str(world.home), environ)

    samples = interleave(states.values(), list_all, turns)
    few, many = map(figure, samples.values())
    return few, many


def _rush(world: World, tool: Tool, turn: int, checkouts: int) -> float:
    """Return the seconds that so many first leases at once take, each of another checkout."""
    state = world.directory(f"rush-{turn}/state")
    environ = {**world.environ, "ISOENV_STATE_DIR": state}
    main = world.repository(f"rush-{turn}/main", {"isoenv.toml": _TOML})
    roots = [world.worktree(main, f"w{number}") for number in range(checkouts)]
    world.run(tool.executable, tool.trust, cwd=main, ISOENV_STATE_DIR=state)
    start = perf_counter()
    running = [
        subprocess.Popen(
            tool.exec("true"),
            cwd=root,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for root in roots
    ]
    said = [process.communicate()[1] for process in running]
    taken = perf_counter() - start
    for process, text_ in zip(running, said, strict=True):
        if process.returncode:
            raise RuntimeError(f"a first lease ended with {process.returncode}: {text_!r}")
    _check(world, tool, environ, checkouts)
    shutil.rmtree(Path(state).parent)
    return taken


def _check(world: World, tool: Tool, environ: Mapping[str, str], checkouts: int) -> None:
    printed = world.run(
        tool.executable, "list", "--all", "--json", ISOENV_STATE_DIR=environ["ISOENV_STATE_DIR"]
    )
    ports = [port for it in json.loads(printed)["instances"] for port in it["ports"].values()]
    if len(ports) != 3 * checkouts or len(set(ports)) != len(ports):
        raise RuntimeError(f"{len(ports)} ports, {len(set(ports))} of them different")
