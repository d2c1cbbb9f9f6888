"""Locks of all hosts in PostgreSQL: which session holds one across commands, and who is known."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv import liveness
from isoenv.coordination.store.columns import claim_of
from isoenv.coordination.store.postgres_database import NOW, Database, execute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import psycopg

    from isoenv.coordination.records import Claim

_CLAIMS = f"""
SELECT path, lock.name, lock.project, token, since - %(ahead)s, expires - {NOW},
       session.name, session.project, slot,
       session.id, pid, start, inode, boot, namespace, host, beat, beaten_at - %(ahead)s
FROM lock JOIN session ON session.id = session_id
"""  # noqa: S608  # of constants
# A token that is greater than those of all earlier holders of every kind.
_TAKE = f"""
INSERT INTO lock AS old (path, name, project, turn, token, session_id, since, expires)
SELECT %(path)s, %(name)s, %(project)s, 1, 1, id, {NOW}, {NOW} + %(ttl)s::float8
FROM session WHERE id = %(session)s FOR KEY SHARE
ON CONFLICT (path) DO UPDATE SET turn = old.turn + %(new)s,
  token = CASE WHEN %(new)s = 1 THEN old.turn + 1 ELSE old.token END,
  session_id = excluded.session_id, expires = excluded.expires,
  since = CASE WHEN %(new)s = 1 THEN excluded.since ELSE old.since END
"""  # noqa: S608  # of constants
_FREE = "UPDATE lock SET session_id = NULL WHERE path = %s AND session_id = %s RETURNING 1"
# Whoever has a lock of this database's, or waits for one, with what it has written down.
_ASKERS = """
SELECT lock.name, lock.project, lock_record.mode, about,
       bool_or(granted AND proof = (classid::bigint << 32 | objid::bigint))
FROM lock_record JOIN pg_locks ON pid = backend AND locktype = 'advisory' AND objsubid = 1
JOIN lock USING (path)
WHERE database = (SELECT oid FROM pg_database WHERE datname = current_database())
GROUP BY backend, lock.path ORDER BY asked_at
"""
FORGET = """
DELETE FROM lock_record WHERE backend IN (
  SELECT backend FROM lock_record
  WHERE NOT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = backend)
  FOR UPDATE SKIP LOCKED)
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
        with self.transaction() as connection:
            # One at a time for each lock, also where there is no row yet.
            turn = f"isoenv claim {path}"
            execute(connection, "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", (turn,))
            held = self._held(connection, path)
            if held and held.pulse[0] != session_id and not is_free(held):
                return held
            is_mine = held is not None and held.pulse[0] == session_id and not held.is_over
            values = {
                "path": path,
                "name": os.fsencode(name),
                "project": None if project is None else os.fsencode(project),
                "session": session_id,
                "ttl": ttl,
                "new": int(not is_mine),
            }
            execute(connection, _TAKE, values)
            return self._held(connection, path)

    def _held(self, connection: psycopg.Connection, path: str) -> Claim | None:
        values = {"ahead": self.ahead, "path": path}
        row = execute(connection, f"{_CLAIMS} WHERE path = %(path)s", values).fetchone()
        return None if row is None else _claim(row)

    def free_lock(self, path: str, session_id: str) -> bool:
        """Give a lock back, and wake who waits for it; False where the session does not hold it."""
        with self.transaction() as connection:
            is_done = bool(execute(connection, _FREE, (path, session_id)).fetchall())
            if is_done:
                execute(connection, "SELECT pg_notify(%s, '')", (channel(path),))
        return is_done

    def claim(self, path: str) -> Claim | None:
        """Return who holds a lock."""
        rows = self.rows(f"{_CLAIMS} WHERE path = %(path)s", {"ahead": self.ahead, "path": path})
        return _claim(rows[0]) if rows else None

    def claims(self) -> list[Claim]:
        """Return what all sessions hold."""
        rows = self.rows(f"{_CLAIMS} ORDER BY path", {"ahead": self.ahead})
        return [_claim(row) for row in rows]

    def lock_askers(self) -> list[tuple[str, str | None, str, str, bool]]:
        """Return who holds a lock or waits for it, on all hosts, who asked first is first.

        That is the name, the project, the mode, the record and whether it holds the lock.
        """
        return [
            (os.fsdecode(name), None if project is None else os.fsdecode(project), *rest)
            for name, project, *rest in self.rows(_ASKERS)
        ]

    def forget_lock_records(self) -> None:
        """Delete what was written down of processes that are connected no more."""
        with self.transaction() as connection:
            execute(connection, FORGET)


def channel(path: str) -> str:
    """Return what who waits for a lock listens to."""
    from hashlib import sha256

    return f"isoenv_lock_{sha256(path.encode()).hexdigest()[:32]}"


def _claim(row: Sequence[Any]) -> Claim:
    """Return who holds a lock, with the end of its time by this host's clock."""
    path, name, project, token, since, left, *rest = row
    expires = None if left is None else time.monotonic_ns() + int(left * NANO)
    found = claim_of((path, name, project, token, since, liveness.boot_id(), expires, *rest))
    assert found is not None  # noqa: S101  # there is a row
    return found
