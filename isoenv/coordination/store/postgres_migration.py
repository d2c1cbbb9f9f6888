"""Bring the tables in PostgreSQL from an earlier version to the present one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv.coordination import lock_names
from isoenv.coordination.store.postgres_schema import LOCKS

if TYPE_CHECKING:
    import psycopg

_OLD = "SELECT name, project, token, session_id, since FROM lock ORDER BY session_id IS NULL, since"
# Of several hosts' holders of one name, the one that has had it for longest goes on.
_ADD = """
INSERT INTO lock (path, name, project, turn, token, session_id, since)
VALUES (%s, %s, %s, %s, %s, %s, %s)
ON CONFLICT (path) DO UPDATE SET turn = greatest(lock.turn, excluded.turn),
  token = greatest(lock.token, excluded.token)
"""


def migrate(connection: psycopg.Connection) -> None:
    """Go from version 1, where locks were those of each host, within the caller's transaction.

    What a session holds it keeps. Until when was by its host's clock, and so it is as long as the
    session lives now.
    """
    connection.execute("LOCK TABLE lock")
    rows = connection.execute(_OLD).fetchall()
    connection.execute("DROP TABLE lock")
    connection.execute(LOCKS)
    for name, project, token, session_id, since in rows:
        scope = None if project is None else os.fsdecode(project)
        path = lock_names.path(scope, os.fsdecode(name))
        connection.execute(_ADD, (path, name, project, token, token, session_id, since))
