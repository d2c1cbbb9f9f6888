"""The scripts of ``shell/``, which ship beside the package."""

from __future__ import annotations

import os
import sys
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from isoenv import paths, shells

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

# The files that make a hook, and the form without a prompt.
HOOKS = {
    "bash": ("hook.bash",),
    "zsh": ("hook.zsh",),
    "fish": ("enter.fish", "record.fish", "hook.fish"),
}
NO_PROMPT = {
    "bash": ("env.bash", "env.sh"),
    "zsh": ("env.sh",),
    "fish": ("enter.fish", "record.fish", "env.fish"),
}
_WITHOUT_PROMPT = """\
# isoenv for shells without a prompt: shell/env.bash where it can answer, else shell/env.sh.
{{ case $- in *x*) __isoenv_traced=1 && set +x ;; *) __isoenv_traced= ;; esac; }} 2>/dev/null
__isoenv_done=
case ${{BASH_VERSION-}} in '' | [1-3].* | 4.[0-3].*) ;; *)
  command -v _isoenv_hook >/dev/null || eval {}
esac
[ -n "$__isoenv_done" ] || eval {}
unset -v __isoenv_done
if [ -n "$__isoenv_traced" ]; then
  unset -v __isoenv_traced
  set -x
else
  unset -v __isoenv_traced
fi
"""

# In bash, where a command line was given and nothing else: what is defined is in no script.
_FOLLOWING = """\
case ${{BASH_VERSION-}} in '' | [1-3].* | 4.[0-3].*) ;; *)
  case $- in *i*) ;; *c*) eval {} ;; esac
esac
"""

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


def hook(shell: str, *, no_prompt: bool) -> str:
    """Return the code that a shell evaluates at its start, with or without a prompt."""
    spelling = shells.named(shell)
    default = paths.state_dir({**os.environ, "ISOENV_STATE_DIR": ""})
    parts = [
        text(file)
        .replace("@ISOENV@", spelling.quote(executable()))
        .replace("@STATE@", spelling.quote(default))
        for file in (NO_PROMPT if no_prompt else HOOKS)[shell]
    ]
    if no_prompt and shell == "bash":
        # Two in one file that every sh can read: bash parses the second, dash the first, never.
        parts = [_WITHOUT_PROMPT.format(*map(spelling.quote, parts))]
    return "\n".join(parts)


def agent() -> str:
    """Return what BASH_ENV names in agents' shells: no prompt, and it follows `cd`."""
    following = _FOLLOWING.format(shells.named("bash").quote(text("cd.bash")))
    return hook("bash", no_prompt=True) + following


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
