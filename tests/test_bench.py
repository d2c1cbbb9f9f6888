"""The benchmark itself: that every measurement still runs, and says what it has measured."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

BENCH = Path(__file__).resolve().parents[1] / "bench"

TIMES = "\N{MULTIPLICATION SIGN}"

# A figure: a median with the p10 behind it.
FIGURE = re.compile(r"-?[\d.]+ (?:µs|ms|s) \(-?[\d.]+ (?:µs|ms|s)\)")

# Each measurement and how many figures the smallest run of it has, without mise.
OF_A_SHELL = {"prompts": 4, "terminals": 6, "changes": 3, "loads": 3}
OF_ALL = {
    "exec": 4,
    "scripts": 7,
    "leases": 8,
    "databases": 5,
    "services": 6,
    "coordination": 17,
    "locks": 2,
    "stores": 7,
    "agents": 7,
}


def rows(table: str) -> list[list[str]]:
    """Return the cells of each row of a table that was printed, without its header."""
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def figures_in(table: str) -> int:
    return sum(bool(FIGURE.fullmatch(cell)) for row in rows(table) for cell in row)


def measured(sections: Iterable[str], *arguments: str) -> list[str]:
    """Measure as quickly as it goes, with the isoenv that is installed here.

    Returns what was printed: what comes before the tables, and each table.
    """
    executable = shutil.which("isoenv")
    if executable is None:
        pytest.fail("isoenv is not installed beside these tests: `pip install --editable .`")
    words = ["--quick", "--isoenv", executable, *arguments]
    words += [f"--without={name}" for name in ("mise", "filelock")]
    words += [f"--only={section}" for section in sections]
    done = subprocess.run(
        [sys.executable, BENCH / "run", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Not measured" not in done.stdout
    return done.stdout.split("\n## ")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_measurement_of_a_hook_runs(shell: str) -> None:
    _, *tables = measured(OF_A_SHELL, "--shell", shell)
    assert list(map(figures_in, tables)) == list(OF_A_SHELL.values())
    assert {row[0] for table in tables for row in rows(table)} == {shell}


def test_each_measurement_of_a_command_runs() -> None:
    before, *tables = measured(OF_ALL)
    assert list(map(figures_in, tables)) == list(OF_ALL.values())
    for name in ("isoenv", "direnv", "Python", "bash", "zsh", "fish"):
        assert re.search(rf"{name} \d+\.\d+", before)
    assert re.search(r"Load before: [\d., ]+\.\n", before)
    assert re.search(r"Load after: [\d., ]+\.\n", tables[-1])


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_isoenv_behaves_well_in_all_that_is_compared(shell: str) -> None:
    _, table = measured(["behaviours"], "--shell", shell, "--without", "direnv")
    told = {row[0]: row[1] for row in rows(table)}
    assert len(told) > 10
    assert "no" not in told.values(), told


def test_the_behaviours_are_seen_to_fail_where_they_do() -> None:
    _, table = measured(["behaviours"], "--shell", "bash")
    told = {row[0]: row[2] for row in rows(table)}
    assert told["Start no process at a prompt where nothing changed"] == "no"
    assert told["Keep the user's INT trap at a prompt"] == "no"
    assert told["Restore the value that an exported variable had before"] == "yes"


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", BENCH / "figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["figures"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_samples_are_taken_in_turn(figures: ModuleType) -> None:
    turns: list[str] = []

    def measure(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    samples = figures.interleave("abc", measure, 2)
    assert "".join(turns) == "abcabc"
    assert samples == {"a": [1, 4], "b": [2, 5], "c": [3, 6]}


def test_a_figure_is_the_median_and_the_tenth_of_its_samples(figures: ModuleType) -> None:
    found = figures.figure([0.001 * number for number in range(21, 0, -1)])
    assert str(found) == "11.0 ms (3.0 ms)"


def test_what_is_added_is_counted_within_a_round(figures: ModuleType) -> None:
    # A machine that slows down does so for both.
    plain = [0.001, 0.002, 0.009]
    assert str(figures.added([one + 0.0005 for one in plain], plain)).startswith("500 µs")


@pytest.mark.parametrize(("theirs", "word"), [(20.0, "meets"), (19.9, "misses")])
def test_a_goal_is_met_from_its_own_number_on(
    figures: ModuleType, theirs: float, word: str
) -> None:
    one, other = figures.figure([theirs]), figures.figure([1.0])
    assert figures.verdict(one, other, 20) == f"≥ 20{TIMES}: {word}"
    assert figures.times(one, other) == f"20{TIMES}"


def test_what_was_not_measured_is_not_judged(figures: ModuleType) -> None:
    assert figures.verdict(None, figures.figure([1.0]), 20) == figures.NOTHING


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0000042, "4.2 µs"),
        (0.00042, "420 µs"),
        (0.0042, "4.2 ms"),
        (0.42, "420 ms"),
        (4.2, "4.20 s"),
    ],
)
def test_a_time_is_said_in_its_unit(figures: ModuleType, seconds: float, text: str) -> None:
    assert figures.duration(seconds) == text
