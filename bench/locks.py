"""What a lock costs, how fairly it is had, and how soon after its holder was killed."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from figures import NOTHING, Table, duration, figure, interleave, judged, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from figures import Figure
    from tools import Tool
    from world import World

COST_LIMIT, RECOVERY_LIMIT = 50e-6, 10e-3
FAIR = 0.5
PROCESSES = 8
TURNS = 2000

_MAKE = """\
import sys, time

def make(kind, name):
    if kind == "isoenv":
        from isoenv import Lock
        return Lock(name)
    from filelock import FileLock
    return FileLock(name)

"""

# Seconds for an acquisition and the release, of each kind in turn in one process.
_COST = f"""{_MAKE}
rounds, turns, kinds = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
locks = [make(kind, f"cost-{{kind}}") for kind in kinds]
for _ in range(rounds):
    for lock in locks:
        start = time.perf_counter()
        for _ in range(turns):
            with lock:
                pass
        print((time.perf_counter() - start) / turns)
"""

# Adds to a number in a file without a lock of its own, half a millisecond each time.
_CONTEND = f"""{_MAKE}
kind, file, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
lock = make(kind, f"contend-{{kind}}")
print("ready", flush=True)
sys.stdin.readline()
end, done, longest = time.monotonic() + seconds, 0, 0.0
while time.monotonic() < end:
    asked = time.monotonic()
    with lock, open(file, "r+") as counter:
        longest = max(longest, time.monotonic() - asked)
        number = int(counter.read())
        time.sleep(0.0005)
        counter.seek(0)
        counter.write(str(number + 1))
    done += 1
print(done, longest)
"""

_HOLD = f"""{_MAKE}
with make(sys.argv[1], f"hold-{{sys.argv[1]}}"):
    print(time.perf_counter(), flush=True)
    sys.stdin.readline()
"""


@dataclass(frozen=True)
class Size:
    """How long the contention lasts, in seconds, and how often a holder is killed."""

    seconds: float
    kills: int


@dataclass(frozen=True)
class _Contention:
    """What came of it: acquisitions of each process, and the longest wait in seconds."""

    had: Sequence[int]
    longest: float
    seconds: float

    @property
    def share(self) -> float:
        """The slowest process's part of the mean."""
        return min(self.had) / (sum(self.had) / len(self.had))

    def __str__(self) -> str:
        """Return it as a cell of the table."""
        rate = f"{sum(self.had) / self.seconds:.0f}/s"
        return f"{rate}, slowest {self.share:.0%} of the mean, longest wait {self.longest:.2f} s"


class _Bench:
    """Python with isoenv in it and, where it is there, filelock."""

    def __init__(self, world: World, tool: Tool, filelock: str | None) -> None:
        self.world = world
        self.python = str(Path(tool.executable).with_name("python"))
        self.environ = {**world.environ, **({"PYTHONPATH": filelock} if filelock else {})}
        self.kinds = ["isoenv", *(["filelock"] if filelock else [])]

    def costs(self, rounds: int) -> dict[str, Figure]:
        """Return what an uncontended lock costs."""
        words = [self.python, "-c", _COST, str(rounds), str(TURNS), *self.kinds]
        printed = self.world.run(*words, **self.environ).split()
        samples = [float(word) for word in printed]
        count = len(self.kinds)
        return {kind: figure(samples[at::count]) for at, kind in enumerate(self.kinds)}

    def contend(self, kind: str, seconds: float) -> _Contention:
        """Let processes contend; raises RuntimeError where two of them had the lock at once."""
        file = self.world.home / f"counter-{kind}"
        file.write_text("0", encoding="utf-8")
        running = [self._start(_CONTEND, kind, str(file), str(seconds)) for _ in range(PROCESSES)]
        for process in running:
            _line(process)
        for process in running:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        said = [process.communicate()[0].split() for process in running]
        had = [int(done) for done, _ in said]
        if int(file.read_text(encoding="utf-8")) != sum(had):
            raise RuntimeError(f"{kind} lost {sum(had) - int(file.read_text())} of {sum(had)}")
        return _Contention(had, max(float(longest) for _, longest in said), seconds)

    def recover(self, kind: str) -> float:
        """Return the seconds from the end of a killed holder to the next one's beginning."""
        with self._start(_HOLD, kind) as holder, self._start(_HOLD, kind) as waiter:
            first, second = (holder, waiter) if _is_first(holder, waiter) else (waiter, holder)
            # Until it waits, and so that it does not always ask at the same time after.
            time.sleep(0.3 + perf_counter() % 0.05)
            killed = perf_counter()
            first.kill()
            taken = float(_line(second)) - killed
            second.communicate("\n")
        return taken

    def _start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.python, "-c", code, *arguments],
            cwd=self.world.home,
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a process with a lock ended with {process.wait()}")
    return line


def _is_first(one: subprocess.Popen[str], other: subprocess.Popen[str]) -> bool:
    """Wait until one of two has the lock; return whether it is the first."""
    import select

    assert one.stdout is not None
    assert other.stdout is not None
    ready, _, _ = select.select([one.stdout, other.stdout], [], [])
    _line(one if one.stdout in ready else other)
    return one.stdout in ready


def measure(
    world: World, tools: Sequence[Tool], filelock: str | None, size: Size, rounds: int
) -> Table:
    """Measure locks of isoenv and, where it is there, of filelock."""
    tool = next(tool for tool in tools if tool.name == "isoenv")
    bench = _Bench(world, tool, filelock)
    table = Table(
        "Locks",
        f"In Python: to take a free lock and give it back; {PROCESSES} processes that take turns"
        f" of 0.5 ms for {size.seconds:g} s, checked by a counter without a lock of its own; from"
        f" `kill -9` of the holder to the next one ({size.kills} times).",
        ["", "isoenv", "filelock", "goal"],
    )
    costs = bench.costs(rounds * 5)
    goals = [_judge(costs["isoenv"], COST_LIMIT)]
    if theirs := costs.get("filelock"):
        no_slower = costs["isoenv"].median <= theirs.median
        goals.append(judged("not slower than filelock", good=no_slower))
    table.rows.append(_row("taken and given back", costs, "; ".join(goals)))
    contended = {kind: bench.contend(kind, size.seconds) for kind in bench.kinds}
    fair = judged(f"slowest ≥ {FAIR:.0%} of the mean", good=contended["isoenv"].share >= FAIR)
    cells = [
        str(contended[kind]) if kind in contended else NOTHING for kind in ("isoenv", "filelock")
    ]
    table.rows.append([f"{PROCESSES} processes", *cells, fair])
    recovered = interleave(bench.kinds, bench.recover, size.kills)
    recoveries = {kind: figure(samples) for kind, samples in recovered.items()}
    goal = _judge(recoveries["isoenv"], RECOVERY_LIMIT)
    table.rows.append(_row("after kill -9 of its holder", recoveries, goal))
    return table


def _judge(measured: Figure, limit: float) -> str:
    return judged(f"< {duration(limit)}", good=measured.median < limit)


def _row(label: str, figures: Mapping[str, Figure], goal: str) -> list[str]:
    return [label, *(text(figures.get(kind)) for kind in ("isoenv", "filelock")), goal]
