"""The code by which a hook loads a ready environment and sees that it is stale.

The hook defines ``__isoenv_set``, ``__isoenv_unset`` and ``__isoenv_prepend``; the script defines
``__isoenv_stale``, ``__isoenv_load`` and what there is to know before either is called.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.shells.base import Shell

    # What makes the environment stale: the kind, and its one or two words.
    Condition = tuple[str, ...]

MISSING, EXISTS, NEWER, OLDER = "missing", "exists", "newer", "older"
NO_DIRECTORY, DIFFERS, ASKED = "no-directory", "differs", "asked"

# {0} and {1} are quoted words, but for a variable's name in the last two.
_POSIX_TESTS = {
    MISSING: "! -e {0}",
    EXISTS: "-e {0}",
    NEWER: "{0} -nt {1}",
    OLDER: "{0} -ot {1}",
    NO_DIRECTORY: "! -d {0}",
    DIFFERS: '"${{{0}-}}" != {1}',
    ASKED: '"${{{0}:-${{__ISOENV_SLOT-}}}}" != "${{__ISOENV_SLOT-}}"',
}
# A builtin's start is what costs in fish: tests of files go into one. Of variables they do not,
# for a value such as `!` would be taken for an operator.
_FISH_FILE_TESTS = {
    MISSING: "! -e {0}",
    EXISTS: "-e {0}",
    NEWER: "{0} -nt {1}",
    OLDER: "{0} -ot {1}",
    NO_DIRECTORY: "! -d {0}",
}
_FISH_TESTS = {
    DIFFERS: 'test "${0}" != {1}',
    ASKED: 'test "x${0}" != x -a "x${0}" != "x$__ISOENV_SLOT"',
}


class Script:
    """What a hook has to know of one environment, in no shell's words yet."""

    __slots__ = (
        "conditions",
        "direnv",
        "header",
        "label",
        "message",
        "path",
        "root",
        "use",
        "variables",
    )

    def __init__(  # noqa: PLR0913  # a dataclass would cost a warm call its imports
        self,
        *,
        header: str,
        root: str,
        label: str,
        message: str,
        use: str,
        direnv: bool,
        conditions: Sequence[Condition],
        path: Sequence[str],
        variables: Mapping[str, str | None],
    ) -> None:
        """Keep the fields; ``message`` is a line for people, or empty, ``use`` as in Ready."""
        self.header = header
        self.root = root
        self.label = label
        self.message = message
        self.use = use
        self.direnv = direnv
        self.conditions = conditions
        self.path = path
        self.variables = variables


def spell(script: Script, shell: Shell) -> str:
    """Return the script in the words of bash, zsh and sh, or in those of fish."""
    return _fish(script, shell) if shell.name == "fish" else _posix(script, shell)


def _facts(script: Script) -> list[tuple[str, str]]:
    return [
        ("__isoenv_root", script.root),
        ("__isoenv_label", script.label),
        ("__isoenv_message", script.message),
        ("__isoenv_use", script.use),
        ("__isoenv_direnv", "1" if script.direnv else ""),
    ]


def _posix(script: Script, shell: Shell) -> str:
    tests = _tests(script.conditions, shell, _POSIX_TESTS) or ["-n ''"]
    in_one = " ||\n    ".join(tests)
    one_by_one = " ||\n  ".join(f"[ {test} ]" for test in tests)
    return "\n".join(
        [
            f"# {script.header}",
            *(f"{name}={shell.quote(value)}" for name, value in _facts(script)),
            # At every prompt: in bash and zsh one test costs two thirds of many.
            'if [ -n "${BASH_VERSION-}${ZSH_VERSION-}" ]; then',
            f"__isoenv_stale() {{\n  [[ {in_one} ]]\n}}",
            "else",
            f"__isoenv_stale() {{\n  {one_by_one}\n}}",
            "fi",
            "__isoenv_load() {",
            *(f"  {line}" for line in _steps(script, shell) or [":"]),
            "}\n",
        ]
    )


def _fish(script: Script, shell: Shell) -> str:
    # To fish, what is missing is older than anything.
    aged = {words[0] for kind, *words in script.conditions if kind == OLDER}
    conditions = [
        condition
        for condition in script.conditions
        if condition[0] != MISSING or condition[1] not in aged
    ]
    files = _tests(conditions, shell, _FISH_FILE_TESTS)
    tests = ["test " + " \\\n        -o ".join(files)] if files else []
    tests += _tests(conditions, shell, _FISH_TESTS)
    return "\n".join(
        [
            f"# {script.header}",
            *(f"set -g {name} {shell.quote(value)}" for name, value in _facts(script)),
            "function __isoenv_stale",
            "    " + ("\n    or ".join(tests) or "false"),
            "end",
            "function __isoenv_load",
            *(f"    {line}" for line in _steps(script, shell)),
            "end\n",
        ]
    )


def _tests(conditions: Sequence[Condition], shell: Shell, patterns: Mapping[str, str]) -> list[str]:
    return [
        patterns[kind].format(
            words[0] if kind in (DIFFERS, ASKED) else shell.quote(words[0]),
            *map(shell.quote, words[1:]),
        )
        for kind, *words in conditions
        if kind in patterns
    ]


def _steps(script: Script, shell: Shell) -> list[str]:
    steps = [f"__isoenv_prepend {shell.quote(entry)}" for entry in reversed(script.path)]
    for name, value in script.variables.items():
        if value is None:
            steps.append(f"__isoenv_unset {name}")
        else:
            steps.append(f"__isoenv_set {name} {shell.quote(value)}")
    return steps
