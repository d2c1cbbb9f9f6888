"""Locks that sessions hold across commands, in PostgreSQL: those of each host for itself.

What they stand beside is a lock of one machine's kernel, and so they are one machine's too.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv import liveness
from isoenv.coordination.store.columns import claim_of
from isoenv.coordination.store.postgres_database import Database, execute

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    from isoenv.coordination.records import Claim

_CLAIM = """
SELECT path, lock.name, lock.project, token, since, lock.boot, expires,
       session.name, session.project, slot,
       session.id, pid, start, inode, session.boot, namespace, session.host, beat,
       beaten_at - %s
FROM lock JOIN session ON session.id = session_id WHERE lock.host = %s AND path = %s
"""
_TAKE = """
INSERT INTO lock AS old (host, path, name, project, token, session_id, since, boot, expires)
SELECT %s, %s, %s, %s, 1, id, %s, %s, %s FROM session WHERE id = %s FOR KEY SHARE
ON CONFLICT (host, path) DO UPDATE SET token = old.token + %s, session_id = excluded.session_id,
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
        host = liveness.hostname()
        with self.transaction() as connection:
            # One at a time for each lock, also where there is no row yet.
            turn = f"isoenv {host} {path}"
            execute(connection, "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (turn,))
            held = self._held(connection, path)
            if held and held.pulse[0] != session_id and not is_free(held):
                return held
            is_mine = held is not None and held.pulse[0] == session_id and not held.is_over
            values = (
                *(host, path, os.fsencode(name)),
                None if project is None else os.fsencode(project),
                *(held.since if held and is_mine else time.time(), liveness.boot_id(), expires),
            )
            execute(connection, _TAKE, (*values, session_id, int(not is_mine)))
            return self._held(connection, path)

    def _held(self, connection: psycopg.Connection, path: str) -> Claim | None:
        values = (self.ahead, liveness.hostname(), path)
        return claim_of(execute(connection, _CLAIM, values).fetchone())

    def free_lock(self, path: str, session_id: str) -> bool:
        """Give a lock back; False where the session does not hold it."""
        return bool(
            self.rows(
                "UPDATE lock SET session_id = NULL"
                " WHERE host = %s AND path = %s AND session_id = %s RETURNING 1",
                (liveness.hostname(), path, session_id),
            )
        )

    def claim(self, path: str) -> Claim | None:
        """Return who holds a lock."""
        rows = self.rows(_CLAIM, (self.ahead, liveness.hostname(), path))
        return claim_of(rows[0]) if rows else None
