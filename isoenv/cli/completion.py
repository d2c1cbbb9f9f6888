"""Print the completion script of a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from isoenv import cli
from isoenv.cli import output
from isoenv.errors import UsageError


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of SHELL.

    \b
    Example:
      eval "$(isoenv completion bash)"              # in ~/.bashrc
      isoenv completion zsh > ~/.zfunc/_isoenv      # ~/.zfunc stands in fpath before compinit
      isoenv completion fish > ~/.config/fish/completions/isoenv.fish
    """
    script = get_completion_class(shell)
    if script is None:
        raise UsageError(f"no completion for {shell}: bash, zsh and fish have one")
    text = script(cli.group, {}, "isoenv", "_ISOENV_COMPLETE").source()
    # Click's test is true for the first tab of a function from fpath, and for no other.
    text = text.replace("$zsh_eval_context[-1] == loadautofunc", "$funcstack[1] == _isoenv")
    output.write(f"{text}\n")
