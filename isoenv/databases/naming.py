"""Names of databases that fit PostgreSQL's 63 bytes without two of them meeting."""

from __future__ import annotations

from hashlib import sha256

# NAMEDATALEN - 1. The server cuts what is longer, and two long names meet.
LONGEST = 63
# What begins so was begun by isoenv and is not whole: nobody else is told of it.
UNFINISHED = "isoenv-new-"

_DIGITS = 12


def cut(name: str) -> str:
    """Return a name of at most 63 bytes: itself, or its beginning with a hash of the whole."""
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) <= LONGEST:
        return name
    head = raw[: LONGEST - _DIGITS - 1].decode("utf-8", "ignore")
    return f"{head}_{sha256(raw).hexdigest()[:_DIGITS]}"


def unfinished(name: str) -> str:
    """Return what a database is called until it is whole."""
    return UNFINISHED + sha256(name.encode("utf-8", "surrogateescape")).hexdigest()[:16]


def lock_key(name: str) -> int:
    """Return the number of a database's advisory lock, which fits a signed 64-bit integer."""
    digest = sha256(b"isoenv\0" + name.encode("utf-8", "surrogateescape")).digest()
    return int.from_bytes(digest[:8], "big", signed=True)
