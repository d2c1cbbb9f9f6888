"""`isoenv agent install` and `uninstall`: what is not isoenv's stays as it is, byte for byte."""

from __future__ import annotations

import json
import os
import re
import resource
import stat
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoenv.agents import edits, jsonc, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]

WANTED = settings.Wanted("/s/bash-env.sh", "/b/isoenv agent hook claude", "/b/isoenv statusline")

COMMENTED = """\
{
\t// What I like.
\t"model": "opus", /* for now */
\t"env": {"EDITOR": "ed"}, // one line
\t"hooks": {
\t\t"SessionStart": [
\t\t\t{"hooks": [{"type": "command", "command": "mine"}]} // first
\t\t],
\t},
\t"permissions": {
\t\t"allow": ["Bash(ls:*)", "Bash(é🚒)"]
\t}
\t// The end.
}
"""

# Texts as people and programs write them: uninstalling gives each back to the byte.
TEXTS = {
    "by a program": '{\n  "model": "opus",\n  "permissions": {\n    "allow": []\n  }\n}\n',
    "no newline at the end": '{\n    "model": "opus"\n}',
    "one line": '{"model": "opus", "env": {"A": "1"}}',
    "with comments": COMMENTED,
    "of Windows": '{\r\n  "model": "opus",\r\n  "env": {\r\n    "A": "1"\r\n  }\r\n}\r\n',
    "a byte order mark": '\ufeff{\n  "model": "opus"\n}\n',
    "nothing in it": "{}\n",
    "nothing on two lines": "{\n}\n",
    "empty containers": '{"env": {}, "hooks": {"SessionStart": []}}\n',
    "a comment alone": "{\n  // later\n}\n",
    "no byte": "",
    "a trailing comma": '{\n  "model": "opus",\n}\n',
    "a comment behind": '{ "model": "opus" // note\n}\n',
}

each_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)


def stripped(text: str) -> object:
    """What a JSON text with comments says."""
    return jsonc.parse(text.removeprefix("\ufeff")).value


@pytest.fixture
def local(repo: Path) -> Path:
    """The settings that are a checkout's own."""
    (repo / ".claude").mkdir()
    return repo / ".claude/settings.local.json"


@pytest.fixture
def user(home: Path) -> Path:
    """The settings of the user."""
    (home / ".claude").mkdir()
    return home / ".claude/settings.json"


@pytest.fixture
def agent(isoenv: Isoenv, repo: Path) -> Isoenv:
    """Run `isoenv agent …` in the repository."""

    def agent(*words: str, code: int = 0, env: Mapping[str, str] | None = None) -> str:
        done = isoenv("agent", *words, cwd=repo, env=env)
        assert done.returncode == code, done.stderr
        return done.stderr

    return agent


def hooks_of(file: Path) -> dict[str, list[str]]:
    found = stripped(file.read_text())["hooks"]
    return {
        event: [hook["command"] for group in groups for hook in group["hooks"]]
        for event, groups in found.items()
    }


# --- What is put in


def test_install_puts_in_all_that_claude_code_needs(agent: Isoenv, local: Path) -> None:
    agent("install", "claude", "--yes")
    found = json.loads(local.read_text())
    state = os.environ["ISOENV_STATE_DIR"]
    assert found["env"] == {"BASH_ENV": f"{state}/bash-env.sh"}
    (command,) = {command for commands in hooks_of(local).values() for command in commands}
    assert re.fullmatch(r"/.*/isoenv agent hook claude", command)
    assert sorted(found["hooks"]) == [
        *("CwdChanged", "SessionEnd", "SessionStart", "SubagentStart", "SubagentStop"),
        "UserPromptSubmit",
    ]
    assert found["statusLine"]["command"] == command.replace("agent hook claude", "statusline")
    printed = subprocess.run(
        ["bash", "-c", "true"], env={**os.environ, **found["env"]}, capture_output=True, check=True
    )
    assert printed.stderr == b""
    assert "for shells without a prompt" in Path(state, "bash-env.sh").read_text()


def test_a_refusal_of_tools_is_asked_for_where_there_is_a_limit(
    agent: Isoenv, local: Path, repo: Path
) -> None:
    (repo / "isoenv.toml").write_text("[limits]\nagents = 2\n")
    agent("install", "claude", "--yes")
    assert json.loads(local.read_text())["hooks"]["PreToolUse"][0]["matcher"] == "Task|Agent"
    (repo / "isoenv.toml").unlink()
    agent("install", "claude", "--yes")
    assert "PreToolUse" not in hooks_of(local)


def test_shared_settings_hold_no_path_of_this_machine(
    agent: Isoenv, repo: Path, home: Path, isoenv: Isoenv
) -> None:
    agent("install", "claude", "--shared", "--yes")
    text = (repo / ".claude/settings.json").read_text()
    assert str(home) not in text
    assert sys.prefix not in text
    assert os.environ["ISOENV_STATE_DIR"] not in text
    (repo / "isoenv.toml").write_text('project = "shop"\n[ports]\nweb = 8000\n')
    isoenv("allow", cwd=repo)
    env = json.loads(text)["env"]
    shell = ["bash", "-c", "echo $WEB_PORT"]
    done = subprocess.run(
        shell, cwd=repo, env={**os.environ, **env}, capture_output=True, check=True
    )
    assert done.stdout == b"8000\n"
    # Who has no isoenv is not bothered by it.
    for command in {
        each for commands in hooks_of(repo / ".claude/settings.json").values() for each in commands
    }:
        done = subprocess.run(
            ["sh", "-c", command], env={"PATH": "/usr/bin:/bin"}, capture_output=True, check=True
        )
        assert (done.stdout, done.stderr) == (b"", b"")


def test_user_settings_are_where_claude_code_looks_for_them(
    agent: Isoenv, home: Path, tmp_path: Path
) -> None:
    agent("install", "claude", "--user", "--yes")
    assert "SessionStart" in hooks_of(home / ".claude/settings.json")
    agent("install", "claude", "--user", "--yes", env={"CLAUDE_CONFIG_DIR": str(tmp_path / "c")})
    assert "SessionStart" in hooks_of(tmp_path / "c/settings.json")


# --- What stays


@each_text
def test_what_was_there_stays_and_uninstall_gives_it_back(
    agent: Isoenv, local: Path, text: str
) -> None:
    local.write_bytes(text.encode())
    agent("install", "claude", "--yes")
    installed = local.read_bytes()
    assert installed != text.encode()
    if text:
        assert_kept(text, installed.decode())
    assert "nothing to change" in agent("install", "claude", "--yes")
    assert local.read_bytes() == installed
    agent("uninstall", "claude", "--yes")
    assert local.read_bytes() == text.encode()
    assert "nothing to change" in agent("uninstall", "claude", "--yes")


def assert_kept(before: str, after: str) -> None:
    """Each line that was there is still there, in its order, but for commas and brackets."""
    position = 0
    for piece in re.findall(r"[^\s,{}\[\]]+", before):
        position = after.index(piece, position) + len(piece)


@each_text
def test_uninstall_without_a_memory_of_install_takes_out_the_same(text: str) -> None:
    text = text.removeprefix("\ufeff") or "{}"
    installed, _ = settings.install(text, WANTED)
    restored = settings.uninstall(installed)
    if "{}" not in text and "[]" not in text.replace('"allow": []', ""):
        assert restored == text
    assert settings.install(restored, WANTED)[0] is not None
    assert not re.search("isoenv|BASH_ENV", restored)


def test_what_is_written_around_it_later_stays(agent: Isoenv, local: Path) -> None:
    local.write_text(COMMENTED)
    agent("install", "claude", "--yes")
    text = local.read_text()
    text = text.replace('"EDITOR": "ed"', '"EDITOR": "ed", "MORE": "2"')
    text = edits.append(
        text, ("hooks", "SessionEnd"), {"hooks": [{"type": "command", "command": "bye"}]}
    )
    text = text.replace("// The end.", '"added": true, // mine')
    local.write_text(text)
    agent("uninstall", "claude", "--yes")
    left = local.read_text()
    assert "isoenv" not in left
    assert "BASH_ENV" not in left
    assert stripped(left) == {
        "model": "opus",
        "env": {"EDITOR": "ed", "MORE": "2"},
        "hooks": {
            "SessionStart": [{"hooks": [{"type": "command", "command": "mine"}]}],
            "SessionEnd": [{"hooks": [{"type": "command", "command": "bye"}]}],
        },
        "permissions": {"allow": ["Bash(ls:*)", "Bash(é🚒)"]},
        "added": True,
    }
    assert all(comment in left for comment in ("// What I like.", "/* for now */", "// first"))


def test_a_file_that_install_has_made_goes_with_it(agent: Isoenv, repo: Path) -> None:
    agent("install", "claude", "--yes")
    file = repo / ".claude/settings.local.json"
    text = file.read_text()
    # As Claude Code writes it anew for a permission, taken back again.
    file.write_text(json.dumps(json.loads(text), indent=1))
    agent("uninstall", "claude", "--yes")
    assert not (repo / ".claude").exists()


def test_a_file_that_install_has_made_stays_with_what_is_in_it(agent: Isoenv, repo: Path) -> None:
    agent("install", "claude", "--yes")
    file = repo / ".claude/settings.local.json"
    file.write_text(edits.put(file.read_text(), ("model",), "opus"))
    agent("uninstall", "claude", "--yes")
    assert json.loads(file.read_text()) == {"model": "opus"}


def test_what_the_user_has_set_is_not_overwritten(agent: Isoenv, local: Path) -> None:
    own = {"env": {"BASH_ENV": "/mine.sh"}, "statusLine": {"type": "command", "command": "my line"}}
    local.write_text(json.dumps(own, indent=2))
    said = agent("install", "claude", "--yes")
    found = json.loads(local.read_text())
    assert {name: found[name] for name in own} == own
    assert "BASH_ENV" in said
    assert "isoenv statusline --wrap 'my line'" in said
    agent("uninstall", "claude", "--yes")
    assert json.loads(local.read_text()) == own


def test_what_the_user_has_set_for_all_projects_is_not_laid_over(
    agent: Isoenv, local: Path, user: Path
) -> None:
    own = {"env": {"BASH_ENV": "/mine.sh"}, "statusLine": {"type": "command", "command": "my line"}}
    user.write_text(json.dumps(own))
    said = agent("install", "claude", "--yes")
    assert sorted(json.loads(local.read_text())) == ["hooks"]
    assert f"statusLine in {user} stays my line" in said


def test_a_wrapped_status_line_is_the_users_own(agent: Isoenv, local: Path) -> None:
    own = {"statusLine": {"type": "command", "command": "isoenv statusline --wrap 'my line'"}}
    local.write_text(json.dumps(own))
    assert "--wrap" not in agent("install", "claude", "--yes")
    assert json.loads(local.read_text())["statusLine"] == own["statusLine"]


def test_an_older_installation_is_replaced(agent: Isoenv, local: Path) -> None:
    old = settings.Wanted(
        "/old/bash-env.sh", "/old/isoenv agent hook claude", "/old/isoenv statusline", pool=True
    )
    local.write_text(settings.install(TEXTS["by a program"], old)[0])
    agent("install", "claude", "--yes")
    assert "/old/" not in local.read_text()
    assert all(len(commands) == 1 for commands in hooks_of(local).values())
    agent("uninstall", "claude", "--yes")
    assert local.read_text() == TEXTS["by a program"]


# --- What can go wrong


@pytest.mark.parametrize(
    ("text", "line"),
    {
        "{": 1,
        '{\n  "model": "opus"\n  "env": {}\n}': 3,
        '{\n  "env": []\n}': 2,
        '{\n\n  "hooks": {"SessionStart": {}}\n}': 3,
        '{"hooks": {\n"SessionEnd": [1]}}': 2,
        "[]": 1,
        '{"a": 01}': 1,
        '{"a": "\t"}': 1,
        "[" * 5000: 1,
        '{"a": 1} /* open': 1,
        '{"a": 1}\n{}': 2,
        '{\n"a": nul}': 2,
    }.items(),
)
@pytest.mark.parametrize("command", ["install", "uninstall"])
def test_settings_that_are_wrong_are_named_and_left_alone(
    agent: Isoenv, local: Path, text: str, line: int, command: str
) -> None:
    local.write_text(text)
    said = agent(command, "claude", "--yes", code=1)
    assert said.count("\n") == 1
    assert f"{local.name}:{line}: " in said
    assert local.read_text() == text


def test_settings_that_are_no_utf8_are_left_alone(agent: Isoenv, local: Path) -> None:
    local.write_bytes(b'{\n"a": "\xff"}')
    assert f"{local.name}:2: " in agent("install", "claude", "--yes", code=1)
    assert local.read_bytes() == b'{\n"a": "\xff"}'


def test_nothing_is_written_without_a_word(agent: Isoenv, local: Path) -> None:
    local.write_text("{}\n")
    assert "`--yes`" in agent("install", "claude", code=1)
    assert local.read_text() == "{}\n"


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("n", 1)])
def test_on_a_terminal_the_change_is_shown_and_asked_for(
    local: Path, repo: Path, answer: str, code: int
) -> None:
    local.write_text("{}\n")
    argv = ["-m", "isoenv", "agent", "install", "claude"]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "dumb"}
    child = pexpect.spawn(sys.executable, argv, cwd=str(repo), env=environ, encoding="utf-8")
    child.expect("Write this")
    assert '+    "BASH_ENV": ' in child.before
    child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == code
    assert (local.read_text() == "{}\n") == (answer == "n")


def test_a_link_stays_one_and_modes_stay(agent: Isoenv, local: Path, tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.json"
    real.write_text("{}\n")
    real.chmod(0o640)
    local.symlink_to(real)
    agent("install", "claude", "--yes")
    assert local.is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o640
    assert "SessionStart" in hooks_of(real)
    agent("uninstall", "claude", "--yes")
    assert real.read_text() == "{}\n"


def test_a_disk_that_is_full_leaves_the_settings_as_they_are(local: Path, repo: Path) -> None:
    local.write_text("{}\n")

    def no_room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))

    done = subprocess.run(
        [sys.executable, "-m", "isoenv", "agent", "install", "claude", "--yes"],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
        preexec_fn=no_room,
    )
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"cannot write" in done.stderr
    assert local.read_text() == "{}\n"
    assert [file.name for file in local.parent.iterdir()] == [local.name]


def test_settings_that_are_no_file_are_said(agent: Isoenv, local: Path) -> None:
    local.mkdir()
    assert "no regular file" in agent("install", "claude", "--yes", code=1)


def test_outside_any_checkout_there_are_only_the_users_settings(
    isoenv: Isoenv, tmp_path: Path
) -> None:
    done = isoenv("agent", "install", "claude", "--yes", cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "--user" in done.stderr
    assert isoenv("agent", "install", "claude", "--user", "--yes", cwd=tmp_path).returncode == 0


def test_a_new_file_that_git_would_show_is_said(agent: Isoenv, repo: Path) -> None:
    assert "info/exclude" in agent("install", "claude", "--yes")
    agent("uninstall", "claude", "--yes")
    (repo / ".git/info").mkdir(exist_ok=True)
    (repo / ".git/info/exclude").write_text(".claude/settings.local.json\n")
    assert "info/exclude" not in agent("install", "claude", "--yes")


# --- Any settings


scalars = st.none() | st.booleans() | st.integers() | st.text(max_size=6)
objects = st.dictionaries(
    st.text(max_size=6) | st.sampled_from(["model", "permissions", "a//b", "/*"]),
    st.recursive(
        scalars,
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
        ),
        max_leaves=8,
    ),
    max_size=4,
).filter(lambda found: not found.keys() & {"env", "hooks", "statusLine", "disableAllHooks"})


@given(
    found=objects,
    env=st.none() | st.dictionaries(st.sampled_from(["A", "B"]), st.text(max_size=3), min_size=1),
    own=st.booleans(),
    indent=st.sampled_from([None, 1, 2, 4, "\t"]),
    windows=st.booleans(),
)
def test_any_settings_come_back_to_the_byte(
    found: dict[str, object],
    env: dict[str, str] | None,
    own: bool,  # noqa: FBT001  # hypothesis gives it by name
    indent: int | str | None,
    windows: bool,  # noqa: FBT001  # likewise
) -> None:
    if env:
        found["env"] = env
    if own:
        found["hooks"] = {"SubagentStop": [{"hooks": [{"type": "command", "command": "mine"}]}]}
    text = json.dumps(found, indent=indent, ensure_ascii=False)
    if windows:
        text = text.replace("\n", "\r\n")
    installed, _ = settings.install(text, WANTED)
    assert settings.install(installed, WANTED)[0] == installed
    ours = json.loads(installed)
    assert ours["env"].pop("BASH_ENV") == "/s/bash-env.sh"
    assert {
        name: value for name, value in ours.items() if name not in ("env", "hooks", "statusLine")
    } == {name: value for name, value in found.items() if name not in ("env", "hooks")}
    assert ours["env"] == (env or {})
    restored = settings.uninstall(installed)
    assert json.loads(restored) == found
    if found:
        assert restored == text


@given(st.text(alphabet='{}[]",:/*\\ \n01ab-.eu', max_size=30))
def test_what_is_taken_for_json_is_json(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        try:
            jsonc.parse(text)
        except jsonc.JsonError as error:
            line = error.line
        else:
            # Only comments and trailing commas are more than JSON.
            line = 1 if re.search(r"//|/\*|,\s*[}\]]", text) else 0
        assert 1 <= line <= text.count("\n") + 1
    else:
        assert jsonc.parse(text).value == expected


# --- For other agents


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "cursor", "qwen", "other"])
def test_each_agent_is_told_the_file_in_its_own_words(
    isoenv: Isoenv, name: str, repo: Path
) -> None:
    done = isoenv("agent", "env", name, cwd=repo)
    assert (done.returncode, done.stderr) == (0, "")
    file = Path(os.environ["ISOENV_STATE_DIR"], "bash-env.sh")
    assert str(file) in done.stdout
    assert file.exists()


def test_codex_reads_what_is_printed_for_it(isoenv: Isoenv, repo: Path) -> None:
    import tomllib

    printed = tomllib.loads(isoenv("agent", "env", "codex", cwd=repo).stdout)
    expected = f"{os.environ['ISOENV_STATE_DIR']}/bash-env.sh"
    assert printed == {"shell_environment_policy": {"set": {"BASH_ENV": expected}}}


def test_an_unknown_agent_is_refused_with_those_that_are_known(isoenv: Isoenv) -> None:
    done = isoenv("agent", "env", "hal")
    assert done.returncode == 2
    assert "other" in done.stderr


def test_the_rules_name_only_commands_that_exist(isoenv: Isoenv) -> None:
    from isoenv.cli import COMMANDS

    printed = isoenv("agent", "rules").stdout
    assert printed.startswith("## ")
    found = re.findall(r"`isoenv\s([a-z]+)|[,r]\s`([a-z]+)`", printed)
    named = {word for pair in found for word in pair if word}
    assert {"show", "port", "exec", "list", "doctor"} <= named
    # `lock` is the neighbour's, built at the same time.
    assert named - {*COMMANDS, "lock"} == set()
