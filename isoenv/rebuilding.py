"""Fill a registry that was lost: from its mirror, and from what the checkouts remember.

The mirror has all of it, and its word counts; a checkout's token file has slot and name. Which
checkouts there are is known from the mirror, from what is kept ready for shells, and from the
repositories of both, which list their work trees.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from isoenv import checkout, generated, registry_mirror, tokens
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator

    from isoenv.checkout import Place

# Bits of the number from which ids go on. Those of leases that nothing has kept are not known,
# and no process may hit another lease by one of them.
ID_BITS = 40

_PROJECT = "INSERT OR IGNORE INTO project (key, name) VALUES (?, ?)"
# Not where its slot, its name or its token is taken: it gets what is free when it is used. Nor
# where the slot was given back: a copy made before that remembers it still.
_LEASE = """
INSERT OR IGNORE INTO lease
  (project_id, slot, name, token, root, git_dir, device, inode, created_at)
SELECT id, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 FROM project WHERE key = ?9
AND NOT EXISTS (SELECT * FROM rest WHERE project_id = project.id AND slot = ?1)
"""


def refill(connection: sqlite3.Connection, state: str, file: str) -> int:
    """Fill a new registry, inside its first transaction; return how many instances it has then."""
    rows, bases = registry_mirror.read(file), list(generated.bases(state))
    registry_mirror.restore(connection, rows)
    if rows or bases:
        _skip_ids(connection)
    seen: set[str] = set()
    for base in [*_roots(connection), *bases]:
        for place in _places(base):
            if place.checkout.token_file not in seen:
                seen.add(place.checkout.token_file)
                _recall(connection, place)
    known = registry_mirror.revision(file) or 0
    connection.execute("UPDATE registry SET revision = ?", (known + 1,))
    (count,) = connection.execute("SELECT count(*) FROM lease").fetchone()
    return int(count)


def _skip_ids(connection: sqlite3.Connection) -> None:
    """Let new leases have ids that none can have had before."""
    (last,) = connection.execute("SELECT ifnull(max(id), 0) FROM lease").fetchone()
    start = last + (int.from_bytes(os.urandom(8), "big") >> (64 - ID_BITS))
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'lease'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('lease', ?)", (start,))


def _roots(connection: sqlite3.Connection) -> list[str]:
    rows = connection.execute("SELECT root FROM lease WHERE root IS NOT NULL ORDER BY id")
    return [os.fsdecode(root) for (root,) in rows]


def _places(base: str) -> Iterator[Place]:
    """Yield the checkout that a directory is in, and the other work trees of its repository."""
    if (place := _located(base)) is None:
        return
    yield place
    for worktree in checkout.linked_worktrees(place.checkout):
        if not worktree.bare and (other := _located(worktree.path)):
            yield other


def _located(directory: str) -> Place | None:
    try:
        return checkout.locate(directory)
    except IsoenvError:
        return None


def _recall(connection: sqlite3.Connection, place: Place) -> None:
    """Insert what a checkout remembers, where the mirror says nothing of it."""
    found = place.checkout
    token = tokens.read_token(found)
    if token is None:
        return
    directory = found.git_dir or found.root
    try:
        status = os.stat(directory)
    except OSError:
        return
    for key, (slot, name) in token.entries.items():
        path, _, relative = key.partition("//")
        base, title = found.root, key
        if key.startswith("/"):
            # A repository that was moved remembers what it held at its former path, too.
            if path != checkout.project_dir(found):
                continue
            base = f"{found.root}/{relative}".rstrip("/")
            title = checkout.project_name(found, base)
        where = (os.fsencode(base), os.fsencode(directory), str(status.st_dev), str(status.st_ino))
        # Numbers and names that SQLite cannot hold are no slots.
        with contextlib.suppress(OverflowError, UnicodeEncodeError):
            connection.execute(_PROJECT, (os.fsencode(key), title))
            values = (slot, name, token.value, *where, time.time(), os.fsencode(key))
            connection.execute(_LEASE, values)
