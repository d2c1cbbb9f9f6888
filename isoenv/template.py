"""What a configuration may leave open: ``{field}`` in its values, ``$NAME`` in rendered files."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_VARIABLE = re.compile(rb"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


def fields(text: str) -> tuple[str, ...]:
    """Return the fields of a template in order, such as ``("id", "ports.web")``.

    Raises ValueError for a brace without its partner and for an empty field.
    """
    found = []
    for match in _TOKEN.finditer(text):
        brace, field = match[0], match[1]
        if brace in ("{", "}"):
            partner = "}" if brace == "{" else "{"
            raise ValueError(f"`{brace}` without `{partner}`: `{brace * 2}` is a plain brace")
        if field == "":
            raise ValueError("`{}` is an empty field: `{{}}` is a plain pair of braces")
        if field is not None:
            found.append(field)
    return tuple(found)


def names(text: str) -> tuple[str, ...]:
    """Return the variables that a shell would put into a text, in order."""
    found = _VARIABLE.findall(text.encode("utf-8", "surrogateescape"))
    return tuple((braced or plain).decode("ascii") for braced, plain in found)


def expand(text: str, lookup: Callable[[str], str]) -> str:
    """Replace each field by what ``lookup`` returns for it, ``{{`` and ``}}`` by braces."""
    return _TOKEN.sub(lambda match: match[0][0] if match[1] is None else lookup(match[1]), text)


def substitute(text: bytes, variables: Mapping[bytes, bytes]) -> bytes:
    """Replace ``${NAME}`` and ``$NAME`` of these variables; every other byte stays as it is."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)
