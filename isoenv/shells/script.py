"""The code by which a hook loads a ready environment and sees that it is stale.

The script defines ``__isoenv_stale``, ``__isoenv_load`` and what there is to know before either
is called. It loads by ``__isoenv_set``, ``__isoenv_unset`` and ``__isoenv_prepend``, which whoever
sources it defines; in bash, where calls are dear, by an array.
"""

from __future__ import annotations

from isoenv import envdiff

TYPE_CHECKING = False  # importing typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.shells.base import Shell

    # What makes the environment stale: the kind, and its one to three words.
    Condition = tuple[str, ...]
    # A variable, what is done to it (`=` set, `-` unset, `p` put in front of PATH), and the value.
    Step = tuple[str, str, str]

MISSING, EXISTS, NEWER, OLDER = "missing", "exists", "newer", "older"
NO_DIRECTORY, DIFFERS, NEITHER, ASKED = "no-directory", "differs", "neither", "asked"

# {0} to {2} are quoted words, but for a variable's name in the last three.
_POSIX_TESTS = {
    MISSING: "! -e {0}",
    EXISTS: "-e {0}",
    NEWER: "{0} -nt {1}",
    OLDER: "{0} -ot {1}",
    NO_DIRECTORY: "! -d {0}",
    DIFFERS: '"${{{0}-}}" != {1}',
    NEITHER: '"${{{0}-}}" != {1} && "${{{0}-}}" != {2}',
    ASKED: '"${{{0}:-${{__ISOENV_SLOT-}}}}" != "${{__ISOENV_SLOT-}}"',
}
# In brackets of one kind there is no `&&`, and a value such as `!` could be an operator.
_SH_TESTS = {**_POSIX_TESTS, NEITHER: '"x${{{0}-}}" != x{1} -a "x${{{0}-}}" != x{2}'}
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
    NEITHER: 'test "x${0}" != x{1} -a "x${0}" != x{2}',
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
    """Return the script in the words of fish, of bash, or of zsh and sh."""
    spelled = {"fish": _fish, "bash": _bash}.get(shell.name, _posix)
    return spelled(script, shell)


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
    plain = _tests(script.conditions, shell, _SH_TESTS) or ["-n ''"]
    one_by_one = " ||\n  ".join(f"[ {test} ]" for test in plain)
    return "\n".join(
        [
            f"# {script.header}",
            *(f"{name}={shell.quote(value)}" for name, value in _facts(script)),
            # At every prompt: in zsh one test costs two thirds of many.
            'if [ -n "${ZSH_VERSION-}" ]; then',
            f"__isoenv_stale() {{\n  [[ {in_one} ]]\n}}",
            "else",
            f"__isoenv_stale() {{\n  {one_by_one}\n}}",
            "fi",
            "__isoenv_load() {",
            *(f"  {line}" for line in _calls(script, shell) or [":"]),
            "}\n",
        ]
    )


def _bash(script: Script, shell: Shell) -> str:
    tests = _tests(script.conditions, shell, _POSIX_TESTS) or ["-n ''"]
    in_one = " ||\n    ".join(tests)
    steps = _steps(script)
    words = "".join(f"\n    {name} {step} {shell.quote(value)}" for name, step, value in steps)
    return "\n".join(
        [
            f"# {script.header}",
            *(f"{name}={shell.quote(value)}" for name, value in _facts(script)),
            f"__isoenv_stale() {{\n  [[ {in_one} ]]\n}}",
            f"__isoenv_load() {{\n  __isoenv_steps=({words}\n  )\n}}",
            *_at_once(script, shell, steps),
            "",
        ]
    )


def _at_once(script: Script, shell: Shell, steps: Sequence[Step]) -> list[str]:
    """Return what bash needs to put this environment in the place of another like it.

    ``fresh`` is the record where none of the variables was set before.
    """
    variables = [step for step in steps if step[0] != envdiff.PATH]
    if not variables:
        return ["__isoenv_shape=''"]
    front = "".join(f"{entry}:" for entry in script.path)
    entries = [envdiff.Entry("", envdiff.ROOT_KIND, "", script.root)]
    now = wanted = ""
    for name, step, value in steps:
        kind = envdiff.PATH_KIND if name == envdiff.PATH else f"u{step}"
        entries.append(envdiff.Entry(name, kind, "", value))
    for name, step, value in variables:
        # Whether it is set, to what, and with which attributes: `x` alone, exported.
        now += f"|{name}${{{name}+=}}${{{name}-}}" + (f":${{{name}@a}}" if step == "=" else "")
        wanted += f"|{name}={value}:x" if step == "=" else f"|{name}"
    test = f'[ "{now}" = {shell.quote(wanted)} ]'
    if front:
        rest = '"${PATH#"${__isoenv_front}"}"'
        test += f' &&\n    [ "${{PATH@a}}" = x ] && [ {rest} != "${{PATH-}}" ]'
    assigned = (f"{name}={value}" for name, step, value in variables if step == "=")
    words = "".join(f" \\\n    {shell.quote(word)}" for word in assigned)
    clear = "".join(f"${{{name}+1}}" for name, _, _ in variables)
    return [
        f"__isoenv_shape={shell.quote(' '.join(name + step for name, step, _ in steps))}",
        f"__isoenv_front={shell.quote(front)}",
        f"__isoenv_fresh={shell.quote(envdiff.dumps(entries))}",
        f"__isoenv_is_intact() {{\n  {test}\n}}",
        f'__isoenv_is_clear() {{\n  [ -z "{clear}" ]\n}}',
        "__isoenv_take() {",
        f'  \\builtin export "__ISOENV_UNDO=${{__isoenv_fresh}}"{words} \\\n    "$@"',
        "}",
    ]


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
            *(f"    {line}" for line in _calls(script, shell)),
            "end\n",
        ]
    )


def _tests(conditions: Sequence[Condition], shell: Shell, patterns: Mapping[str, str]) -> list[str]:
    return [
        patterns[kind].format(
            words[0] if kind in (DIFFERS, NEITHER, ASKED) else shell.quote(words[0]),
            *map(shell.quote, words[1:]),
        )
        for kind, *words in conditions
        if kind in patterns
    ]


def _steps(script: Script) -> list[Step]:
    """Return what is to be done, in the order of the record that `envdiff.apply` writes."""
    steps = [
        (name, "-", "") if value is None else (name, "=", value)
        for name, value in script.variables.items()
    ]
    return [*steps, (envdiff.PATH, "p", ":".join(script.path))] if script.path else steps


def _calls(script: Script, shell: Shell) -> list[str]:
    prepended = (f"__isoenv_prepend {shell.quote(entry)}" for entry in reversed(script.path))
    changed = (
        f"__isoenv_unset {name}" if value is None else f"__isoenv_set {name} {shell.quote(value)}"
        for name, value in script.variables.items()
    )
    return [*prepended, *changed]
