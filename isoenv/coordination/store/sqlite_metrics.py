"""Metrics and subagents in SQLite."""

from __future__ import annotations

import os
import time

from isoenv.coordination.store.database import Database

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from isoenv.coordination.records import Sum

# The values, and for each session with live subagents how many it has.
_SUMS = """
SELECT counted.name, sum(value), count(DISTINCT session_id),
       count(DISTINCT project_key || ' ' || slot)
FROM (SELECT name, session_id, value FROM metric
      UNION ALL SELECT 'agents', session_id, count(*) FROM agent GROUP BY session_id) AS counted
JOIN session ON session.id = session_id
WHERE (?1 IS NULL OR project_key = ?1) AND (?2 IS NULL OR slot = ?2)
GROUP BY counted.name ORDER BY counted.name
"""
_TOTAL = """
SELECT total(value) + (?1 = 'agents') * (SELECT count(*) FROM agent)
FROM metric WHERE name = ?1
"""
_TOTAL_OF = """
SELECT total(value) + (?1 = 'agents') * (
  SELECT count(*) FROM agent JOIN session ON session.id = session_id WHERE project_key = ?2)
FROM metric JOIN session ON session.id = session_id WHERE metric.name = ?1 AND project_key = ?2
"""
_SET = """
INSERT INTO metric (name, session_id, value) SELECT ?, id, ? FROM session WHERE id = ?
ON CONFLICT (name, session_id) DO UPDATE SET value = excluded.value
"""
_ADD = """
INSERT INTO metric (name, session_id, value) SELECT ?, id, ? FROM session WHERE id = ?
ON CONFLICT (name, session_id) DO UPDATE SET value = value + excluded.value
"""


class MetricTables(Database):
    """The part of the store that counts."""

    def set_metric(self, session_id: str, name: str, value: float) -> float | None:
        """Set a value and return it; None where there is no such session."""
        return self._write(session_id, name, value, _SET)

    def add_metric(self, session_id: str, name: str, value: float) -> float | None:
        """Add to a value, 0 at first, and return the new one; None as above."""
        return self._write(session_id, name, value, _ADD)

    def _write(self, session_id: str, name: str, value: float, sql: str) -> float | None:
        with self.transaction() as connection:
            connection.execute(sql, (name, value, session_id))
            found = connection.execute(
                "SELECT value FROM metric WHERE name = ? AND session_id = ?", (name, session_id)
            ).fetchone()
        return found[0] if found else None

    def metrics(self, session_id: str) -> dict[str, float]:
        """Return a session's values; ``agents`` with its live subagents."""
        found = self.rows(
            "SELECT name, value FROM metric WHERE session_id = ?1 UNION ALL"
            " SELECT 'agents', count(*) FROM agent WHERE session_id = ?1 GROUP BY session_id",
            (session_id,),
        )
        values: dict[str, float] = {}
        for name, value in found:
            values[name] = values.get(name, 0.0) + value
        return values

    def sums(self, project_key: str | None = None, slot: int | None = None) -> list[Sum]:
        """Return each metric over all sessions, or those of a project or an instance."""
        from isoenv.coordination.records import Sum

        rows = self.rows(_SUMS, (None if project_key is None else os.fsencode(project_key), slot))
        return [Sum(*row) for row in rows]

    def total(self, name: str, project_key: str | None = None) -> float:
        """Return the total of one metric."""
        if project_key is None:
            rows = self.rows(_TOTAL, (name,))
        else:
            rows = self.rows(_TOTAL_OF, (name, os.fsencode(project_key)))
        total: float = rows[0][0]
        return total

    def agent_started(self, session_id: str, agent_id: str, kind: str) -> bool:
        """Record a subagent, once; False where there is no such session."""
        with self.transaction() as connection:
            connection.execute(
                "INSERT INTO agent SELECT id, ?, ?, ? FROM session WHERE id = ?"
                " ON CONFLICT DO NOTHING",
                (agent_id, kind, time.time(), session_id),
            )
            found = connection.execute("SELECT 1 FROM session WHERE id = ?", (session_id,))
            return found.fetchone() is not None

    def agent_ended(self, session_id: str, agent_id: str) -> None:
        """Forget a subagent, if it is known."""
        with self.transaction() as connection:
            connection.execute(
                "DELETE FROM agent WHERE session_id = ? AND agent_id = ?", (session_id, agent_id)
            )

    def agents(self, session_id: str) -> dict[str, str]:
        """Return a session's live subagents, id -> type."""
        return dict(
            self.rows(
                "SELECT agent_id, type FROM agent WHERE session_id = ?"
                " ORDER BY started_at, agent_id",
                (session_id,),
            )
        )
