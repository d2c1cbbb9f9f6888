"""The mark of what isoenv has made: a comment in the server, a line in a record. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

# The seats of what no single instance has.
SHARED, TEMPLATE = "shared", "template"

_TEXT = re.compile(r"isoenv ([0-9a-f]{16})/([0-9]+|shared|template): (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Mark:
    """Whose a database is: the project, as a hash of its key, and the seat in it.

    ``seat`` is the slot, or one of SHARED and TEMPLATE. ``title`` is for people.
    """

    project: str
    seat: str
    title: str

    def __str__(self) -> str:
        """Return the text that is written down."""
        return f"isoenv {self.project}/{self.seat}: {self.title}"

    def is_of(self, other: Mark) -> bool:
        """Whether both mean the same owner, whatever it is called by now."""
        return (self.project, self.seat) == (other.project, other.seat)


def mark(project_key: str, seat: str, title: str) -> Mark:
    """Return the mark of a project's seat."""
    raw = project_key.encode("utf-8", "surrogateescape")
    # In the server the title is text, which not every name of a directory is.
    clean = title.encode("utf-8", "backslashreplace").decode()
    return Mark(sha256(raw).hexdigest()[:16], seat, clean)


def read(text: str | None) -> Mark | None:
    """Return the mark that a comment is, or None."""
    found = _TEXT.fullmatch(text or "")
    return Mark(*found.groups()) if found else None
