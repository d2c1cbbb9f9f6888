"""Where in a JSON text its values stand, so that one can be changed and no other byte.

Comments and trailing commas are read as well: settings files have them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field

# How deep a settings file may nest: deeper ones are no settings, and would exhaust the stack.
DEEPEST = 100

_BLANK = re.compile(r"(?:[ \t\r\n]+|//[^\r\n]*|/\*.*?\*/)*", re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})*"')
_SCALAR = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?|true|false|null")


class JsonError(ValueError):
    """A text that is no JSON; ``line`` is the line, from 1, of what was not expected."""

    def __init__(self, text: str, at: int, expected: str) -> None:
        """Keep where it is and what should stand there."""
        super().__init__(f"expected {expected}")
        self.line = text.count("\n", 0, at) + 1


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands: ``text[start:end]``.

    ``entries`` are the members of an object or the items of an array, else None.
    """

    start: int
    end: int
    value: object
    entries: tuple[Entry, ...] | None = None

    @property
    def is_object(self) -> bool:
        """Whether this is an object."""
        return isinstance(self.value, dict)

    def member(self, name: str) -> Node | None:
        """Return the member of that name; of several the last, which is the one that counts."""
        for entry in reversed(self.entries or ()):
            if entry.name == name:
                return entry.node
        return None


@dataclass(frozen=True, slots=True)
class Entry:
    """A member of an object or an item of an array.

    ``start`` is where its name or value begins; ``comma`` is where the comma behind it stands.
    """

    node: Node
    start: int
    name: str | None = None
    comma: int | None = None


def parse(text: str) -> Node:
    """Return the value of a text. Raises JsonError."""
    scanner = _Scanner(text)
    scanner.skip()
    node = scanner.value(0)
    scanner.skip()
    if scanner.at != len(text):
        raise scanner.fault("the end of the file")
    return node


@dataclass(slots=True)
class _Scanner:
    text: str
    at: int = field(default=0)

    def fault(self, expected: str) -> JsonError:
        return JsonError(self.text, self.at, expected)

    def skip(self) -> None:
        found = _BLANK.match(self.text, self.at)
        assert found is not None  # noqa: S101  # it matches nothing, too
        self.at = found.end()

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def value(self, depth: int) -> Node:
        if depth > DEEPEST:
            raise self.fault(f"at most {DEEPEST} levels")
        if self.peek() == "{":
            return self.container(depth, "}")
        if self.peek() == "[":
            return self.container(depth, "]")
        start = self.at
        found = _STRING.match(self.text, start) or _SCALAR.match(self.text, start)
        if not found:
            raise self.fault("a value")
        self.at = found.end()
        return Node(start, self.at, json.loads(found[0]))

    def container(self, depth: int, close: str) -> Node:
        start, entries = self.at, []
        self.at += 1
        self.skip()
        while self.peek() != close:
            entry_start = self.at
            name = self.name() if close == "}" else None
            node = self.value(depth + 1)
            self.skip()
            comma = self.at if self.peek() == "," else None
            entries.append(Entry(node, entry_start, name, comma))
            if comma is None:
                break
            self.at += 1
            self.skip()
        if self.peek() != close:
            raise self.fault(f"`,` or `{close}`" if entries else f"`{close}`")
        self.at += 1
        value: object = [entry.node.value for entry in entries]
        if close == "}":
            value = {entry.name: entry.node.value for entry in entries}
        return Node(start, self.at, value, tuple(entries))

    def name(self) -> str:
        found = _STRING.match(self.text, self.at)
        if not found:
            raise self.fault("a name in double quotes")
        self.at = found.end()
        self.skip()
        if self.peek() != ":":
            raise self.fault("`:`")
        self.at += 1
        self.skip()
        name: str = json.loads(found[0])
        return name
