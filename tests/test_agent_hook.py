"""Claude Code's hooks: the sessions, the counts, and the environment of each command."""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import flock, paths
from isoenv.agents import claude as claude_code
from isoenv.coordination import registering
from isoenv.coordination.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from subprocess import CompletedProcess

    from conftest import Claude

    Isoenv = Callable[..., CompletedProcess[str]]
    Fire = Callable[..., CompletedProcess[bytes]]

ROOT = Path(__file__).resolve().parents[1]

SHOP = """
project = "shop"
[ports]
web = {web}
[env]
SHOP_DB = "shop_{{id}}"
"""

PRINT = 'echo "$ISOENV_INSTANCE $WEB_PORT $SHOP_DB"'
ALL = "env | grep -a '^ISOENV_ROOT=\\|^ISOENV_INSTANCE=\\|^WEB_PORT=' | sort"


@pytest.fixture
def web(free_port: Callable[[], int]) -> int:
    """The port of slot 0: of the others it is one thousand higher each."""
    return free_port()


@pytest.fixture
def shop(repo: Path, isoenv: Isoenv, web: int, git: Callable[..., str]) -> Path:
    """A repository that is trusted, with what Claude Code needs in its settings."""
    (repo / "isoenv.toml").write_text(SHOP.format(web=web))
    git(repo, "add", "--all")
    git(repo, "commit", "-q", "-m", "isoenv")
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/exclude").write_text(".claude/\n")
    assert isoenv("allow", cwd=repo).returncode == 0
    assert isoenv("agent", "install", "claude", "--yes", cwd=repo).returncode == 0
    return repo


@pytest.fixture
def window(claude: Callable[..., Claude], shop: Path) -> Callable[..., Claude]:
    """Open a window with the settings of the repository."""

    def window(session_id: str = "5e551011", **env: str | None) -> Claude:
        opened = claude(session_id, **env)
        opened.read_settings(shop / ".claude/settings.local.json")
        return opened

    return window


@pytest.fixture
def fire(tmp_path: Path) -> Fire:
    """Call the hook itself with these bytes; it must end with 0 and at most one line."""

    def fire(
        given: bytes | Mapping[str, object], env: Mapping[str, str | None] | None = None
    ) -> CompletedProcess[bytes]:
        if not isinstance(given, bytes):
            given = json.dumps(given).encode()
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "CLAUDE_PID": str(os.getpid()),
            "CLAUDE_ENV_FILE": str(tmp_path / "env-file"),
            **(env or {}),
        }
        done = subprocess.run(
            [sys.executable, "-m", "isoenv", "agent", "hook", "claude"],
            input=given,
            env={name: value for name, value in environ.items() if value is not None},
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0
        assert done.stderr.count(b"\n") <= 1
        assert b"Traceback" not in done.stderr
        return done

    return fire


def sessions() -> dict[str, tuple[int | None, int]]:
    """The slot and the number of subagents of each live session, by its name."""
    store = open_store(os.environ["ISOENV_STATE_DIR"])
    try:
        return {
            record.title: (
                record.place.slot if record.place else None,
                int(store.metrics(record.id).get("agents", 0)),
            )
            for record in registering.live(store)
        }
    finally:
        store.close()


def agents() -> int:
    """The subagents of all live sessions."""
    return sum(count for _, count in sessions().values())


def slots(isoenv: Isoenv, cwd: Path) -> list[int]:
    found = json.loads(isoenv("list", "--json", cwd=cwd).stdout)
    return [instance["slot"] for instance in found["instances"]]


def ok(said: list[tuple[int, str, str]]) -> str:
    """What one hook said to the model, where nothing went wrong."""
    ((code, stdout, stderr),) = said
    assert (code, stderr) == (0, ""), stderr
    if not stdout:
        return ""
    text: str = json.loads(stdout)["hookSpecificOutput"].get("additionalContext", "")
    return text


# --- Whole sessions


def test_each_command_of_a_session_has_the_ports_of_its_directory(
    window: Callable[..., Claude],
    shop: Path,
    web: int,
    git: Callable[..., str],
    isoenv: Isoenv,
) -> None:
    claude = window()
    main, one, two = "0 {} shop_0", "1 {} shop_1", "2 {} shop_2"
    main, one, two = (text.format(web + n * 1000) + "\n" for n, text in enumerate((main, one, two)))

    said = ok(claude.event("SessionStart", shop, source="startup"))
    assert "shop/0" in said
    assert f"WEB_PORT={web}" in said
    assert "\n" not in said
    assert sessions() == {"5e551011": (0, 0)}
    assert claude.bash(PRINT, shop) == main

    first = shop / ".claude/worktrees/a"
    git(shop, "worktree", "add", "-q", str(first), "-b", "worktree-a")
    ok(claude.event("CwdChanged", first, old_cwd=str(shop), new_cwd=str(first)))
    assert sessions() == {"5e551011": (1, 0)}
    assert claude.bash(PRINT, first) == one
    assert claude.bash(PRINT, shop) == main
    assert (
        claude.bash(f"cd {shlex.quote(str(shop))} && bash -c {shlex.quote(PRINT)}", first) == main
    )

    ok(claude.event("SubagentStart", first, agent_id="a1", agent_type="Explore"))
    assert sessions() == {"5e551011": (1, 1)}
    # A worktree of a subagent's own, of which no event tells: its first command takes the lease.
    second = shop / ".claude/worktrees/b"
    git(shop, "worktree", "add", "-q", str(second), "-b", "worktree-b")
    ok(claude.event("SubagentStart", first, agent_id="a2", agent_type="Explore"))
    ok(claude.event("SubagentStart", first, agent_id="a2", agent_type="Explore"))
    assert sessions() == {"5e551011": (1, 2)}
    assert slots(isoenv, shop) == [0, 1]
    assert claude.bash(PRINT, second, env_files=False) == two
    assert claude.bash(PRINT, second) == two
    assert slots(isoenv, shop) == [0, 1, 2]
    assert claude.bash(PRINT, first) == one

    git(shop, "worktree", "remove", str(second))
    ok(claude.event("SubagentStop", first, agent_id="a2", agent_type="Explore"))
    assert sessions() == {"5e551011": (1, 1)}
    assert slots(isoenv, shop) == [0, 1]

    ok(claude.event("SubagentStop", first, agent_id="a1", agent_type="Explore"))
    ok(claude.event("SubagentStop", first, agent_id="never started"))
    assert sessions() == {"5e551011": (1, 0)}
    git(shop, "worktree", "remove", str(first))
    assert claude.bash(PRINT, shop) == main
    ok(claude.event("UserPromptSubmit", shop, prompt="and now?"))
    assert sessions() == {"5e551011": (0, 0)}
    assert slots(isoenv, shop) == [0]
    ok(claude.event("SessionEnd", shop, reason="exit"))
    assert sessions() == {}


def test_nothing_of_a_session_is_counted_once_it_is_killed(
    window: Callable[..., Claude], shop: Path
) -> None:
    claude, other = window("one"), window("two")
    for each in (claude, other):
        ok(each.event("SessionStart", shop, source="startup"))
        ok(each.event("SubagentStart", shop, agent_id="a1"))
    assert sessions() == {"one": (0, 1), "two": (0, 1)}
    claude.kill()
    assert sessions() == {"two": (0, 1)}
    assert agents() == 1
    # A subagent that never says it has stopped is counted as long as its window lives.
    ok(other.event("SubagentStart", shop, agent_id="a2"))
    assert agents() == 2
    other.close()
    assert sessions() == {}


def test_late_and_missing_events_leave_no_session_and_no_subagent(
    window: Callable[..., Claude], shop: Path
) -> None:
    claude = window()
    ok(claude.event("SubagentStop", shop, agent_id="a0"))
    ok(claude.event("SessionEnd", shop))
    assert sessions() == {}
    # isoenv was installed in the middle of a session: its next event is its first.
    ok(claude.event("SubagentStart", shop, agent_id="a1"))
    assert sessions() == {"5e551011": (None, 1)}
    ok(claude.event("SessionStart", shop, source="compact"))
    assert sessions() == {"5e551011": (0, 1)}
    ok(claude.event("SessionEnd", shop))
    ok(claude.event("SubagentStop", shop, agent_id="a1"))
    assert sessions() == {}


def test_a_cleared_session_is_over_though_its_process_lives(
    window: Callable[..., Claude], shop: Path
) -> None:
    claude = window("before")
    ok(claude.event("SessionStart", shop, source="startup"))
    ok(claude.event("SubagentStart", shop, agent_id="a1"))
    claude.session_id = "after"
    ok(claude.event("SessionStart", shop, source="clear"))
    assert sessions() == {"after": (0, 0)}


def test_a_session_that_is_resumed_is_one_and_in_two_windows_two(
    window: Callable[..., Claude], shop: Path
) -> None:
    first = window("resumed")
    ok(first.event("SessionStart", shop, source="startup"))
    first.kill()
    second, third = window("resumed"), window("resumed")
    ok(second.event("SessionStart", shop, source="resume"))
    assert sessions() == {"resumed": (0, 0)}
    ok(third.event("SessionStart", shop, source="resume"))
    ok(third.event("SubagentStart", shop, agent_id="a1"))
    assert sessions() == {"resumed": (0, 0), "resumed-2": (0, 1)}
    ok(third.event("SessionEnd", shop))
    assert sessions() == {"resumed": (0, 0)}


def test_claude_code_says_its_own_pid_and_a_stale_one_is_not_believed(
    window: Callable[..., Claude], shop: Path
) -> None:
    with subprocess.Popen(["sleep", "1000"]) as sleeper:
        told = window("told", CLAUDE_PID=str(sleeper.pid))
        ok(told.event("SessionStart", shop))
        assert sessions() == {"told": (0, 0)}
        sleeper.kill()
    assert sessions() == {}
    stale = window("stale", CLAUDE_PID=str(sleeper.pid))
    ok(stale.event("SessionStart", shop))
    assert sessions() == {"stale": (0, 0)}
    stale.kill()
    assert sessions() == {}


def test_what_stands_between_claude_code_and_its_hook_is_no_session(
    window: Callable[..., Claude], shop: Path
) -> None:
    claude = window()
    command = claude.settings["hooks"]["SessionStart"][0]["hooks"][0]["command"]
    between = [
        sys.executable,
        "-c",
        "import os, sys; sys.exit(os.system(sys.argv[1]) >> 8)",
        command,
    ]
    event = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)}
    assert claude.run(between, "/", {}, json.dumps(event))[0] == 0
    assert sessions() == {"s": (0, 0)}
    claude.kill()
    assert sessions() == {}


def test_commands_do_not_keep_what_claude_code_was_started_with(
    window: Callable[..., Claude],
    shop: Path,
    web: int,
    worktree: Callable[[Path, str], Path],
    isoenv: Isoenv,
) -> None:
    other = worktree(shop, "other")
    printed = isoenv("exec", ".", "env", "-0", cwd=shop).stdout
    loaded = dict(pair.split("=", 1) for pair in printed.split("\0") if "ISOENV" in pair)
    assert loaded["ISOENV_INSTANCE"] == "0"
    claude = window(**loaded, WEB_PORT=str(web), SHOP_DB="shop_0")
    assert "shop/1" in ok(claude.event("SessionStart", other))
    assert claude.bash(PRINT, other) == f"1 {web + 1000} shop_1\n"
    assert claude.bash(PRINT, shop) == f"0 {web} shop_0\n"


@pytest.fixture
def default_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the state where users have it: what a hook knows of that is in a variable."""
    monkeypatch.delenv("ISOENV_STATE_DIR")


@pytest.mark.usefixtures("default_state")
@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize("dropped", ["_[^_]", "_", "$"])
def test_a_snapshot_of_the_users_shell_does_not_get_in_the_way(  # noqa: PLR0913, PLR0917  # fixtures
    window: Callable[..., Claude],
    shop: Path,
    web: int,
    isoenv: Isoenv,
    tmp_path: Path,
    shell: str,
    dropped: str,
) -> None:
    claude = window()
    ok(claude.event("SessionStart", shop))
    # Which functions Claude Code keeps has changed more than once.
    snapshot = tmp_path / "snapshot"
    listing = "declare -F | cut -d' ' -f3" if shell == "bash" else "print -l ${(k)functions}"
    script = (
        isoenv("hook", shell, cwd=shop).stdout
        + f"\nfor name in $({listing} | grep -vE '^{dropped}'); do declare -f $name; done"
        + f" >{snapshot}"
    )
    run(shell, script, shop)
    assert "isoenv ()" in snapshot.read_text()
    preamble = f". {snapshot}\n{claude.env_files[0].read_text()}"
    assert run(shell, f"{preamble}{PRINT}; isoenv port web", shop) == f"0 {web} shop_0\n{web}\n"


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_without_a_prompt_that_has_the_hook_is_in_its_directory_too(
    window: Callable[..., Claude], shop: Path, web: int, isoenv: Isoenv, shell: str
) -> None:
    claude = window()
    ok(claude.event("SessionStart", shop))
    # As where bash takes the socket that is its input for the network: it reads ~/.bashrc.
    hook = isoenv("hook", shell, cwd=shop).stdout
    preamble = f"{hook}\n{claude.env_files[0].read_text()}"
    assert run(shell, f"{preamble}{PRINT}; isoenv port web", shop) == f"0 {web} shop_0\n{web}\n"


def run(shell: str, script: str, cwd: Path) -> str:
    """Run a script with none of the user's files, which must succeed and say nothing else."""
    options = ["--norc"] if shell == "bash" else ["-f"]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [shell, *options, "-c", script],
        cwd=cwd,
        env={**os.environ, "PATH": path},
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    return done.stdout.decode()


def test_what_is_not_allowed_is_said_and_not_loaded(
    window: Callable[..., Claude], shop: Path
) -> None:
    (shop / "isoenv.toml").write_text(SHOP.format(web=4000) + 'EVIL = "1"\n')
    claude = window()
    assert "`isoenv allow`" in ok(claude.event("SessionStart", shop))
    assert sessions().keys() == {"5e551011"}
    assert claude.bash(ALL, shop.parent) == ""
    assert claude.bash('echo "${WEB_PORT-unset}"', shop) == "unset\n"


def test_a_repository_without_configuration_leases_nothing(
    window: Callable[..., Claude], make_repo: Callable[[str], Path], isoenv: Isoenv
) -> None:
    plain = make_repo("plain")
    claude = window()
    assert ok(claude.event("SessionStart", plain)) == ""
    assert sessions() == {"5e551011": (None, 0)}
    assert json.loads(isoenv("list", "--all", "--json").stdout)["instances"] == []


def test_what_makes_and_removes_worktrees_is_left_to_git(window: Callable[..., Claude]) -> None:
    assert not any("Worktree" in event for event in window().settings["hooks"])


def test_a_worktree_that_is_still_there_keeps_its_lease(
    fire: Fire, shop: Path, isoenv: Isoenv, worktree: Callable[[Path, str], Path]
) -> None:
    other = worktree(shop, "other")
    isoenv("exec", ".", "true", cwd=other)
    event = {"session_id": "s", "cwd": str(shop), "worktree_path": str(other)}
    fire({"hook_event_name": "WorktreeRemove", **event})
    assert slots(isoenv, shop) == [1]
    # Moved away by hand: git lists it still.
    other.rename(shop.parent / "elsewhere")
    fire({"hook_event_name": "WorktreeRemove", **event})
    assert slots(isoenv, shop) == [1]


# --- The line in the environment file


def test_the_line_is_there_once_and_others_stay(fire: Fire, shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "env-file"
    file.write_text("export MINE=1")
    start = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)}
    for event in (start, start, {**start, "hook_event_name": "CwdChanged"}):
        assert fire(event).stderr == b""
    state = os.environ["ISOENV_STATE_DIR"]
    line = f"[ ! -r '{state}/bash-env.sh' ] || . '{state}/bash-env.sh'\n"
    assert file.read_text() == f"export MINE=1\n{line}"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(fire, [start] * 8))
    assert file.read_text() == f"export MINE=1\n{line}"


def test_a_state_directory_with_an_awkward_name_is_one_word(
    fire: Fire, shop: Path, tmp_path: Path, web: int
) -> None:
    state = tmp_path / 'it\'s; $(touch pwned) `touch pwned`\n"x"'
    env = {"ISOENV_STATE_DIR": str(state)}
    os.rename(os.environ["ISOENV_STATE_DIR"], state)
    event = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)}
    for _ in range(2):
        fire(event, env)
    script = (tmp_path / "env-file").read_text()
    assert script.count("|| .") == 1
    done = subprocess.run(
        ["bash", "-c", f"{script}{PRINT}"],
        cwd=shop,
        env={**os.environ, **env},
        capture_output=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == (f"0 {web} shop_0\n".encode(), b"")
    assert not (shop / "pwned").exists()


# --- What can go wrong


HOSTILE = [
    "/gone/for/ever",
    "relative/path",
    "",
    "$(touch pwned)",
    "/x/`touch pwned`",
    "/x'; touch pwned; '",
    '/x"; touch pwned; "',
    "/x\ntouch pwned\n",
    "/\0",
    "/\ud800",
    "/" + "x" * 5000,
]


@pytest.mark.parametrize("cwd", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("event", ["SessionStart", "CwdChanged", "SubagentStart", "WorktreeRemove"])
def test_hostile_directories_are_one_line_and_nothing_a_shell_runs(
    fire: Fire, tmp_path: Path, cwd: str, event: str, shop: Path
) -> None:
    done = fire(
        {
            "hook_event_name": event,
            "session_id": "s",
            "cwd": cwd,
            "new_cwd": cwd,
            "agent_id": cwd or "a",
            "agent_type": cwd,
            "worktree_path": cwd,
        }
    )
    # SQLite ends a text at its NUL, and what is left of this one is a directory.
    if event in ("SessionStart", "CwdChanged") and "\0" not in cwd:
        assert done.stderr.count(b"\n") == 1
    assert_only_the_line(tmp_path / "env-file")
    assert not (shop / "pwned").exists()
    assert not Path("pwned").exists()


def assert_only_the_line(file: Path) -> None:
    state = os.environ["ISOENV_STATE_DIR"]
    line = f"[ ! -r '{state}/bash-env.sh' ] || . '{state}/bash-env.sh'\n"
    assert not file.exists() or file.read_text() == line


@pytest.mark.parametrize(
    "given",
    [
        b"",
        b"\n",
        b"null",
        b"[]",
        b"{}",
        b'"text"',
        b"17",
        b'{"hook_event_name": "SessionStart"',
        b'{"hook_event_name": ["SessionStart"]}',
        b'{"hook_event_name": ""}',
        b'{"hook_event_name": "SessionStart", "session_id": {"a": 1}, "cwd": 7}',
        b'{"hook_event_name": "SubagentStart", "session_id": "s", "agent_id": null}',
        b"\xff\xfe{}",
        b"[" * 100_000,
        b'{"a":' * 5000,
        b'{"hook_event_name": "SessionStart", "cwd": "' + b"x" * (10 << 20) + b'"}',
        b"\0" * (10 << 20),
    ],
    ids=range(17),
)
def test_what_is_no_event_is_one_line(fire: Fire, tmp_path: Path, given: bytes) -> None:
    done = fire(given)
    assert done.stdout == b""
    assert done.stderr.startswith(b"isoenv: ")
    assert len(done.stderr) < 500
    assert_only_the_line(tmp_path / "env-file")
    assert not os.path.exists(paths.coordination_file(os.environ["ISOENV_STATE_DIR"]))


@pytest.mark.parametrize("name", ["a:b", "1", ".", "everyone", "x" * 300, "\n", "a/../b"])
def test_a_session_id_that_could_not_be_addressed_is_no_session(
    fire: Fire, shop: Path, name: str
) -> None:
    done = fire({"hook_event_name": "SessionStart", "session_id": name, "cwd": str(shop)})
    assert b"no name of a session" in done.stderr
    assert sessions() == {}


def test_an_event_that_is_not_known_is_nothing_to_speak_of(fire: Fire, shop: Path) -> None:
    done = fire({"hook_event_name": "Tomorrow", "session_id": "s", "cwd": str(shop)})
    assert (done.stdout, done.stderr) == (b"", b"")


def test_without_an_environment_file_the_session_is_registered_all_the_same(
    fire: Fire, shop: Path, tmp_path: Path
) -> None:
    event = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)}
    for value, said in ((None, b"CLAUDE_ENV_FILE is not set"), (str(tmp_path / "no/f"), b"cannot")):
        assert said in fire(event, {"CLAUDE_ENV_FILE": value}).stderr
        assert sessions() == {"s": (0, 0)}
    os.mkfifo(tmp_path / "pipe")
    assert b"no regular file" in fire(event, {"CLAUDE_ENV_FILE": str(tmp_path / "pipe")}).stderr


@pytest.fixture
def hold() -> Iterator[Callable[[str], None]]:
    """Lock a file as another process would, until the test ends."""
    descriptors: list[int] = []

    def hold(file: str) -> None:
        descriptors.append(os.open(file, os.O_RDWR | os.O_CREAT))
        fcntl.flock(descriptors[-1], fcntl.LOCK_EX)

    yield hold
    for descriptor in descriptors:
        os.close(descriptor)


@pytest.mark.parametrize("event", ["SessionStart", "SubagentStart", "SubagentStop", "SessionEnd"])
def test_no_event_waits_for_who_holds_a_lock(
    fire: Fire, shop: Path, hold: Callable[[str], None], event: str, isoenv: Isoenv
) -> None:
    state = os.environ["ISOENV_STATE_DIR"]
    fields = {"session_id": "s", "cwd": str(shop), "agent_id": "a1"}
    fire({"hook_event_name": "SubagentStart", **fields})
    isoenv("release", cwd=shop)
    hold(f"{paths.coordination_file(state)}.lock")
    hold(f"{paths.registry_file(state)}.lock")
    # Who waits as others do would wait for half a minute, twice: the line says how long it was.
    said = fire({"hook_event_name": event, **fields}).stderr
    assert b"0.35 s" in said or event == "SubagentStart"


def test_an_event_waits_for_a_lock_but_once(
    fire: Fire, shop: Path, hold: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fire({"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)})
    state = os.environ["ISOENV_STATE_DIR"]
    hold(f"{paths.coordination_file(state)}.lock")
    hold(f"{paths.registry_file(state)}.lock")
    waited, acquire = [], flock.acquire

    def counted(descriptor: int, timeout: float | None, *, shared: bool = False) -> bool:
        had = acquire(descriptor, timeout, shared=shared)
        waited.append(had)
        return had

    monkeypatch.setattr(flock, "acquire", counted)
    event = {"hook_event_name": "SessionStart", "session_id": "other", "cwd": str(shop)}
    environ = {**os.environ, "CLAUDE_PID": str(os.getpid())}
    assert "is locked" in str(
        claude_code.run(environ, json.dumps(event).encode(), lambda _text: None)
    )
    assert waited.count(False) == 1


@pytest.mark.parametrize("event", ["SessionStart", "SubagentStart", "SubagentStop", "SessionEnd"])
@pytest.mark.parametrize("broken", ["a file", "corrupt", "empty", "newer", "a pipe"])
def test_a_broken_state_directory_is_one_line(
    fire: Fire, shop: Path, event: str, broken: str
) -> None:
    state = Path(os.environ["ISOENV_STATE_DIR"])
    store, registry = Path(paths.coordination_file(str(state))), state / "registry.db"
    fields = {"session_id": "s", "cwd": str(shop), "agent_id": "a1"}
    fire({"hook_event_name": "SubagentStart", **fields})
    for file in (store, registry):
        for beside in (f"{file}-wal", f"{file}-shm"):
            Path(beside).unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        if broken == "corrupt":
            file.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        elif broken == "empty":
            file.write_bytes(b"no database")
        elif broken == "a pipe":
            os.mkfifo(file)
        elif broken == "newer":
            import sqlite3

            connection = sqlite3.connect(file)
            connection.execute("PRAGMA user_version = 99")
            connection.close()
    env = {"ISOENV_STATE_DIR": str(store)} if broken == "a file" else {}
    if broken == "a file":
        store.write_text("")
    assert fire({"hook_event_name": event, **fields}, env).stderr.count(b"\n") == 1


def test_an_event_with_nobody_to_read_it_ends_quietly(fire: Fire, shop: Path) -> None:
    event = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)}
    fire(event)
    argv = [sys.executable, "-m", "isoenv", "agent", "hook", "claude"]
    read, write = os.pipe()
    os.close(read)
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "CLAUDE_PID": str(os.getpid())}
    done = subprocess.run(
        argv,
        input=json.dumps(event).encode(),
        stdout=write,
        stderr=subprocess.PIPE,
        env=environ,
        check=False,
    )
    os.close(write)
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)


# --- Messages


def test_messages_reach_the_model_once(
    window: Callable[..., Claude], shop: Path, isoenv: Isoenv
) -> None:
    claude = window()
    isoenv("send", "5e551011", "before it began", cwd=shop)
    said = ok(claude.event("SessionStart", shop))
    assert "before it began" in said
    assert "before it began" not in ok(claude.event("UserPromptSubmit", shop))
    hostile = 'a "quoted"\nline\twith \u202e and $(id)'
    isoenv("send", "5e551011", hostile, cwd=shop)
    isoenv("send", "shop:0", "to all of the instance", cwd=shop)
    said = ok(claude.event("UserPromptSubmit", shop, prompt="go on"))
    assert hostile in said
    assert "to all of the instance" in said
    assert ok(claude.event("UserPromptSubmit", shop)) == ""


def test_messages_that_nobody_could_read_are_not_lost(
    fire: Fire, shop: Path, isoenv: Isoenv
) -> None:
    fire({"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)})
    isoenv("send", "s", "important", cwd=shop)
    event = {"hook_event_name": "UserPromptSubmit", "session_id": "s", "cwd": str(shop)}
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "isoenv", "agent", "hook", "claude"],
            input=json.dumps(event).encode(),
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT), "CLAUDE_PID": str(os.getpid())},
            check=False,
        )
    assert (done.returncode, done.stderr.count(b"\n")) == (0, 1)
    assert b"important" in fire(event).stdout


def test_a_message_too_long_for_a_context_waits_to_be_asked_for(
    fire: Fire, shop: Path, isoenv: Isoenv
) -> None:
    fire({"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)})
    isoenv("send", "s", "short", cwd=shop)
    isoenv("send", "s", "-", cwd=shop, text="x" * 20_000)
    event = {"hook_event_name": "UserPromptSubmit", "session_id": "s", "cwd": str(shop)}
    said = fire(event).stdout.decode()
    assert "short" in said
    assert len(said) < 10_000
    assert "`isoenv receive --session s`" in said
    assert isoenv("receive", "--session", "s", cwd=shop).stdout.count("x") >= 20_000


def test_a_command_of_the_agent_acts_as_its_session(
    window: Callable[..., Claude], shop: Path, isoenv: Isoenv
) -> None:
    claude, other = window("sender"), window("reader")
    for each in (claude, other):
        ok(each.event("SessionStart", shop))
    isoenv("send", "reader", "hello", cwd=shop, env={"CLAUDE_CODE_SESSION_ID": "sender"})
    assert "message from sender: hello" in ok(other.event("UserPromptSubmit", shop))
    assert sessions().keys() == {"sender", "reader"}
    # Outside any session that is registered it is as without.
    assert isoenv("send", "reader", "x", env={"CLAUDE_CODE_SESSION_ID": "gone"}).returncode == 0


# --- The limit


def test_one_agent_too_many_is_refused_with_the_reason(
    window: Callable[..., Claude], shop: Path, isoenv: Isoenv
) -> None:
    (shop / "isoenv.toml").write_text('project = "shop"\n[limits]\nagents = 3\n')
    isoenv("allow", cwd=shop)
    isoenv("agent", "install", "claude", "--yes", cwd=shop)
    claude, other = window("one"), window("two")
    ok(other.event("SessionStart", shop))
    ok(other.event("SubagentStart", shop, agent_id="theirs"))

    def ask(number: int) -> str | None:
        ((code, stdout, stderr),) = claude.event(
            "PreToolUse", shop, tool_name="Agent", tool_use_id=f"toolu_{number}"
        )
        assert (code, stderr) == (0, "")
        if not stdout:
            return None
        said = json.loads(stdout)["hookSpecificOutput"]
        assert said["permissionDecision"] == "deny"
        reason: str = said["permissionDecisionReason"]
        return reason

    # Asked in one breath, before the first has started.
    refused = [ask(number) for number in (1, 2, 3)]
    assert refused[:2] == [None, None]
    assert "3 agents are running" in str(refused[2])
    assert ask(1) is None
    ok(claude.event("SubagentStart", shop, agent_id="a1"))
    ok(claude.event("SubagentStart", shop, agent_id="a2"))
    assert agents() == 3
    assert ask(4) is not None
    assert claude.event("PreToolUse", shop, tool_name="Bash") == []
    other.kill()
    assert ask(5) is None


def test_places_are_taken_by_one_at_a_time(fire: Fire, shop: Path, isoenv: Isoenv) -> None:
    (shop / "isoenv.toml").write_text('project = "shop"\n[limits]\nagents = 4\n')
    isoenv("allow", cwd=shop)
    event = {"hook_event_name": "PreToolUse", "session_id": "s", "cwd": str(shop)}
    fire({**event, "hook_event_name": "SessionStart"})

    def ask(number: int) -> tuple[bytes, bytes]:
        done = fire({**event, "tool_name": "Task", "tool_use_id": f"t{number}"})
        return done.stdout, done.stderr

    with ThreadPoolExecutor(10) as pool:
        said = list(pool.map(ask, range(10)))
    # On a machine that has no time at all, one may give up waiting, and says so.
    assert [each for each in said if each == (b"", b"")] == [(b"", b"")] * 4
    assert agents() == 4


def test_a_limit_that_is_not_allowed_refuses_nobody(fire: Fire, shop: Path) -> None:
    (shop / "isoenv.toml").write_text('project = "shop"\n[limits]\nagents = 0\n')
    event = {"hook_event_name": "PreToolUse", "session_id": "s", "cwd": str(shop)}
    assert fire({**event, "tool_name": "Task"}).stdout == b""


# --- What it costs


def test_an_event_in_a_known_checkout_imports_only_what_it_needs(fire: Fire, shop: Path) -> None:
    event = {"hook_event_name": "SessionStart", "session_id": "s", "cwd": str(shop)}
    fire(event)
    fire(event)
    code = (
        "import os, sys\nfrom isoenv.agents import claude\n"
        f"given = {json.dumps(event).encode()!r}\n"
        "problem = claude.run(os.environ, given, lambda text: None)\n"
        "print(problem, *sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT), "CLAUDE_PID": str(os.getpid())}
    env["CLAUDE_ENV_FILE"] = str(shop.parent / "env-file")
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, check=True)
    problem, *modules = done.stdout.decode().split()
    assert problem == "None"
    costly = {"click", "rich", "git", "psutil", "json", "re", "dataclasses", "typing", "subprocess"}
    assert costly & set(modules) == set()
    assert "isoenv.registry" not in modules
