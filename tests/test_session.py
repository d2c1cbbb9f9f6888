"""A session lives as long as its process, and everybody can see it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import isoenv as package
from isoenv import Session, process, sessions
from isoenv.coordination import heartbeat, registering
from isoenv.coordination.records import Record, new_id
from isoenv.errors import IsoenvError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.coordination.store import Store

    Isoenv = Callable[..., subprocess.CompletedProcess[str]]
    Python = Callable[..., subprocess.Popen[str]]

HOLDER = """
import sys
from isoenv import Session
me = Session(sys.argv[1])
print(me.id, me.path("notes"), flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no checkout, so that no project is found."""
    monkeypatch.chdir(tmp_path)


def start(python: Python, name: str) -> tuple[subprocess.Popen[str], str, Path]:
    held = python(HOLDER, name)
    assert held.stdout is not None
    session, path = held.stdout.readline().split()
    return held, session, Path(path)


def listed(isoenv: Isoenv, *arguments: str) -> list[dict[str, object]]:
    done = isoenv("session", "list", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["version"] == 1
    rows: list[dict[str, object]] = found["sessions"]
    return rows


# -- the class --------------------------------------------------------------------------------


def test_a_session_is_there_between_with_and_its_end(store: Store) -> None:
    with Session("trainer", labels={"model": "enigma"}) as me:
        assert re.fullmatch(rf"\d{{8}}_\d{{6}}_{os.getpid()}_[0-9a-f]{{8}}", me.id)
        assert (me.name, me.state, repr(me)) == ("trainer", "ACTIVE", "<Session trainer>")
        assert [record.id for record in sessions()] == [me.id]
        assert sessions()[0].labels == {"model": "enigma"}
        assert sessions()[0].process == process.myself()
        me.state = "COMPLETING"
        assert store.sessions()[0].state == me.state == "COMPLETING"
        file = Path(me.path("deep/notes"))
        file.write_text("mine")
        assert file.parent.stat().st_mode & 0o777 == 0o700
    assert sessions() == []
    assert not file.exists()
    assert not file.parents[1].exists()
    me.end()
    with pytest.raises(IsoenvError, match="ended"):
        me.metrics.add("agents")


def test_a_session_works_without_with() -> None:
    me = Session()
    assert me.name is None
    me.heartbeat()
    me.agent_started("a1", "Explore")
    me.agent_started("a1", "Explore")
    me.agent_started("\udcff\0")
    assert me.metrics.get("agents") == 2
    me.agent_ended("a1")
    assert list(me.agents()) == ["\\xff\\0"]
    me.end()
    assert sessions() == []


def test_a_wrong_name_or_state_is_refused() -> None:
    wrong = ("", ".", "everyone", "7", "a:b", "a/b", "a\nb", "\udcff", "x" * 201, new_id(1))
    for name in wrong:
        with pytest.raises(UsageError):
            Session(name)
    with Session("été 🚒 -x") as me:
        with pytest.raises(UsageError, match="SLEEPING"):
            me.state = "SLEEPING"
        for path in ("", "/etc/passwd", "../other", "a/../../b"):
            with pytest.raises(UsageError):
                me.path(path)


def test_a_name_is_one_live_sessions_and_new_takes_the_next() -> None:
    with Session("bot") as me:
        with pytest.raises(IsoenvError, match=f"{me.id}.*{os.getpid()}.*`isoenv session start"):
            Session("bot")
        with Session("bot", new=True) as second, Session("bot", new=True) as third:
            assert (second.name, third.name) == ("bot-2", "bot-3")
    with Session("bot", new=True) as again:
        assert again.name == "bot"


def test_a_killed_session_is_gone_with_its_name_and_directory(python: Python) -> None:
    held, session, path = start(python, "bot")
    path.write_text("left behind")
    assert [record.id for record in sessions()] == [session]
    held.kill()
    held.wait()
    with Session("bot") as me:
        assert [record.id for record in sessions()] == [me.id]
        assert not path.parent.exists()


def test_a_stopped_process_is_alive(python: Python) -> None:
    held, session, _ = start(python, "bot")
    held.send_signal(signal.SIGSTOP)
    assert [record.id for record in sessions()] == [session]
    with pytest.raises(IsoenvError, match=session):
        Session("bot")
    held.send_signal(signal.SIGCONT)


def test_an_unreaped_zombie_is_dead(python: Python) -> None:
    held, _, _ = start(python, "bot")
    held.kill()
    os.waitid(os.P_PID, held.pid, os.WEXITED | os.WNOWAIT)
    assert sessions() == []


def test_a_forked_child_leaves_the_session_to_its_parent(store: Store) -> None:
    with Session("bot") as me:
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            # What the child does counts for the same session, on a connection of its own.
            me.metrics.add("agents", 2)
            me.__exit__(None, None, None)
            os.write(writing, b"done")
            os._exit(0)
        os.close(writing)
        assert os.read(reading, 4) == b"done"
        os.close(reading)
        os.waitpid(pid, 0)
        assert me.metrics.add("agents", 1) == 3
        assert store.find("bot") is not None
    assert store.find("bot") is None


def test_no_connection_is_carried_across_a_fork() -> None:
    """SQLite must not be: a child would write without the locks that it takes itself to hold."""

    def opened() -> list[str]:
        links = [f"/proc/self/fd/{name}" for name in os.listdir("/proc/self/fd")]
        found = [os.readlink(link) for link in links if os.path.islink(link)]
        return [path for path in found if "coordination.db" in path]

    with Session("bot") as me:
        me.metrics.add("agents", 1)
        assert opened()
        reading, writing = os.pipe()
        pid = os.fork()
        if not pid:
            os.write(writing, str(opened()).encode())
            me.metrics.add("agents", 2)
            os._exit(0)
        os.waitpid(pid, 0)
        assert os.read(reading, 1000) == b"[]"
        os.close(reading)
        os.close(writing)
        assert me.metrics.get("agents") == 3


def test_a_fork_waits_for_the_transaction_of_another_thread(store: Store) -> None:
    with Session("bot") as me:
        begun = threading.Event()

        def change() -> None:
            with store.transaction() as connection:  # type: ignore[attr-defined]
                begun.set()
                time.sleep(0.2)
                connection.execute("UPDATE session SET state = 'IDLE'")

        thread = threading.Thread(target=change)
        thread.start()
        begun.wait()
        pid = os.fork()
        if not pid:
            os._exit(0 if me.state == "IDLE" and store.add_metric(me.id, "agents", 1) else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        thread.join()
        assert me.metrics.add("agents", 1) == 2


def test_a_session_serves_several_threads() -> None:
    with Session() as me:
        threads = [
            threading.Thread(target=lambda: [me.metrics.add("agents") for _ in range(100)])
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert me.metrics.get("agents") == 800


def test_a_session_that_was_ended_by_another_says_so(isoenv: Isoenv) -> None:
    me = Session("bot")
    assert isoenv("session", "end", "--session", "bot").returncode == 0
    for act in (
        me.heartbeat,
        lambda: me.metrics.set("agents", 1),
        lambda: me.metrics.add("agents"),
        lambda: me.path("file"),
        lambda: me.agent_started("a"),
        lambda: me.receive(wait=600),
        lambda: me.state,
    ):
        with pytest.raises(NotFoundError, match="has ended"):
            act()
    me.end()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_one_that_cannot_be_seen_beats_by_itself(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Session("here") as me:
        assert heartbeat.keep(store, me.id) is None
    monkeypatch.setattr(heartbeat.liveness, "namespace", lambda: 1)
    monkeypatch.setattr(heartbeat, "INTERVAL", 0.01)
    monkeypatch.setattr(heartbeat.Heartbeat.__init__, "__defaults__", (0.01,))
    with Session("contained") as me:
        began, deadline = store.sessions()[0].beat, time.monotonic() + 60
        while store.sessions()[0].beat == began:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        # One that was given up meanwhile stops without a word.
        store.remove([me.id])
    assert "isoenv heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_the_public_names_are_there_and_no_others() -> None:
    for name in ("Session", "sessions", "prune", "format_status"):
        assert callable(getattr(package, name))
    with pytest.raises(AttributeError, match="nothing"):
        package.nothing  # noqa: B018  # looking is what is tested
    done = subprocess.run(
        [sys.executable, "-c", "import isoenv, sys; print('isoenv.coordination' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"


# -- the commands -----------------------------------------------------------------------------


def test_a_session_of_the_parent_is_started_used_and_ended(isoenv: Isoenv) -> None:
    done = isoenv("session", "start", "--name", "bot", "--label", "a=b=c", "--label", "d=")
    assert (done.returncode, done.stderr) == (0, "")
    session = done.stdout.removesuffix("\n")
    assert re.fullmatch(rf"\d{{8}}_\d{{6}}_{os.getpid()}_[0-9a-f]{{8}}", session)
    (row,) = listed(isoenv)
    assert row.pop("started_at")
    assert row == {
        "id": session,
        "name": "bot",
        "state": "ACTIVE",
        "pid": os.getpid(),
        "host": process.hostname(),
        "project": None,
        "slot": None,
        "instance": None,
        "labels": {"a": "b=c", "d": ""},
    }
    for word in ("bot", session):
        assert isoenv("session", "heartbeat", "--session", word).returncode == 0
    own = {"ISOENV_SESSION": session}
    assert isoenv("session", "state", "IDLE", env=own).returncode == 0
    assert listed(isoenv)[0]["state"] == "IDLE"
    path = Path(isoenv("session", "path", "a/b", env=own).stdout.removesuffix("\n"))
    assert path.parent.is_dir()
    assert isoenv("session", "end", env=own).returncode == 0
    assert listed(isoenv) == []
    assert not path.parent.exists()
    for words in (["heartbeat"], ["end"], ["state", "IDLE"], ["path", "x"]):
        done = isoenv("session", *words, env=own)
        assert (done.returncode, done.stdout) == (5, "")
        assert re.fullmatch(rf"isoenv: no session {session}: `.*` shows them\n", done.stderr)


@pytest.mark.parametrize("name", ["bash", "zsh", "dash", "ksh", "fish", "busybox sh"])
def test_the_shell_is_meant_and_not_its_subshell(name: str, store: Store) -> None:
    script = """
id=$(isoenv-python session start --name bot)
other=$( (isoenv-python session start --name other; :) )
isoenv-python session list >/dev/null
(isoenv-python metrics add agents 2; :)
isoenv-python metrics add agents 3
echo $$ $id $other
read line
"""
    if name == "fish":
        script = "set id (isoenv-python session start --name bot)\n"
        script += "set other (begin; isoenv-python session start --name other; end)\n"
        script += "for n in 2 3; isoenv-python metrics add agents $n; end\n"
        script += "echo $fish_pid $id $other; read line\n"
    with subprocess.Popen(
        [*name.split(), "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as shell:
        assert shell.stdout is not None
        pid, session, other = shell.stdout.readline().split()
        found = {record.id: record for record in sessions()}
        assert found.keys() >= {session, other}
        assert {str(record.process.pid) for record in found.values()} == {pid} == {str(shell.pid)}
        (nameless,) = (record for record in found.values() if record.name is None)
        assert store.metrics(nameless.id) == {"agents": 5}
        shell.communicate("\n")
    assert sessions() == []


def test_a_session_has_to_be_named(isoenv: Isoenv) -> None:
    for words in (["heartbeat"], ["end"], ["state", "IDLE"], ["path", "x"]):
        done = isoenv("session", *words)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("isoenv: which session? `--session NAME`")
    assert isoenv("session", "start", "--new").returncode == 2
    assert isoenv("session", "start", "--label", "x").returncode == 2


def test_a_taken_name_is_an_error_that_names_who_has_it(isoenv: Isoenv) -> None:
    session = isoenv("session", "start", "--name", "bot").stdout.strip()
    done = isoenv("session", "start", "--name", "bot")
    assert (done.returncode, done.stdout) == (1, "")
    assert session in done.stderr
    assert done.stderr.count("\n") == 1
    assert isoenv("session", "start", "--name", "bot", "--new").returncode == 0
    assert [row["name"] for row in listed(isoenv)] == ["bot", "bot-2"]


def test_a_session_can_be_of_any_process(isoenv: Isoenv) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    assert isoenv("session", "start", "--pid", str(child.pid)).returncode == 0
    assert [row["pid"] for row in listed(isoenv)] == [child.pid]
    child.kill()
    child.communicate()
    assert listed(isoenv) == []
    done = isoenv("session", "start", "--pid", str(child.pid))
    assert (done.returncode, done.stdout) == (1, "")
    assert f"no process {child.pid}" in done.stderr


def test_the_list_is_for_people_too_and_can_be_cut_to_a_label(isoenv: Isoenv) -> None:
    assert isoenv("session", "list").stderr.startswith("isoenv: no sessions: `isoenv")
    isoenv("session", "start", "--name", "one", "--label", "team=search")
    isoenv("session", "start", "--name", "two", "--label", "team=\x1b[31m")
    printed = isoenv("session", "list").stdout
    assert re.search(r"one +ACTIVE +\d+ +- .*team=search\n", printed)
    assert "\x1b" not in printed
    assert [row["name"] for row in listed(isoenv, "--label", "team=search")] == ["one"]


def test_exec_registers_the_command_for_as_long_as_it_lives(isoenv: Isoenv, tmp_path: Path) -> None:
    show = f"""
import json, os, subprocess, sys
session = os.environ["ISOENV_SESSION"]
out = subprocess.run([sys.executable, "-m", "isoenv", "session", "list", "--json"],
                     stdout=subprocess.PIPE, check=True).stdout
(row,) = json.loads(out)["sessions"]
assert (row["id"], row["pid"]) == (session, {os.getpid()} and os.getpid())
print(row["name"], row["project"], row["slot"], row["instance"])
"""
    words = ["exec", "--session", "trainer", "3", "--", sys.executable, "-c", show]
    done = isoenv(*words, cwd=tmp_path)
    assert (done.stdout, done.stderr, done.returncode) == ("trainer default 3 default-3\n", "", 0)
    assert listed(isoenv) == []
    with Session("trainer"):
        done = isoenv("exec", "--session", "trainer", "3", "true")
        assert (done.returncode, done.stdout) == (1, "")
        assert "trainer is the name of session" in done.stderr


def test_list_counts_the_sessions_of_an_instance(
    isoenv: Isoenv, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "isoenv.toml").write_text('project = "shop"\n')
    assert isoenv("claim", "4", "--name", "four", cwd=repo).returncode == 0
    monkeypatch.chdir(repo)
    with Session() as me, Session():
        place = me.record.place
        assert place is not None
        assert (place.project.name, place.slot, place.name) == ("shop", 4, "four")
        (row,) = json.loads(isoenv("list", "--json", cwd=repo).stdout)["instances"]
        assert row["sessions"] == 2
        assert re.search(r"SESSIONS\n.* 2\n", isoenv("list", cwd=repo).stdout)
    (row,) = json.loads(isoenv("list", "--json", cwd=repo).stdout)["instances"]
    assert row["sessions"] == 0


def test_the_instance_is_that_of_the_directory_unless_one_is_pinned(
    isoenv: Isoenv, repo: Path, make_repo: Callable[[str], Path]
) -> None:
    def found(cwd: Path, *before: str) -> tuple[object, object]:
        where = ["session", "start", "--pid", str(os.getpid())]
        done = isoenv(*before, *where, cwd=cwd)
        assert done.returncode == 0, done.stderr
        row = listed(isoenv)[-1]
        assert row["id"] == done.stdout.strip()
        return row["project"], row["slot"]

    (repo / "isoenv.toml").write_text('project = "shop"\n')
    assert found(repo) == ("shop", None)
    isoenv("claim", "2", cwd=repo)
    assert found(repo) == ("shop", 2)
    run = [sys.executable, "-m", "isoenv"]
    assert found(repo, "exec", ".", *run) == ("shop", 2)
    other = make_repo("other")
    assert found(other, "exec", "shop:5", *run) == ("shop", 5)
    inside = ["exec", ".", *run, "-C", str(other)]
    assert found(repo, *inside) == ("other", None)
    (repo / "isoenv.toml").write_text("broken")
    assert found(repo) == (None, None)


def test_prune_removes_what_dead_sessions_left(
    isoenv: Isoenv, python: Python, store: Store
) -> None:
    assert isoenv("prune").stderr == "isoenv: nothing is gone\n"
    held, session, path = start(python, "bot")
    with Session("alive") as me:
        alive = Path(me.path("file"))
        left = path.parent.parent / "20200101_000000_1_00000000"
        left.mkdir()
        pipe = Path(store.state, "wake", "1.2")
        pipe.parent.mkdir()
        os.mkfifo(pipe)
        os.utime(pipe, (1, 1))
        held.kill()
        held.wait()
        done = isoenv("prune", "--dry-run")
        assert f"would remove session {session}" in done.stderr
        assert path.parent.exists()
        done = isoenv("prune")
        assert (done.returncode, done.stdout) == (0, "")
        assert done.stderr == f"isoenv: removed session {session}: its process is gone\n"
        assert not path.parent.exists()
        assert not left.exists()
        assert not pipe.exists()
        assert alive.parent.exists()
        assert isoenv("prune").stderr == "isoenv: nothing is gone\n"


def test_prune_gives_up_the_silent_after_the_hours_it_is_told(isoenv: Isoenv, store: Store) -> None:
    me = process.myself()
    far = process.Identity(1, 1, 0, "its own", 1, "far")
    for name, hours in (("young", 0.2), ("old", 0.8)):
        beaten_at = time.time() - hours * 3600
        record = Record(new_id(1), name, far, beaten_at=beaten_at)
        store.start(record, lambda _record: False, new=False)
    assert me.host != far.host
    assert package.prune(0.5, dry_run=True) == package.prune(0.5)
    assert [record.name for record in store.sessions()] == ["young"]
    assert isoenv("prune", "--max-age", "0.1").returncode == 0
    assert store.sessions() == []


def test_a_nameless_session_is_one_for_a_process(store: Store) -> None:
    first = registering.nameless(store, os.getpid(), None)
    assert registering.nameless(store, os.getpid(), None).id == first.id
    assert store.count() == 1
