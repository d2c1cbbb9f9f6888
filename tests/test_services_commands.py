"""The commands of services: api, logs, setup, up --enable, restart, and what Ctrl-C leaves."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pexpect
import pytest

from isoenv import process, quick
from isoenv.services import record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from conftest import Serving

    WaitFor = Callable[[Callable[[], object]], Any]
    Git = Callable[..., str]
    Worktree = Callable[[Path, str], Path]

ROOT = Path(__file__).resolve().parents[1]

API = """
[services.api]
run = "echo hello; exec python3 -m http.server --bind 127.0.0.1 {ports.web}"
health = "http://127.0.0.1:{ports.web}/"
"""
# They say what they do, in one file, in order.
TRACED = """
[services.api]
run = "echo api >>trace; exec sleep 1000"
requires = ["infra"]
[services.infra]
start = "echo infra up $ISOENV_INSTANCE >>trace; echo started"
stop = "echo infra down >>trace"
[services.worker]
run = ["sh", "-c", "echo worker >>trace; exec sleep 1000"]
"""


def spawn(serving: Serving, *args: str) -> subprocess.Popen[bytes]:
    """Start the command in the background, so that it can be signalled."""
    return subprocess.Popen(
        [sys.executable, "-m", "isoenv", *args],
        cwd=serving.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_services_start_in_order_and_stop_in_reverse(serving: Serving) -> None:
    serving.configure(TRACED)
    done = serving.run("up")
    assert done.returncode == 0, done.stderr
    assert (serving.root / "trace").read_text().split("\n") == ["infra up 0", "api", "worker", ""]
    assert set(serving.states().values()) == {"running"}
    done = serving.run("down")
    said = [line.split()[1] for line in done.stderr.splitlines() if " is down " in line]
    assert said == ["worker", "api", "infra"]
    assert (serving.root / "trace").read_text().endswith("infra down\n")
    assert set(serving.states().values()) == {"stopped"}


def test_a_named_service_brings_up_what_it_requires_and_goes_down_alone(serving: Serving) -> None:
    serving.configure(TRACED)
    assert serving.run("up", "api").returncode == 0
    assert serving.states() == {"api": "running", "infra": "running", "worker": "stopped"}
    assert serving.run("down", "api").returncode == 0
    assert serving.states() == {"api": "stopped", "infra": "running", "worker": "stopped"}
    assert serving.run("ps", "infra").returncode == 0
    assert serving.run("ps", "infra", "api").returncode == 3


def test_restart_makes_a_new_process_of_the_named_service_alone(serving: Serving) -> None:
    serving.configure(TRACED)
    assert serving.run("up").returncode == 0
    api, worker = serving.pid("api"), serving.pid("worker")
    assert serving.run("restart", "api").returncode == 0
    assert serving.pid("api") != api
    assert serving.pid("worker") == worker
    assert (serving.root / "trace").read_text().count("infra") == 1


def test_the_first_operand_is_an_instance_unless_it_names_a_service(serving: Serving) -> None:
    serving.configure(TRACED.replace("{ports.web}", "1"))
    done = serving.run("up", "7", "infra")
    assert done.returncode == 0, done.stderr
    assert (serving.root / "trace").read_text() == "infra up 7\n"
    assert serving.states("7")["infra"] == "running"
    assert serving.states()["infra"] == "stopped"
    assert serving.run("down", "7").returncode == 0
    for operands in (["nobody"], ["0", "nobody"], ["infra", "nobody"], ["nobody", "infra"]):
        done = serving.run("up", *operands)
        assert done.returncode == 5, done.stderr
        assert "nobody" in done.stderr
        assert "infra" in done.stderr


def test_looking_at_a_number_that_nobody_holds_leases_nothing(serving: Serving) -> None:
    serving.configure(API)
    assert serving.states("7") == {"api": "stopped"}
    assert serving.run("down", "7").returncode == 0
    assert serving.run("logs", "7").returncode == 0
    assert [
        each["slot"] for each in json.loads(serving.run("list", "--json").stdout)["instances"]
    ] == []


def test_services_need_trust(serving: Serving) -> None:
    serving.configure(API)
    for words in (
        *(["up"], ["down"], ["restart"], ["ps"], ["logs"], ["setup"]),
        *(["api", "start"], ["api", "status"], ["api", "stop"], ["api", "0", "logs"]),
    ):
        done = serving.run(*words, trusted=False)
        assert (done.returncode, done.stdout) == (4, ""), words
    assert serving.run("api", "start").returncode == 0
    serving.configure(API + "# changed\n")
    assert serving.run("api", "status", trusted=False).returncode == 4
    assert serving.run("api", "stop").returncode == 0


def test_a_start_command_that_fails_is_told_and_stopped_all_the_same(serving: Serving) -> None:
    serving.configure(
        '[services.infra]\nstart = "echo no engine; exit 9"\nstop = "echo stop >>trace"\n'
    )
    done = serving.run("up")
    assert done.returncode == 1
    assert "the start command of infra of shop/0 ended with exit status 9" in done.stderr
    assert "  | no engine" in done.stderr
    assert serving.ps()["infra"]["state"] == "crashed"
    assert serving.run("down").returncode == 0
    assert (serving.root / "trace").read_text() == "stop\n"
    assert serving.run("down").returncode == 0
    assert (serving.root / "trace").read_text() == "stop\n"


def test_what_a_killed_up_has_half_started_is_stopped(serving: Serving, wait_for: WaitFor) -> None:
    serving.configure(
        '[services.infra]\nstart = "echo $$ >pid.new; mv pid.new pid; exec sleep 1000"\n'
        'stop = "kill $(cat pid)"\n'
    )
    assert serving.run("show").returncode == 0
    up = spawn(serving, "up")
    wait_for((serving.root / "pid").exists)
    up.kill()
    up.communicate()
    assert serving.states() == {"infra": "starting"}
    assert serving.run("down").returncode == 0
    pid = int((serving.root / "pid").read_text())
    wait_for(lambda: process.identify(pid) is None)
    assert serving.states() == {"infra": "stopped"}


def test_a_start_command_that_hangs_is_ended_with_all_it_started(serving: Serving) -> None:
    serving.configure(
        '[services.infra]\nstart = "sleep 1000 & echo $! >pid; wait"\nstop = "true"\n'
        "start_timeout = 0.5\n"
    )
    done = serving.run("up")
    assert done.returncode == 1
    assert "was not done after 0.5 s" in done.stderr
    assert process.identify(int((serving.root / "pid").read_text())) is None


def test_what_is_not_healthy_in_time_is_stopped_and_said_why(serving: Serving) -> None:
    serving.configure(
        '[services.web]\nrun = "exec sleep 1000"\nhealth = "tcp:{ports.web}"\nstart_timeout = 0.5\n'
    )
    done = serving.run("up")
    assert done.returncode == 1
    assert "web of shop/0 was not healthy after 0.5 s and was stopped" in done.stderr
    assert "connection refused" in done.stderr
    assert serving.states() == {"web": "stopped"}
    assert process.identify(serving.pid()) is None


def test_a_password_in_the_address_of_health_is_in_no_output(serving: Serving) -> None:
    service = """[services.web]
    run = "exec python3 -m http.server {ports.web}"
    health = "http://127.0.0.1:{ports.web}/PATH?password=secret"
    start_timeout = TIME
    """
    serving.configure(service.replace("PATH", "").replace("TIME", "60"))
    done = serving.run("up")
    assert f"(http://127.0.0.1:{serving.port}/?password=***)" in done.stderr
    assert serving.run("down").returncode == 0
    serving.configure(service.replace("PATH", "missing").replace("TIME", "0.5"))
    done = serving.run("up")
    assert f"(http://127.0.0.1:{serving.port}/missing?password=***: " in done.stderr


def test_starting_and_unhealthy_are_told_apart(serving: Serving, wait_for: WaitFor) -> None:
    serving.configure(
        "[services.web]\n"
        'run = "until test -e go; do sleep 0.05; done; exec python3 -m http.server {ports.web}"\n'
        'health = "http://127.0.0.1:{ports.web}/go"\n'
    )
    assert serving.run("show").returncode == 0
    up = spawn(serving, "up")
    wait_for(lambda: record.read(serving.place()))
    assert serving.states() == {"web": "starting"}
    assert serving.run("ps").returncode == 1
    (serving.root / "go").touch()
    up.communicate()
    assert up.returncode == 0
    assert serving.states() == {"web": "healthy"}
    (serving.root / "go").unlink()
    assert serving.states() == {"web": "unhealthy"}
    done = serving.run("ps")
    assert done.returncode == 1
    assert "HTTP 404" in done.stdout
    assert serving.run("down").returncode == 0


def test_ctrl_c_leaves_what_was_started_and_starts_no_more(
    serving: Serving, wait_for: WaitFor
) -> None:
    serving.configure(
        '[services.slow]\nrun = "exec sleep 1000"\nhealth = "tcp:{ports.web}"\n'
        '[services.late]\nrun = "touch late; exec sleep 1000"\n'
    )
    assert serving.run("show").returncode == 0
    up = spawn(serving, "up")
    wait_for(lambda: record.read(serving.place("slow")))
    up.send_signal(signal.SIGINT)
    _, said = up.communicate()
    assert up.returncode == 130
    assert b"Traceback" not in said
    assert process.identify(serving.pid("slow")) is not None
    assert serving.states() == {"slow": "starting", "late": "stopped"}
    assert not (serving.root / "late").exists()
    assert serving.run("down").returncode == 0


def test_a_service_has_the_environment_of_its_instance(serving: Serving) -> None:
    serving.configure(
        '[services.web]\nrun = ["sleep", "1000"]\n',
        "[env]\nGREETING = 'a {id}'\n[dirs]\nDATA_DIR = 'data'\n[path]\nprepend = ['tools']",
    )
    weird = {"BASH_FUNC_f%%": "() { :; }", "odd.name": "kept", "MINE": "1\n2", "BYTES": "\udcff"}
    assert serving.run("up", "3", env=weird).returncode == 0
    process_dir = Path(f"/proc/{serving.pid(slot=3)}")
    pairs = os.fsdecode((process_dir / "environ").read_bytes()).rstrip("\0").split("\0")
    found = dict(pair.split("=", 1) for pair in pairs)
    root = os.path.realpath(serving.root)
    assert os.readlink(process_dir / "cwd") == root
    expected = {
        **weird,
        "GREETING": "a 3",
        "ISOENV_INSTANCE": "3",
        "WEB_PORT": str(serving.port + 3000),
        "DATA_DIR": f"{root}/data",
        "PWD": root,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert found["PATH"].startswith(f"{root}/tools:")


def test_a_service_takes_none_of_the_callers_signals_and_files(serving: Serving) -> None:
    code = (
        "import os, signal, time\n"
        "ignored = [s.name for s in signal.valid_signals() if s not in (9, 19)"
        " and signal.getsignal(s) is signal.SIG_IGN]\n"
        "print(sorted(ignored), sorted(os.listdir('/proc/self/fd'))[:-1],"
        " os.readlink('/proc/self/fd/0'), flush=True)\n"
        "time.sleep(1000)\n"
    )
    (serving.root / "look.py").write_text(code)
    serving.configure('[services.web]\nrun = "exec python3 look.py"\n')
    assert serving.run("show").returncode == 0
    read, write = os.pipe()
    os.set_inheritable(write, True)  # noqa: FBT003  # no keyword for it
    words = "trap '' HUP INT QUIT TERM; exec \"$@\""
    done = subprocess.run(
        ["sh", "-c", words, "sh", sys.executable, "-m", "isoenv", "up"],
        cwd=serving.root,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        close_fds=False,
        capture_output=True,
        check=False,
    )
    os.close(write)
    assert done.returncode == 0, done.stderr
    # Nobody holds the other end, or this would not end.
    assert os.read(read, 1) == b""
    os.close(read)
    # Python itself ignores SIGPIPE and SIGXFSZ.
    seen = serving.run("logs").stdout
    assert seen == "['SIGPIPE', 'SIGXFSZ'] ['0', '1', '2'] /dev/null\n"


def test_what_is_in_the_configuration_no_more_is_shown_and_stopped(serving: Serving) -> None:
    serving.configure(TRACED)
    assert serving.run("up").returncode == 0
    pid = serving.pid("worker")
    serving.configure(TRACED.partition("[services.worker]")[0])
    assert serving.states() == {"api": "running", "infra": "running", "worker": "running"}
    assert "no more in isoenv.toml" in serving.run("ps").stdout
    assert serving.run("up", "worker").returncode == 5
    done = serving.run("down")
    assert done.returncode == 0
    assert process.identify(pid) is None
    assert serving.states() == {"api": "stopped", "infra": "stopped"}


def test_a_service_of_a_checkout_that_is_gone_can_be_stopped(
    serving: Serving, worktree: Worktree, git: Git
) -> None:
    serving.configure('[services.web]\nrun = "exec sleep 1000"\n')
    git(serving.root, "add", ".")
    git(serving.root, "commit", "--quiet", "--message=configured")
    assert serving.run("claim").returncode == 0
    feature = worktree(serving.root, "feature")
    assert serving.isoenv("up", cwd=feature).returncode == 0
    shutil.rmtree(feature)
    assert serving.states("1") == {"web": "running"}
    assert serving.run("down", "feature").returncode == 0
    assert process.identify(serving.pid(slot=1)) is None


# --- api


def test_api_is_the_service_of_that_name(serving: Serving) -> None:
    serving.configure(API)
    assert serving.run("api", "status").returncode == 3
    assert serving.run("api", "start").returncode == 0
    done = serving.run("api", "status")
    assert done.returncode == 0
    assert "healthy" in done.stdout
    assert json.loads(serving.run("api", "status", "--json").stdout)["services"][0]["name"] == "api"
    pid = serving.pid("api")
    assert serving.run("api", "0", "restart").returncode == 0
    assert serving.pid("api") != pid
    assert serving.run("api", "logs").stdout.startswith("hello\n")
    assert serving.run("api", "stop").returncode == 0
    assert serving.run("api", "stop").returncode == 0
    assert serving.run("api", "shop", "status").returncode == 3


def test_api_is_called_with_an_action(serving: Serving, tmp_path: Path) -> None:
    serving.configure(API)
    for words in ([], ["2"], ["status", "2"], ["1", "2", "status"]):
        assert serving.run("api", *words).returncode == 2, words
    assert serving.run("api", "nobody", "status").returncode == 5
    serving.configure("")
    done = serving.run("api", "status")
    assert done.returncode == 5
    assert "[services.api]" in done.stderr
    # Outside of any checkout the project is skypilot.
    done = serving.isoenv("api", "2", "status", cwd=tmp_path)
    assert "skypilot/2" in done.stdout + done.stderr or done.returncode == 3


def without_age(done: subprocess.CompletedProcess[str]) -> tuple[str, int]:
    return re.sub(r" \d+ s +", " N s ", done.stdout), done.returncode


def test_the_quick_status_says_what_the_slow_one_says(
    serving: Serving, listener: Callable[[str, int], socket.socket]
) -> None:
    serving.configure(API.replace('web}/"', 'web}/go"'))
    (serving.root / "go").touch()

    def both() -> tuple[str, int] | None:
        slow = without_age(serving.run("ps", "api"))
        for words in (["api", "status"], ["api", "0", "status"]):
            assert without_age(serving.run(*words)) == slow
        before = os.getcwd()
        os.chdir(serving.root)
        try:
            return quick.status(os.environ, [])
        finally:
            os.chdir(before)

    assert both() is None
    assert serving.run("api", "start").returncode == 0
    assert serving.run("exec", ".", "true").returncode == 0
    answer = both()
    assert answer is not None
    assert answer[1] == 0
    assert "healthy" in answer[0]
    (serving.root / "go").unlink()
    answer = both()
    assert answer is not None
    assert answer[1] == 1
    assert "unhealthy" in answer[0]
    assert serving.run("api", "stop").returncode == 0
    answer = both()
    assert answer is not None
    assert answer[1] == 3
    listener("127.0.0.1", serving.port)
    assert both() is None


def test_the_quick_status_does_not_answer_for_another_configuration(serving: Serving) -> None:
    serving.configure(API)
    assert serving.run("api", "start").returncode == 0
    assert serving.run("exec", ".", "true").returncode == 0
    before = os.getcwd()
    os.chdir(serving.root)
    try:
        assert quick.status(os.environ, []) is not None
        assert quick.status({**os.environ, "ISOENV_INSTANCE": "4"}, []) is None
        assert quick.status(os.environ, ["4"]) is None
        assert quick.status(os.environ, ["shop"]) is None
        serving.configure(API.replace("8.1", "9.1") + "# changed\n")
        assert quick.status(os.environ, []) is None
        # Allowed and ready anew, it is still newer than the service.
        assert serving.run("exec", ".", "true").returncode == 0
        assert quick.status(os.environ, []) is None
    finally:
        os.chdir(before)
    found = serving.record("api")
    for field in ("start", "boot", "namespace", "host"):
        wrong = found.changed(**{field: "1"})
        assert not quick._is_alive(wrong), field  # noqa: SLF001  # each of its conditions
    assert quick._is_alive(found)  # noqa: SLF001  # likewise


def test_the_quick_status_of_another_checkout_goes_by_its_own_configuration(
    serving: Serving, worktree: Worktree, git: Git, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving.configure(API)
    git(serving.root, "add", ".")
    git(serving.root, "commit", "--quiet", "--message=configured")
    assert serving.run("exec", ".", "true").returncode == 0
    feature = worktree(serving.root, "feature")
    assert serving.isoenv("api", "start", cwd=feature).returncode == 0
    assert serving.isoenv("exec", ".", "true", cwd=feature).returncode == 0
    monkeypatch.chdir(serving.root)
    answer = quick.status(os.environ, ["1"])
    assert answer is not None
    assert "healthy" in answer[0]
    with (feature / "isoenv.toml").open("a") as file:
        file.write("# changed\n")
    assert quick.status(os.environ, ["1"]) is None
    assert serving.run("api", "1", "status", trusted=False).returncode == 4


# --- logs


def test_logs_are_rotated_at_each_start_and_the_last_few_kept(serving: Serving) -> None:
    serving.configure('[services.web]\nstart = "echo run $(cat n)"\nstop = ":"\n')
    for number in range(7):
        (serving.root / "n").write_text(str(number))
        assert serving.run("restart").returncode == 0
    log = Path(serving.record().text("log"))
    assert serving.run("logs").stdout == "run 6\n"
    kept = {path.name: path.read_text() for path in log.parent.iterdir()}
    expected = {f"web.log.{number}": f"run {6 - number}\n" for number in range(1, 5)}
    assert kept == {"web.log": "run 6\n", **expected}


def test_logs_of_several_are_prefixed_and_cut(serving: Serving) -> None:
    serving.configure(
        '[services.web]\nrun = "seq 1 300; printf end; exec sleep 1000"\n'
        '[services.worker]\nrun = "echo working; exec sleep 1000"\n'
    )
    assert serving.run("logs").stdout == ""
    assert serving.run("up").returncode == 0
    lines = serving.run("logs").stdout.splitlines()
    assert lines == [f"web    | {n}" for n in range(202, 301)] + [
        "web    | end",
        "worker | working",
    ]
    assert serving.run("logs", "-n", "2", "web").stdout == "300\nend\n"
    assert serving.run("logs", "-n", "0").stdout == ""
    assert serving.run("logs", "-n", "1000", "web").stdout.startswith("1\n2\n")


def test_logs_are_followed_through_a_restart(serving: Serving, wait_for: WaitFor) -> None:
    serving.configure(
        '[services.web]\nrun = "echo web $(cat n); exec sleep 1000"\n'
        '[services.worker]\nrun = "echo worker $(cat n); exec sleep 1000"\n'
    )
    (serving.root / "n").write_text("1")
    assert serving.run("up").returncode == 0
    seen = serving.root / "seen"
    with seen.open("wb") as file:
        follower = subprocess.Popen(
            [sys.executable, "-m", "isoenv", "logs", "-f"],
            cwd=serving.root,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=file,
            stderr=subprocess.PIPE,
        )
        wait_for(lambda: b"worker | worker 1\n" in seen.read_bytes())
        (serving.root / "n").write_text("2")
        assert serving.run("restart").returncode == 0
        wait_for(lambda: b"worker | worker 2\n" in seen.read_bytes())
        wait_for(lambda: b"web    | web 2\n" in seen.read_bytes())
        follower.send_signal(signal.SIGINT)
        _, said = follower.communicate()
    assert follower.returncode == 130
    assert said.strip() == b""
    assert seen.read_bytes().count(b"\n") == 4


# --- setup


def test_setup_is_done_once_and_goes_on_after_a_failure(serving: Serving) -> None:
    setup = '[setup]\nrun = ["echo one >>done", "test -e fixed", "echo $ISOENV_INSTANCE >>done"]\n'
    serving.configure("", setup)
    done = serving.run("setup")
    assert (done.returncode, done.stdout) == (1, "")
    assert "`test -e fixed` in" in done.stderr
    assert "exit status 1: `isoenv setup` goes on with it" in done.stderr
    assert (serving.root / "done").read_text() == "one\n"
    (serving.root / "fixed").touch()
    done = serving.run("setup")
    assert done.returncode == 0
    assert "setup 2/3: test -e fixed\n" in done.stderr
    assert "setup 1/3" not in done.stderr
    done = serving.run("setup")
    assert "done already" in done.stderr
    assert (serving.root / "done").read_text() == "one\n0\n"
    serving.configure("", setup.replace('">>done"]', '>>done", "echo new >>done"]'))


def test_up_does_the_setup_before_the_first_start(serving: Serving) -> None:
    setup = '[setup]\nrun = ["echo installing; touch installed"]\n'
    serving.configure('[services.web]\nrun = "test -e installed && exec sleep 1000"\n', setup)
    done = serving.run("up")
    assert (done.returncode, done.stdout) == (0, "")
    assert "installing\n" in done.stderr
    assert "installing" not in serving.run("restart").stderr


def test_up_starts_nothing_when_the_setup_fails(serving: Serving) -> None:
    serving.configure('[services.web]\nrun = "touch began"\n', '[setup]\nrun = ["exit 3"]\n')
    done = serving.run("up")
    assert done.returncode == 1
    assert "exit status 3" in done.stderr
    assert not (serving.root / "began").exists()


def test_setup_copies_ignored_files_from_the_main_checkout(
    serving: Serving, worktree: Worktree, git: Callable[..., str]
) -> None:
    setup = '[setup]\ncopy = [".env.local", "data", "none", "own"]\nrun = ["echo x >>../ran"]\n'
    serving.configure("", setup)
    git(serving.root, "add", ".")
    git(serving.root, "commit", "--quiet", "--message=configured")
    (serving.root / ".env.local").write_bytes(b"SECRET=\xff\n")
    (serving.root / ".env.local").chmod(0o600)
    (serving.root / "data/deep").mkdir(parents=True)
    (serving.root / "data/deep/file").write_text("kept")
    (serving.root / "own").write_text("main's")
    feature = worktree(serving.root, "feature")
    (feature / "own").write_text("feature's")
    assert serving.run("setup").returncode == 0
    done = serving.isoenv("setup", cwd=feature)
    assert done.returncode == 0, done.stderr
    assert (feature / ".env.local").read_bytes() == b"SECRET=\xff\n"
    assert (feature / ".env.local").stat().st_mode & 0o777 == 0o600
    assert (feature / "data/deep/file").read_text() == "kept"
    assert (feature / "own").read_text() == "feature's"
    assert not (feature / "none").exists()
    assert f"no none in {os.path.realpath(serving.root)} to copy" in done.stderr
    # Once for each instance.
    assert (serving.root.parent / "ran").read_text() == "x\nx\n"


def test_a_worktree_made_anew_at_the_same_path_is_a_new_instance(
    serving: Serving, worktree: Worktree, git: Callable[..., str]
) -> None:
    serving.configure("", '[setup]\nrun = ["echo x >>../ran"]\n')
    git(serving.root, "add", ".")
    git(serving.root, "commit", "--quiet", "--message=configured")
    assert serving.run("claim").returncode == 0
    for _ in range(2):
        feature = worktree(serving.root, "feature")
        assert serving.isoenv("setup", "1", cwd=feature).returncode in (0, 1)
        assert serving.isoenv("claim", "1", cwd=feature).returncode == 0
        assert serving.isoenv("setup", cwd=feature).returncode == 0
        assert serving.isoenv("setup", cwd=feature).returncode == 0
        git(serving.root, "worktree", "remove", "--force", str(feature))
        assert serving.run("prune").returncode == 0
    assert (serving.root.parent / "ran").read_text().count("x") >= 2


# --- flags


def test_up_can_turn_a_flag_on_first(serving: Serving, worktree: Worktree) -> None:
    flags = "[flags]\nWHATSAPP_ENABLED = { main = true, exclusive = true }\n"
    serving.configure('[services.web]\nrun = "echo $WHATSAPP_ENABLED; exec sleep 1000"\n', flags)
    serving.isoenv("exec", ".", "git", "add", ".", cwd=serving.root)
    serving.isoenv("exec", ".", "git", "commit", "-qm", "configured", cwd=serving.root)
    feature = worktree(serving.root, "feature")
    done = serving.isoenv("up", "--enable", "WHATSAPP_ENABLED", cwd=feature)
    assert done.returncode == 1
    assert "WHATSAPP_ENABLED is on in shop:0 (shop)" in done.stderr
    assert record.read(serving.place("web", 1)) is None
    done = serving.isoenv("enable", "WHATSAPP_ENABLED", "--steal", cwd=feature)
    assert done.returncode == 0
    assert "WHATSAPP_ENABLED=false in shop/0 shop" in done.stderr
    assert serving.isoenv("up", "--enable", "WHATSAPP_ENABLED", cwd=feature).returncode == 0
    assert serving.isoenv("logs", cwd=feature).stdout == "true\n"
    assert serving.run("up").returncode == 0
    assert serving.run("logs").stdout == "false\n"
    assert serving.run("up", "--enable", "NOBODY").returncode == 5


# --- list


def test_list_shows_what_runs_where(serving: Serving, worktree: Worktree, git: Git) -> None:
    serving.configure(TRACED)
    git(serving.root, "add", ".")
    git(serving.root, "commit", "--quiet", "--message=configured")
    feature = worktree(serving.root, "feature")
    assert serving.run("up").returncode == 0
    assert serving.isoenv("up", "infra", cwd=feature).returncode == 0
    os.kill(serving.pid("worker"), signal.SIGKILL)
    main, other = json.loads(serving.run("list", "--json").stdout)["instances"]
    states = {each["name"]: each["state"] for each in main["services"]}
    assert states == {"api": "running", "infra": "running", "worker": "crashed"}
    assert main["services"][0].keys() == {"name", "state", "pid", "since"}
    assert main["services"][0]["pid"] == serving.pid("api")
    states = {each["name"]: each["state"] for each in other["services"]}
    assert states == {"api": "stopped", "infra": "running", "worker": "stopped"}
    table = serving.run("list").stdout.splitlines()
    assert table[0].split()[:4] == ["SLOT", "NAME", "CHECKOUT", "SERVICES"]
    assert " api=running infra=running worker=crashed " in table[1]
    # What is not allowed any more still runs.
    serving.configure(TRACED + "# changed\n")
    done = serving.run("list", "--json", trusted=False)
    main, _ = json.loads(done.stdout)["instances"]
    assert main["trusted"] is False
    states = {each["name"]: each["state"] for each in main["services"]}
    assert states == {"api": "running", "infra": "running", "worker": "crashed"}


def test_list_stays_live_on_a_terminal(serving: Serving) -> None:
    serving.configure(TRACED)
    assert serving.run("show").returncode == 0
    child = terminal(serving, "list", "--watch")
    child.expect("SERVICES")
    assert serving.run("up", "worker").returncode == 0
    child.expect("worker=running")
    assert serving.run("down").returncode == 0
    child.expect("SERVICES")
    child.sendintr()
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 130


# --- on a terminal


def terminal(serving: Serving, *args: str) -> pexpect.spawn:
    return pexpect.spawn(
        sys.executable,
        ["-m", "isoenv", *args],
        cwd=str(serving.root),
        env={**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"},
        dimensions=(24, 200),
        timeout=60,
    )


def test_up_shows_progress_on_a_terminal(serving: Serving) -> None:
    serving.configure(API)
    assert serving.run("show").returncode == 0
    child = terminal(serving, "up")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0
    assert b"starting api" in child.before
    assert b"api is healthy after" in child.before
    assert b"\x1b[" in child.before


@pytest.mark.parametrize("name", ["services", "instances"])
def test_a_state_directory_that_cannot_be_written_is_one_line(serving: Serving, name: str) -> None:
    serving.configure(API)
    assert serving.run("show").returncode == 0
    (Path(os.environ["ISOENV_STATE_DIR"]) / name).write_text("in the way")
    done = serving.run("up")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert name in done.stderr.splitlines()[-1]


def test_a_checkout_without_services_says_so(serving: Serving) -> None:
    serving.configure("")
    for words in (["up"], ["down"], ["ps"], ["logs"], ["restart"]):
        done = serving.run(*words)
        assert (done.returncode, done.stdout) == (0, ""), words
        assert "has no services" in done.stderr
    assert "needs no setup" in serving.run("setup").stderr
