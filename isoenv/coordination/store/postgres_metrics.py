"""Metrics and subagents in PostgreSQL."""

from __future__ import annotations

import os

from isoenv.coordination.records import Sum
from isoenv.coordination.store.postgres_database import NOW, Database

# The values, and for each session with live subagents how many it has.
_VALUES = """
(SELECT name, session_id, value FROM metric
 UNION ALL SELECT 'agents', session_id, count(*) FROM agent GROUP BY session_id) AS counted
JOIN session ON session.id = session_id
"""
_SUMS = f"""
SELECT counted.name, sum(value), count(DISTINCT session_id),
       count(DISTINCT (project_key, slot)) FILTER (WHERE slot IS NOT NULL)
FROM {_VALUES}
WHERE (%(key)s::bytea IS NULL OR project_key = %(key)s::bytea)
  AND (%(slot)s::bigint IS NULL OR slot = %(slot)s::bigint)
GROUP BY counted.name ORDER BY counted.name COLLATE "C"
"""  # noqa: S608  # of constants
_TOTAL = f"""
SELECT coalesce(sum(value), 0)::float8 FROM {_VALUES}
WHERE counted.name = %(name)s AND (%(key)s::bytea IS NULL OR project_key = %(key)s::bytea)
"""  # noqa: S608  # of constants
# Locked, so that a session which ends meanwhile leaves nothing behind.
_LIVE = "FROM session WHERE id = %s FOR KEY SHARE"
_WRITE = f"""
INSERT INTO metric AS old (name, session_id, value) SELECT %s, id, %s {_LIVE}
ON CONFLICT (name, session_id) DO UPDATE SET value =
"""


class MetricTables(Database):
    """The part of the store that counts."""

    def set_metric(self, session_id: str, name: str, value: float) -> float | None:
        """Set a value and return it; None where there is no such session."""
        return self._write(session_id, name, value, "excluded.value")

    def add_metric(self, session_id: str, name: str, value: float) -> float | None:
        """Add to a value, 0 at first, and return the new one; None as above."""
        return self._write(session_id, name, value, "old.value + excluded.value")

    def _write(self, session_id: str, name: str, value: float, new: str) -> float | None:
        sql = f"{_WRITE} {new} RETURNING value"
        found = self.rows(sql, (name, float(value), session_id))
        return found[0][0] if found else None

    def metrics(self, session_id: str) -> dict[str, float]:
        """Return a session's values; ``agents`` with its live subagents."""
        sql = f"SELECT counted.name, sum(value) FROM {_VALUES} WHERE session_id = %s GROUP BY 1"  # noqa: S608  # of constants
        return dict(self.rows(sql, (session_id,)))

    def sums(self, project_key: str | None = None, slot: int | None = None) -> list[Sum]:
        """Return each metric over all sessions, or those of a project or an instance."""
        rows = self.rows(_SUMS, {"key": _key(project_key), "slot": slot})
        return [Sum(*row) for row in rows]

    def total(self, name: str, project_key: str | None = None) -> float:
        """Return the total of one metric."""
        rows = self.rows(_TOTAL, {"name": name, "key": _key(project_key)})
        return float(rows[0][0]) if rows else 0.0

    def agent_started(self, session_id: str, agent_id: str, kind: str) -> bool:
        """Record a subagent, once; False where there is no such session."""
        found = self.rows(
            f"WITH live AS (SELECT id {_LIVE}), added AS ("  # noqa: S608  # of constants
            f" INSERT INTO agent SELECT id, %s, %s, {NOW} FROM live ON CONFLICT DO NOTHING)"
            " SELECT 1 FROM live",
            (session_id, agent_id, kind),
        )
        return bool(found)

    def agent_ended(self, session_id: str, agent_id: str) -> None:
        """Forget a subagent, if it is known."""
        self.rows(
            "DELETE FROM agent WHERE session_id = %s AND agent_id = %s RETURNING 1",
            (session_id, agent_id),
        )

    def agents(self, session_id: str) -> dict[str, str]:
        """Return a session's live subagents, id -> type."""
        return dict(
            self.rows(
                "SELECT agent_id, type FROM agent WHERE session_id = %s"
                " ORDER BY started_at, agent_id",
                (session_id,),
            )
        )


def _key(project_key: str | None) -> bytes | None:
    return None if project_key is None else os.fsencode(project_key)
