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
    "bash": ("env.sh",),
    "zsh": ("env.sh",),
    "fish": ("enter.fish", "record.fish", "env.fish"),
}


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
    files = (_NO_PROMPT if no_prompt else _HOOKS)[name]
    script = "\n".join(scripts.text(file) for file in files)
    script = script.replace("@ISOENV@", spelling.quote(scripts.executable()))
    default = paths.state_dir({**os.environ, "ISOENV_STATE_DIR": ""})
    click.echo(script.replace("@STATE@", spelling.quote(default)), nl=False)
