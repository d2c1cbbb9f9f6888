"""Fifty agents at once on one repository, each in a worktree of its own, each with a server."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isoenv.coordination import registering
from isoenv.coordination.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
AGENTS = 50
# Seconds that a server may take to answer, so that a hang fails.
DEADLINE = 60.0

FLEET = """
project = "fleet"
[instance]
ports = "block"
range = [{first}, {last}]
main = 0
[ports]
web = {base}
"""

# What one command of an agent does: it writes who it is, and serves it on its port.
SERVE = """
mkdir who && echo "$ISOENV_NAME $WEB_PORT $PWD" >who/index.html
exec busybox httpd -f -p "127.0.0.1:$WEB_PORT" -h who
"""
ASK = 'busybox wget -q -O - "http://127.0.0.1:$WEB_PORT/"'


class Agent:
    """One agent: its worktree, the process that is its Claude Code, and its server."""

    def __init__(self, worktree: Path, scratch: Path) -> None:
        self.worktree = worktree
        self.env_file = scratch / f"{worktree.name}.env"
        self.process = subprocess.Popen(["sleep", "1000"])
        self.server: subprocess.Popen[bytes] | None = None
        self.environ: dict[str, str] = {}

    def event(self, name: str, command: str, **fields: str) -> None:
        """Call the hook of an event, which must not fail."""
        event = {"hook_event_name": name, "session_id": self.worktree.name, **fields}
        subprocess.run(
            ["sh", "-c", command],
            input=json.dumps({**event, "cwd": str(self.worktree)}).encode(),
            env={
                **os.environ,
                "CLAUDE_PID": str(self.process.pid),
                "CLAUDE_ENV_FILE": str(self.env_file),
            },
            capture_output=True,
            check=True,
        )

    def bash(self, command: str) -> subprocess.Popen[bytes]:
        """Start a command as the Bash tool does."""
        preamble = self.env_file.read_text() if self.env_file.exists() else ""
        return subprocess.Popen(
            ["bash", "-c", preamble + command],
            cwd=self.worktree,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )

    def serve(self) -> None:
        """Start the agent's server."""
        self.server = self.bash(SERVE)

    def ask(self) -> str:
        """Ask the server on the agent's port who it is."""
        deadline = time.monotonic() + DEADLINE
        while True:
            with self.bash(ASK) as asking:
                said, _ = asking.communicate()
            if asking.returncode == 0 or time.monotonic() > deadline:
                return said.decode()
            time.sleep(0.2)

    def close(self) -> None:
        """End what the agent has started."""
        for process in (self.server, self.process):
            if process is not None:
                process.kill()
                process.wait()
                if process.stdout:
                    process.stdout.close()


@pytest.fixture
def fleet(
    make_repo: Callable[[str], Path],
    git: Callable[..., str],
    isoenv: Isoenv,
    tmp_path: Path,
    free_port: Callable[[], int],
) -> Iterator[tuple[Path, list[Agent]]]:
    """A repository whose instances have ports in blocks, and fifty agents in their worktrees."""
    if shutil.which("busybox") is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("busybox is not installed")
    repo = make_repo("fleet")
    text = FLEET.format(first=21000, last=31999, base=free_port())
    (repo / "isoenv.toml").write_text(text)
    git(repo, "add", "--all")
    git(repo, "commit", "-q", "-m", "isoenv")
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/exclude").write_text(".claude/\nwho/\n")
    assert isoenv("allow", cwd=repo).returncode == 0
    agents = []
    for number in range(AGENTS):
        worktree = repo / f".claude/worktrees/agent-{number}"
        git(repo, "worktree", "add", "-q", "--detach", str(worktree))
        agents.append(Agent(worktree, tmp_path))
    yield repo, agents
    for agent in agents:
        agent.close()


def slots(isoenv: Isoenv, repo: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(isoenv("list", "--json", cwd=repo).stdout)["instances"]
    return found


def sessions() -> list[str]:
    store = open_store(os.environ["ISOENV_STATE_DIR"])
    try:
        return sorted(record.title for record in registering.live(store))
    finally:
        store.close()


def test_fifty_agents_at_once_have_a_world_each_and_give_it_back(
    fleet: tuple[Path, list[Agent]], isoenv: Isoenv, git: Callable[..., str]
) -> None:
    repo, agents = fleet
    assert isoenv("agent", "install", "claude", "--yes", cwd=repo).returncode == 0
    settings = json.loads((repo / ".claude/settings.local.json").read_text())
    hook = settings["hooks"]["SessionStart"][0]["hooks"][0]["command"]
    for agent in agents:
        agent.environ = settings["env"]
    with ThreadPoolExecutor(AGENTS) as pool:
        list(pool.map(lambda agent: agent.event("SessionStart", hook), agents))
        list(pool.map(lambda agent: agent.event("SubagentStart", hook, agent_id="a"), agents))
        assert sessions() == sorted(agent.worktree.name for agent in agents)
        list(pool.map(Agent.serve, agents))
        answers = list(pool.map(Agent.ask, agents))
    ports = set()
    for agent, answer in zip(agents, answers, strict=True):
        name, port, place = answer.split()
        assert (name, place) == (agent.worktree.name, str(agent.worktree))
        ports.add(int(port))
    assert len(ports) == AGENTS
    assert sorted(
        instance["ports"]["web"] for instance in slots(isoenv, repo) if instance["slot"]
    ) == sorted(ports)
    # Half of them say that they end, half are killed.
    for agent in agents[::2]:
        agent.event("SessionEnd", hook)
    for agent in agents:
        agent.close()
        git(repo, "worktree", "remove", "--force", str(agent.worktree))
    agents[0].event("WorktreeRemove", hook, worktree_path=str(agents[0].worktree))
    assert sessions() == []
    assert [instance["slot"] for instance in slots(isoenv, repo)] in ([], [0])
    assert not re.search(r"agent-\d", isoenv("prune", "--dry-run", cwd=repo).stderr)
