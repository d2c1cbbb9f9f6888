"""Print the code that a shell evaluates once, at its start."""

from __future__ import annotations

import os

import click

from isoenv import paths, scripts, shells
from isoenv.errors import UsageError

# The files that make a hook, and the form without a prompt.
_HOOKS = {
    "bash": ("hook.bash",),
    "zsh": ("hook.zsh",),
    "fish": ("enter.fish", "record.fish", "hook.fish"),
}
_NO_PROMPT = {
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


@click.command("hook")
@click.argument("shell", required=False, type=click.Choice(list(_HOOKS)))
@click.option("--env", "no_prompt", is_flag=True, help="For BASH_ENV and .zshenv: no prompt.")
def command(shell: str | None, *, no_prompt: bool) -> None:
    """Print the hook of SHELL: the right environment in every directory, from then on.

    Without SHELL, that of the shell that runs the command. The hook starts no process at the
    prompt unless something has changed. With --env it prints the code for shells without a
    prompt: scripts and agents get the same environment by it.

    \b
    Example:
      eval "$(isoenv hook zsh)"                          # in ~/.zshrc; bash alike
      isoenv hook fish | source                          # in ~/.config/fish/config.fish
      isoenv hook bash --env > ~/.isoenv-env.sh          # then: export BASH_ENV=~/.isoenv-env.sh
    """
    name = shell or shells.detect()
    if name not in _HOOKS:
        raise UsageError(f"no hook for {name}: bash, zsh and fish have one")
    spelling = shells.named(name)
    default = paths.state_dir({**os.environ, "ISOENV_STATE_DIR": ""})
    parts = [
        scripts.text(file)
        .replace("@ISOENV@", spelling.quote(scripts.executable()))
        .replace("@STATE@", spelling.quote(default))
        for file in (_NO_PROMPT if no_prompt else _HOOKS)[name]
    ]
    if no_prompt and name == "bash":
        # Two in one file that every sh can read: bash parses the second, dash the first, never.
        parts = [_WITHOUT_PROMPT.format(*map(spelling.quote, parts))]
    click.echo("\n".join(parts), nl=False)
