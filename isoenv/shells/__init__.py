"""How each shell spells a word, a set, an unset: ``SHELLS["zsh"].export("PORT", "80")``."""

from __future__ import annotations

from isoenv.shells.base import Shell
from isoenv.shells.fish import FISH
from isoenv.shells.posix import BASH, DOTENV, SH, ZSH

__all__ = ["DOTENV", "SHELLS", "Shell", "detect", "named"]

SHELLS: dict[str, Shell] = {shell.name: shell for shell in (BASH, ZSH, FISH, SH)}


def named(name: str) -> Shell:
    """Return the shell of that name, or raise UsageError."""
    if name in SHELLS:
        return SHELLS[name]
    from isoenv.errors import UsageError

    raise UsageError(f"no support for the shell {name!r}; name one of {', '.join(SHELLS)}")


def detect() -> str:
    """Return the name of the shell that runs this process, or raise UsageError."""
    from shellingham import (  # type: ignore[import-untyped]  # it ships no types
        ShellDetectionFailure,
        detect_shell,
    )

    from isoenv.errors import UsageError

    remedy = "name the one you use, as in `isoenv hook bash`"
    try:
        name: str = detect_shell()[0]
    except ShellDetectionFailure:
        raise UsageError(f"no shell found above this process; {remedy}") from None
    if name not in SHELLS:
        raise UsageError(f"no support for the shell {name!r}; {remedy}")
    return name
