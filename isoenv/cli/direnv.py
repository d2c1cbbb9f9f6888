"""Teach direnv to load an instance."""

from __future__ import annotations

import os

import click

from isoenv import files, paths, scripts, shells
from isoenv.cli import start
from isoenv.errors import IsoenvError

# What the file begins with, whichever version has written it; another file is the user's own.
MARK = b"# shellcheck shell=bash\n# isoenv in direnv. "
SIZE_LIMIT = 1 << 16


@click.group("direnv")
def command() -> None:
    """Teach direnv `use isoenv`, for the .envrc of a checkout.

    \b
    Example:
      isoenv direnv install
      echo 'use isoenv' > .envrc && direnv allow
    """


@command.command()
@click.option("--force", is_flag=True, help="Replace a file that is not isoenv's.")
def install(*, force: bool) -> None:
    """Put `use isoenv` into direnv's lib directory.

    Twice is once. A file of that name that isoenv has not written is left alone.

    \b
    Example:
      isoenv direnv install
    """
    file = library()
    executable = shells.named("bash").quote(scripts.executable())
    content = os.fsencode(scripts.text("use_isoenv.sh").replace("@ISOENV@", executable))
    found = files.read(file, SIZE_LIMIT)
    if found == content:
        start.say(f"{file} is up to date")
        return
    if found is not None and not found.startswith(MARK) and not force:
        raise IsoenvError(f"{file} is not isoenv's: `isoenv direnv install --force` replaces it")
    _replace(file, content)
    start.say(f"{'wrote' if found is None else 'replaced'} {file}: `use isoenv` in an .envrc")


@command.command()
def uninstall() -> None:
    """Take `use isoenv` out of direnv's lib directory.

    \b
    Example:
      isoenv direnv uninstall
    """
    file = library()
    found = files.read(file, SIZE_LIMIT)
    if found is None:
        start.say(f"there is no {file}")
        return
    if not found.startswith(MARK):
        raise IsoenvError(f"{file} is not isoenv's: `rm` removes it")
    try:
        os.unlink(file)
    except OSError as error:
        raise IsoenvError(f"cannot remove {file}: {files.reason(error)}") from None
    start.say(f"removed {file}")


def library() -> str:
    """Return the file that direnv reads before each .envrc."""
    return f"{_config_dir()}/lib/isoenv.sh"


def _config_dir() -> str:
    if chosen := os.environ.get("DIRENV_CONFIG"):
        return os.path.abspath(chosen)
    parent = os.environ.get("XDG_CONFIG_HOME") or f"{paths.home(os.environ)}/.config"
    return f"{parent}/direnv"


def _replace(file: str, content: bytes) -> None:
    """Write a file whole or not at all; a link of the user's stays one."""
    real = os.path.realpath(file)
    temporary = f"{real}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(real), exist_ok=True)
        with open(temporary, "xb") as stream:
            stream.write(content)
        os.rename(temporary, real)
    except OSError as error:
        raise IsoenvError(f"cannot write {file}: {files.reason(error)}") from None
