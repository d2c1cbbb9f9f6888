"""What is ready is fresh until an input changes, whatever times the state directory keeps."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from isoenv import generated, paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SECOND = 1_000_000_000
# How a shell is asked, and the file that it sources.
ASK = {
    "bash": (["bash", "--norc", "-c"], "bash", ". {}; __isoenv_stale && echo stale || echo fresh"),
    "zsh": (["zsh", "-f", "-c"], "sh", ". {}; __isoenv_stale && echo stale || echo fresh"),
    "sh": (["sh", "-c"], "sh", ". {}; __isoenv_stale && echo stale || echo fresh"),
    "fish": (
        ["fish", "-N", "-c"],
        "fish",
        "source {}; __isoenv_stale; and echo stale; or echo fresh",
    ),
}


def down(time_ns: int) -> int:
    return time_ns // SECOND * SECOND


def up(time_ns: int) -> int:
    return -down(-time_ns)


def to_two_seconds(time_ns: int) -> int:
    return time_ns // (2 * SECOND) * 2 * SECOND


@pytest.fixture
def input_file(tmp_path: Path) -> Path:
    """A watched file that was written some time ago, at no whole second."""
    file = tmp_path / "input"
    file.touch()
    date(file, time.time_ns() // SECOND * SECOND - 9 * SECOND + 123_456_789)
    return file


def date(file: Path, time_ns: int) -> None:
    os.utime(file, ns=(time_ns, time_ns))


@pytest.fixture
def published(tmp_path: Path, input_file: Path) -> Callable[[], str]:
    """Publish an environment that depends on the file; return the directory."""

    def published() -> str:
        directory = paths.generated_dir(str(tmp_path / "state"), "/base")
        stamp = generated.stamp(str(input_file), time.time_ns())
        watched = {str(input_file): stamp, str(tmp_path / "absent"): generated.ABSENT}
        ready = generated.Ready(root="/base", label="", guards=(), watched=watched, variables={})
        assert generated.publish(directory, ready)
        return directory

    return published


def asked(directory: str) -> set[str]:
    """Return what the shells say of it."""
    said = set()
    for argv, name, script in ASK.values():
        file = shlex.quote(f"{directory}/@env.{name}")
        done = subprocess.run(
            [*argv, script.format(file)], capture_output=True, check=False, text=True
        )
        assert done.stderr == ""
        said.add(done.stdout.strip())
    return said


@pytest.mark.parametrize("kept", [down, up, to_two_seconds, int])
def test_times_that_the_state_directory_cannot_keep_make_nothing_stale(
    kept: Callable[[int], int],
    published: Callable[[], str],
    input_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = os.utime

    def coarse(path: str, ns: tuple[int, int]) -> None:
        exact(path, ns=(kept(ns[0]), kept(ns[1])))

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", coarse)
        directory = published()
    assert asked(directory) == {"fresh"}
    was = input_file.stat().st_mtime_ns
    for change in (time.time_ns(), was - 5 * SECOND):
        date(input_file, change)
        assert asked(directory) == {"stale"}
    date(input_file, was)
    assert asked(directory) == {"fresh"}


def test_what_was_written_just_now_is_looked_at_again_where_times_are_coarse(
    published: Callable[[], str], input_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = os.utime
    date(input_file, time.time_ns() - SECOND // 2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", lambda path, ns: exact(path, ns=(down(ns[0]), down(ns[1]))))
        directory = published()
    assert asked(directory) == {"stale"}
