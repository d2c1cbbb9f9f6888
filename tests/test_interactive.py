"""The hook on a terminal: what only a real line editor and real signals can show."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from isoenv import scripts, shells

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[1]
# The terminal's first wait includes the start of Python on a busy machine.
PATIENCE = 120
CTRL_C, CTRL_T, TAB = "\x03", "\x14", "\t"
# Typed as `READ''Y>`, so that the echo of the input is no prompt.
PROMPT = "READY>"


@dataclass(frozen=True)
class Kind:
    """How to start a shell without its user's files, and what to type to give it a prompt."""

    name: str
    argv: tuple[str, ...]
    setup: tuple[str, ...]


KINDS = (
    Kind("bash", ("bash", "--noprofile", "--norc", "-i"), ("PS1='READ''Y>'",)),
    Kind("zsh", ("zsh", "-f", "-i", "+o", "prompt_sp"), ("PS1='READ''Y>'",)),
)
# Only zsh has a hook on each change of directory, wherever it happens.
zsh_alone = pytest.mark.parametrize("terminal", KINDS[1:2], ids=["zsh"], indirect=True)


class Terminal:
    """A shell on a terminal of its own, with the hook evaluated."""

    def __init__(self, kind: Kind, place: Path, command: Path) -> None:
        """Start the shell in ``place``; ``command`` stands for isoenv."""
        self.kind = kind
        self.place = place
        spelling = shells.named(kind.name)
        hook = scripts.text(f"hook.{kind.name}").replace("@ISOENV@", spelling.quote(str(command)))
        file = place / f"hook.{kind.name}"
        file.write_text(hook.replace("@STATE@", spelling.quote(str(place / "state"))))
        environ = {**os.environ, "T": str(place), "TERM": "dumb"}
        self.child: pexpect.spawn[str] = pexpect.spawn(
            kind.argv[0],
            list(kind.argv[1:]),
            cwd=str(place),
            env=environ,  # type: ignore[arg-type]  # pexpect's stubs want os._Environ
            encoding="utf-8",
            timeout=PATIENCE,
            dimensions=(24, 400),
        )
        for line in (*kind.setup, f". $T/{file.name}"):
            self.type(line)

    def type(self, line: str, end: str = "\r") -> list[str]:
        """Type a line; return the lines that were shown until the next prompt, but for itself."""
        self.child.send(line + end)
        return self.wait()

    def wait(self) -> list[str]:
        """Return the lines that are shown until the next prompt."""
        self.child.expect_exact(PROMPT)
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\r", "", self.child.before or "")
        return [line for line in shown.splitlines()[1:] if line]

    @property
    def runs(self) -> list[str]:
        """What isoenv was started for."""
        file = self.place / "runs"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def command(tmp_path: Path) -> Path:
    """Stand for isoenv: it notes that it runs, and hangs while there is a file named ``slow``."""
    file = tmp_path / "isoenv"
    file.write_text(
        f'#!/bin/sh\necho "$*" >>"$T/runs"\n[ ! -e "$T/slow" ] || sleep 3600\n'
        f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -P -m isoenv "$@"\n'
    )
    file.chmod(0o755)
    return file


@pytest.fixture
def roots(make_repo: Callable[[str], Path], command: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Make two checkouts, configured and allowed."""
    found = make_repo("shop"), make_repo("other")
    for root in found:
        (root / "isoenv.toml").write_text('[env]\nGREETING = "hello from {name}"\n')
        environ = {**os.environ, "T": str(tmp_path)}
        subprocess.run([command, "allow"], cwd=root, env=environ, check=True, capture_output=True)
    (tmp_path / "runs").unlink()
    return found


@pytest.fixture(params=KINDS, ids=lambda kind: kind.name)
def terminal(request: pytest.FixtureRequest, tmp_path: Path, command: Path) -> Iterator[Terminal]:
    """Each shell on a terminal."""
    terminal = Terminal(request.param, tmp_path, command)
    yield terminal
    terminal.child.close(force=True)


def wait_for_run(terminal: Terminal, count: int) -> None:
    """Wait until isoenv has been started that often, as the shell does meanwhile."""
    while len(terminal.runs) < count:
        assert terminal.child.isalive()
        # Not a wait for the shell: it is busy, and shows nothing.
        terminal.child.expect([pexpect.TIMEOUT], timeout=0.02)


@pytest.mark.usefixtures("roots")
def test_the_line_stands_above_the_prompt(terminal: Terminal) -> None:
    assert terminal.type("cd shop") == ["isoenv: shop/0 shop (+1)"]
    assert terminal.type("echo $GREETING") == ["hello from shop"]
    assert terminal.type("") == []
    assert terminal.type("cd ..; echo left") == ["left"]
    assert terminal.type('echo "<$GREETING>"') == ["<>"]
    assert len(terminal.runs) == 1


@pytest.mark.usefixtures("roots")
def test_an_interrupt_while_computing_keeps_what_is_loaded_and_is_not_repeated(
    terminal: Terminal,
) -> None:
    terminal.type("cd shop")
    terminal.type("trap 'echo trapped' USR1")
    (terminal.place / "slow").touch()
    terminal.child.send("cd ../other\r")
    wait_for_run(terminal, 2)
    terminal.child.send(CTRL_C)
    terminal.wait()
    assert terminal.type("echo $GREETING") == ["hello from shop"]
    assert terminal.type("kill -USR1 $$") == ["trapped"]
    terminal.type("mkdir sub; cd sub")
    terminal.type("cd ..")
    assert len(terminal.runs) == 2
    (terminal.place / "slow").unlink()
    assert terminal.type("cd ../shop") == []
    assert terminal.type("cd ../other") == ["isoenv: other/0 other (+1)"]
    assert terminal.type("echo $GREETING") == ["hello from other"]
    assert len(terminal.runs) == 3


@pytest.mark.usefixtures("roots")
def test_after_an_interrupt_a_reload_computes_it(terminal: Terminal) -> None:
    (terminal.place / "slow").touch()
    terminal.child.send("cd shop\r")
    wait_for_run(terminal, 1)
    terminal.child.send(CTRL_C)
    terminal.wait()
    terminal.child.send("isoenv reload\r")
    wait_for_run(terminal, 2)
    terminal.child.send(CTRL_C)
    terminal.wait()
    (terminal.place / "slow").unlink()
    assert terminal.type("isoenv reload") == ["isoenv: shop/0 shop (+1)"]
    assert terminal.type("echo $GREETING") == ["hello from shop"]
    terminal.type("cd ..")
    terminal.type("cd shop")
    assert len(terminal.runs) == 3


@pytest.mark.usefixtures("roots")
def test_an_interrupt_at_the_prompt_changes_nothing(terminal: Terminal) -> None:
    terminal.type("cd shop")
    terminal.child.send("echo half")
    terminal.child.expect_exact("half")
    terminal.child.send(CTRL_C)
    terminal.wait()
    assert terminal.type("echo $GREETING") == ["hello from shop"]
    assert len(terminal.runs) == 1


@pytest.mark.usefixtures("roots")
def test_a_shell_inside_the_shell_takes_back_what_it_inherits(terminal: Terminal) -> None:
    name = terminal.kind.name
    terminal.type("cd shop")
    terminal.child.send(" ".join(terminal.kind.argv) + "\r")
    for line in (*terminal.kind.setup, f". $T/hook.{name}"):
        terminal.type(line)
    assert terminal.type("echo $GREETING") == ["hello from shop"]
    terminal.type("cd ..")
    assert terminal.type('echo "<$GREETING>"') == ["<>"]
    terminal.type("exit")
    assert terminal.type("echo $GREETING") == ["hello from shop"]
    assert len(terminal.runs) == 1


@zsh_alone
@pytest.mark.usefixtures("roots")
def test_completion_in_zsh_that_changes_directory_is_left_alone(terminal: Terminal) -> None:
    terminal.type("autoload -U compinit; compinit -u -D")
    terminal.type('_t() { compadd -- "word-$(cd $T/shop; echo ${GREETING-none})" }; compdef _t t')
    terminal.type("t() { print -r -- got $1 }")
    terminal.child.send("t " + TAB)
    terminal.child.expect_exact("word-none")
    assert terminal.type("")[-1] == "got word-none"
    assert terminal.runs == []


@zsh_alone
@pytest.mark.usefixtures("roots")
def test_a_key_of_zsh_that_changes_directory_loads_in_silence(terminal: Terminal) -> None:
    terminal.type("visit() { cd $T/shop; zle -M visited }; zle -N visit; bindkey '^T' visit")
    terminal.child.send(CTRL_T)
    terminal.child.expect_exact("visited")
    shown = terminal.child.before or ""
    terminal.child.send("echo $GREETING\r")
    terminal.child.expect_exact("hello from shop")
    assert "isoenv:" not in shown + (terminal.child.before or "")
