"""What sessions cost: ids, metrics, sums, clean-up, and the status line as a whole process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from commands import run
from figures import NOTHING, Table, duration, figure, interleave, judged, text, times

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from figures import Figure
    from tools import Tool
    from world import World

SAMPLES = Path(__file__).with_name("coordination_samples.py")
# Name, what it is called, and the goal in seconds.
CALLS = (
    ("id", "a session id is made", 50e-6),
    ("update", "a metric is added to, session open", 100e-6),
)
SUMS = {10: 100e-6, 100: 500e-6, 10_000: 15e-3}
CLEAN_UP = 10e-3
RATE = 20
STATUS_LINE = 3
UPDATES = 100


@dataclass(frozen=True)
class Size:
    """How many processes write at once, and how many sessions the largest sum is over."""

    writers: int
    most: int


def measure(world: World, tools: Sequence[Tool], size: Size, rounds: int) -> Table:
    """Measure isoenv beside the seed's files, in turn, in one run."""
    tool = next(tool for tool in tools if tool.name == "isoenv")
    table = Table(
        "Sessions and metrics",
        "Beside them the seed's design, a few files for each instance, in the same run and in"
        " turn. A sum is that of one metric over all live sessions; a look checks first whether at"
        f" most 64 of them still live. {size.writers} writers: processes with {UPDATES} updates"
        f" each, all at once. Median (p10) of {rounds} rounds.",
        ["", "isoenv", "the seed's files", "files / isoenv", "goal"],
    )
    python = str(Path(tool.executable).with_name("python"))
    directory = world.directory("coordination")
    words = [str(rounds), str(size.writers), str(size.most)]
    taken = json.loads(world.run(python, str(SAMPLES), directory, *words))
    for name, label, goal in CALLS:
        table.rows.append(_row(label, taken[name], goal))
    table.rows += _rates(taken["writers"], size.writers)
    for count in sorted({10, min(100, size.most), size.most}):
        label = f"the sum over {count:,} sessions"
        table.rows.append(_row(label, taken[f"sum {count}"], SUMS.get(count)))
        looked = figure(taken[f"look {count}"]["isoenv"])
        table.rows.append(
            [f"a look at {count:,} sessions", text(looked), NOTHING, NOTHING, NOTHING]
        )
    table.rows.append(
        _row(f"{min(1000, size.most):,} dead are cleaned up", taken["dead"], CLEAN_UP)
    )
    table.rows += _status_lines(world, tool, python, rounds)
    return table


def _row(label: str, samples: Mapping[str, Sequence[float]], goal: float | None) -> list[str]:
    ours, theirs = figure(samples["isoenv"]), figure(samples["files"])
    judgement = NOTHING
    if goal is not None:
        judgement = judged(f"< {duration(goal)}", good=ours.median < goal)
    return [label, text(ours), text(theirs), times(theirs, ours), judgement]


def _rates(samples: Mapping[str, Sequence[float]], writers: int) -> list[list[str]]:
    ours, theirs = figure(samples["isoenv"]), figure(samples["files"])
    rates = [f"{writers * UPDATES / each.median:,.0f} updates/s" for each in (ours, theirs)]
    goal = judged(f"≥ {RATE}×", good=theirs.median >= RATE * ours.median)
    label = f"{writers} writers"
    return [
        [label, text(ours), text(theirs), times(theirs, ours), goal],
        [f"{label}, as a rate", *rates, NOTHING, NOTHING],
    ]


def _status_lines(world: World, tool: Tool, python: str, rounds: int) -> list[list[str]]:
    """Measure the whole process of a status line beside a Python that does nothing."""
    state = world.directory("status")
    environ = {**world.environ, "ISOENV_STATE_DIR": state}
    for number in range(5):
        session = world.run(
            tool.executable,
            *("session", "start", "--name", f"window{number}", "--pid", str(os.getpid())),
            ISOENV_STATE_DIR=state,
        ).strip()
        for name, value in (("agents", 25), ("tokens_used", 15000), ("tokens_total", 200000)):
            words = ("metrics", "set", name, str(value), "--session", session)
            world.run(tool.executable, *words, ISOENV_STATE_DIR=state)
    environ["ISOENV_SESSION"] = session
    words = {
        "`python -c pass`": [python, "-c", "pass"],
        "`isoenv statusline`": [tool.executable, "statusline"],
        "`isoenv statusline --json`": [tool.executable, "statusline", "--json"],
    }

    def time(name: str) -> float:
        return run(words[name], str(world.home), environ)

    interleave(words, time, 3)
    found = {name: figure(taken) for name, taken in interleave(words, time, rounds * 2).items()}
    return [_status_row(name, each, found) for name, each in found.items()]


def _status_row(name: str, measured: Figure, found: Mapping[str, Figure]) -> list[str]:
    plain = found["`python -c pass`"]
    if measured is plain:
        return [name, text(measured), NOTHING, NOTHING, NOTHING]
    ratio = measured.median / plain.median
    goal = judged(f"< {STATUS_LINE}× python", good=ratio < STATUS_LINE)
    return [name, text(measured), NOTHING, NOTHING, f"{goal} ({ratio:.2f}×)"]
