"""`isoenv exec` becomes the command; a warm one without computing, until an input changes."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

ROOT = Path(__file__).resolve().parents[1]

# What a warm call must not import: each costs more than the call itself.
HEAVY = {
    *("click", "git", "platformdirs", "psutil", "rich", "shellingham", "tomli_w"),
    *("dataclasses", "enum", "hashlib", "json", "pathlib", "re", "shutil", "signal", "socket"),
    *("sqlite3", "subprocess", "tempfile", "tomllib", "typing", "urllib"),
}

CONFIG = """
project = "shop"
[instance]
variable = "SHOP_SLOT"
stride = 1
[env]
A = "one"
HOUSE = "{home}"
[dirs]
DATA_DIR = "data/{id}"
[path]
prepend = ["tools"]
[flags]
LOUD = { main = false }
"""


@pytest.fixture
def shop(make_repo: Callable[[str], Path], git: Callable[..., str]) -> Path:
    """A configured main checkout with a command of its own."""
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG)
    (repo / "tools").mkdir()
    tool = repo / "tools/tool"
    tool.write_text('#!/bin/sh\necho "tool of $ISOENV_NAME"\n')
    tool.chmod(0o755)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=configured")
    return repo


@pytest.fixture(params=["cold", "warm"])
def start(
    request: pytest.FixtureRequest, shop: Path, tmp_path: Path, isoenv: Isoenv
) -> Callable[..., CompletedProcess[str]]:
    """Run ``isoenv exec .`` in the checkout, computed anew or served as it is."""
    assert isoenv("exec", ".", "true", cwd=shop).returncode == 0
    ready = list((tmp_path / "state").rglob("@env"))
    assert ready

    def start(*command: str, **given: str) -> CompletedProcess[str]:
        if request.param == "cold":
            for file in ready:
                file.unlink(missing_ok=True)
        return isoenv("exec", ".", *command, cwd=shop, **given)

    return start


def outcome(done: CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


# -- becoming the command -------------------------------------------------------------------


@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("operand", [".", "shop"])
def test_the_command_keeps_the_process(
    shop: Path, isoenv: Isoenv, operand: str, *, warm: bool
) -> None:
    assert isoenv("show" if not warm else "exec", *([".", "true"] if warm else []), cwd=shop)
    process = subprocess.Popen(
        [sys.executable, "-m", "isoenv", "exec", operand, "sh", "-c", "echo $$; exit 7"],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
    )
    output, _ = process.communicate()
    assert (int(output), process.returncode) == (process.pid, 7)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGPIPE", "SIGKILL"])
def test_a_signal_ends_the_command_as_it_would_without(
    start: Callable[..., CompletedProcess[str]], name: str
) -> None:
    number = signal.Signals[name].value
    assert outcome(start("sh", "-c", f"kill -{number} $$")) == (-number, "", "")


def test_signals_that_python_ignores_are_not_ignored_by_the_command(
    start: Callable[..., CompletedProcess[str]],
) -> None:
    assert outcome(start("sh", "-c", "yes | head -1")) == (0, "y\n", "")
    with open("/proc/self/status", encoding="ascii") as file:
        here = re.search(r"^SigIgn:.*", file.read(), re.MULTILINE)
    assert here
    # What this process ignores itself (Python does SIGPIPE and SIGXFSZ) is restored in a child.
    ignored = start("grep", "^SigIgn:", "/proc/self/status").stdout
    assert int(ignored.split()[1], 16) & (1 << 12 | 1 << 24) == 0


def test_standard_input_and_all_arguments_go_to_the_command(
    start: Callable[..., CompletedProcess[str]],
) -> None:
    text = "\x00\udcff\r\n\n"
    assert start("cat", text=text).stdout == text
    words = [
        "--cd",
        "-C",
        "--help",
        "-h",
        "",
        " ",
        "a'b\"c",
        "$HOME`id`",
        "\n",
        "\udcff\udc80",
        "--",
    ]
    assert start("printf", r"%s\0", *words).stdout == "".join(f"{word}\0" for word in words)
    assert start("--", "printf", "%s|", "--", "-x").stdout == "--|-x|"
    assert start("env", "--version").stdout.startswith("env (GNU")


def test_a_command_is_looked_up_in_the_new_path(
    start: Callable[..., CompletedProcess[str]],
) -> None:
    assert outcome(start("tool")) == (0, "tool of shop\n", "")


def test_a_script_without_a_first_line_is_run_by_the_shell(
    shop: Path, start: Callable[..., CompletedProcess[str]]
) -> None:
    script = shop / "tools/plain"
    script.write_text('echo "$0 $1 $A"\nexit 3\n')
    script.chmod(0o755)
    assert outcome(start("plain", "x y")) == (3, f"{script} x y one\n", "")
    assert outcome(start("./tools/plain", "z")) == (3, "./tools/plain z one\n", "")


def test_the_first_file_that_can_be_run_is_run(
    shop: Path, start: Callable[..., CompletedProcess[str]]
) -> None:
    # As execvp(3) and every shell do: no directory, nothing without the x bit, and a script
    # without a first line before a program further down.
    (shop / "tools/true").mkdir()
    (shop / "tools/printf").write_text("not executable\n")
    plain = shop / "tools/echo"
    plain.write_text("exit 9\n")
    plain.chmod(0o755)
    assert outcome(start("true")) == (0, "", "")
    assert outcome(start("printf", "x")) == (0, "x", "")
    assert outcome(start("echo")) == (9, "", "")


def test_what_cannot_be_run_is_126_or_127(
    shop: Path, start: Callable[..., CompletedProcess[str]]
) -> None:
    (shop / "tools/data").write_text("no command\n")
    not_found = "command not found\n"
    assert outcome(start("nosuch")) == (127, "", f"isoenv: nosuch: {not_found}")
    assert outcome(start("./nosuch")) == (127, "", f"isoenv: ./nosuch: {not_found}")
    assert outcome(start("isoenv.toml/x")) == (127, "", f"isoenv: isoenv.toml/x: {not_found}")
    assert outcome(start("")) == (127, "", f"isoenv: : {not_found}")
    denied = "permission denied\n"
    assert outcome(start("data")) == (126, "", f"isoenv: data: {denied}")
    assert outcome(start("./tools")) == (126, "", f"isoenv: ./tools: {denied}")


def test_it_stays_in_the_directory_unless_told_to_go(
    shop: Path, worktree: Worktree, isoenv: Isoenv
) -> None:
    feature = worktree(shop, "feature")
    assert isoenv("claim", "1", cwd=feature).returncode == 0
    below = shop / "tools"
    pwd = ("sh", "-c", 'pwd; echo "$PWD $ISOENV_ROOT"')
    done = isoenv("exec", "feature", *pwd, cwd=below)
    assert outcome(done) == (0, f"{below}\n{below} {feature}\n", "")
    done = isoenv("exec", "--cd", "feature", *pwd, cwd=below)
    assert outcome(done) == (0, f"{feature}\n{feature} {feature}\n", "")
    done = isoenv("-C", "..", "exec", ".", *pwd, cwd=below)
    assert outcome(done) == (0, f"{shop}\n{shop} {shop}\n", "")


def test_a_checkout_that_is_gone_is_not_made_again(
    shop: Path, worktree: Worktree, isoenv: Isoenv
) -> None:
    feature = worktree(shop, "feature")
    assert isoenv("claim", "1", cwd=feature).returncode == 0
    shutil.rmtree(feature)
    done = isoenv("exec", "--cd", "feature", "pwd", cwd=shop)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert not feature.exists()


@pytest.mark.parametrize("warm", [False, True])
def test_what_one_instance_sets_does_not_leak_into_another(
    shop: Path, make_repo: Callable[[str], Path], isoenv: Isoenv, *, warm: bool
) -> None:
    other = make_repo("other")
    (other / "isoenv.toml").write_text('project = "other"\n[env]\nB = "two"\nC = false\n')
    for root in (shop, other) if warm else (other,):
        assert isoenv("exec", ".", "true", cwd=root).returncode == 0
    nested = f"{quote(sys.executable)} -m isoenv exec . env -0"
    script = f"USERS=own HOUSE=mine; export USERS HOUSE; cd {quote(str(other))} && {nested}"
    caller = {"A": "before", "C": "theirs"}
    done = isoenv("exec", ".", "sh", "-c", script, cwd=shop, env=caller)
    assert outcome(done)[::2] == (0, "")
    env = dict(line.split("=", 1) for line in done.stdout.split("\0") if line)
    assert (env["A"], env["B"], env["USERS"]) == ("before", "two", "own")
    # Changed since by the user, so it is the user's.
    assert env["HOUSE"] == "mine"
    assert not {"C", "DATA_DIR", "LOUD", "SHOP_SLOT"} & env.keys()
    assert env["ISOENV_PROJECT"] == "other"
    assert env["PATH"] == os.environ["PATH"]


# -- the warm call ---------------------------------------------------------------------------


def imported(shop: Path, *command: str) -> set[str]:
    """The modules that ``isoenv exec`` imports, beyond those of Python's own start."""
    code = "from isoenv.__main__ import main; main()"
    found = []
    for argv in (["-c", "pass"], ["-c", code, "exec", *command]):
        # -S: what happens to be in this site-packages is not what is measured.
        done = subprocess.run(
            [sys.executable, "-S", "-X", "importtime", *argv],
            cwd=shop,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        lines = done.stderr.splitlines()
        found.append({line.rpartition("|")[2].strip() for line in lines if "|" in line})
    return found[1] - found[0]


def test_a_warm_call_imports_nothing_heavy(shop: Path, isoenv: Isoenv) -> None:
    assert isoenv("exec", ".", "true", cwd=shop).returncode == 0
    modules = imported(shop, ".", "true")
    assert "isoenv.launch" in modules
    assert {module.partition(".")[0] for module in modules} & HEAVY == set()
    ours = {module for module in modules if module.startswith("isoenv")}
    assert ours <= {
        "isoenv",
        *(f"isoenv.{name}" for name in ("__main__", "envdiff", "errors", "generated")),
        *(f"isoenv.{name}" for name in ("launch", "paths")),
    }


def test_a_warm_call_in_a_main_checkout_of_skypilot_is_warm_too(repo: Path, isoenv: Isoenv) -> None:
    (repo / "sky/skylet").mkdir(parents=True)
    (repo / "sky/__init__.py").touch()
    assert isoenv("exec", ".", "true", cwd=repo).returncode == 0
    assert {module.partition(".")[0] for module in imported(repo, ".", "true")} & HEAVY == set()


SHOW = ("sh", "-c", 'echo "$A $ISOENV_INSTANCE $HOUSE $LOUD"')


@pytest.fixture
def line(shop: Path, isoenv: Isoenv, home: Path) -> Callable[..., list[str]]:
    """What the command sees in a checkout that was warm before; the house is ``home``."""

    def line(**env: str) -> list[str]:
        done = isoenv("exec", ".", *SHOW, cwd=shop, env=env)
        assert outcome(done)[::2] == (0, "")
        return done.stdout.split()

    assert line() == ["one", "0", str(home), "false"]
    assert {module.partition(".")[0] for module in imported(shop, ".", "true")} & HEAVY == set()
    return line


def test_an_edit_of_the_same_length_in_the_same_second_is_seen(
    shop: Path, line: Callable[..., list[str]]
) -> None:
    for word in ("two", "six", "ten"):
        (shop / "isoenv.toml").write_text(CONFIG.replace("one", word))
        assert line()[0] == word


def test_a_local_layer_that_appears_is_seen(shop: Path, line: Callable[..., list[str]]) -> None:
    (shop / "isoenv.local.toml").write_text('[env]\nA = "local"\n')
    assert line()[0] == "local"


def test_a_dotenv_that_appears_is_seen(shop: Path, line: Callable[..., list[str]]) -> None:
    (shop / ".env").write_text("SHOP_SLOT=4\n")
    assert line()[1] == "4"


def test_variables_of_the_user_are_seen(tmp_path: Path, line: Callable[..., list[str]]) -> None:
    assert line(SHOP_SLOT="3")[1] == "3"
    assert line(ISOENV_INSTANCE="2")[1] == "2"
    assert line(HOME=str(tmp_path))[2] == str(tmp_path)
    assert line()[1] == "0"


def test_a_claim_from_elsewhere_is_seen(
    shop: Path, tmp_path: Path, line: Callable[..., list[str]], isoenv: Isoenv
) -> None:
    assert isoenv("-C", str(shop), "claim", "5", cwd=tmp_path).returncode == 0
    assert line()[1] == "5"
    assert isoenv("release", "shop:5", cwd=tmp_path).returncode == 0
    assert line()[1] == "0"


def test_a_flag_that_is_turned_from_elsewhere_is_seen(
    tmp_path: Path, line: Callable[..., list[str]], isoenv: Isoenv
) -> None:
    assert isoenv("enable", "LOUD", "shop:0", cwd=tmp_path).returncode == 0
    assert line()[3] == "true"


def test_a_token_that_is_removed_is_made_again(
    shop: Path, line: Callable[..., list[str]], isoenv: Isoenv
) -> None:
    token = shop / ".git/isoenv/id"
    assert line()
    token.unlink()
    assert isoenv("exec", ".", *SHOW, cwd=shop).stdout.split()[:2] == ["one", "0"]
    assert token.exists()


def test_a_directory_that_is_removed_is_made_again(
    shop: Path, line: Callable[..., list[str]], home: Path
) -> None:
    shutil.rmtree(shop / "data")
    assert line() == ["one", "0", str(home), "false"]
    assert (shop / "data/0").is_dir()


def test_a_user_config_that_appears_is_seen(repo: Path, home: Path, isoenv: Isoenv) -> None:
    count = ("sh", "-c", 'echo "${NGINX_PORT-none}"')
    for _ in range(2):
        assert isoenv("exec", ".", *count, cwd=repo).stdout == "none\n"
    (home / ".config/isoenv").mkdir(parents=True)
    (home / ".config/isoenv/config.toml").write_text('preset = "orient"\n')
    assert isoenv("exec", ".", *count, cwd=repo).stdout == "80\n"


def test_a_checkout_that_moved_has_its_new_root(
    shop: Path, worktree: Worktree, git: Callable[..., str], isoenv: Isoenv
) -> None:
    feature = worktree(shop, "feature")
    root = ("sh", "-c", 'echo "$ISOENV_INSTANCE $ISOENV_ROOT"')
    assert isoenv("exec", ".", *root, cwd=feature).stdout == f"1 {feature}\n"
    moved = feature.with_name("moved")
    git(shop, "worktree", "move", str(feature), str(moved))
    assert isoenv("exec", ".", *root, cwd=moved).stdout == f"1 {moved}\n"
