"""What an event of a coding agent costs, beside a `direnv export bash` that loads."""

from __future__ import annotations

import json
import os
import subprocess
from time import perf_counter
from typing import TYPE_CHECKING

from figures import NOTHING, Table, figure, interleave, judged, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hooks import Place

# How many times as long as direnv an event may take.
GOAL = 1.5
# As Claude Code gives its own.
SESSION = "5e551011-c0de-4bad-8bad-0123456789ab"
EVENTS = (
    "SessionStart",
    "UserPromptSubmit",
    "CwdChanged",
    "SubagentStart",
    "SubagentStop",
    "SessionEnd",
)


def measure(place: Place, rounds: int) -> Table:
    """Measure each event of a session in a known checkout as a whole process, in their order."""
    tools = {tool.name: tool for tool in place.tools}
    checkout, environ = place.checkouts[0], dict(place.world.environ)
    # The session lives with this process, which the tools must not tell from Claude Code.
    environ |= {
        "CLAUDE_PID": str(os.getpid()),
        "CLAUDE_ENV_FILE": str(place.world.home / "claude-env.sh"),
    }
    words = {name: [tools["isoenv"].executable, "agent", "hook", "claude"] for name in EVENTS}
    if direnv := tools.get("direnv"):
        words["direnv"] = [direnv.executable, "export", "bash"]

    def time(name: str) -> float:
        return _run(words[name], checkout, environ, _event(name, checkout))

    # The first of all makes the store, and the file that commands read.
    interleave(words, time, 3)
    found = {name: figure(taken) for name, taken in interleave(words, time, rounds).items()}
    anchor = found.pop("direnv", None)
    table = Table(
        "An event of a coding agent: `isoenv agent hook claude`",
        "Wall time of the process in a known checkout: a session that is registered, moves,"
        f" counts a subagent and ends. Median (p10) of {rounds} rounds.",
        ["", "time", "of direnv export bash", "goal"],
    )
    for name, measured in found.items():
        ratio = f"{measured.median / anchor.median:.2f}" if anchor else NOTHING
        goal = NOTHING
        if anchor:
            goal = judged(f"≤ {GOAL:g}×", good=measured.median <= GOAL * anchor.median)
        table.rows.append([name, text(measured), ratio, goal])
    if anchor:
        table.rows.append(["direnv export bash", text(anchor), "1.00", NOTHING])
    return table


def _event(name: str, checkout: str) -> bytes:
    fields = {"session_id": SESSION, "cwd": checkout, "agent_id": "a1", "agent_type": "Explore"}
    return json.dumps({"hook_event_name": name, **fields}).encode()


def _run(argv: Sequence[str], directory: str, environ: Mapping[str, str], given: bytes) -> float:
    start = perf_counter()
    done = subprocess.run(
        argv,
        cwd=directory,
        env={**environ, "PWD": directory},
        input=given,
        capture_output=True,
        check=False,
    )
    taken = perf_counter() - start
    if done.returncode or (b"isoenv:" in done.stderr):
        raise RuntimeError(f"{argv} in {directory}: {os.fsdecode(done.stderr).strip()}")
    return taken
