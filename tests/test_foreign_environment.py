"""An environment that came from another checkout: every command knows it, and none uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

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
