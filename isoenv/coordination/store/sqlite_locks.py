"""Locks that sessions hold across commands, in SQLite."""

from __future__ import annotations

import os
import time

from isoenv import liveness
from isoenv.coordination.store.columns import claim_of
from isoenv.coordination.store.database import Database

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.coordination.records import Claim

_CLAIMS = """
SELECT path, lock.name, lock.project, token, since, lock.boot, expires,
       session.name, session.project, slot,
       session.id, pid, start, inode, session.boot, namespace, host, beat, beaten_at
FROM lock JOIN session ON session.id = session_id
"""
_TAKE = """
INSERT INTO lock (path, name, project, token, session_id, since, boot, expires)
SELECT ?, ?, ?, 1, id, ?, ?, ? FROM session WHERE id = ?
ON CONFLICT (path) DO UPDATE SET token = token + ?, session_id = excluded.session_id,
  since = excluded.since, boot = excluded.boot, expires = excluded.expires
"""
NANO = 1_000_000_000


class LockTables(Database):
    """The part of the store that says which session holds a lock."""

    def take_lock(  # noqa: PLR0913, PLR0917  # what is written down
        self,
        path: str,
        name: str,
        project: str | None,
        session_id: str,
        ttl: float | None,
        is_free: Callable[[Claim], bool],
    ) -> Claim | None:
        """Give a lock to a session, unless another holds it that is not free; return who has."""
        expires = None if ttl is None else time.monotonic_ns() + int(ttl * NANO)
        with self.transaction() as connection:
            held = claim_of(connection.execute(f"{_CLAIMS} WHERE path = ?", (path,)).fetchone())
            if held and held.pulse[0] != session_id and not is_free(held):
                return held
            is_mine = held is not None and held.pulse[0] == session_id and not held.is_over
            values = (
                *(path, os.fsencode(name), None if project is None else os.fsencode(project)),
                *(held.since if held and is_mine else time.time(), liveness.boot_id(), expires),
            )
            connection.execute(_TAKE, (*values, session_id, int(not is_mine)))
            found = connection.execute(f"{_CLAIMS} WHERE path = ?", (path,)).fetchone()
        return claim_of(found)

    def free_lock(self, path: str, session_id: str) -> bool:
        """Give a lock back; False where the session does not hold it."""
        with self.transaction() as connection:
            cursor = connection.execute(
                "UPDATE lock SET session_id = NULL WHERE path = ? AND session_id = ?",
                (path, session_id),
            )
        return cursor.rowcount > 0

    def claim(self, path: str) -> Claim | None:
        """Return who holds a lock."""
        rows = self.rows(f"{_CLAIMS} WHERE path = ?", (path,))
        return claim_of(rows[0]) if rows else None
