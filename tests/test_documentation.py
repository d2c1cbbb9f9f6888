"""Help and README cover what exists, and name nothing that does not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from isoenv.cli import group

if TYPE_CHECKING:
    from collections.abc import Iterator

README = Path(__file__).resolve().parents[1] / "README.md"


def commands(of: click.Group, prefix: str = "") -> Iterator[tuple[str, click.Command]]:
    """Walk the commands and those below them, with their full names."""
    context = click.Context(of)
    for name in of.list_commands(context):
        command = of.get_command(context, name)
        assert command is not None, f"`isoenv {prefix}{name}` is listed and cannot be loaded"
        yield f"{prefix}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")


COMMANDS = dict(commands(group))

each_command = pytest.mark.parametrize("name", COMMANDS)


def code_of_readme() -> Iterator[str]:
    """Each line of the README's code blocks, and each word in backticks."""
    text = README.read_text(encoding="utf-8")
    blocks = re.compile(r"^```.*?\n(.*?)^```", re.MULTILINE | re.DOTALL)
    for block in blocks.findall(text):
        yield from block.splitlines()
    yield from re.findall(r"`([^`\n]+)`", blocks.sub("", text))


@each_command
def test_help_says_what_a_command_does_in_a_sentence(name: str) -> None:
    help_text = COMMANDS[name].help or ""
    assert re.match(r"[A-Z].*\.(\n|$)", help_text.partition("\n\n")[0], re.DOTALL)


@each_command
def test_help_has_an_example_that_names_the_command(name: str) -> None:
    command = COMMANDS[name]
    if isinstance(command, click.Group):
        return  # those of its commands are the examples
    _, _, example = (command.help or "").partition("Example")
    assert re.search(rf"\bisoenv (-C \S+ )?{name}\b", example), f"no example in {command.help}"


@each_command
def test_the_readme_names_each_command(name: str) -> None:
    use = re.compile(rf"\bisoenv (-C \S+ )?{name}\b")
    assert any(use.search(line) for line in code_of_readme()), (
        f"`isoenv {name}` is not in README.md"
    )


def test_the_readme_names_no_command_that_does_not_exist() -> None:
    named = {
        name
        for line in code_of_readme()
        for name in re.findall(r"(?:^|[$(`;|&] ?)isoenv (?:-C \S+ )?([a-z]+)\b", line)
    }
    assert named
    assert named - COMMANDS.keys() == set()
