"""The real Claude Code, with a stand-in for the model that asks for what an agent does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from model import Model

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

pytestmark = pytest.mark.claude

SHOP = """
project = "shop"
[ports]
web = 4300
"""
SAY = 'echo "at:$WEB_PORT:$ISOENV_INSTANCE:$PWD"'
BIN = Path(sys.executable).parent
# Seconds that the whole conversation may take.
DEADLINE = 300


# Read before the environment of the tests is made.
PROGRAM = os.environ.get("ISOENV_TEST_CLAUDE")


@pytest.fixture
def program() -> str:
    """Claude Code itself."""
    if not PROGRAM:
        pytest.skip("ISOENV_TEST_CLAUDE does not say where Claude Code is: `make test-claude`")
    return PROGRAM


def bash(command: str) -> tuple[str, dict[str, Any]]:
    """A step: the agent runs a command."""
    return "Bash", {"command": command, "description": "look"}


def said(text: str) -> dict[str, Any]:
    """What the user says, as Claude Code reads it on standard input."""
    return {"type": "user", "message": {"role": "user", "content": text}}


def environment(url: str) -> dict[str, str]:
    """The environment of Claude Code: no network, and no questions."""
    found = {**os.environ, "ANTHROPIC_BASE_URL": url, "ANTHROPIC_API_KEY": "none"}
    found |= {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_TELEMETRY": "1"}
    found |= {"DISABLE_AUTOUPDATER": "1", "IS_SANDBOX": "1", "SHELL": "/bin/bash"}
    return {**found, "PATH": f"{BIN}:{found['PATH']}"}


@pytest.mark.parametrize("rc", ["", 'eval "$(isoenv hook bash)"\n'], ids=["bare", "hook"])
def test_an_agent_has_the_environment_of_each_directory_that_it_is_in(  # noqa: PLR0913, PLR0917  # fixtures
    make_repo: Callable[[str], Path],
    linked: Callable[[Path, str], Path],
    isoenv: Isoenv,
    program: str,
    home: Path,
    rc: str,
) -> None:
    (home / ".bashrc").write_text(rc)
    shop = make_repo("shop")
    (shop / "isoenv.toml").write_text(SHOP)
    (shop / ".git/info/exclude").parent.mkdir(exist_ok=True)
    (shop / ".git/info/exclude").write_text(".claude/\n")
    other = linked(shop, "b")
    for place, port in ((shop, "4300\n"), (other, "5300\n")):
        assert isoenv("port", "web", cwd=place).stdout == port
    assert isoenv("agent", "install", "claude", "--yes", cwd=shop).returncode == 0

    inner = ".claude/worktrees/w"
    agent = ("Agent", {"description": "s", "prompt": "DELVE", "subagent_type": "general-purpose"})
    begin = [
        bash(SAY),
        bash(f"cd ../b && {SAY}"),
        bash(SAY),
        bash(f"cd {shop}; {SAY}"),
        bash("isoenv session list --json"),
        bash(f"git worktree add -q {inner} && cd {inner} && {SAY}"),
        bash(f"cd {shop}"),
        agent,
        bash("isoenv send $CLAUDE_CODE_SESSION_ID 'hello from outside'"),
        "finished",
    ]
    # It is one conversation: the second prompt comes when so many answers have been given.
    plans = {
        "BEGIN": [*begin, "finished again"],
        "DELVE": [
            bash(f"cd ../b; {SAY}"),
            bash(SAY),
            bash("isoenv metrics show --json"),
            "finished",
        ],
    }
    session = str(uuid.uuid4())
    model = Model(plans)
    command = [program, "-p", "--session-id", session, "--dangerously-skip-permissions"]
    command += ["--input-format", "stream-json", "--output-format", "stream-json", "--verbose"]
    process = subprocess.Popen(
        [*command, "--add-dir", str(other)],
        cwd=shop,
        env=environment(model.url),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        for prompt in ("BEGIN", "AGAIN"):
            process.stdin.write(json.dumps(said(prompt)) + "\n")
            process.stdin.flush()
            for line in process.stdout:
                if json.loads(line)["type"] == "result":
                    break
        process.stdin.close()
        process.stdout.read()
        assert process.wait(DEADLINE) == 0
    finally:
        process.kill()
        process.stdout.close()
        model.close()

    told = model.seen("BEGIN")
    line = "isoenv: your commands run in instance shop/0 shop with ports WEB_PORT=4300"
    assert any(line in text for text in told), told
    assert [line for text in told for line in text.splitlines() if line.startswith("at:")] == [
        *(f"at:4300:0:{shop}", f"at:5300:1:{other}", f"at:5300:1:{other}", f"at:4300:0:{shop}"),
        f"at:6300:2:{shop}/{inner}",
    ]
    listed = next(text for text in told if '"sessions"' in text)
    (row,) = json.loads(listed)["sessions"]
    assert (row["name"], row["pid"], row["slot"]) == (session, process.pid, 0)
    assert any("isoenv: message from" in text and "hello from outside" in text for text in told)

    told = model.seen("DELVE")
    assert [line for text in told for line in text.splitlines() if line.startswith("at:")] == [
        *(f"at:5300:1:{other}", f"at:4300:0:{shop}")
    ]
    shown = next(text for text in told if '"metrics"' in text)
    (row,) = json.JSONDecoder().raw_decode(shown)[0]["metrics"]
    assert (row["name"], row["total"]) == ("agents", 1)

    assert json.loads(isoenv("session", "list", "--json", cwd=shop).stdout)["sessions"] == []
