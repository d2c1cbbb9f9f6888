"""Services of an instance: started once, watched, stopped with all they have started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isoenv import process
from isoenv.services import members, record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from conftest import Serving

    WaitFor = Callable[[Callable[[], Any]], Any]

ROOT = Path(__file__).resolve().parents[1]

WEB = """
[services.web]
run = "exec python3 -m http.server --bind 127.0.0.1 {ports.web}"
health = "http://127.0.0.1:{ports.web}/"
"""


def is_alive(pid: int) -> bool:
    return process.identify(pid) is not None


def test_a_service_is_started_seen_and_stopped(serving: Serving) -> None:
    serving.configure(WEB)
    assert serving.ps()["web"]["state"] == "stopped"
    done = serving.run("up")
    assert (done.returncode, done.stdout) == (0, "")
    assert "isoenv: web is healthy after " in done.stderr
    status = serving.ps()["web"]
    assert status["state"] == "healthy"
    assert abs(status["since"] - time.time()) < 60
    assert serving.run("ps").returncode == 0
    done = serving.run("down")
    assert (done.returncode, done.stdout) == (0, "")
    assert not is_alive(status["pid"])
    assert serving.ps()["web"]["state"] == "stopped"
    assert serving.run("ps").returncode == 3


def test_a_service_runs_in_its_own_session_below_a_shell(serving: Serving) -> None:
    serving.configure(WEB)
    assert serving.run("up").returncode == 0
    pid, parent = serving.pid(), serving.record().number("parent")
    assert os.getsid(pid) == os.getpgid(pid) == pid
    assert parent != pid
    assert os.getsid(parent) == parent
    command = Path(f"/proc/{parent}/cmdline").read_bytes()
    assert command.startswith(b"/bin/sh\0")
    assert os.readlink(f"/proc/{parent}/cwd") == "/"


def test_what_runs_already_stays_as_it_is(serving: Serving) -> None:
    serving.configure(WEB)
    assert serving.run("up").returncode == 0
    pid = serving.pid()
    done = serving.run("up", "web")
    assert done.returncode == 0
    assert "web runs already" in done.stderr
    assert serving.pid() == pid


# All is imported before the start, so that all start at once.
UP_AT_A_SIGN = """
import sys
import isoenv.cli.up, isoenv.services.starting, subprocess
from isoenv.__main__ import main

print("ready", flush=True)
sys.stdin.read()
sys.argv[1:] = ["up"]
main()
"""


def test_twenty_starts_at_once_start_it_once(serving: Serving, tmp_path: Path) -> None:
    started = tmp_path / "started"
    run = f"echo $$ >>{started}; exec python3 -m http.server --bind 127.0.0.1 {{ports.web}}"
    serving.configure(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    assert serving.run("show").returncode == 0
    read, write = os.pipe()
    ups = [
        subprocess.Popen(
            [sys.executable, "-c", UP_AT_A_SIGN],
            cwd=serving.root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=read,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(20)
    ]
    os.close(read)
    for up in ups:
        assert up.stdout is not None
        assert up.stdout.readline() == b"ready\n"
    os.close(write)
    said = [up.communicate()[1] for up in ups]
    assert [up.returncode for up in ups] == [0] * 20
    assert sum(b"runs already" in each for each in said) == 19
    assert started.read_text().split() == [str(serving.pid())]


def test_a_foreign_process_on_the_port_is_named_and_nothing_started(
    serving: Serving, listener: Callable[[str, int], socket.socket], tmp_path: Path
) -> None:
    serving.configure(WEB.replace("exec python3", f"touch {tmp_path}/began; exec python3"))
    listener("127.0.0.1", serving.port)
    done = serving.run("up")
    assert done.returncode == 6
    assert f"port {serving.port} of web of shop/0 is held by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not (tmp_path / "began").exists()
    status = serving.ps()["web"]
    assert status["state"] == "stopped"
    assert status["held_by"]["pid"] == os.getpid()
    assert serving.run("ps").returncode == 3


def test_without_health_a_foreign_process_on_a_mentioned_port_is_named(
    serving: Serving, listener: Callable[[str, int], socket.socket]
) -> None:
    services = '[services.web]\nrun = "exec python3 -m http.server --bind 127.0.0.1 $WEB_PORT"\n'
    serving.configure(services)
    listener("127.0.0.1", serving.port)
    done = serving.run("up")
    assert done.returncode == 6
    assert f"(pid {os.getpid()})" in done.stderr
    assert serving.ps()["web"]["state"] == "crashed"


def test_a_service_that_dies_while_starting_is_told_with_its_last_words(serving: Serving) -> None:
    run = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $n; done; exit 7"
    serving.configure(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    done = serving.run("up")
    assert done.returncode == 1
    assert "web of shop/0 ended while starting, with exit status 7" in done.stderr
    assert "  | line 12\n" in done.stderr
    assert "  | line 2\n" not in done.stderr
    status = serving.ps()["web"]
    assert (status["state"], status["exit_status"]) == ("crashed", 7)
    done = serving.run("ps")
    assert done.returncode == 3
    assert "exit status 7" in done.stdout
    assert "web | line 12" in done.stderr


def test_a_crash_is_told_with_its_signal(serving: Serving, wait_for: WaitFor) -> None:
    serving.configure(WEB)
    assert serving.run("up").returncode == 0
    os.kill(serving.pid(), signal.SIGKILL)
    wait_for(lambda: record.ended(serving.place(), serving.record().text("id")))
    status = serving.ps()["web"]
    assert (status["state"], status["exit_status"]) == ("crashed", 137)
    assert "exit status 137 (SIGKILL)" in serving.run("ps").stdout
    assert serving.run("up").returncode == 0
    assert serving.ps()["web"]["state"] == "healthy"


LEAVES = """
[services.web]
run = ["sh", "-c", "python3 -m http.server --bind 127.0.0.1 {ports.web} & wait"]
health = "http://127.0.0.1:{ports.web}/"
"""


def test_what_a_killed_master_leaves_is_seen_and_cleaned_up(
    serving: Serving, wait_for: WaitFor
) -> None:
    serving.configure(LEAVES)
    assert serving.run("up").returncode == 0
    found = serving.record()
    (child,) = [
        each for each in members.find(serving.place(), found) if each.pid != found.number("pid")
    ]
    os.kill(found.number("pid"), signal.SIGKILL)
    wait_for(lambda: record.ended(serving.place(), found.text("id")))
    status = serving.ps()["web"]
    assert status["state"] == "crashed"
    assert status["leftovers"] == [child.pid]
    done = serving.run("up")
    assert done.returncode == 1
    assert f"left processes behind (pid {child.pid})" in done.stderr
    assert serving.run("down").returncode == 0
    assert not is_alive(child.pid)
    assert serving.run("up").returncode == 0


def test_processes_that_left_the_session_are_stopped_too(
    serving: Serving, wait_for: WaitFor
) -> None:
    run = "setsid sleep 1000 & exec python3 -m http.server --bind 127.0.0.1 {ports.web}"
    serving.configure(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    assert serving.run("up").returncode == 0
    found = wait_for(
        lambda: len(all_of := members.find(serving.place(), serving.record())) == 2 and all_of
    )
    assert serving.run("down").returncode == 0
    assert not any(is_alive(each.pid) for each in found)


def test_who_ignores_term_is_killed(serving: Serving) -> None:
    run = "trap '' TERM; while :; do sleep 0.1; done"
    serving.configure(f'[services.web]\nrun = "{run}"\n')
    assert serving.run("up").returncode == 0
    found = members.find(serving.place(), serving.record())
    assert members.end(serving.place(), serving.record(), 0.2) >= 1
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
    serving: Serving, bystander: subprocess.Popen[bytes], field: str
) -> None:
    serving.configure(WEB)
    assert serving.run("up").returncode == 0
    assert serving.run("down").returncode == 0
    them = process.identify(bystander.pid)
    assert them is not None
    if field == "inode" and not them.inode:
        field = "start"  # this kernel gives a process no inode of its own
    fields = {
        **{name: str(getattr(them, name)) for name in ("pid", "start", "boot", "namespace")},
        "inode": str(them.inode),
        "host": them.host,
        "state": record.UP,
    }
    wrong = {"start": str(them.start - 1), "boot": "before", "inode": str(them.inode + 1)}
    record.write(serving.place(), serving.record().changed(**{**fields, field: wrong[field]}))
    assert serving.ps()["web"]["state"] in ("crashed", "stopped")
    assert serving.run("down").returncode == 0
    assert serving.run("up").returncode == 0
    assert serving.run("down").returncode == 0
    assert bystander.poll() is None
    assert is_alive(bystander.pid)


def test_nothing_is_claimed_to_run_after_a_restart_of_the_machine(serving: Serving) -> None:
    infra = '[services.infra]\nstart = "true"\nstop = "true"\n'
    serving.configure(WEB + infra)
    assert serving.run("up").returncode == 0
    pid = serving.pid()
    for service in ("web", "infra"):
        found = serving.record(service)
        record.write(serving.place(service), found.changed(boot="before"))
    states = {name: status["state"] for name, status in serving.ps().items()}
    assert states == {"web": "stopped", "infra": "stopped"}
    os.kill(pid, signal.SIGKILL)


def test_down_during_up_ends_with_nothing_running(serving: Serving, wait_for: WaitFor) -> None:
    never = """
[services.slow]
run = "exec sleep 1000"
health = "tcp:{ports.web}"
[services.late]
run = "touch late; exec sleep 1000"
"""
    serving.configure(never)
    assert serving.run("show").returncode == 0
    with ThreadPoolExecutor() as pool:
        up = pool.submit(serving.run, "up")
        wait_for(lambda: record.read(serving.place("slow")))
        down = pool.submit(serving.run, "down")
        assert down.result().returncode == 0
        assert up.result().returncode == 1
    assert "stopped meanwhile" in up.result().stderr
    assert {each["state"] for each in serving.ps().values()} == {"stopped"}
    assert not is_alive(serving.pid("slow"))
    assert not (serving.root / "late").exists()


def test_a_start_that_is_killed_leaves_one_service_at_most(
    serving: Serving, tmp_path: Path
) -> None:
    started = tmp_path / "started"
    run = f"echo $$ >>{started}; exec python3 -m http.server --bind 127.0.0.1 {{ports.web}}"
    serving.configure(WEB.replace("exec python3 -m http.server --bind 127.0.0.1 {ports.web}", run))
    assert serving.run("show").returncode == 0
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for delay in (0.05, 0.1, 0.12, 0.14, 0.16, 0.18, 0.2, 0.25):
        up = subprocess.Popen(
            [sys.executable, "-m", "isoenv", "up"],
            cwd=serving.root,
            env=environ,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(delay)
        up.kill()
        up.wait()
        assert serving.run("up").returncode == 0
        pids = started.read_text().split()
        assert len(pids) == 1
        assert pids[0] == str(serving.pid())
        assert serving.run("down").returncode == 0
        started.unlink()
