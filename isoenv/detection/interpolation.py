"""``$NAME`` and ``${NAME:-default}``, as Compose and the readers of .env files expand them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

# Values may name each other: neither the rounds nor what comes of them may grow for ever.
ROUNDS, LENGTH = 10, 4000

_NAME = r"[A-Za-z_][A-Za-z0-9_]*"
# The innermost of nested ones: a default with no reference left in it.
_REFERENCE = re.compile(rf"\$(?:\{{({_NAME})(?:(:?[-+?])([^${{}}]*))?\}}|({_NAME}))")
_WHOLE = re.compile(rf"\$(?:\{{({_NAME})(?::?[-?].*)?\}}|({_NAME}))", re.DOTALL)
_DEFAULT = re.compile(rf"\$\{{({_NAME}):?-([^${{}}\n]*)\}}")


def expand(text: str, values: Mapping[str, str]) -> str | None:
    """Replace all references; None where one has no value, or the text grows too long."""
    for _ in range(ROUNDS):
        if len(text) > LENGTH:
            return None
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            name, operator, word, bare = match.groups()
            found = values.get(name or bare)
            if operator and operator[-1] == "+":
                return word if found else ""
            if found is not None and (found or operator not in (":-", ":?")):
                return found[:LENGTH]
            if operator and operator[-1] == "-":
                return str(word)
            missing = True
            return ""

        replaced = _REFERENCE.sub(value, text)
        if missing:
            return None
        if replaced == text:
            return None if "${" in text else text
        text = replaced
    return None


def variable_of(text: str) -> str | None:
    """Return the name where the whole text is one reference."""
    match = _WHOLE.fullmatch(text.strip())
    return (match[1] or match[2]) if match else None


def defaults(text: str) -> list[tuple[int, str, str]]:
    """Return line, name and default of each ``${NAME:-default}`` in a file."""
    found = []
    line, at = 1, 0
    for match in _DEFAULT.finditer(text):
        line += text.count("\n", at, match.start())
        at = match.start()
        found.append((line, match[1], match[2]))
    return found
