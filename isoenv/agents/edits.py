"""Change one entry of a JSON text, as a person with a careful editor would."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from isoenv.agents import jsonc

if TYPE_CHECKING:
    from isoenv.agents.jsonc import Entry, Node

# How deep a member stands where nothing else in the file shows it.
INDENT = "  "
BLANK = " \t\r\n"


def put(text: str, path: tuple[str, ...], value: object) -> str:
    """Set a member of nested objects, making what is missing of them.

    All of ``path`` but its end has to be objects where it exists.
    """
    node, rest = _reach(text, path)
    if not rest:
        rendered = _rendered(text, value, _margin(text, node.start))
        return text[: node.start] + rendered + text[node.end :]
    for name in reversed(rest[1:]):
        value = {name: value}
    return _insert(text, node, rest[0], value)


def append(text: str, path: tuple[str, ...], item: object) -> str:
    """Add an item to the end of an array that is reached through objects, and may be missing."""
    node, rest = _reach(text, path)
    return put(text, path, [item]) if rest else _insert(text, node, None, item)


def remove(text: str, path: tuple[str | int, ...]) -> str:
    """Take a member or an item out, with the comma that it needed and the blanks before it."""
    parent = jsonc.parse(text)
    for step in path[:-1]:
        parent = _child(parent, step).node
    entries = parent.entries or ()
    entry = _child(parent, path[-1])
    index = entries.index(entry)
    start = _end_before(text, entry.start)
    if entry.comma is not None:
        return text[:start] + text[entry.comma + 1 :]
    text = text[:start] + text[entry.node.end :]
    # It was the last one: the comma before it is one too many now.
    before = entries[index - 1].comma if index else None
    return text if before is None else text[:before] + text[before + 1 :]


def _child(parent: Node, step: str | int) -> Entry:
    entries = parent.entries or ()
    if isinstance(step, int):
        return entries[step]
    return next(entry for entry in reversed(entries) if entry.name == step)


def _reach(text: str, path: tuple[str, ...]) -> tuple[Node, tuple[str, ...]]:
    """Follow a path as far as it exists; return where that is, and what is left of the path."""
    node = jsonc.parse(text)
    for index, name in enumerate(path):
        child = node.member(name)
        if child is None:
            return node, path[index:]
        node = child
    return node, ()


def _insert(text: str, parent: Node, name: str | None, value: object) -> str:
    """Add a last entry in the way that the others stand: each on its line, or all on one."""
    entries, close = parent.entries or (), parent.end - 1
    last = entries[-1].comma or entries[-1].node.end if entries else parent.start
    # Behind the last comment: one that stands beside the last entry stays there.
    end = _end_before(text, close)
    tail = text[end:]
    if _is_on_lines(text, parent, last):
        newline, unit = _style(text)
        margin = _margin(text, entries[0].start if entries else parent.start)
        margin += "" if entries else unit
        separator, rendered = newline + margin, _rendered(text, value, margin)
        if "\n" not in text[end:close]:
            tail = newline + _margin(text, parent.start) + text[close:]
    else:
        separator, rendered = " ", json.dumps(value, ensure_ascii=False)
    if name is not None:
        rendered = f"{json.dumps(name, ensure_ascii=False)}: {rendered}"
    if not entries:
        return text[:end] + separator + rendered + tail
    if entries[-1].comma is not None:
        return text[:end] + separator + rendered + "," + tail
    return text[:last] + "," + text[last:end] + separator + rendered + tail


def _is_on_lines(text: str, parent: Node, last: int) -> bool:
    """Whether a container has its entries on lines of their own; an empty one gets them."""
    if not parent.entries:
        return True
    first = text[parent.start : parent.entries[0].start]
    return "\n" in first or "\n" in text[last : parent.end]


def _end_before(text: str, at: int) -> int:
    """Return where the blanks in front of a place begin; a comment is none."""
    return len(text[:at].rstrip(BLANK))


def _margin(text: str, at: int) -> str:
    """Return the blanks that the line of a place begins with."""
    line = text[:at].rpartition("\n")[2]
    return line[: len(line) - len(line.lstrip(" \t"))]


def _style(text: str) -> tuple[str, str]:
    """Return how a text ends its lines, and how far its first member is indented."""
    newline = "\r\n" if "\r\n" in text else "\n"
    root = jsonc.parse(text)
    if root.entries and "\n" in text[root.start : root.entries[0].start]:
        return newline, _margin(text, root.entries[0].start) or INDENT
    return newline, INDENT


def _rendered(text: str, value: object, margin: str) -> str:
    newline, unit = _style(text)
    rendered = json.dumps(value, indent=unit, ensure_ascii=False)
    return rendered.replace("\n", newline + margin)
