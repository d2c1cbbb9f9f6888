"""The variables that are refused, tried in the real shells."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from isoenv.reserved import REASONS, objection

if TYPE_CHECKING:
    from conftest import Shell

# What users' startup files load or define, so that these names are the shell's own.
PRELUDES = {
    "bash": "PROMPT_COMMAND=(true)",
    "zsh": """
        for m in datetime system mapfile langinfo sched zle parameter; do
          zmodload zsh/$m
        done
        for n in chpwd periodic precmd preexec zshaddhistory zshexit zsh_directory_name; do
          eval "typeset -ga ${n}_functions; ${n}_functions=(true)"
        done
    """,
    "fish": "",
}
EXPORTS = {
    "bash": 'for n in {}; do printf "=%s\\0" $n; (export "$n=value-7" && env -0) || :; done',
    "zsh": 'for n in {}; do printf "=%s\\0" $n; (export "$n=value-7" && env -0) || :; done',
    "fish": "for n in {}; printf '=%s\\0' $n; set -gx $n value-7; and env -0; set -e $n; end",
}
PROMPT_FUNCTIONS = {
    "bash": ["PROMPT_COMMAND"],
    "zsh": [name for name in REASONS if name.endswith("_functions")],
    "fish": [],
}
LISTS = {"bash": "compgen -v", "zsh": "print -rl -- ${(k)parameters}", "fish": "set -n"}


def survivors(shell: Shell, names: list[str]) -> set[str]:
    """Return the names that the shell hands to a child with the value it was told."""
    words = " ".join([*names, "LAST"])
    script = f"{PRELUDES[shell.name]}\n{EXPORTS[shell.name].format(words)}"
    found, name = set(), ""
    for record in shell.run(script, env={"TERM": "dumb"}).stdout.split("\0"):
        name = record[1:] if record.startswith("=") else name
        if record == f"{name}=value-7":
            found.add(name)
    assert "LAST" in found
    return found - {"LAST"}


def names_of(shell: Shell) -> list[str]:
    """Return the names that the shell itself uses as variables."""
    printed = shell.run(f"{PRELUDES[shell.name]}\n{LISTS[shell.name]}").stdout.split()
    return [name for name in printed if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)]


def test_a_shell_does_not_hand_on_what_is_refused_in_its_name(shell: Shell) -> None:
    refused = [name for name, reason in REASONS.items() if shell.name in reason.split()]
    refused += PROMPT_FUNCTIONS[shell.name]
    assert len(refused) > 5
    assert survivors(shell, refused) == set()


def test_a_variable_of_a_shell_that_is_not_refused_survives_in_it(shell: Shell) -> None:
    allowed = [name for name in names_of(shell) if objection(name) is None]
    assert "HOME" in allowed
    assert survivors(shell, allowed) == set(allowed)


def test_ordinary_variables_survive_in_every_shell(shell: Shell) -> None:
    names = "PORT DATABASE_URL COMPOSE_PROJECT_NAME PYTHONPATH LD_LIBRARY_PATH USER TMPDIR name id"
    assert [objection(name) for name in names.split()] == [None] * 9
    assert survivors(shell, names.split()) == set(names.split())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PATH", "holds the user's own entries: use `prepend` of `[path]`"),
        ("path", "holds the user's own entries: use `prepend` of `[path]`"),
        ("fish_user_paths", "holds the user's own entries: use `prepend` of `[path]`"),
        ("CDPATH", "holds the user's own entries: choose another name"),
        ("FPATH", "holds the user's own entries: choose another name"),
        ("MANPATH", "holds the user's own entries: choose another name"),
        ("ISOENV_INSTANCE", "is set by isoenv itself: choose another name"),
        ("__ISOENV_UNDO", "is set by isoenv itself: choose another name"),
        ("fish_trace", "is a setting of fish: choose another name"),
        ("UID", "is read-only in bash: choose another name"),
        ("status", "is read-only in zsh: choose another name"),
        ("hostname", "is read-only in fish: choose another name"),
        ("PWD", "is read-only in fish: choose another name"),
        ("commands", "is a list in zsh: choose another name"),
        ("COLUMNS", "is a number in zsh: choose another name"),
        ("PROMPT_COMMAND", "is a list of functions that a shell calls: choose another name"),
        ("IFS", "changes how a shell reads commands: choose another name"),
        ("OLDPWD", "belongs to `cd -`: choose another name"),
    ],
)
def test_what_is_refused_is_refused_with_its_reason(name: str, message: str) -> None:
    assert objection(name) == message
