"""`isoenv lock acquire` and `release`: a lock of a session's, beside the kernel's of its name."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import Lock, LockTimeout, Session, locks
from isoenv.coordination import registering, sticky
from isoenv.process import myself

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from isoenv.coordination.records import Claim, Record
    from isoenv.coordination.store import Store

    Isoenv = Callable[..., CompletedProcess[str]]
    Owner = Callable[..., tuple[str, subprocess.Popen[bytes]]]

PATIENCE = 60

# What is about the files and the database of one machine.
of_a_machine = pytest.mark.parametrize("kind", ["of a machine"], indirect=True)
ISOENV = [sys.executable, "-m", "isoenv"]


@pytest.fixture(autouse=True)
def outside(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any checkout the scope is the machine, which here is the test's own state."""
    assert kind
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def owner(isoenv: Isoenv) -> Iterator[Owner]:
    """Start a process and register it as a session; return the session's id, and the process."""
    started: list[subprocess.Popen[bytes]] = []

    def owner(*options: str) -> tuple[str, subprocess.Popen[bytes]]:
        process = subprocess.Popen(["sleep", "600"])
        started.append(process)
        done = isoenv("session", "start", "--pid", str(process.pid), *options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip(), process

    yield owner
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start an `isoenv lock …` with pipes; all are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*words: str, session: str | None = None) -> subprocess.Popen[str]:
        env = {**os.environ, **({"ISOENV_SESSION": session} if session else {})}
        process = subprocess.Popen(
            [*ISOENV, "lock", *words],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.005)


def is_free(name: str, **options: object) -> bool:
    """Whether somebody else could have the kernel's lock at once."""
    try:
        with Lock(name, timeout=0, session="somebody else", **options):  # type: ignore[arg-type]
            return True
    except LockTimeout:
        return False


def waiters(name: str) -> int:
    return sum(len(locked.waiters) for locked in locks() if locked.name == name)


def acquired(isoenv: Isoenv, session: str, *options: str) -> int:
    done = isoenv("lock", "acquire", "it", "--session", session, *options)
    assert (done.returncode, done.stderr) == (0, "")
    return int(done.stdout)


def released(isoenv: Isoenv, session: str) -> None:
    done = isoenv("lock", "release", "it", "--session", session)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- one holder ------------------------------------------------------------------------------


def test_a_session_has_a_lock_from_one_command_to_another(isoenv: Isoenv, owner: Owner) -> None:
    one, _ = owner("--name", "one")
    other, _ = owner()
    acquired(isoenv, one)
    done = isoenv("lock", "acquire", "it", "--session", other, "--timeout", "0.1")
    assert (done.returncode, done.stdout) == (75, "")
    assert "not free within 0.1 s: held by session one pid " in done.stderr
    done = isoenv("lock", "release", "it", "--session", other)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"session {other} does not hold the lock it, session one pid " in done.stderr
    released(isoenv, one)
    acquired(isoenv, other, "--timeout", "0")


@pytest.mark.parametrize("options", [[], ["--shared"], ["--slots", "2"]])
def test_a_sessions_lock_keeps_the_kernels_of_every_kind_out(
    isoenv: Isoenv, owner: Owner, options: list[str]
) -> None:
    session, _ = owner()
    acquired(isoenv, session)
    run = ["lock", "run", "it", *options, "--timeout", "0.1", "--", "echo", "in"]
    assert isoenv(*run).returncode == 75
    assert isoenv(*run, env={"ISOENV_SESSION": "another"}).returncode == 75
    released(isoenv, session)
    assert isoenv(*run).stdout == "in\n"


@pytest.mark.parametrize("options", [[], ["--shared"], ["--slots", "2"]])
def test_a_kernels_lock_of_every_kind_keeps_sessions_out(
    kind: str,
    isoenv: Isoenv,
    owner: Owner,
    start: Callable[..., subprocess.Popen[str]],
    options: list[str],
) -> None:
    session, _ = owner()
    holder = start("run", "it", *options, "--", "sh", "-c", "echo in; read end")
    assert holder.stdout
    assert holder.stdout.readline() == "in\n"
    words = ["lock", "acquire", "it", "--session", session]
    done = isoenv(*words, "--timeout", "0.1")
    assert (done.returncode, done.stdout) == (75, "")
    assert f"pid {holder.pid}" in done.stderr
    waiting = start(*words[1:])
    eventually(lambda: waiters("it") == 1)
    holder.communicate("\n")
    # Of all hosts each holder is counted, also that of the kernel's.
    assert waiting.communicate()[0] == ("1\n" if kind == "of a machine" else "2\n")


def test_what_acts_as_the_session_has_its_lock_too(isoenv: Isoenv, owner: Owner) -> None:
    session, _ = owner("--name", "one")
    acquired(isoenv, session)
    for word in (session, "one"):
        run = isoenv("lock", "run", "it", "echo", "in", env={"ISOENV_SESSION": word})
        assert (run.returncode, run.stdout) == (0, "in\n")


def test_a_nameless_session_is_the_parent_process_and_what_that_starts(isoenv: Isoenv) -> None:
    isoenv_ = " ".join(ISOENV)
    script = f"""
        {isoenv_} lock acquire it >token
        {isoenv_} lock run it -- echo mine
        sh -c '{isoenv_} lock run it -- echo below; exit'
        ISOENV_SESSION=another {isoenv_} lock run it --timeout 0.1 echo no
        echo $?
        {isoenv_} lock release it
        {isoenv_} lock release it
        echo $?
    """
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["mine", "below", "75", "1"]
    assert Path("token").read_text() == "1\n"
    assert "does not hold the lock it, it is free: `isoenv lock list`" in done.stderr
    # Another shell's session is another one.
    script = f"{isoenv_} lock acquire it; exec sleep 600"
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE) as shell:
        assert shell.stdout
        assert shell.stdout.readline() == b"2\n"
        assert isoenv("lock", "run", "it", "--timeout", "0", "true").returncode == 75
        shell.kill()
    assert is_free("it")


def test_another_session_takes_nothing_below_the_holder_of_both(
    isoenv: Isoenv, owner: Owner
) -> None:
    one, other = owner("--name", "one")[0], owner()[0]
    acquired(isoenv, one)
    words = [*ISOENV, "lock", "acquire", "it", "--session", other]
    done = isoenv("lock", "run", "it", "--", *words, env={"ISOENV_SESSION": one})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("isoenv: the lock it is held by session one pid ")


def test_no_update_is_lost_between_sessions_and_the_kernels_locks(tmp_path: Path) -> None:
    code = """
import sys, time
from isoenv import Lock, Session
from isoenv.coordination import sticky
file, is_sticky, turns = sys.argv[1], sys.argv[2] == "sticky", int(sys.argv[3])
def add():
    with open(file, "r+") as counter:
        number = int(counter.read())
        time.sleep(0.0005)
        counter.seek(0)
        counter.write(str(number + 1))
with Session() as me:
    lock = Lock("it", session=me.id)
    for _ in range(turns):
        if is_sticky:
            sticky.acquire(lock, me.record, None)
            add()
            sticky.release(lock, me.record)
        else:
            with lock:
                add()
"""
    file = tmp_path / "number"
    file.write_text("0")
    kinds = ["sticky", "kernel"] * 3
    running = [
        subprocess.Popen([sys.executable, "-c", code, str(file), kind, "25"]) for kind in kinds
    ]
    assert [process.wait() for process in running] == [0] * len(kinds)
    assert int(file.read_text()) == 25 * len(kinds)


def test_below_a_named_session_it_must_be_said_who_acts_as_it() -> None:
    isoenv_ = " ".join(ISOENV)
    script = f"""
        {isoenv_} session start --name one >id
        {isoenv_} lock acquire it --session one
        {isoenv_} lock run it --timeout 0.1 echo no
        echo $?
        ISOENV_SESSION=one {isoenv_} lock run it echo mine
    """
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "75", "mine"]


def test_a_token_that_is_read_by_a_shell_is_had_by_the_shell() -> None:
    isoenv_ = " ".join(ISOENV)
    script = f"""
        token=$({isoenv_} lock acquire it)
        {isoenv_} lock run it echo mine
        echo $token
        {isoenv_} lock release it
    """
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "mine\n1\n", "")


# -- until when --------------------------------------------------------------------------------


def test_the_token_grows_with_each_holder_and_no_other_way(isoenv: Isoenv, owner: Owner) -> None:
    one, process = owner()
    other, _ = owner()
    assert acquired(isoenv, one) == 1
    assert acquired(isoenv, one) == 1
    released(isoenv, one)
    assert acquired(isoenv, one) == 2
    process.kill()
    process.wait()
    assert acquired(isoenv, other) == 3
    (found,) = json.loads(isoenv("lock", "list", "--json").stdout)["locks"]
    assert [(holder["mode"], holder["token"]) for holder in found["holders"]] == [("sticky", 3)]


@pytest.mark.parametrize("how", ["killed", "released", "ended"])
def test_a_waiter_has_it_once_the_holder_is_gone(
    kind: str, isoenv: Isoenv, owner: Owner, start: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    session, process = owner()
    other, _ = owner()
    acquired(isoenv, session)
    kernel = start("run", "it", "echo", "kernel's", session="another")
    eventually(lambda: waiters("it") == 1)
    sessions = start("acquire", "it", session=other)
    eventually(lambda: waiters("it") == 2)
    if how == "killed":
        # Nobody reaps it yet: a zombie has no locks.
        process.kill()
    elif how == "released":
        released(isoenv, session)
    else:
        assert isoenv("session", "end", "--session", session).returncode == 0
    assert kernel.communicate()[0] == "kernel's\n"
    # Of all hosts each holder is counted, also that of the kernel's.
    assert sessions.communicate()[0] == ("2\n" if kind == "of a machine" else "3\n")


def test_a_waiter_sleeps(
    isoenv: Isoenv, owner: Owner, start: Callable[..., subprocess.Popen[str]]
) -> None:
    session, _ = owner()
    acquired(isoenv, session)
    waiting = start("run", "it", "true", session="another")
    eventually(lambda: waiters("it") == 1)
    status = Path(f"/proc/{waiting.pid}/status")
    eventually(lambda: "State:\tS" in status.read_text())
    time.sleep(0.2)
    before = switches(status)
    time.sleep(2 * sticky.AGAIN)
    assert switches(status) - before <= 2 * 10


def switches(status: Path) -> int:
    return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_a_release_wakes_the_waiter_without_its_looking_again(
    isoenv: Isoenv, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sticky, "AGAIN", 10.0**6)
    session, process = owner()
    for end in (lambda: released(isoenv, session), process.kill):
        acquired(isoenv, session)
        thread = threading.Thread(target=lambda: eventually(lambda: waiters("it")) or end())  # noqa: B023  # joined below
        thread.start()
        began = time.monotonic()
        with Lock("it", session="another", timeout=2 * PATIENCE):
            assert time.monotonic() - began < PATIENCE
        thread.join()


def test_a_lock_with_a_ttl_is_free_when_that_is_over(isoenv: Isoenv, owner: Owner) -> None:
    one, _ = owner("--name", "one")
    other, _ = owner("--name", "other")
    acquired(isoenv, one, "--ttl", "600")
    assert not is_free("it")
    # Another time is another end.
    acquired(isoenv, one, "--ttl", "0.5")
    assert acquired(isoenv, other, "--timeout", str(PATIENCE)) == 2
    done = isoenv("lock", "release", "it", "--session", "one")
    assert done.returncode == 1
    assert "session one does not hold the lock it, session other pid " in done.stderr


def test_the_end_of_that_time_wakes_the_waiter(
    isoenv: Isoenv, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sticky, "AGAIN", 10.0**6)
    session, _ = owner()
    acquired(isoenv, session, "--ttl", "2")
    began = time.monotonic()
    with Lock("it", session="another", timeout=2 * PATIENCE):
        assert time.monotonic() - began < PATIENCE


def test_its_own_time_that_is_over_is_a_new_token(isoenv: Isoenv, owner: Owner) -> None:
    session, _ = owner()
    acquired(isoenv, session, "--ttl", "0.05")
    eventually(lambda: locks() == [])
    assert acquired(isoenv, session) == 2


def test_a_session_that_has_ended_takes_no_lock(isoenv: Isoenv, owner: Owner) -> None:
    session, process = owner()
    process.kill()
    process.wait()
    done = isoenv("lock", "acquire", "it", "--session", session)
    assert (done.returncode, done.stdout) == (5, "")
    assert locks() == []


@of_a_machine
def test_a_holder_that_cannot_be_seen_is_not_taken_for_dead(
    isoenv: Isoenv, owner: Owner, tmp_path: Path
) -> None:
    import sqlite3

    session, _ = owner()
    acquired(isoenv, session)
    file = Path(os.environ["ISOENV_STATE_DIR"]) / "coordination.db"
    with contextlib.closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE session SET host = 'elsewhere', pid = 1")
    assert not is_free("it")
    (found,) = locks()
    assert (found.holders[0].host, found.holders[0].command) == ("elsewhere", None)
    assert tmp_path.exists()


# -- what is shown, and what is wrong ------------------------------------------------------------


def test_the_list_shows_the_session(isoenv: Isoenv, owner: Owner) -> None:
    session, process = owner("--name", "one")
    acquired(isoenv, session)
    (found,) = locks()
    (holder,) = found.holders
    assert (found.name, found.waiters) == ("it", ())
    assert (holder.mode, holder.session, holder.pid) == ("sticky", "one", process.pid)
    assert holder.command == "sleep 600"
    assert abs(time.time() - (holder.since or 0)) < PATIENCE


def test_a_lock_is_the_projects_unless_global(
    make_repo: Callable[[str], Path], isoenv: Isoenv, owner: Owner
) -> None:
    shop, other = make_repo("shop"), make_repo("other")
    session, _ = owner()
    env = {"ISOENV_SESSION": session}
    assert isoenv("lock", "acquire", "it", cwd=shop, env=env).stdout == "1\n"
    run = ["lock", "run", "it", "--timeout", "0", "--", "echo", "in"]
    assert isoenv(*run, cwd=shop).returncode == 75
    assert isoenv(*run, cwd=other).returncode == 0
    assert isoenv("lock", "acquire", "it", "--global", cwd=shop, env=env).stdout == "1\n"
    assert isoenv(*run).returncode == 75
    assert {(lock.project, lock.holders[0].mode) for lock in locks()} == {
        ("shop", "sticky"),
        (None, "sticky"),
    }
    assert isoenv("lock", "release", "it", "--global", cwd=other, env=env).returncode == 0
    assert isoenv("lock", "release", "it", cwd=other, env=env).returncode == 1
    assert isoenv("lock", "release", "it", cwd=shop, env=env).returncode == 0


@pytest.mark.parametrize("name", ["a/b", "Ünï 🚒", "\udcff", "x" * 300])
def test_any_name_can_be_held_by_a_session(isoenv: Isoenv, owner: Owner, name: str) -> None:
    env = {"ISOENV_SESSION": owner()[0]}
    assert isoenv("lock", "acquire", "--", name, env=env).stdout == "1\n"
    assert [lock.name for lock in locks()] == [name]
    assert isoenv("lock", "release", "--", name, env=env).returncode == 0
    assert locks() == []


@of_a_machine
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "Missing argument 'NAME'"),
        ([""], "the name of the lock is empty"),
        (["it", "--ttl", "0"], "0.0 is not in the range x>0"),
        (["it", "--timeout", "-1"], "-1.0 is not in the range x>=0"),
        (["it", "--ttl", "nan"], "a lock cannot be had for nan s"),
        (["it", "--ttl", "inf"], "a lock cannot be had for inf s"),
    ],
)
def test_wrong_usage_is_2_and_makes_nothing(isoenv: Isoenv, words: list[str], said: str) -> None:
    done = isoenv("lock", "acquire", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert not Path(os.environ["ISOENV_STATE_DIR"]).exists()


@of_a_machine
def test_a_store_that_is_broken_is_one_line_and_harms_no_other_lock(
    isoenv: Isoenv, owner: Owner
) -> None:
    session, _ = owner()
    acquired(isoenv, session)
    file = Path(os.environ["ISOENV_STATE_DIR"]) / "coordination.db"
    for part in file.parent.glob("coordination.db-*"):
        part.unlink()
    file.write_bytes(b"no database" * 1000)
    for words in (["run", "it", "true"], ["acquire", "it"], ["release", "it"]):
        done = isoenv("lock", *words, env={"ISOENV_SESSION": session})
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.count("\n") == 1
        assert "file is not a database" in done.stderr
    assert isoenv("lock", "run", "other", "echo", "in").stdout == "in\n"
    # Without the store nobody has it.
    file.unlink()
    assert is_free("it")


@of_a_machine
def test_the_mark_is_gone_once_nobody_has_it(isoenv: Isoenv, owner: Owner) -> None:
    session, process = owner()
    mark = Path(Lock("it").directory) / "sticky"
    acquired(isoenv, session)
    assert mark.exists()
    released(isoenv, session)
    assert not mark.exists()
    acquired(isoenv, session)
    process.kill()
    process.wait()
    assert is_free("it")
    assert not mark.exists()


@of_a_machine
def test_the_mark_is_left_to_who_has_the_kernels_lock(isoenv: Isoenv, owner: Owner) -> None:
    session, _ = owner()
    mark = Path(Lock("it").directory) / "sticky"
    acquired(isoenv, session)
    with Lock("it", session=session):
        # Another session may be about to have it, and the mark would be its.
        released(isoenv, session)
        assert mark.exists()
    assert is_free("it")
    assert not mark.exists()


# -- in the store --------------------------------------------------------------------------------


@of_a_machine
def test_a_store_gives_a_lock_to_one_session_at_a_time(store: Store) -> None:
    one, other = (
        store.start(registering.draft(myself(), name, None), lambda _: False, new=False)
        for name in ("one", None)
    )
    assert store.claim("machine/it") is None

    def take(record: Record, ttl: float | None = None, *, free: bool = False) -> Claim | None:
        return store.take_lock("machine/it", "i\udcfft", None, record.id, ttl, lambda _: free)

    first = take(one)
    assert first
    assert (first.token, first.title, first.name, first.project) == (1, "one", "i\udcfft", None)
    assert (first.is_named, first.is_over, first.expires) == (True, False, None)
    assert store.claim("machine/it") == take(other) == take(one) == first
    assert not store.free_lock("machine/it", other.id)
    taken = take(other, 1e-9, free=True)
    assert taken
    assert (taken.token, taken.title, taken.is_named) == (2, other.id, False)
    over = store.claim("machine/it")
    assert over
    assert over.is_over
    renewed = take(other, 600)
    assert renewed
    assert (renewed.token, renewed.is_over) == (3, False)
    store.remove([other.id])
    assert store.claim("machine/it") is None
    last = take(one)
    assert last
    assert last.token == 4
    assert store.free_lock("machine/it", one.id)
    assert not store.free_lock("machine/it", one.id)
    store.remove([one.id])
    assert take(one) is None


# -- in Python -----------------------------------------------------------------------------------


def test_a_session_locks_in_its_name() -> None:
    with Session("trainer") as me:
        with me.lock("enigma", timeout=10.0), me.lock("enigma"), Lock("enigma"):
            (found,) = locks()
            assert (found.holders[0].session, found.holders[0].mode) == ("trainer", "exclusive")
            code = "from isoenv import Lock; Lock('enigma', timeout=0.05).acquire()"
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, text=True, check=False
            )
            assert (
                f"not free within 0.05 s: held by session trainer pid {os.getpid()}: "
                in done.stderr
            )
        with me.lock("enigma", slots=2) as lock:
            assert lock.mode == "slot"
    assert locks() == []
