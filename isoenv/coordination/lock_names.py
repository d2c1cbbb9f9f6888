"""Any name of a lock as a file name, and back."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from isoenv.errors import UsageError

# Capitals are not in it: some file systems take them for the small ones.
PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789_-.")
# Some file systems have room for 143 bytes alone.
LONGEST, HEAD = 140, 60
# Stands in no name that is whole: there a percent sign is followed by two digits.
CUT = "%%"


def encode(name: str) -> str:
    """Return the file name of a lock; two names never have the same one."""
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise UsageError(f"the name of a lock is no text: {name!a}") from None
    if not raw:
        raise UsageError("the name of the lock is empty")
    encoded = "".join(chr(byte) if byte in PLAIN else f"%{byte:02x}" for byte in raw)
    if encoded.startswith("."):
        encoded = f"%2e{encoded[1:]}"
    if len(encoded) <= LONGEST:
        return encoded
    from hashlib import sha256

    return f"{encoded[:HEAD]}{CUT}{sha256(raw).hexdigest()}"


def path(project: str | None, name: str) -> str:
    """Return what a lock of a project, or of none, is called among all hosts."""
    return f"{encode(project) if project else ''}/{encode(name)}"


def decode(file_name: str) -> str | None:
    """Return the lock's name; None where the file name has a part of it alone."""
    if CUT in file_name:
        return None
    return unquote_to_bytes(file_name).decode("utf-8", "surrogateescape")
