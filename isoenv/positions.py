"""Where the keys of a TOML text are, which tomllib does not tell."""

from __future__ import annotations

import re
import tomllib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# All that can hide a bracket or a line end, then brackets and line ends themselves.
_TOKEN = re.compile(
    r'''"""(?:\\[\s\S]|[^\\])*?"{3,5}|\'\'\'[\s\S]*?'{3,5}|"(?:\\.|[^"\\])*"|'[^']*'|\#[^\n]*'''
    r"""|[\[\]{}\n]"""
)


def positions(text: str) -> dict[tuple[str, ...], int]:
    """Return the 1-based line on which each key path of a valid TOML text first appears.

    Keys of an inline table have the line that their statement starts on; lists have no keys.
    """
    found: dict[tuple[str, ...], int] = {}
    prefix: tuple[str, ...] = ()
    for line, statement in _statements(text.replace("\r\n", "\n")):
        keys = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            paths = _paths(keys, ())
            prefix = paths[-1]
        else:
            paths = _paths(keys, prefix)
        for path in paths:
            found.setdefault(path, line)
    return found


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Cut the text at the line ends outside of strings and brackets."""
    line, start, depth = 1, 0, 0
    for match in _TOKEN.finditer(text):
        piece = match[0]
        if piece in ("[", "{"):
            depth += 1
        elif piece in ("]", "}"):
            depth -= 1
        elif piece == "\n" and depth == 0:
            yield line, text[start : match.start()]
            line += text.count("\n", start, match.end())
            start = match.end()
    yield line, text[start:]


def _paths(tables: Mapping[str, object], prefix: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Return the paths of all keys, outer ones first."""
    pending: list[tuple[tuple[str, ...], object]] = [(prefix, tables)]
    for path, value in pending:  # which grows meanwhile
        if isinstance(value, dict):
            pending += [((*path, key), child) for key, child in value.items()]
    return [path for path, _ in pending[1:]]
