"""The scripts of ``shell/``, which ship beside the package."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


# More than any launcher of ours has, in characters.
LAUNCHER_LIMIT = 1 << 20


def directory() -> Traversable:
    """Return the wheel's copy of ``shell/``, or the tree's when installed with ``-e``."""
    installed = files("isoenv") / "_shell"
    return installed if installed.is_dir() else Path(__file__).resolve().parents[1] / "shell"


def text(name: str) -> str:
    """Return a script as it is in the tree."""
    return (directory() / name).read_text(encoding="utf-8")


def path(name: str) -> str:
    """Return where a script is, for a shell to run."""
    return str(directory() / name)


def executable() -> str:
    """Return the absolute path of the command, its symbolic links kept.

    A package manager may collect what a link points to today, and keeps the link.
    """
    name = os.path.abspath(sys.argv[0])
    launcher = f"{os.path.dirname(name)}/isoenv"
    if os.path.basename(name) in ("isoenv", "isoenv-python") and os.path.exists(launcher):
        return launcher
    # `python -m isoenv`: the command that was installed with this interpreter.
    beside = f"{os.path.dirname(sys.executable)}/isoenv"
    return beside if os.path.exists(beside) else name


def is_outdated(launcher: str) -> bool:
    """Whether an installed launcher is that of another version; a program of any other kind not."""
    try:
        with open(launcher, encoding="utf-8", errors="surrogateescape") as file:
            installed = file.read(LAUNCHER_LIMIT)
    except OSError:
        return False
    ours = text("isoenv.sh")
    return installed.startswith(ours.split("\n", 1)[0] + "\n") and installed != ours
