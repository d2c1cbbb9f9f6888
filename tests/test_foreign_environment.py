"""An environment that came from another checkout: every command knows it, and none uses it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from isoenv import context, entering, launch, paths
from isoenv.cli import COMMANDS, group, output
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from subprocess import CompletedProcess

    from conftest import Serving

    Isoenv = Callable[..., CompletedProcess[str]]

NOT_RUNNING = 3
ROOT = Path(__file__).resolve().parents[1]

SHOP = """
project = "shop"
[instance]
variable = "SHOP_SLOT"
[ports]
web = {web}
[dirs]
DATA_DIR = "data-{{id}}"
[flags]
MAILER = {{ main = true, others = false }}
[templates]
"out" = "in"
"""
MORE = """
[setup]
run = ["true"]
[services.infra]
start = "true"
stop = "true"
[services.api]
start = "true"
stop = "true"
[databases.main]
url = "sqlite:///{dirs.DATA_DIR}/main.db"
"""


@pytest.fixture
def places(
    repo: Path,
    worktree: Callable[[Path, str], Path],
    git: Callable[..., str],
    isoenv: Isoenv,
    free_port: Callable[[], int],
) -> tuple[Path, Path, int, dict[str, str]]:
    """A main checkout, a linked worktree, the port of the first, and what is loaded in it."""
    web = free_port()
    (repo / "isoenv.toml").write_text(SHOP.format(web=web))
    (repo / "in").write_text("$WEB_PORT\n")
    git(repo, "add", "--all")
    git(repo, "commit", "-q", "-m", "isoenv")
    assert isoenv("allow", cwd=repo).returncode == 0
    other = worktree(repo, "other")
    before = set(isoenv("exec", ".", "env", "-0", cwd=other).stdout.split("\0"))
    assert before
    printed = isoenv("exec", ".", "env", "-0", cwd=repo).stdout.split("\0")
    pairs = dict(pair.split("=", 1) for pair in printed if "=" in pair)
    loaded = {name: value for name, value in pairs.items() if os.environ.get(name) != value}
    assert loaded["WEB_PORT"] == str(web)
    return repo, other, web, loaded


@pytest.mark.parametrize(
    ("words", "expected"),
    {
        ("show", "--format", "dotenv"): "WEB_PORT={port}",
        ("port", "web"): "{port}",
        ("path", "x"): "/1/x",
        ("export", "bash"): "export WEB_PORT='{port}'",
        ("export", "bash", "--no-diff"): "export WEB_PORT='{port}'",
        ("export", "fish"): "WEB_PORT '{port}'",
        ("exec", ".", "printenv", "WEB_PORT"): "{port}",
        ("exec", ".", "printenv", "DATA_DIR"): "data-1",
        ("exec", ".", "printenv", "MAILER"): "false",
        ("exec", ".", "printenv", "ISOENV_NAME"): "other",
        ("list", "--json"): '"slot": 1',
    }.items(),
    ids=" ".join,
)
def test_no_command_uses_the_environment_of_another_checkout(
    places: tuple[Path, Path, int, dict[str, str]],
    isoenv: Isoenv,
    words: tuple[str, ...],
    expected: str,
) -> None:
    _, other, web, loaded = places
    done = isoenv(*words, cwd=other, env=loaded)
    assert done.returncode == 0, done.stderr
    assert expected.format(port=web + 1000) in done.stdout
    installed = Path(sys.executable).with_name("isoenv")
    environ = {**os.environ, **loaded}
    again = subprocess.run(
        [installed, *words], cwd=other, env=environ, capture_output=True, check=True
    )
    assert expected.format(port=web + 1000) in again.stdout.decode()


def test_templates_and_sessions_are_of_the_directory(
    places: tuple[Path, Path, int, dict[str, str]], isoenv: Isoenv
) -> None:
    _, other, web, loaded = places
    assert isoenv("render", cwd=other, env=loaded).returncode == 0
    assert (other / "out").read_text() == f"{web + 1000}\n"
    pid = str(os.getpid())
    assert isoenv("session", "start", "--pid", pid, cwd=other, env=loaded).returncode == 0
    (found,) = json.loads(isoenv("session", "list", "--json", cwd=other).stdout)["sessions"]
    assert (found["project"], found["slot"]) == ("shop", 1)


def test_a_flag_is_turned_on_in_the_directory_alone(
    places: tuple[Path, Path, int, dict[str, str]], isoenv: Isoenv
) -> None:
    repo, other, _, loaded = places
    assert isoenv("disable", "MAILER", cwd=repo).returncode == 0
    assert isoenv("enable", "MAILER", cwd=other, env=loaded).returncode == 0
    states = [
        isoenv("exec", ".", "printenv", "MAILER", cwd=place).stdout for place in (repo, other)
    ]
    assert states == ["false\n", "true\n"]


# Each command that the directory decides about, and beside it some that say what they mean.
TOLD = {
    "allow": ("allow",),
    "deny": ("deny",),
    "up": ("up", "up --enable MAILER", "up infra"),
    "down": ("down",),
    "restart": ("restart infra",),
    "ps": ("ps", "ps --json"),
    "logs": ("logs",),
    "api": ("api start", "api status", "api status --json", "api logs", "api stop", "api restart"),
    "setup": ("setup",),
    "list": ("list", "list --json"),
    "show": ("show", "show --json"),
    "port": ("port web",),
    "path": ("path", "path x"),
    "claim": ("claim", "claim 7"),
    "release": ("release",),
    "enable": ("enable MAILER",),
    "disable": ("disable MAILER",),
    "init": ("init --dry-run",),
    "check": ("check", "check --json"),
    "render": ("render",),
    "db": (
        *("db create", "db list", "db list --json", "db reset", "db drop"),
        *("db freeze main", "db refresh main"),
    ),
    "lock": ("lock run x true", "lock acquire x", "lock release x"),
    "session": ("session start",),
    "send": ("send nobody hello",),
    "receive": ("receive --peek", "receive --json"),
    "metrics": ("metrics set n 1", "metrics add n 1", "metrics show", "metrics show --json"),
    "agent": ("agent install claude --yes", "agent uninstall claude --yes"),
}
SILENT = {
    "hook": ("hook bash", "hook zsh --env"),
    "direnv": ("direnv install", "direnv uninstall"),
    "agent": (
        *("agent hook claude", "agent env other", "agent rules"),
        *("agent install claude --user --yes", "agent uninstall claude --user --yes"),
    ),
    "export": ("export bash", "export fish --no-diff", "export bash 1", "export sh --hook"),
    "exec": ("exec . true", "exec 1 true", "exec --cd . true", "exec --session s . true"),
    "up": ("up 1",),
    "ps": ("ps 1", "ps . infra"),
    "api": ("api 1 status", "api . status --json"),
    "list": ("list --all",),
    "show": ("show 1", "show other"),
    "port": ("port web 1", "port web .", "-C . port web"),
    "check": ("check isoenv.toml",),
    "schema": ("schema",),
    "lock": ("lock list", "lock run --global x true"),
    "session": (
        *("session list", "session heartbeat --session s", "session state IDLE --session s"),
        *("session path f --session s", "session end --session s"),
    ),
    "send": ("send nobody hello --session s",),
    "metrics": ("metrics show --instance 1",),
    "statusline": ("statusline", "statusline --project", "statusline --segment agents"),
    "prune": ("prune", "prune --dry-run"),
    "doctor": ("doctor",),
    "on": ("on",),
    "off": ("off",),
    "reload": ("reload",),
    "completion": ("completion bash",),
}


def leaves(of: click.Group, *above: str) -> Iterator[str]:
    """Name each command that does something: `db` has others below it."""
    context = click.Context(of)
    for name in of.list_commands(context):
        found = of.get_command(context, name)
        if isinstance(found, click.Group):
            yield from leaves(found, *above, name)
        else:
            yield " ".join((*above, name))


def test_it_is_decided_for_each_command_whether_it_tells() -> None:
    lines = [line for table in (TOLD, SILENT) for lines in table.values() for line in lines]
    found = set(leaves(group))
    assert found == set(leaves(group)), "each command is imported by now"
    for leaf in found:
        assert any(f"{line} ".startswith(f"{leaf} ") for line in lines), leaf


@pytest.fixture
def inherited(
    repo: Path, linked: Callable[[Path, str], Path], allow: Callable[[Path], None]
) -> tuple[Path, Path, dict[str, str]]:
    """Two checkouts, and the environment of the first one."""
    (repo / "isoenv.toml").write_text(SHOP.format(web=4100) + MORE)
    (repo / "in").write_text("$WEB_PORT\n")
    other = linked(repo, "other")
    allow(repo)
    for place in (other, repo):
        caller = context.Caller(str(place), os.environ)
        with entering.open_registry(caller) as registry:
            _, ready = entering.enter(caller, registry, None)
    found = launch.environment(os.environ, ready)
    assert (found["ISOENV_ROOT"], found["WEB_PORT"]) == (str(repo), "4100")
    return repo, other, {name: found[name] for name in found if found[name] != os.environ.get(name)}


def notes(done: CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "this environment is that of" in line]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_tells_once_or_never(
    inherited: tuple[Path, Path, dict[str, str]], isoenv: Isoenv, name: str
) -> None:
    repo, other, loaded = inherited
    before = leases(repo)
    note = (
        f"isoenv: this environment is that of shop:0 in {output.clean(str(repo))}, and this is "
        f"{output.clean(str(other))}: isoenv does not use it, other programs do: "
        "`isoenv exec . CMD`"
    )
    if name == "session":
        isoenv("session", "start", "--name", "s", "--pid", str(os.getpid()), cwd=other)
    for line in TOLD.get(name, ()):
        done = isoenv(*line.split(), cwd=other, env=loaded, trusted=False)
        assert notes(done) == [note], (line, done.stderr)
        assert "this environment" not in done.stdout
        if "--json" in line:
            assert json.loads(done.stdout)["version"] == 1
    for line in SILENT.get(name, ()):
        done = isoenv(*line.split(), cwd=other, env=loaded, trusted=False)
        assert notes(done) == [], (line, done.stderr)
    after = leases(repo)
    assert after[0] == before[0], "the other checkout's own is as it was"


def leases(place: Path) -> list[tuple[str | None, int, str, Mapping[str, int]]]:
    with Registry(paths.state_dir(os.environ)) as registry:
        found = registry.leases(context.find(context.Caller(str(place), os.environ)).project)
    return [(lease.root, lease.slot, lease.name, lease.ports) for lease in found]


@pytest.mark.parametrize(
    "case",
    ["own", "below", "outside", "pinned", "quiet", "asked", "in .env", "same directory", "nothing"],
)
def test_nothing_is_said_of_an_environment_that_is_right(  # noqa: PLR0913, PLR0917  # fixtures
    inherited: tuple[Path, Path, dict[str, str]],
    isoenv: Isoenv,
    tmp_path: Path,
    home: Path,
    case: str,
    make_repo: Callable[[str], Path],
) -> None:
    repo, other, loaded = inherited
    place, env = other, dict(loaded)
    if case in {"own", "below"}:
        place = repo / "below" if case == "below" else repo
        place.mkdir(exist_ok=True)
    elif case == "outside":
        place = home
    elif case == "pinned":
        env |= {"__ISOENV_PIN": "0:shop"}
    elif case == "quiet":
        env |= {"ISOENV_LOG": "quiet"}
    elif case in {"asked", "in .env"}:
        # What the user has asked for here is that very instance.
        asked = {"SHOP_SLOT": "0"} if case == "asked" else {}
        if case == "in .env":
            (other / ".env").write_text("SHOP_SLOT=0\n")
        done = isoenv("exec", ".", "env", "-0", cwd=other, env=asked)
        pairs = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
        env = {name: pairs[name] for name in pairs if name.startswith(("ISOENV_", "__ISOENV_"))}
        env |= asked
        assert (env["ISOENV_ROOT"], env["ISOENV_INSTANCE"]) == (str(repo), "0")
    elif case == "same directory":
        link = tmp_path / "link"
        link.symlink_to(other)
        env = dict(loaded) | {"ISOENV_ROOT": str(link)}
    else:
        env, place = {}, make_repo("bare")
    done = isoenv("port", "web", cwd=place, env=env)
    assert notes(done) == [], done.stderr
    if case not in {"outside", "nothing"}:
        is_first = case in {"own", "below", "pinned", "asked", "in .env"}
        assert done.stdout == ("4100\n" if is_first else "5100\n")


def test_a_worktree_inside_the_checkout_that_the_environment_is_of_is_another_place(
    inherited: tuple[Path, Path, dict[str, str]], isoenv: Isoenv, git: Callable[..., str]
) -> None:
    repo, _, loaded = inherited
    git(repo, "worktree", "add", "--quiet", "--detach", ".claude/worktrees/a")
    inner = repo / ".claude/worktrees/a"
    done = isoenv("port", "web", cwd=inner, env=loaded)
    assert (done.stdout, len(notes(done))) == ("6100\n", 1)
    pid = str(os.getpid())
    assert notes(isoenv("session", "start", "--pid", pid, cwd=inner, env=loaded))
    (found,) = json.loads(isoenv("session", "list", "--json", cwd=inner).stdout)["sessions"]
    assert (found["project"], found["slot"], found["instance"]) == ("shop", 2, "a")


def test_a_checkout_that_was_moved_is_told_and_keeps_its_ports(
    inherited: tuple[Path, Path, dict[str, str]], isoenv: Isoenv, git: Callable[..., str]
) -> None:
    repo, other, _ = inherited
    done = isoenv("exec", ".", "env", "-0", cwd=other)
    pairs = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    moved = other.with_name("moved")
    git(repo, "worktree", "move", str(other), str(moved))
    done = isoenv("port", "web", cwd=moved, env=pairs)
    assert done.stdout == "5100\n"
    [note] = notes(done)
    assert f"shop:1 in {output.clean(str(other))}, which is gone, and this is" in note
    env = {"ISOENV_LOG": "quiet"}
    assert isoenv("path", "x", cwd=moved, env=pairs | env).stderr == ""
    # Outside of any checkout there is no other one to go by, and that one is nobody's.
    pid = str(os.getpid())
    done = isoenv("session", "start", "--pid", pid, cwd=moved.parent.parent, env=pairs)
    [note] = notes(done)
    assert note.endswith("`isoenv list --all` shows those that are")
    (found,) = json.loads(isoenv("session", "list", "--json", cwd=moved).stdout)["sessions"]
    assert found["project"] is None


def test_what_was_loaded_without_a_record_is_not_taken_for_the_users_own_slot(
    inherited: tuple[Path, Path, dict[str, str]], isoenv: Isoenv
) -> None:
    repo, other, _ = inherited
    printed = isoenv("show", "--format", "dotenv", cwd=other).stdout
    script = 'set -a; eval "$1"; shift; exec "$@"'
    command = [sys.executable, "-m", "isoenv"]
    for words, expected in (
        (("port", "web"), "4100\n"),
        (("exec", ".", "printenv", "WEB_PORT"), "4100\n"),
    ):
        done = subprocess.run(
            ["bash", "-c", script, "bash", printed, *command, *words],
            cwd=repo,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            check=True,
            text=True,
        )
        assert done.stdout == expected
        assert len(notes(done)) == (words[0] == "port")


def test_a_pin_of_another_project_says_nothing_of_an_instance_of_the_same_number(
    inherited: tuple[Path, Path, dict[str, str]], isoenv: Isoenv, make_repo: Callable[[str], Path]
) -> None:
    assert inherited
    blog = make_repo("blog")
    (blog / "isoenv.toml").write_text('project = "blog"\n')
    assert isoenv("claim", "3", cwd=blog).returncode == 0
    done = isoenv("exec", ".", "env", "-0", cwd=blog)
    pairs = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    env = pairs | {"__ISOENV_PIN": "3:shop"}
    pid = str(os.getpid())
    assert isoenv("session", "start", "--pid", pid, cwd=blog, env=env).returncode == 0
    (found,) = json.loads(isoenv("list", "--json", cwd=blog).stdout)["instances"]
    assert (found["slot"], found["sessions"]) == (3, 1)


def test_the_quick_answer_about_a_service_tells_it_too(
    serving: Serving, linked: Callable[[Path, str], Path], isoenv: Isoenv
) -> None:
    serving.configure('[services.api]\nrun = "exec sleep 1000"')
    other = linked(serving.root, "other")
    done = isoenv("exec", ".", "env", "-0", cwd=serving.root)
    pairs = dict(pair.split("=", 1) for pair in done.stdout.split("\0") if "=" in pair)
    assert isoenv("api", "start", cwd=other).returncode == 0
    for env, expected in (({}, 0), (pairs, 1)):
        done = isoenv("api", "status", cwd=other, env=env)
        assert (done.returncode, len(notes(done))) == (0, expected)
    assert isoenv("api", "status", cwd=serving.root, env=pairs).returncode == NOT_RUNNING
    assert isoenv("api", "stop", cwd=other).returncode == 0


def test_a_lock_is_shown_with_the_instance_of_the_directory(
    inherited: tuple[Path, Path, dict[str, str]], isoenv: Isoenv
) -> None:
    repo, other, loaded = inherited
    listed = f"{shlex.quote(sys.executable)} -m isoenv lock list --json"
    for place, expected in ((other, "shop:1"), (repo, "shop:0")):
        done = isoenv("lock", "run", "x", "sh", "-c", listed, cwd=place, env=loaded)
        [lock] = json.loads(done.stdout)["locks"]
        assert [holder["instance"] for holder in lock["holders"]] == [expected]


def test_doctor_says_from_where_it_came(
    places: tuple[Path, Path, int, dict[str, str]], isoenv: Isoenv
) -> None:
    repo, other, _, loaded = places
    found = json.loads(isoenv("doctor", "--json", cwd=other, env=loaded).stdout)["doctor"]
    (said,) = [each for each in found if each["kind"] == "foreign-environment"]
    assert str(repo) in said["message"]
    assert str(other) in said["message"]
    found = json.loads(isoenv("doctor", "--json", cwd=repo, env=loaded).stdout)["doctor"]
    assert not [each for each in found if each["kind"] == "foreign-environment"]
