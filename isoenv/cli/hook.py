"""Print the code that a shell evaluates once, at its start."""

from __future__ import annotations

import click

from isoenv import scripts, shells
from isoenv.cli import output
from isoenv.errors import UsageError


@click.command("hook")
@click.argument("shell", required=False, type=click.Choice(list(scripts.HOOKS)))
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
    if name not in scripts.HOOKS:
        raise UsageError(f"no hook for {name}: bash, zsh and fish have one")
    output.write(scripts.hook(name, no_prompt=no_prompt))
