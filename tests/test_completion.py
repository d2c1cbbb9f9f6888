"""Completion in the shells themselves: commands, instances, port names, flags, files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
project = "shop"
[ports]
postgres = 5432
proxy = 8080
[flags]
WHATSAPP_ENABLED = { main = true }
[services]
api = { run = "true" }
web = { run = "true" }
[templates]
"nginx.conf" = "nginx.template"
[databases.main]
url = "sqlite:///{id}.db"
"""

# What is typed before the tab, and the words that can follow.
TYPED = {
    "isoenv up ": {"api", "web", "0", "5", "shop", "shop-5"},
    "isoenv logs 5 w": {"web"},
    "isoenv up --enable ": {"WHATSAPP_ENABLED"},
    "isoenv api 5 st": {"start", "status", "stop"},
    "isoenv pr": {"prune"},
    "isoenv port p": {"postgres", "proxy"},
    "isoenv port postgres ": {"0", "5", "shop", "shop-5"},
    "isoenv show sh": {"shop", "shop-5"},
    "isoenv exec 5": {"5"},
    "isoenv enable ": {"WHATSAPP_ENABLED"},
    "isoenv render ": {"nginx.conf"},
    "isoenv db freeze ": {"main"},
    "isoenv db re": {"refresh", "reset"},
    "isoenv list --a": {"--all"},
    "isoenv export z": {"zsh"},
}

BASH = r"""
eval "$(isoenv completion bash)"
read -ra COMP_WORDS <<<"$1"
[[ $1 != *' ' ]] || COMP_WORDS+=('')
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
name=$(complete -p isoenv | sed 's/.*-F \([^ ]*\).*/\1/')
"$name" isoenv
printf '%s\n' "${COMPREPLY[@]}"
"""
FISH = "isoenv completion fish | source; complete -C $argv[1]"


@pytest.fixture
def shop(make_repo: Callable[[str], Path], isoenv: Isoenv, tmp_path: Path) -> Path:
    """A checkout with two instances, and `isoenv` on PATH."""
    command = tmp_path / "bin/isoenv"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec {quote(sys.executable)} -m isoenv "$@"\n')
    command.chmod(0o755)
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG)
    for args in (["show"], ["exec", "5", "true"]):
        assert isoenv(*args, cwd=repo).returncode == 0
    return repo


def environ(tmp_path: Path) -> dict[str, str]:
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    "argv",
    [["bash", "-c", BASH, "bash"], ["fish", "--no-config", "-c", FISH]],
    ids=["bash", "fish"],
)
def test_each_kind_of_word_is_completed(shop: Path, tmp_path: Path, argv: list[str]) -> None:
    for typed, words in TYPED.items():
        done = subprocess.run(
            [*argv, typed],
            cwd=shop,
            env=environ(tmp_path),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr == ""
        found = {line.partition("\t")[0] for line in done.stdout.splitlines()}
        assert found == words, typed


@pytest.mark.parametrize("how", ["source", "fpath"])
def test_zsh_completes_a_line_that_is_typed(shop: Path, tmp_path: Path, how: str) -> None:
    setup = "autoload -Uz compinit; compinit -u -D; source <(isoenv completion zsh)"
    if how == "fpath":
        (tmp_path / "functions").mkdir()
        setup = (
            "isoenv completion zsh >../functions/_isoenv; fpath=($PWD/../functions $fpath); "
            "autoload -Uz compinit; compinit -u -D"
        )
    env = {**environ(tmp_path), "TERM": "dumb", "PS1": "first> "}
    zsh = pexpect.spawn("zsh", ["-f", "-i"], cwd=str(shop), env=env, encoding="utf-8", timeout=None)
    try:
        zsh.expect("first> ")
        zsh.sendline(f"{setup}; PS1='rea''dy> '")
        # Each tab is the last key that waits: zsh takes keys behind it for a paste.
        for typed, whole, printed in (
            ("isoenv port pos", "isoenv port postgres ", "5432\r\n"),
            ("isoenv port postgres shop-", "isoenv port postgres shop-5 ", "10432\r\n"),
        ):
            zsh.expect("ready> ")
            zsh.send(typed)
            zsh.expect(typed)
            zsh.send("\t")
            zsh.expect(whole.removeprefix(typed))
            zsh.send("\n")
            zsh.expect(printed)
    finally:
        zsh.close(force=True)


def test_completion_of_another_directory_is_that_directorys(
    shop: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    words = {"COMP_WORDS": f"isoenv -C {shop} port po", "COMP_CWORD": "4"}
    env = {"_ISOENV_COMPLETE": "bash_complete", **words}
    assert isoenv(cwd=tmp_path, env=env).stdout == "plain,postgres\n"


@pytest.mark.parametrize("text", ["= broken", "prot = 1\n"])
def test_a_tab_says_nothing_of_what_is_wrong_and_makes_nothing(
    repo: Path, tmp_path: Path, isoenv: Isoenv, text: str
) -> None:
    (repo / "isoenv.toml").write_text(text)
    for line in ("isoenv port ", "isoenv show ", "isoenv enable "):
        env = {"_ISOENV_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": "2"}
        done = isoenv(cwd=repo, env=env)
        assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert not (tmp_path / "state").exists()
