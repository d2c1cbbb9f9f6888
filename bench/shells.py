"""How each shell is started without a user's files, and how it says what a measurement needs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shell:
    """A shell's words.

    ``serve`` evaluates each line it reads and answers with a NUL. ``hooks`` prints what runs at a
    prompt; empty where ``prompt`` says it already. ``before`` is what comes before a command that
    was typed. ``count`` and ``keep`` define a prompt that counts itself, and a variable.
    """

    name: str
    batch: tuple[str, ...]
    interactive: tuple[str, ...]
    serve: str
    hooks: str
    prompt: str
    before: str
    repeat: str
    counting_prompt: str
    set_plain: str
    set_exported: str
    show: str
    append_path: str


_REPEAT = "{name}() {{ local i; for ((i = 0; i < $1; i++)); do {body}; done; }}"
_SERVE = "exec 3<&0 </dev/null; while IFS= read -r -u 3 line; do eval \"$line\"; printf '\\0'; done"
_POSIX = {
    "serve": _SERVE,
    "prompt": "",
    "before": ":",
    "repeat": _REPEAT,
    "set_plain": "{name}={value}",
    "set_exported": "export {name}={value}",
    "show": 'printf %s "${{{name}-<unset>}}"',
    "append_path": 'PATH="$PATH:{entry}"',
}

BASH = Shell(
    name="bash",
    batch=("bash", "--noprofile", "--norc", "-c"),
    interactive=("bash", "--noprofile", "--norc", "-i"),
    hooks="(IFS=';'; printf %s \"${PROMPT_COMMAND[*]}\")",
    counting_prompt="PS1='<bench $((++bench_count))>'",
    **_POSIX,
)
ZSH = Shell(
    name="zsh",
    batch=("zsh", "-f", "-c"),
    interactive=("zsh", "-f", "-i"),
    hooks='printf %s "${(j:; :)precmd_functions}"',
    counting_prompt="setopt prompt_subst; PS1='<bench $((++bench_count))>'",
    **_POSIX,
)
FISH = Shell(
    name="fish",
    batch=("fish", "--no-config", "-c"),
    interactive=("fish", "--no-config", "-i"),
    serve="while read line; eval $line </dev/null; printf '\\0'; end",
    hooks="",
    prompt="emit fish_prompt",
    before="emit fish_preexec",
    # No `seq` and no `math`: the one is a process, the other a substitution in each turn.
    repeat="function {name}; for i in (string repeat -n $argv[1] x\\n); {body}; end; end",
    counting_prompt=(
        "function fish_title; end; set -g bench_count 0; function fish_prompt;"
        " set -g bench_count (math $bench_count + 1); printf '<bench %s>' $bench_count; end"
    ),
    set_plain="set -g {name} {value}",
    set_exported="set -gx {name} {value}",
    show="set -q {name}; and printf %s ${name}; or printf '<unset>'",
    append_path="set -gx PATH $PATH {entry}",
)
SHELLS = (BASH, ZSH, FISH)
