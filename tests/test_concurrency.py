"""Many processes at once, some killed at any moment: no slot and no port is given twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import context, leasing
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isoenv.models import Lease

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]

AT_ONCE = 50
# In every environment of these tests, and not one of them a path.
VARIABLES = ("ISOENV_PROJECT", "ISOENV_INSTANCE", "ISOENV_NAME")

BLOCKS = """
[instance]
ports = "block"
[ports]
web = 3000
api = 8000
"""

ORIENT = """
extends = "orient"
project = "{project}"
"""

ORIENT_BASES = {
    "NGINX_PORT": 80,
    "WHATSAPP_PORT": 4097,
    "DASHBOARD_PORT": 4098,
    "OPENCODE_PORT": 4099,
    "VITE_PORT": 5173,
    "POSTGRES_PORT": 5432,
    "MINIO_API_PORT": 9000,
    "MINIO_CONSOLE_PORT": 9001,
}

# Leases the directories given on standard input, several at once, by forks of one process that
# has imported everything: what is killed is at work on its lease, not on starting Python. The
# first few are left alone, to learn how long one takes; each other one is killed after a random
# part of that.
KILLER = """
import os, random, signal, sys, time, json
import click, sqlite3, isoenv.cli.exec, isoenv.ports
from isoenv.__main__ import main

LANES, SPARED = 6, 24

def start(directory):
    pid = os.fork()
    if pid == 0:
        os.chdir(directory)
        sys.argv = ["isoenv", "exec", ".", "--", "true"]
        try:
            main()
        finally:
            os._exit(70)
    return pid

waiting = [os.fsdecode(line) for line in sys.stdin.buffer.read().split(b"\\0") if line][::-1]
random.seed(int(sys.argv[1]))
running, times, results = {}, [], {"killed": 0, "finished": 0, "failed": 0}
started = 0
while waiting or running:
    while waiting and len(running) < LANES:
        now = time.monotonic()
        longest = sorted(times)[len(times) // 2] if len(times) >= SPARED - LANES else 1000
        delay = random.uniform(0, longest) if started >= SPARED else 1000
        running[start(waiting.pop())] = now, now + delay
        started += 1
    for pid, (since, until) in list(running.items()):
        now = time.monotonic()
        if now >= until:
            os.kill(pid, signal.SIGKILL)
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            del running[pid]
            if os.WIFSIGNALED(status):
                results["killed"] += 1
            elif status == 0:
                results["finished"] += 1
                times.append(now - since)
            else:
                results["failed"] += 1
    time.sleep(0.0002)
print(json.dumps(results))
"""


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def checkouts(
    git: Callable[..., str],
    make_repo: Callable[[str], Path],
    allow: Callable[[Path], None],
) -> Callable[[str, str, int], list[Path]]:
    """Make linked worktrees of a repository whose configuration is committed and allowed."""

    def checkouts(name: str, config: str, count: int) -> list[Path]:
        repo = make_repo(name)
        (repo / "isoenv.toml").write_text(config)
        git(repo, "add", "isoenv.toml")
        git(repo, "commit", "--quiet", "-m", "isoenv")
        allow(repo)
        trees = [repo.parent / f"{name}-{number}" for number in range(1, count + 1)]
        for tree in trees:
            git(repo, "worktree", "add", "--quiet", "--detach", str(tree))
        return trees

    return checkouts


def lease_at_once(
    isoenv: Run, trees: Sequence[Path], variables: Sequence[str]
) -> Iterator[tuple[Path, dict[str, str]]]:
    """Lease in one process for each checkout, AT_ONCE at a time; yield what each was given."""

    def lease(tree: Path) -> subprocess.CompletedProcess[str]:
        return isoenv("exec", ".", "--", "printenv", *variables, cwd=tree, trusted=False)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        began = time.perf_counter()
        results = list(pool.map(lease, trees))
        took = time.perf_counter() - began
    print(f"{len(trees)} processes, at most {AT_ONCE} at once: {took:.2f} s")  # noqa: T201  # a figure, not a limit
    for tree, done in zip(trees, results, strict=True):
        assert done.returncode == 0, done.stderr
        # Somebody else's listener on this machine is no error.
        assert [line for line in done.stderr.splitlines() if "skipped: port" not in line] == []
        yield tree, dict(zip(variables, done.stdout.splitlines(), strict=True))


def ports_of(given: dict[str, str]) -> list[int]:
    return [int(value) for name, value in given.items() if name.endswith("_PORT")]


def mixed(*groups: list[Path]) -> list[Path]:
    return [tree for trees in zip(*groups, strict=True) for tree in trees]


def hold(registry: Registry, tree: Path) -> Lease:
    return leasing.hold(registry, context.find(context.Caller(str(tree), os.environ)).claim)


def check_database(registry: Registry) -> None:
    assert registry.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert registry.connection.execute("PRAGMA foreign_key_check").fetchall() == []


def test_two_projects_of_50_worktrees_in_blocks_lease_at_once(
    isoenv: Run, checkouts: Callable[[str, str, int], list[Path]], state: Path
) -> None:
    shop, blog = checkouts("shop", BLOCKS, 50), checkouts("blog", BLOCKS, 50)
    variables = (*VARIABLES, "WEB_PORT", "API_PORT")
    both = mixed(shop, blog)
    first = {
        tree: given
        for group in (both[:AT_ONCE], both[AT_ONCE:])
        for tree, given in lease_at_once(isoenv, group, variables)
    }
    for trees in (shop, blog):
        slots = sorted(int(first[tree]["ISOENV_INSTANCE"]) for tree in trees)
        assert slots == list(range(1, 51))
        assert [first[tree]["ISOENV_NAME"] for tree in trees] == [tree.name for tree in trees]
    held = [port for given in first.values() for port in ports_of(given)]
    assert len(set(held)) == len(held) == 200
    assert dict(lease_at_once(isoenv, both, variables)) == first
    with Registry(str(state)) as registry:
        check_database(registry)
        assert len(registry.leases()) == 100
        again = {tree: hold(registry, tree) for tree in both}
    assert {tree: str(lease.slot) for tree, lease in again.items()} == {
        tree: given["ISOENV_INSTANCE"] for tree, given in first.items()
    }


def test_two_projects_of_20_worktrees_with_the_orient_table_lease_at_once(
    isoenv: Run, checkouts: Callable[[str, str, int], list[Path]]
) -> None:
    both = mixed(
        *(checkouts(name, ORIENT.format(project=name), 20) for name in ("orienter", "other"))
    )
    variables = (*VARIABLES, "AI_INSTANCE_ID", *ORIENT_BASES)
    first = dict(lease_at_once(isoenv, both, variables))
    held = [port for given in first.values() for port in ports_of(given)]
    assert len(set(held)) == len(held) == 40 * 8
    for given in first.values():
        slot = int(given["AI_INSTANCE_ID"])
        assert given["ISOENV_INSTANCE"] == str(slot)
        assert ports_of(given) == [base + 1000 * slot for base in ORIENT_BASES.values()]
    assert dict(lease_at_once(isoenv, both, variables)) == first


def test_processes_that_enter_one_checkout_at_once_share_its_lease(
    isoenv: Run, checkouts: Callable[[str, str, int], list[Path]], state: Path
) -> None:
    [tree] = checkouts("shop", BLOCKS, 1)
    variables = (*VARIABLES, "WEB_PORT")
    given = [given for _, given in lease_at_once(isoenv, [tree] * 10, variables)]
    assert given == [given[0]] * 10
    with Registry(str(state)) as registry:
        assert len(registry.leases()) == 1


def test_leases_killed_at_random_moments_lose_nothing_and_give_nothing_twice(
    checkouts: Callable[[str, str, int], list[Path]], state: Path
) -> None:
    shop, blog = checkouts("shop", BLOCKS, 112), checkouts("blog", BLOCKS, 112)
    both = mixed(shop, blog)
    done = subprocess.run(
        [sys.executable, "-c", KILLER, str(seed := time.time_ns())],
        input=b"\0".join(os.fsencode(tree) for tree in both),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    print(f"seed {seed}: {done.stdout.decode()}")  # noqa: T201  # how often it hit
    assert (done.returncode, done.stderr) == (0, b"")
    results = json.loads(done.stdout)
    assert sum(results.values()) == 224
    assert results["failed"] == 0
    assert results["killed"] > 0
    with Registry(str(state)) as registry:
        check_database(registry)
        survived = {lease.root: lease for lease in registry.leases()}
        assert len(survived) >= results["finished"]
        held = {tree: hold(registry, tree) for tree in both}
        assert len(registry.leases()) == 224
        check_database(registry)
    for tree, lease in held.items():
        # What a killed process had leased is what its checkout has.
        assert survived.get(str(tree), lease).id == lease.id
    for trees in (shop, blog):
        assert sorted(held[tree].slot for tree in trees) == list(range(1, 113))
    count = Counter(port for lease in held.values() for port in lease.ports.values())
    assert len(count) == 2 * 224
    assert set(count.values()) == {1}


def test_a_killed_process_does_not_keep_the_others_waiting(state: Path) -> None:
    code = (
        "import sys, time; from isoenv.registry import Registry\n"
        "with Registry(sys.argv[1]) as registry, registry.transaction():\n"
        "    registry.connection.execute(\"INSERT INTO project VALUES (1, x'61', 'a')\")\n"
        "    print('writing', flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(state)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
    finally:
        process.kill()
        process.communicate()
    with Registry(str(state)) as registry:
        with registry.transaction():
            pass
        assert registry.connection.execute("SELECT count(*) FROM project").fetchone() == (0,)
        check_database(registry)
