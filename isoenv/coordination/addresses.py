"""What a message is addressed to, as the stores keep it."""

from __future__ import annotations

import os

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from isoenv.coordination.records import Record

# The word that means all live sessions.
EVERYONE = "everyone"
TO_EVERYONE = b"everyone:"
SESSION = b"id:"
NAME = b"name:"
INSTANCE = b"instance:"


def of_session(session_id: str) -> bytes:
    """Return the address of one session, gone with it."""
    return SESSION + os.fsencode(session_id)


def of_name(name: str) -> bytes:
    """Return the address of whoever has that name, now or later."""
    return NAME + os.fsencode(name)


def of_instance(project_key: str, slot: int) -> bytes:
    """Return the address of all sessions of an instance."""
    return b"%s%d:%s" % (INSTANCE, slot, os.fsencode(project_key))


def all_of(record: Record) -> list[bytes]:
    """Return the addresses under which a session finds its messages."""
    found = [of_session(record.id)]
    if record.name:
        found.append(of_name(record.name))
    return found


def parts(address: bytes) -> tuple[bytes, tuple[str | int | bytes, ...]]:
    """Return the kind of an address, and what is behind it: an id, a name, or slot and key."""
    kind, colon, rest = address.partition(b":")
    kind += colon
    if kind == INSTANCE:
        slot, _, key = rest.partition(b":")
        return kind, (int(slot), key)
    return kind, () if kind == TO_EVERYONE else (os.fsdecode(rest),)
