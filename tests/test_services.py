"""Services of an instance: started once, watched, stopped with all they have started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from isoenv import paths, process
from isoenv.services import members, record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Shop = Callable[..., Path]

T = TypeVar("T")

pytestmark = pytest.mark.usefixtures("ended_services")

ROOT = Path(__file__).resolve().parents[1]

# What a test waits for comes at once; this many seconds mean that it never comes.
DEADLINE = 60.0

WEB = """
[services.web]
run = "exec python3 -m http.server --bind 127.0.0.1 {ports.web}"
health = "http://127.0.0.1:{ports.web}/"
"""


@pytest.fixture
def shop(make_repo: Callable[[str], Path], free_port: Callable[[], int]) -> Shop:
    """Make a checkout with a port `web` and these services."""

    def shop(services: str = WEB, *, name: str = "shop", more: str = "") -> Path:
        repo = make_repo(name)
        config = f'project = "shop"\n{more}\n[ports]\nweb = {free_port()}\n{services}'
        (repo / "isoenv.toml").write_text(config)
        return repo

    return shop


def place(service: str = "web", slot: int = 0) -> str:
    return record.directory(paths.state_dir(os.environ), "shop", slot, service)


def recorded(service: str = "web", slot: int = 0) -> record.Record:
    found = record.read(place(service, slot))
    assert found is not None
    return found


def wait_for(condition: Callable[[], T]) -> T:
    deadline = time.monotonic() + DEADLINE
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found


def is_alive(pid: int) -> bool:
    return process.identify(pid) is not None


def ps(isoenv: Isoenv, cwd: Path, *operands: str) -> dict[str, dict[str, Any]]:
    done = isoenv("ps", "--json", *operands, cwd=cwd)
    envelope = json.loads(done.stdout)
    assert envelope["version"] == 1
    return {service["name"]: service for service in envelope["services"]}


def port_of(repo: Path) -> int:
    return int((repo / "isoenv.toml").read_text().partition("web = ")[2].partition("\n")[0])


def test_a_service_is_started_seen_and_stopped(isoenv: Isoenv, shop: Shop) -> None:
    repo = shop()
    assert ps(isoenv, repo)["web"]["state"] == "stopped"
    done = isoenv("up", cwd=repo)
    assert (done.returncode, done.stdout) == (0, "")
    assert "isoenv: web is healthy after " in done.stderr
    status = ps(isoenv, repo)["web"]
    assert status["state"] == "healthy"
    assert abs(status["since"] - time.time()) < DEADLINE
    assert isoenv("ps", cwd=repo).returncode == 0
    done = isoenv("down", cwd=repo)
    assert (done.returncode, done.stdout) == (0, "")
    assert not is_alive(status["pid"])
    assert ps(isoenv, repo)["web"]["state"] == "stopped"
    assert isoenv("ps", cwd=repo).returncode == 3


def test_a_service_runs_in_its_own_session_below_a_shell(isoenv: Isoenv, shop: Shop) -> None:
    repo = shop()
    assert isoenv("up", cwd=repo).returncode == 0
    pid, parent = recorded().number("pid"), recorded().number("parent")
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert parent != pid
    assert os.getsid(parent) == parent
    command = Path(f"/proc/{parent}/cmdline").read_bytes()
    assert command.startswith(b"/bin/sh\0")
    assert os.readlink(f"/proc/{parent}/cwd") == "/"


def test_what_runs_already_stays_as_it_is(isoenv: Isoenv, shop: Shop) -> None:
    repo = shop()
    assert isoenv("up", cwd=repo).returncode == 0
    pid = recorded().number("pid")
    done = isoenv("up", "web", cwd=repo)
    assert done.returncode == 0
    assert "web runs already" in done.stderr
    assert recorded().number("pid") == pid


def test_twenty_starts_at_once_start_it_once(isoenv: Isoenv, shop: Shop, tmp_path: Path) -> None:
    started = tmp_path / "started"
    run = f"echo $$ >>{started}; exec python3 -m http.server --bind 127.0.0.1 {{ports.web}}"
    repo = shop(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    assert isoenv("show", cwd=repo).returncode == 0
    with ThreadPoolExecutor(20) as pool:
        done = list(pool.map(lambda _: isoenv("up", cwd=repo, trusted=False), range(20)))
    assert [each.returncode for each in done] == [0] * 20
    assert sum("runs already" in each.stderr for each in done) == 19
    assert started.read_text().split() == [str(recorded().number("pid"))]


def test_a_foreign_process_on_the_port_is_named_and_nothing_started(
    isoenv: Isoenv, shop: Shop, listener: Callable[[str, int], socket.socket], tmp_path: Path
) -> None:
    repo = shop(WEB.replace("exec python3", f"touch {tmp_path}/began; exec python3"))
    listener("127.0.0.1", port_of(repo))
    done = isoenv("up", cwd=repo)
    assert done.returncode == 6
    assert f"port {port_of(repo)} of web of shop/0 is held by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not (tmp_path / "began").exists()
    status = ps(isoenv, repo)["web"]
    assert status["state"] == "stopped"
    assert status["held_by"]["pid"] == os.getpid()
    assert isoenv("ps", cwd=repo).returncode == 3


def test_without_health_a_foreign_process_on_a_mentioned_port_is_named(
    isoenv: Isoenv, shop: Shop, listener: Callable[[str, int], socket.socket]
) -> None:
    services = '[services.web]\nrun = "exec python3 -m http.server --bind 127.0.0.1 $WEB_PORT"\n'
    repo = shop(services)
    listener("127.0.0.1", port_of(repo))
    done = isoenv("up", cwd=repo)
    assert done.returncode == 6
    assert f"(pid {os.getpid()})" in done.stderr
    assert ps(isoenv, repo)["web"]["state"] == "crashed"


def test_a_service_that_dies_while_starting_is_told_with_its_last_words(
    isoenv: Isoenv, shop: Shop
) -> None:
    run = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $n; done; date +%s.%N >died; exit 7"
    repo = shop(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    done = isoenv("up", cwd=repo)
    told = time.time()
    assert done.returncode == 1
    assert "web of shop/0 ended while starting, with exit status 7" in done.stderr
    assert "  | line 12\n" in done.stderr
    assert "  | line 2\n" not in done.stderr
    # The figure that was asked for; the rest of a second is Python's own end.
    assert told - float((repo / "died").read_text()) < 1.0
    status = ps(isoenv, repo)["web"]
    assert (status["state"], status["exit_status"]) == ("crashed", 7)
    done = isoenv("ps", cwd=repo)
    assert done.returncode == 3
    assert "exit status 7" in done.stdout
    assert "web | line 12" in done.stderr


def test_a_crash_is_told_with_its_signal(isoenv: Isoenv, shop: Shop) -> None:
    repo = shop()
    assert isoenv("up", cwd=repo).returncode == 0
    os.kill(recorded().number("pid"), signal.SIGKILL)
    wait_for(lambda: record.ended(place(), recorded().text("id")))
    status = ps(isoenv, repo)["web"]
    assert (status["state"], status["exit_status"]) == ("crashed", 137)
    assert "exit status 137 (SIGKILL)" in isoenv("ps", cwd=repo).stdout
    assert isoenv("up", cwd=repo).returncode == 0
    assert ps(isoenv, repo)["web"]["state"] == "healthy"


LEAVES = """
[services.web]
run = ["sh", "-c", "python3 -m http.server --bind 127.0.0.1 {ports.web} & wait"]
health = "http://127.0.0.1:{ports.web}/"
"""


def test_what_a_killed_master_leaves_is_seen_and_cleaned_up(isoenv: Isoenv, shop: Shop) -> None:
    repo = shop(LEAVES)
    assert isoenv("up", cwd=repo).returncode == 0
    found = recorded()
    (child,) = [each for each in members.find(place(), found) if each.pid != found.number("pid")]
    os.kill(found.number("pid"), signal.SIGKILL)
    wait_for(lambda: record.ended(place(), found.text("id")))
    status = ps(isoenv, repo)["web"]
    assert status["state"] == "crashed"
    assert status["leftovers"] == [child.pid]
    done = isoenv("up", cwd=repo)
    assert done.returncode == 1
    assert f"left processes behind (pid {child.pid})" in done.stderr
    assert isoenv("down", cwd=repo).returncode == 0
    assert not is_alive(child.pid)
    assert isoenv("up", cwd=repo).returncode == 0


def test_processes_that_left_the_session_are_stopped_too(isoenv: Isoenv, shop: Shop) -> None:
    run = "setsid sleep 1000 & exec python3 -m http.server --bind 127.0.0.1 {ports.web}"
    repo = shop(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    assert isoenv("up", cwd=repo).returncode == 0
    found = wait_for(lambda: len(all_of := members.find(place(), recorded())) == 2 and all_of)
    assert isoenv("down", cwd=repo).returncode == 0
    assert not any(is_alive(each.pid) for each in found)


def test_who_ignores_term_is_killed(isoenv: Isoenv, shop: Shop) -> None:
    run = "trap '' TERM; while :; do sleep 0.1; done"
    repo = shop(f'[services.web]\nrun = "{run}"\n')
    assert isoenv("up", cwd=repo).returncode == 0
    found = members.find(place(), recorded())
    assert members.end(place(), recorded(), 0.2) >= 1
    assert not any(is_alive(each.pid) for each in found)


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of nobody's, that leads a session."""
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    yield child
    child.kill()
    child.communicate()


@pytest.mark.parametrize("field", ["start", "boot", "inode"])
def test_a_recycled_pid_is_never_signalled(
    isoenv: Isoenv, shop: Shop, bystander: subprocess.Popen[bytes], field: str
) -> None:
    repo = shop()
    assert isoenv("up", cwd=repo).returncode == 0
    assert isoenv("down", cwd=repo).returncode == 0
    them = process.identify(bystander.pid)
    assert them is not None
    if field == "inode" and not them.inode:
        pytest.skip("this kernel gives a process no inode of its own")
    fields = {
        **{name: str(getattr(them, name)) for name in ("pid", "start", "boot", "namespace")},
        "inode": str(them.inode),
        "host": them.host,
        "state": record.UP,
    }
    wrong = {"start": str(them.start - 1), "boot": "before", "inode": str(them.inode + 1)}
    record.write(place(), recorded().changed(**{**fields, field: wrong[field]}))
    assert ps(isoenv, repo)["web"]["state"] in ("crashed", "stopped")
    assert isoenv("down", cwd=repo).returncode == 0
    assert isoenv("up", cwd=repo).returncode == 0
    assert isoenv("down", cwd=repo).returncode == 0
    assert bystander.poll() is None
    assert is_alive(bystander.pid)


def test_nothing_is_claimed_to_run_after_a_restart_of_the_machine(
    isoenv: Isoenv, shop: Shop
) -> None:
    infra = '[services.infra]\nstart = "true"\nstop = "true"\n'
    repo = shop(WEB + infra)
    assert isoenv("up", cwd=repo).returncode == 0
    pid = recorded().number("pid")
    for service in ("web", "infra"):
        found = recorded(service)
        record.write(place(service), found.changed(boot="before"))
    states = {name: status["state"] for name, status in ps(isoenv, repo).items()}
    assert states == {"web": "stopped", "infra": "stopped"}
    os.kill(pid, signal.SIGKILL)


def test_down_during_up_ends_with_nothing_running(isoenv: Isoenv, shop: Shop) -> None:
    never = """
[services.slow]
run = "exec sleep 1000"
health = "tcp:{ports.web}"
start_timeout = 1000
[services.late]
run = "touch late; exec sleep 1000"
"""
    repo = shop(never)
    assert isoenv("show", cwd=repo).returncode == 0
    with ThreadPoolExecutor() as pool:
        up = pool.submit(isoenv, "up", cwd=repo)
        wait_for(lambda: record.read(place("slow")))
        down = pool.submit(isoenv, "down", cwd=repo)
        assert down.result().returncode == 0
        assert up.result().returncode == 1
    assert "stopped meanwhile" in up.result().stderr
    assert {each["state"] for each in ps(isoenv, repo).values()} == {"stopped"}
    assert not is_alive(recorded("slow").number("pid"))
    assert not (repo / "late").exists()


def test_a_start_that_is_killed_leaves_one_service_at_most(
    isoenv: Isoenv, shop: Shop, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    run = f"echo $$ >>{started}; exec python3 -m http.server --bind 127.0.0.1 {{ports.web}}"
    repo = shop(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    assert isoenv("show", cwd=repo).returncode == 0
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for delay in (0.05, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25):
        up = subprocess.Popen(
            [sys.executable, "-m", "isoenv", "up"],
            cwd=repo,
            env=environ,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay)
        up.kill()
        up.wait()
        assert isoenv("up", cwd=repo).returncode == 0
        pids = started.read_text().split()
        assert len(pids) == 1
        assert pids[0] == str(recorded().number("pid"))
        assert isoenv("down", cwd=repo).returncode == 0
        started.unlink()
