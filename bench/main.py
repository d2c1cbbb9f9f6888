"""The command line of the benchmark: what is measured, in which order, and where it is written."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import agents
import behaviours
import commands
import coordination
import databases
import hooks
import leases
import locks
import services
import stores
import tools
from figures import Table
from shells import SHELLS
from world import World, shop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tools import Tool

RESULTS = Path(__file__).with_name("results.md")
# What is measured, with the rounds it is worth.
SECTIONS: dict[str, int] = {
    "prompts": 60,
    "terminals": 100,
    "changes": 60,
    "loads": 9,
    "exec": 60,
    "scripts": 60,
    "services": 60,
    "agents": 40,
    "leases": 3,
    "databases": 7,
    "coordination": 20,
    "locks": 3,
    "stores": 15,
    "behaviours": 1,
}


def main() -> None:
    """Measure, print, and end with 0: a bench is not a test."""
    options = _options()
    tools_found, notes = _find_tools(options)
    filelock = _find_filelock(options, notes)
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    say("# isoenv beside direnv and mise\n")
    say(f"{_machine()}\n")
    say(f"{_versions(tools_found)}\n")
    say(f"Load before: {_load()}.\n")
    for note in notes:
        say(f"{note}\n")
    missed = []
    for table in _tables(options, tools_found, filelock):
        say(str(table))
        missed += [
            f"- {table.title}: {' '.join([*row[: table.labels], row[-1]])}"
            for row in table.rows
            if "misses" in row[-1]
        ]
    say(f"Load after: {_load()}.\n")
    say("\n".join(["Goals missed:", "", *missed]) if missed else "No goal missed.")
    if options.write:
        RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write bench/results.md too")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this alone")
    parser.add_argument(
        "--without", action="append", default=[], choices=["direnv", "mise", "filelock"]
    )
    names = [shell.name for shell in SHELLS]
    parser.add_argument("--shell", action="append", choices=names, help="in this shell alone")
    parser.add_argument("--isoenv", metavar="FILE", help="an installed isoenv, not this tree's")
    parser.add_argument("--rounds", type=int, metavar="N", help="at most so many rounds of each")
    parser.add_argument("--quick", action="store_true", help="once and small: does it all work")
    return parser.parse_args()


def _find_tools(options: argparse.Namespace) -> tuple[list[Tool], list[str]]:
    finders: dict[str, Callable[[], Tool]] = {
        "isoenv": lambda: tools.isoenv(options.isoenv),
        "direnv": tools.direnv,
        "mise": tools.mise,
    }
    found, notes = [], []
    for name, find in finders.items():
        if name in options.without:
            continue
        try:
            found.append(find())
        except tools.MissingError as error:
            notes.append(str(error))
    return found, notes


def _find_filelock(options: argparse.Namespace, notes: list[str]) -> str | None:
    if "filelock" in options.without or "locks" not in (options.only or SECTIONS):
        return None
    try:
        return tools.filelock()
    except tools.MissingError as error:
        notes.append(str(error))
        return None


def _tables(
    options: argparse.Namespace, found: Sequence[Tool], filelock: str | None
) -> Iterator[Table]:
    chosen = options.only or list(SECTIONS)
    most = 1 if options.quick else options.rounds
    rounds = {name: min(most or count, count) for name, count in SECTIONS.items()}
    shells = [shell for shell in SHELLS if shell.name in (options.shell or [shell.name])]
    sample = 0.001 if options.quick else hooks.SAMPLE
    size = leases.Size(3, 20) if options.quick else leases.Size(50, 1000)
    megabytes = 2 if options.quick else databases.LARGE
    crowd = coordination.Size(4, 20) if options.quick else coordination.Size(32, 10_000)
    calls = 5 if options.quick else 100
    contention = locks.Size(0.2, 2) if options.quick else locks.Size(3, 20)
    with World() as world:
        place = hooks.Place(world, found, shells, shop(world, found), sample)
        measures: dict[str, Callable[[], Table]] = {
            "prompts": lambda: hooks.measure_prompts(place, rounds["prompts"]),
            "terminals": lambda: hooks.measure_terminals(place, rounds["terminals"]),
            "changes": lambda: hooks.measure_changes(place, rounds["changes"]),
            "loads": lambda: hooks.measure_first_loads(place, rounds["loads"]),
            "exec": lambda: commands.measure_exec(place, rounds["exec"]),
            "scripts": lambda: commands.measure_scripts(place, rounds["scripts"]),
            "services": lambda: services.measure(world, found, rounds["services"]),
            "agents": lambda: agents.measure(place, rounds["agents"]),
            "leases": lambda: leases.measure(world, found, size, rounds["leases"]),
            "databases": lambda: databases.measure(world, found, megabytes, rounds["databases"]),
            "coordination": lambda: coordination.measure(
                world, found, crowd, rounds["coordination"]
            ),
            "locks": lambda: locks.measure(world, found, filelock, contention, rounds["locks"]),
            "stores": lambda: stores.measure(world, found, calls, rounds["stores"]),
            "behaviours": lambda: behaviours.observe(world, found, shells),
        }
        for name in chosen:
            try:
                yield measures[name]()
            except RuntimeError as error:
                yield Table(name, f"Not measured: {error}", [])


def _machine() -> str:
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return f"{model}, {os.cpu_count()} cores, {platform.system()} {platform.release()}."


def _load() -> str:
    return ", ".join(f"{load:.2f}" for load in os.getloadavg())


def _versions(found: Sequence[Tool]) -> str:
    versions = [f"{tool.name} {tool.version()}" for tool in found]
    versions.append(f"Python {platform.python_version()}")
    for shell in SHELLS:
        if shutil.which(shell.name):
            words = tools.call([shell.name, "--version"], env=os.environ).split()
            versions.append(f"{shell.name} {next(word for word in words if word[:1].isdigit())}")
    return ", ".join(versions) + "."
