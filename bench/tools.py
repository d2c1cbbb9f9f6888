"""The tools that are compared: what each is called with, and how its file in a checkout reads."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

REPOSITORY = Path(__file__).resolve().parents[1]
# Git-ignored: what the comparison needs, and the project does not.
CACHE = REPOSITORY / ".bench"
MISE_PACKAGE = "@jdxcode/mise"


class MissingError(Exception):
    """A tool is not there; the message says why."""


@dataclass(frozen=True)
class Tool:
    """A tool that gives a directory its environment.

    ``hook``, ``execute`` and ``trust`` are its arguments: before a shell's name, before a command,
    and in a directory whose ``file`` is to be trusted. ``spell`` makes that file from variables
    and an entry of PATH, which may be empty.
    """

    name: str
    executable: str
    hook: str
    execute: tuple[str, ...]
    trust: str
    file: str
    spell: Callable[[Mapping[str, str], str], str]

    def exec(self, *command: str) -> list[str]:
        """Return the words that run a command in the current directory's environment."""
        return [self.executable, *self.execute, *command]

    def version(self) -> str:
        """Return its version alone."""
        words = call([self.executable, "--version"], env=os.environ).split()
        return next((word for word in words if word[:1].isdigit()), " ".join(words))


def call(argv: list[str], *, env: Mapping[str, str], cwd: str | Path | None = None) -> str:
    """Run a command that has to succeed; return what it printed."""
    done = subprocess.run(
        argv, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if done.returncode:
        raise RuntimeError(
            f"{shlex.join(argv)} ended with {done.returncode}: {os.fsdecode(done.stderr).strip()}"
        )
    return os.fsdecode(done.stdout)


def _envrc(variables: Mapping[str, str], path: str) -> str:
    lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*lines, f"PATH_add {path}" if path else "", ""])


def _toml_string(value: str) -> str:
    # A JSON string of plain text is a TOML one.
    return json.dumps(value, ensure_ascii=False)


def _mise_toml(variables: Mapping[str, str], path: str) -> str:
    lines = [f"{name} = {_toml_string(value)}" for name, value in variables.items()]
    return "\n".join(["[env]", f"_.path = [{_toml_string(path)}]" if path else "", *lines, ""])


def _isoenv_toml(variables: Mapping[str, str], path: str) -> str:
    escaped = {
        name: value.replace("{", "{{").replace("}", "}}") for name, value in variables.items()
    }
    lines = [f"{name} = {_toml_string(value)}" for name, value in escaped.items()]
    prepend = ["[path]", f"prepend = [{_toml_string(path)}]"] if path else []
    return "\n".join(["[env]", *lines, *prepend, ""])


def direnv() -> Tool:
    """Find direnv."""
    executable = shutil.which("direnv")
    if executable is None:
        raise MissingError("direnv is not installed: `apt-get install direnv`")
    return Tool("direnv", executable, "hook", ("exec", "."), "allow", ".envrc", _envrc)


def mise() -> Tool:
    """Find mise, installing it into .bench through npm where it is not there."""
    # The program itself: the package's own start script would cost it a node.
    executable = CACHE / "node_modules" / MISE_PACKAGE / "bin" / "mise"
    if not executable.exists():
        if shutil.which("npm") is None:
            raise MissingError("mise is left out: there is no npm to install it with")
        CACHE.mkdir(exist_ok=True)
        print(f"installing {MISE_PACKAGE} into .bench (npm)", file=sys.stderr)
        flags = ["--no-save", "--no-audit", "--no-fund", "--loglevel=error"]
        try:
            call(["npm", "install", *flags, "--prefix", str(CACHE), MISE_PACKAGE], env=os.environ)
        except RuntimeError as error:
            raise MissingError(f"mise is left out: {error}") from None
    return Tool(
        "mise", str(executable), "activate", ("exec", "--"), "trust", "mise.toml", _mise_toml
    )


def isoenv(executable: str | None) -> Tool:
    """Find isoenv; without an executable, install the working tree into .bench, as pip does."""
    if executable is None:
        venv = CACHE / "venv"
        executable = str(venv / "bin" / "isoenv")
        if _is_older(executable, REPOSITORY):
            print("installing isoenv into .bench/venv (pip)", file=sys.stderr)
            if not (venv / "bin" / "python").exists():
                call([sys.executable, "-m", "venv", str(venv)], env=os.environ)
            pip = [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            call([*pip, f"{REPOSITORY}[postgres]"], env=os.environ)
            # pip keeps the times of files: this is when they were last looked at.
            os.utime(executable)
    return Tool("isoenv", executable, "hook", ("exec", "."), "allow", "isoenv.toml", _isoenv_toml)


def filelock() -> str:
    """Find the Python package filelock, installing it into .bench where it is not there."""
    directory = CACHE / "filelock"
    if not (directory / "filelock").is_dir():
        print("installing filelock into .bench (pip)", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        try:
            call([*pip, "--target", str(directory), "filelock"], env=os.environ)
        except RuntimeError as error:
            raise MissingError(f"filelock is left out: {error}") from None
    return str(directory)


def _is_older(executable: str, tree: Path) -> bool:
    if not os.path.exists(executable):
        return True
    sources = [
        tree / "pyproject.toml",
        *(tree / "isoenv").rglob("*.*"),
        *(tree / "shell").iterdir(),
    ]
    return os.stat(executable).st_mtime < max(
        source.stat().st_mtime for source in sources if source.is_file() and source.suffix != ".pyc"
    )
