"""What it costs to run a command in an environment: by `exec`, and in a shell without a prompt."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

from figures import NOTHING, Table, figure, interleave, judged, text, times, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from figures import Figure
    from hooks import Place

EXEC_GOAL = 4
PYTHON_GOAL = 1


def measure_exec(place: Place, rounds: int) -> Table:
    """Measure `exec` in a known checkout as a whole process."""
    tools = {tool.name: tool for tool in place.tools}
    words = {"plain": ["true"]}
    if ours := tools.get("isoenv"):
        python = str(Path(ours.executable).with_name("python"))
        words["isoenv"] = ours.exec("true")
        words["isoenv, by Python"] = [python, "-m", "isoenv", *ours.execute, "true"]
    words |= {name: tool.exec("true") for name, tool in tools.items() if name != "isoenv"}
    found = _time(words, place.checkouts[0], place.world.environ, rounds)
    goals = {"isoenv": EXEC_GOAL, "isoenv, by Python": PYTHON_GOAL}
    table = Table(
        "A command in a known checkout: `exec`",
        "Wall time of the process: `isoenv exec . true`, `python -m isoenv exec . true`,"
        f" `direnv exec . true`, `mise exec -- true`, `true`. {_explain(rounds)}",
        ["", "time", "direnv / this", "mise / this", "goal"],
    )
    for name, measured in found.items():
        table.rows.append(
            [
                name,
                text(measured),
                times(found.get("direnv"), measured),
                times(found.get("mise"), measured),
                verdict(found.get("direnv"), measured, goals[name]) if name in goals else NOTHING,
            ]
        )
    return table


def measure_scripts(place: Place, rounds: int) -> Table:
    """Measure a shell without a prompt in a known checkout: BASH_ENV against `exec`."""
    tools = {tool.name: tool for tool in place.tools}
    script = ["bash", "-c", ":"]
    words = {"plain": script}
    environ = dict(place.world.environ)
    if ours := tools.get("isoenv"):
        file = place.world.home / "env.sh"
        code = place.world.run(ours.executable, "hook", "bash", "--env")
        file.write_text(code, encoding="utf-8")
        with_env = ["env", f"BASH_ENV={file}", *script]
        # Both through env(1), so that they differ in the file alone.
        words = {"plain": ["env", "NO_ENV=", *script], "isoenv, BASH_ENV": with_env}
        printed = place.world.run(*with_env[:-1], "printf %s $POSTGRES_DB", cwd=place.checkouts[0])
        if printed != "shop_0":
            raise RuntimeError(f"BASH_ENV={file} gives POSTGRES_DB={printed}")
    words |= {f"{name} exec": tool.exec(*script) for name, tool in tools.items()}
    found = _time(words, place.checkouts[0], environ, rounds)
    table = Table(
        "A shell without a prompt in a known checkout: `bash -c :`",
        f"Wall time of the process, and what it adds to the plain one. {_explain(rounds)}",
        ["", "time", "added", "direnv's added / this"],
    )
    plain = found["plain"]
    for name, measured in found.items():
        if name == "plain":
            table.rows.append([name, text(measured), NOTHING, NOTHING])
            continue
        more = _less(measured, plain)
        anchor = found.get("direnv exec")
        ratio = times(_less(anchor, plain), more) if anchor else NOTHING
        table.rows.append([name, text(measured), text(more), ratio])
    return table


def _less(one: Figure, other: Figure) -> Figure:
    return type(one)(one.median - other.median, one.p10 - other.p10)


def _explain(rounds: int) -> str:
    return f"Median (p10) of {rounds} rounds."


def _time(
    words: Mapping[str, Sequence[str]], directory: str, environ: Mapping[str, str], rounds: int
) -> dict[str, Figure]:
    def time(name: str) -> float:
        return run(words[name], directory, environ)

    interleave(words, time, 3)
    return {name: figure(taken) for name, taken in interleave(words, time, rounds).items()}


def run(
    argv: Sequence[str], directory: str, environ: Mapping[str, str], expected: int = 0
) -> float:
    """Run a process that has to end with the expected exit code, and return its seconds."""
    return _spawn(argv, directory, environ, good=(expected,))[0]


def spend(argv: Sequence[str], directory: str, environ: Mapping[str, str]) -> float:
    """Run a process and return the seconds of CPU that it has used.

    1 is no failure: `isoenv doctor` may find something wrong with the machine that it runs on.
    """
    return _spawn(argv, directory, environ, good=(0, 1))[1]


def _spawn(
    argv: Sequence[str], directory: str, environ: Mapping[str, str], good: Sequence[int] = (0,)
) -> tuple[float, float]:
    executable = shutil.which(argv[0], path=environ["PATH"])
    assert executable is not None
    silent = [(os.POSIX_SPAWN_OPEN, file, os.devnull, os.O_RDWR, 0) for file in (0, 1, 2)]
    # Spawning knows no directory of its own.
    before = os.getcwd()
    os.chdir(directory)
    try:
        # PWD as the shell that people call it from has it.
        start = perf_counter()
        pid = os.posix_spawn(
            executable, list(argv), {**environ, "PWD": directory}, file_actions=silent
        )
        _, status, used = os.wait4(pid, 0)
        taken = perf_counter() - start
    finally:
        os.chdir(before)
    if os.waitstatus_to_exitcode(status) not in good:
        raise RuntimeError(f"{argv} in {directory} ended with {os.waitstatus_to_exitcode(status)}")
    return taken, used.ru_utime + used.ru_stime


def judge_limit(measured: Figure, limit: float) -> str:
    """Return whether a time is under its limit, in seconds."""
    return judged(f"< {limit:g} s", good=measured.median < limit)
