"""`isoenv lock`: a command that has the lock, exactly as long as it and its children live."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import Lock, LockTimeout, locks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Run = Callable[..., subprocess.Popen[str]]

PATIENCE = 60
# What is about the command line and the files of one machine.
of_a_machine = pytest.mark.parametrize("kind", ["of a machine"], indirect=True)
ISOENV = [sys.executable, "-m", "isoenv"]


@pytest.fixture(autouse=True)
def outside(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any checkout the scope is the machine, which here is the test's own state."""
    assert kind
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run() -> Iterator[Run]:
    """Start `isoenv lock run …` with pipes; all are killed in the end, with their groups."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*ISOENV, "lock", "run", *words],
            cwd=cwd,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        # Its children are in its group, also those that it has left behind.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.005)


def is_free(name: str) -> bool:
    try:
        with Lock(name, timeout=0):
            return True
    except LockTimeout:
        return False


def test_the_command_has_the_lock_and_its_own_pid_and_end(isoenv: Isoenv, run: Run) -> None:
    process = run("it", "--", "sh", "-c", "echo $$; read end; exit 7")
    assert line(process) == str(process.pid)
    assert not is_free("it")
    (found,) = locks()
    assert found.holders[0].pid == process.pid
    assert found.holders[0].command == "sh -c 'echo $$; read end; exit 7'"
    process.communicate("\n")
    assert process.returncode == 7
    assert is_free("it")
    assert locks() == []
    assert isoenv("lock", "run", "it", "sh", "-c", "kill -TERM $$").returncode == -signal.SIGTERM


@pytest.mark.parametrize("options", [[], ["--shared"], ["--slots", "2"]])
def test_a_child_keeps_the_lock_when_the_command_has_ended(run: Run, options: list[str]) -> None:
    script = "sleep 600 <&- >&- 2>&- & echo $!"
    process = run("it", *options, "--", "sh", "-c", script)
    child = int(line(process))
    process.wait()
    assert not is_free("it")
    (found,) = locks()
    assert found.holders[0].is_gone
    with pytest.raises(LockTimeout, match=rf"pid {process.pid} \(gone, a child has the lock\): sh"):
        Lock("it", timeout=0).acquire()
    os.kill(child, signal.SIGKILL)
    eventually(lambda: is_free("it"))


def test_the_lock_outlives_the_shell_that_started_the_command(tmp_path: Path) -> None:
    script = f"{' '.join(ISOENV)} lock run it -- sh -c 'echo $$ >pid; sleep 600' & wait"
    shell = subprocess.Popen(["sh", "-c", script], start_new_session=True)
    try:
        file = tmp_path / "pid"
        eventually(lambda: file.exists() and file.read_text().strip())
        shell.kill()
        shell.wait()
        assert not is_free("it")
        assert not locks()[0].holders[0].is_gone
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
    eventually(lambda: is_free("it"))


def test_a_killed_command_frees_the_lock_for_the_next(run: Run) -> None:
    holder = run("it", "sh", "-c", "echo in; exec sleep 600")
    assert line(holder) == "in"
    waiting = run("it", "echo", "next")
    eventually(lambda: locks()[0].waiters)
    holder.kill()
    assert line(waiting) == "next"


def test_a_script_that_uses_low_descriptors_does_not_lose_the_lock(run: Run) -> None:
    redirections = " ".join(f"{number}</dev/null" for number in [*range(3, 10), 99, 100, 200])
    process = run("it", "--", "bash", "-c", f"exec {redirections}; echo in; read end")
    assert line(process) == "in"
    assert not is_free("it")


def test_the_lock_is_passed_on_where_few_files_may_be_open() -> None:
    words = ["sh", "-c", 'ulimit -n 40; exec "$@"', "sh", *ISOENV]
    process = subprocess.Popen(
        [*words, "lock", "run", "it", "--", "sh", "-c", "echo in; read end"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert line(process) == "in"
    assert not is_free("it")
    process.communicate("\n")


def test_a_time_out_is_75_and_names_the_holder(isoenv: Isoenv, run: Run) -> None:
    holder = run("it", "--", "sh", "-c", "echo in; read end")
    assert line(holder) == "in"
    for words in (["it", "--timeout", "0"], ["--timeout=0.05", "it"]):
        done = isoenv("lock", "run", *words, "--", "touch", "made")
        assert (done.returncode, done.stdout) == (75, "")
        assert done.stderr.startswith("isoenv: the lock it was not free within 0")
        assert f"held by pid {holder.pid}: sh -c 'echo in; read end', since " in done.stderr
        assert done.stderr.count("\n") == 1
    assert not Path("made").exists()


def test_ctrl_c_ends_the_wait_with_130(run: Run) -> None:
    holder = run("it", "--", "sh", "-c", "echo in; read end")
    assert line(holder) == "in"
    for words in (["it"], ["it", "--timeout", "600"], ["it", "--slots", "2"]):
        waiting = run(*words, "--", "touch", "made")
        eventually(lambda: locks()[0].waiters)
        waiting.send_signal(signal.SIGINT)
        stdout, stderr = waiting.communicate()
        assert (waiting.returncode, stdout, stderr) == (130, "", "\n")
    assert not Path("made").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nosuch-command"], 127, "isoenv: nosuch-command: command not found\n"),
        (["/"], 126, "isoenv: /: permission denied\n"),
    ],
)
def test_a_command_that_cannot_be_run_leaves_no_lock(
    isoenv: Isoenv, words: list[str], code: int, said: str
) -> None:
    done = isoenv("lock", "run", "it", *words)
    assert (done.returncode, done.stdout, done.stderr) == (code, "", said)
    assert (Path(Lock("it").directory) / "lock").stat().st_size == 0
    assert is_free("it")
    assert locks() == []


@of_a_machine
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument 'NAME'"),
        (["it"], "Missing argument 'COMMAND...'"),
        (["it", "--"], "Missing argument 'COMMAND...'"),
        (["it", "--timeout"], "Option '--timeout' requires an argument"),
        (["it", "--timeout", "x", "--", "true"], "'x' is not a valid float"),
        (["it", "--timeout", "-1", "--", "true"], "-1.0 is not in the range"),
        (["it", "--slots", "0", "true"], "0 is not in the range x>=1"),
        (["it", "--nosuch", "true"], "No such option"),
        (["", "true"], "the name of the lock is empty"),
        (["it", "--shared", "--slots", "2", "true"], "is shared by all or has slots, not both"),
        (["it", "--timeout", "nan", "true"], "a lock cannot be waited for nan s"),
    ],
)
def test_wrong_usage_is_2(isoenv: Isoenv, words: list[str], said: str) -> None:
    done = isoenv("lock", "run", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr


@of_a_machine
@pytest.mark.parametrize(
    "words",
    [
        ["it", "--timeout", "5", "--shared", "--", "printf", "%s\n", "--timeout", "x", "--"],
        ["--timeout=5", "--shared", "it", "printf", "%s\n", "--timeout", "x", "--"],
        ["--shared", "it", "--timeout=5", "printf", "%s\n", "--timeout", "x", "--"],
        ["--", "it", "printf", "%s\n", "--timeout", "x", "--"],
    ],
)
def test_options_end_where_the_command_begins(isoenv: Isoenv, words: list[str]) -> None:
    done = isoenv("lock", "run", *words)
    assert (done.returncode, done.stdout, done.stderr) == (0, "--timeout\nx\n--\n", "")


@of_a_machine
@pytest.mark.parametrize(
    "name", ["a/b", "../../x", "with space", "Ünï 🚒", "-x", "\udcff", "x" * 300]
)
def test_any_name_is_a_lock(isoenv: Isoenv, name: str) -> None:
    words = ["lock", "run", "--", name, *ISOENV, "lock", "list", "--json"]
    done = isoenv(*words)
    assert (done.returncode, done.stderr) == (0, "")
    assert [lock["name"] for lock in json.loads(done.stdout)["locks"]] == [name]


# -- one inside another --------------------------------------------------------------------------


@pytest.mark.parametrize("options", [[], ["--shared"], ["--slots", "2"]])
def test_a_command_that_has_the_lock_may_ask_for_it_again(
    isoenv: Isoenv, options: list[str]
) -> None:
    again = ["lock", "run", "it", *options, "--", "echo", "in"]
    done = isoenv("lock", "run", "it", *options, "--", *ISOENV, *again)
    assert (done.returncode, done.stdout, done.stderr) == (0, "in\n", "")


def test_the_api_knows_the_lock_that_its_process_was_started_with(isoenv: Isoenv) -> None:
    code = (
        "from isoenv import Lock, locks\n"
        "with Lock('it'), Lock('it', shared=True): pass\n"
        "print(len(locks()))"
    )
    done = isoenv("lock", "run", "it", "--", sys.executable, "-c", code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_weaker_lock_is_not_taken_for_the_stronger(isoenv: Isoenv) -> None:
    again = ["lock", "run", "it", "--timeout", "0", "--", "echo", "in"]
    done = isoenv("lock", "run", "it", "--shared", "--", *ISOENV, *again)
    assert (done.returncode, done.stdout) == (75, "")
    other = ["lock", "run", "it", "--slots", "2", "--timeout", "9", "--", "echo", "in"]
    done = isoenv("lock", "run", "it", "--shared", "--", *ISOENV, *other)
    assert (done.returncode, done.stdout) == (0, "in\n")


@pytest.mark.parametrize("timeout", [[], ["--timeout", "0.1"]])
def test_who_waits_for_what_waits_for_him_is_told(isoenv: Isoenv, timeout: list[str]) -> None:
    again = [*ISOENV, "lock", "run", "it", *timeout, "--", "echo", "in"]
    # Python passes no open file on, unlike a shell.
    script = f"import subprocess, sys; sys.exit(subprocess.run({again}).returncode)"
    done = isoenv("lock", "run", "it", "--", sys.executable, "-c", script)
    if timeout:
        assert done.returncode == 75
    else:
        assert done.returncode == 1
        assert "the lock it is held by what has started this process, pid " in done.stderr
    assert done.stderr.count("\n") == 1


# -- where it counts ------------------------------------------------------------------------------


def test_a_lock_is_the_projects_unless_global(
    make_repo: Callable[[str], Path],
    worktree: Callable[[Path, str], Path],
    isoenv: Isoenv,
    run: Run,
) -> None:
    shop, other = make_repo("shop"), make_repo("other")
    linked = worktree(shop, "linked")
    holder = run("it", "--", "sh", "-c", "echo in; read end", cwd=shop)
    assert line(holder) == "in"
    words = ["lock", "run", "it", "--timeout", "0"]
    assert isoenv(*words, "true", cwd=linked).returncode == 75
    assert isoenv(*words, "true", cwd=other).returncode == 0
    assert isoenv(*words, "--global", "true", cwd=linked).returncode == 0
    shown = json.loads(isoenv("lock", "list", "--json", cwd=other).stdout)["locks"]
    assert [(lock["name"], lock["project"]) for lock in shown] == [("it", "shop")]
    everywhere = run("--global", "it", "--", "sh", "-c", "echo in; read end", cwd=shop)
    assert line(everywhere) == "in"
    assert not is_free("it")  # here, outside any checkout
    assert isoenv(*words, "true", cwd=other).returncode == 0
    assert not (Path(os.environ["ISOENV_STATE_DIR"]) / "registry.db").exists()


# -- what is shown ---------------------------------------------------------------------------------


def test_the_list_is_a_table_and_json(isoenv: Isoenv, run: Run) -> None:
    done = isoenv("lock", "list")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "isoenv: no lock is held\n")
    assert json.loads(isoenv("lock", "list", "--json").stdout) == {"version": 1, "locks": []}
    holder = run("it", "--", "sh", "-c", "echo in; read end")
    assert line(holder) == "in"
    waiting = run("it", "true")
    eventually(lambda: locks()[0].waiters)
    done = isoenv("lock", "list")
    headers, row = done.stdout.splitlines()
    assert headers.split() == ["NAME", "PROJECT", "MODE", "HOLDER", "SINCE", "WAITING"]
    who = f"pid {holder.pid}: sh -c 'echo in; read end'"
    assert row.startswith(f"it    -        exclusive  {who}  ")
    assert row.split()[-1] == "1"
    (shown,) = json.loads(isoenv("lock", "list", "--json").stdout)["locks"]
    assert shown.keys() == {"name", "project", "holders", "waiters"}
    assert (shown["name"], shown["project"], shown["waiters"]) == ("it", None, [waiting.pid])
    (found,) = shown["holders"]
    assert found.pop("since").endswith("+00:00")
    assert found == {
        "session": None,
        "pid": holder.pid,
        "command": "sh -c 'echo in; read end'",
        "instance": None,
        "host": os.uname().nodename,
        "mode": "exclusive",
        "token": None,
        "gone": False,
    }


def test_the_holders_session_and_instance_are_shown(isoenv: Isoenv) -> None:
    env = {"ISOENV_SESSION": "s1", "ISOENV_PROJECT": "shop", "ISOENV_INSTANCE": "2"}
    words = ["lock", "run", "it", "--", *ISOENV, "lock", "list"]
    done = isoenv(*words, env=env)
    assert "session s1 pid " in done.stdout
    assert " (shop:2): " in done.stdout


# -- a disk that takes nothing ---------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, with room for a few files."""
    directory = tmp_path / "disk"
    directory.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=99", "tmpfs", str(directory)]
    if os.geteuid() or subprocess.run(argv, capture_output=True, check=False).returncode:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this user may not mount a tmpfs")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@of_a_machine
def test_a_state_directory_that_cannot_be_written_to_is_one_line(
    isoenv: Isoenv, small_disk: Path
) -> None:
    env = {"ISOENV_STATE_DIR": f"{small_disk}/state"}
    assert isoenv("lock", "run", "old", "true", env=env).returncode == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    locks = f"{small_disk}/state/locks/machine"
    show = f": `ls -ld {locks}` and `df {locks}` show why"
    for name, said in (
        ("new", f"make {locks}/new: read-only file system{show}"),
        ("old", f"use the lock {locks}/old/queue: read-only file system"),
    ):
        done = isoenv("lock", "run", name, "touch", "made", env=env)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"isoenv: cannot {said}\n"
    assert isoenv("lock", "list", env=env).stderr == "isoenv: no lock is held\n"
    assert not Path("made").exists()


def fill(file: Path) -> None:
    with file.open("wb", buffering=0) as filler:
        while True:
            filler.write(b"x" * 512)


def test_a_full_disk_takes_no_lock_away(
    isoenv: Isoenv, run: Run, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOENV_STATE_DIR", f"{small_disk}/state")
    assert is_free("it")
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    holder = run("it", "--", "sh", "-c", "echo in; read end")
    assert line(holder) == "in"
    assert (small_disk / "state/locks/machine/it/lock").stat().st_size == 0
    done = isoenv("lock", "run", "it", "--timeout", "0", "true")
    assert done.returncode == 75
    assert f"held by pid {holder.pid}: sh -c 'echo in; read end'" in done.stderr


def test_a_table_on_a_terminal_and_a_pipe_that_is_closed(isoenv: Isoenv) -> None:
    shown = isoenv("lock", "run", "it", "--", "sh", "-c", f"{' '.join(ISOENV)} lock list | true")
    assert (shown.returncode, shown.stderr) == (0, "")
