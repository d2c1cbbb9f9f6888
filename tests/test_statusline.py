"""The status line: four forms to the letter, from the store and from what an agent says."""

from __future__ import annotations

import json
import os
import pty
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import Session, format_status
from isoenv.coordination import glance, statusline

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.coordination.store import Store

    Isoenv = Callable[..., subprocess.CompletedProcess[str]]
    Python = Callable[..., subprocess.Popen[str]]

SEED = {
    "current_agents": 25,
    "total_agents": 145,
    "instance_count": 5,
    "tokens_used": 15000,
    "tokens_total": 200000,
    "confidence": 99.2,
    "status": "🟢 OPTIMAL",
}
FULL = "Agents: 25/145 (5) | Tokens: 15k/200k (7.5%) | Conf: 99.2% | Status: 🟢 OPTIMAL"
COMPACT = "A:25/145(5) T:7.5% C:99.2%"
JSON = """\
{
  "agents": {
    "current": 25,
    "total": 145,
    "instance_count": 5
  },
  "tokens": {
    "used": 15000,
    "total": 200000,
    "percentage": 7.5
  },
  "confidence": 99.2,
  "status": "🟢 OPTIMAL"
}"""
SHARED = "Agents: 145 | Tokens: 15k/200k (7.5%) | Conf: 99.2% | Status: 🟢 OPTIMAL"

# What Claude Code gives, with some of what is of no use here.
CLAUDE = {
    "cwd": "/srv/shop",
    "session_id": "f3c1",
    "model": {"id": "claude-opus", "display_name": "Opus"},
    "workspace": {"current_dir": "/srv/shop", "added_dirs": [], "git_worktree": "search"},
    "cost": {"total_cost_usd": 1.234, "total_lines_added": 3},
    "context_window": {
        "total_input_tokens": 15500,
        "context_window_size": 200000,
        "used_percentage": 8,
        "current_usage": {
            "input_tokens": 9000,
            "output_tokens": 500,
            "cache_creation_input_tokens": 5000,
            "cache_read_input_tokens": 1000,
        },
    },
    "rate_limits": None,
}
OF_CLAUDE = "Tokens: 15k/200k (7.5%) | Status: 🟢 OPTIMAL | Model: Opus | Cost: $1.23"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no checkout, so that no project is found."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def five() -> Iterator[Session]:
    """Return the first of five sessions with the seed's numbers."""
    opened = [Session(f"window{number}") for number in range(1, 6)]
    for session, agents in zip(opened, (25, 35, 25, 35, 25), strict=True):
        session.metrics.set("agents", agents)
    for name in ("tokens_used", "tokens_total", "confidence"):
        opened[0].metrics.set(name, float(str(SEED[name])))
    yield opened[0]
    for session in opened:
        session.end()


def shown(isoenv: Isoenv, *words: str, text: str = "", session: str = "window1") -> str:
    done = isoenv("statusline", *words, env={"ISOENV_SESSION": session}, text=text)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.removesuffix("\n")


# -- the forms --------------------------------------------------------------------------------


def test_the_four_forms_are_the_seeds_to_the_letter() -> None:
    assert format_status(**SEED) == FULL  # type: ignore[arg-type]
    assert format_status(**SEED, style="compact") == COMPACT  # type: ignore[arg-type]
    assert format_status(**SEED, style="json") == JSON  # type: ignore[arg-type]
    assert format_status(**SEED, shared=True) == SHARED  # type: ignore[arg-type]
    assert format_status(**SEED, shared=True, style="compact") == "A:145 T:7.5% C:99.2%"  # type: ignore[arg-type]
    found = json.loads(format_status(**SEED, shared=True, style="json"))  # type: ignore[arg-type]
    assert found["agents"] == {"total": 145}


def test_what_is_missing_is_left_out() -> None:
    assert format_status() == format_status(style="compact") == ""
    assert format_status(style="json") == "{}"
    assert format_status(current_agents=3) == "Agents: 3"
    assert format_status(tokens_used=1500, status="x") == "Tokens: 1.5k | Status: x"
    assert format_status(tokens_total=200000) == ""
    assert format_status(cost=0.0, worktree="w") == "Cost: $0.00 | Worktree: w"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        *((0, "0"), (999, "999"), (1000, "1k"), (1500, "1.5k"), (9940, "9.9k"), (15000, "15k")),
        *((15400, "15k"), (999_499, "999k"), (999_500, "1M"), (1_250_000, "1.2M"), (2e7, "20M")),
    ],
)
def test_tokens_are_short(tokens: float, text: str) -> None:
    assert format_status(tokens_used=tokens) == f"Tokens: {text}"


@pytest.mark.parametrize(
    ("used", "status"),
    [
        *((0, statusline.OPTIMAL), (79.9, statusline.OPTIMAL), (80, statusline.HIGH)),
        *((94.9, statusline.HIGH), (95, statusline.CRITICAL), (120, statusline.CRITICAL)),
    ],
)
def test_the_status_follows_from_how_full_the_window_is(used: float, status: str) -> None:
    assert statusline.judged({"tokens_used": used, "tokens_total": 100}) == status
    assert statusline.judged({"percentage": used}) == status
    assert statusline.judged({}) == statusline.OPTIMAL


# -- the command ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "expected"),
    [([], FULL), (["--compact"], COMPACT), (["--json"], JSON), (["--shared"], SHARED)],
)
def test_the_command_prints_the_forms_from_the_store(
    five: Session, isoenv: Isoenv, words: list[str], expected: str
) -> None:
    assert shown(isoenv, *words, session=five.id) == expected
    # The way with click, which other options take, is the same.
    assert shown(isoenv, *words, "--wrap", "true") == expected


def test_other_sessions_see_the_same_totals(five: Session, isoenv: Isoenv) -> None:
    five.agent_started("a")
    assert shown(isoenv, "--compact", session="window2") == "A:35/146(5)"
    assert shown(isoenv, "--compact", session="nobody") == "A:0/146(5)"
    assert shown(isoenv, "--compact", "--session=window3", session="") == "A:25/146(5)"


def test_the_dead_are_not_counted(five: Session, isoenv: Isoenv, python: Python) -> None:
    code = "from isoenv import Session; Session().metrics.set('agents', 7); print(); input()"
    dying = python(code)
    assert dying.stdout is not None
    dying.stdout.readline()
    assert shown(isoenv, "--compact", session=five.id) == "A:25/152(6) T:7.5% C:99.2%"
    dying.kill()
    dying.wait()
    assert shown(isoenv, "--compact", session=five.id) == COMPACT


@pytest.mark.usefixtures("five")
def test_parts_and_templates(isoenv: Isoenv) -> None:
    assert shown(isoenv, "--segment", "tokens") == "Tokens: 15k/200k (7.5%)"
    assert shown(isoenv, "--segment", "agents", "--shared") == "Agents: 145"
    assert shown(isoenv, "--segment", "model") == ""
    every = "{agents} {total} {sessions} {tokens_used} {tokens_total} {percentage} {confidence}"
    expected = "25 145 5 15k 200k 7.5 99.2 🟢 OPTIMAL [] {}"
    for way in (["--format", f"{every} {{status}} [{{model}}{{cost}}{{worktree}}] {{{{}}}}"],):
        assert shown(isoenv, *way) == expected
        assert shown(isoenv, f"{way[0]}={way[1]}") == expected
    for template in ("{nothing}", "{", "{}"):
        done = isoenv("statusline", "--format", template)
        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.startswith("isoenv: --format")
    assert isoenv("statusline", "--compact", "--json").returncode == 2


def test_another_status_line_is_kept(five: Session, isoenv: Isoenv) -> None:
    given = json.dumps(CLAUDE)
    expected = f"Agents: 25/145 (5) | {OF_CLAUDE.replace('Status', 'Conf: 99.2% | Status')}"
    expected += " | Worktree: search"
    assert shown(isoenv, "--wrap", "cat", text=given) == f"{given}\n{expected}"
    assert shown(isoenv, "--wrap", "printf '%s\\n' a b") == f"a\nb\n{FULL}"
    assert shown(isoenv, "--wrap", "exit 3", session=five.id) == FULL


def test_the_project_is_that_of_the_session(
    isoenv: Isoenv, repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (repo / "isoenv.toml").write_text('project = "shop"\n')
    with Session("outside") as outside:
        outside.metrics.set("agents", 1)
        monkeypatch.chdir(repo)
        with Session("inside") as inside:
            inside.metrics.set("agents", 2)
            assert shown(isoenv, "--compact", session="inside") == "A:2/3(2)"
            assert shown(isoenv, "--compact", "--project", session="inside") == "A:2/2(1)"
            assert shown(isoenv, "--compact", "--project", session="") == "A:0/2(1)"
            monkeypatch.chdir(repo.parent)
            assert shown(isoenv, "--compact", "--project", session="") == "A:0/0(0)"


def test_without_a_store_none_is_made(isoenv: Isoenv, tmp_path: Path) -> None:
    assert shown(isoenv, session="") == "Agents: 0/0 (0) | Status: 🟢 OPTIMAL"
    assert not (tmp_path / "state").exists()


# -- what an agent says -----------------------------------------------------------------------


def test_the_json_of_claude_code_fills_the_line(isoenv: Isoenv) -> None:
    with Session("f3c1") as me:
        me.metrics.set("agents", 4)
        me.metrics.set("tokens_used", 1)
        line = shown(isoenv, text=json.dumps(CLAUDE), session="")
        assert line == f"Agents: 4/4 (1) | {OF_CLAUDE} | Worktree: search"
        found = json.loads(shown(isoenv, "--json", text=json.dumps(CLAUDE), session=""))
        assert found["tokens"] == {"used": 15000, "total": 200000, "percentage": 7.5}
        assert (found["model"], found["cost"], found["worktree"]) == ("Opus", 1.234, "search")


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        (
            {"context_window_size": 200000, "used_percentage": 7.5, "current_usage": None},
            "Tokens: 15k/200k (7.5%)",
        ),
        ({"used_percentage": 8}, "Tokens: 8.0%"),
        ({"context_window_size": 200000, "total_input_tokens": 300}, "Tokens: 300/200k (0.1%)"),
        ({"context_window_size": 200000, "used_percentage": None}, ""),
        ({"used_percentage": "8", "context_window_size": [1]}, ""),
        ({"used_percentage": 1e400}, ""),
        (None, ""),
        (7, ""),
    ],
)
def test_what_is_missing_or_null_or_wrong_is_left_out(window: object, expected: str) -> None:
    given = json.dumps({"context_window": window, "model": None}).encode()
    assert glance.line(dict(os.environ), given, segment="tokens") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " \n", "{", '{"model": {"display_name": "Opus"}', "null", "[]", "7", '"x"', "\xff"),
        *('{"a": ' * 3000, "{}" * 2, '{"model": {"display_name": 7}, "session_id": {}}'),
    ],
)
def test_what_is_no_json_leaves_the_line_of_the_store(
    five: Session, isoenv: Isoenv, text: str
) -> None:
    assert shown(isoenv, text=text, session=five.id) == FULL


def test_what_an_agent_says_cannot_break_the_line() -> None:
    given = json.dumps({"model": {"display_name": "a\x1b[31m\nb\u202e"}}).encode()
    assert glance.line(dict(os.environ), given, segment="model") == "Model: a[31mb"


@pytest.mark.parametrize("kind", ["pipe", "begun", "whole", "socket", "terminal", "closed", "zero"])
def test_it_never_waits_for_input(five: Session, isoenv: Isoenv, kind: str) -> None:
    """Each input stays open, and would be waited for for ever."""
    assert isoenv
    command = [sys.executable, "-m", "isoenv", "statusline", "--session", five.id]
    if kind == "terminal":
        writing, reading = pty.openpty()
    elif kind == "zero":
        reading, writing = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/null", os.O_RDONLY)
    elif kind == "socket":
        reading, writing = (end.detach() for end in socket.socketpair())
    else:
        reading, writing = os.pipe()
    if kind in ("begun", "whole"):
        os.write(writing, b'{"model": {"display_name": "Opus"}' + b"}" * (kind == "whole"))
    if kind == "closed":
        command = ["sh", "-c", '"$@" <&-', "sh", *command]
    done = subprocess.run(
        command,
        stdin=reading,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])},
        timeout=120,
        check=True,
    )
    os.close(reading)
    os.close(writing)
    expected = f"{FULL} | Model: Opus" if kind == "whole" else FULL
    assert done.stdout.decode() == f"{expected}\n"


def test_a_slow_agent_is_waited_for_a_little() -> None:
    content = json.dumps(CLAUDE)
    code = "import sys, time; print(flush=True); time.sleep(0.01); sys.stdout.write(sys.argv[1])"
    with subprocess.Popen(
        [sys.executable, "-Ic", code, content], stdout=subprocess.PIPE, bufsize=0
    ) as slow:
        assert slow.stdout is not None
        slow.stdout.read(1)
        assert glance.read_input(slow.stdout.fileno()) == content.encode()


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_nothing_is_imported_that_costs(five: Session, store: Store) -> None:
    code = """
import os, sys
sys.argv = ["isoenv", "statusline"]
os._exit = lambda status: None
from isoenv import __main__
__main__._run = lambda: None
__main__.main()
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ISOENV_SESSION": five.id, "PYTHONPATH": str(Path(store.state).parent)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
    )
    line, modules = done.stdout.splitlines()
    assert line == FULL
    costly = {"click", "rich", "git", "psutil", "subprocess", "json", "re", "dataclasses", "enum"}
    costly |= {"typing", "threading", "socket", "contextlib", "isoenv.process", "isoenv.registry"}
    assert costly & set(modules.split()) == set()
