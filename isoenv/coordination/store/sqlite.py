"""The store of one machine, in SQLite: its sessions, and all of its tables together."""

from __future__ import annotations

import os
import time

from isoenv.coordination import addresses
from isoenv.coordination.store.columns import (
    COLUMNS,
    brief_of,
    place_values,
    process_values,
    record_of,
    values_of,
)
from isoenv.coordination.store.sqlite_locks import LockTables
from isoenv.coordination.store.sqlite_messages import MessageTables, waiting_for
from isoenv.coordination.store.sqlite_metrics import MetricTables

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Sequence

    from isoenv.coordination.records import Place, Record
    from isoenv.coordination.store import Pulse
    from isoenv.process import Identity

_SELECT = f"SELECT {COLUMNS} FROM session"  # noqa: S608  # a constant

# What goes with a session, and the column that says so.
_OWNED = (
    ("session", "id"),
    ("metric", "session_id"),
    ("agent", "session_id"),
    ("waiter", "session_id"),
    ("delivery", "address"),
)
# How many values one statement takes in every SQLite.
CHUNK = 500
_PULSE = "SELECT id, pid, start, inode, boot, namespace, host, beat, beaten_at FROM session"
_BRIEF = "SELECT id, project_key FROM session WHERE"


class SqliteStore(LockTables, MessageTables, MetricTables):
    """Sessions, metrics, messages and locks in one database; see ``Store`` for each call."""

    def start(self, record: Record, is_gone: Callable[[Pulse], bool], *, new: bool) -> Record:
        """Add a session. A name that another holds is an error, or with ``new`` made another.

        What was sent to its instance while that had no session is for the first that comes.
        """
        from dataclasses import replace

        return replace(record, name=self.begin(values_of(record), is_gone, new=new))

    def begin(
        self, values: tuple[object, ...], is_gone: Callable[[Pulse], bool], *, new: bool
    ) -> str | None:
        """Add a session by the values of its columns, as ``start`` does; return its name."""
        from isoenv.errors import IsoenvError

        session_id, wanted, *rest = values
        waiting: list[bytes] = []
        with self.transaction() as connection:
            name, number = wanted, 1
            while name is not None and (holder := _pulse(connection, name)):
                if is_gone(holder):
                    waiting += waiting_for(connection, [holder[0]])
                    _delete(connection, [holder[0]])
                elif new:
                    number += 1
                    name = f"{wanted}-{number}"
                else:
                    raise IsoenvError(
                        f"{name} is the name of session {holder[0]}, process {holder[1]}:"
                        f" `isoenv session start --name {name} --new` takes the next free one"
                    )
            connection.execute(
                f"INSERT INTO session ({COLUMNS}, checked)"  # noqa: S608  # a constant
                f" VALUES ({', '.join('?' * len(values))}, ?)",
                (session_id, name, *rest, time.time_ns()),
            )
            _collect(connection, str(session_id))
        if waiting:
            from isoenv.coordination.store import pipes

            pipes.wake(waiting)
        return None if name is None else str(name)

    def find(self, word: str) -> Record | None:
        """Return the session of that id or name."""
        found = self.rows(f"{_SELECT} WHERE id = ?1 OR name = ?1 LIMIT 1", (word,))
        return record_of(found[0]) if found else None

    def nameless(self, process: Identity) -> Record | None:
        """Return the session without a name of a process."""
        found = self.rows(
            f"{_SELECT} WHERE pid = ? AND start = ? AND inode = ? AND boot = ? AND namespace = ?"
            " AND host = ? AND name IS NULL LIMIT 1",
            process_values(process),
        )
        return record_of(found[0]) if found else None

    def brief(self, word: str) -> tuple[str, str | None] | None:
        """Return id and project of the session of that id or name."""
        return brief_of(self.rows(f"{_BRIEF} id = ?1 OR name = ?1 LIMIT 1", (word,)))

    def brief_nameless(self, pid: int, start: int) -> tuple[str, str | None] | None:
        """Return id and project of the session without a name of a process that lives."""
        return brief_of(
            self.rows(f"{_BRIEF} pid = ? AND start = ? AND name IS NULL LIMIT 1", (pid, start))
        )

    def window(
        self, name: str, pid: int, start: int
    ) -> tuple[str, str, str | None, int | None, str | None] | None:
        """Return a process's session of that name, or of that name with a number behind it.

        That is its id, its name, and key, slot and name of its instance.
        """
        rows = self.rows(
            "SELECT id, name, project_key, slot, instance FROM session"
            " WHERE pid = ?1 AND start = ?2"
            " AND (name = ?3 OR substr(name, 1, length(?3) + 1) = ?3 || '-') LIMIT 1",
            (pid, start, name),
        )
        if not rows:
            return None
        session_id, found, key, slot, instance = rows[0]
        return session_id, found, None if key is None else os.fsdecode(key), slot, instance

    def of_process(self, pid: int, start: int) -> list[tuple[str, str]]:
        """Return the ids of a process's sessions, each with its labels as a JSON object."""
        return self.rows("SELECT id, labels FROM session WHERE pid = ? AND start = ?", (pid, start))

    def sessions(self) -> list[Record]:
        """Return all sessions, the oldest first, dead or alive."""
        return [record_of(row) for row in self.rows(f"{_SELECT} ORDER BY started_at, id")]

    def count(self, project_key: str | None = None) -> int:
        """Return how many sessions there are, or how many of a project."""
        key = None if project_key is None else os.fsencode(project_key)
        sql = "SELECT count(*) FROM session WHERE ?1 IS NULL OR project_key = ?1"
        found: int = self.rows(sql, (key,))[0][0]
        return found

    def pulses(self, limit: int | None = None) -> list[Pulse]:
        """Return the sessions' processes: so many that were longest unchecked, or all."""
        return (
            self.rows(_PULSE)
            if limit is None
            else self.rows(f"{_PULSE} ORDER BY checked LIMIT ?", (limit,))
        )

    def check_off(self, ids: Sequence[str]) -> None:
        """Put sessions at the end of the order of ``pulses``."""
        now = time.time_ns()
        with self.transaction() as connection:
            connection.executemany(
                "UPDATE session SET checked = ? WHERE id = ?", [(now, each) for each in ids]
            )

    def remove(self, ids: Sequence[str]) -> None:
        """Remove sessions with all that is theirs, and wake who waits as one of them."""
        with self.transaction() as connection:
            waiting = waiting_for(connection, ids)
            _delete(connection, ids)
        if waiting:
            from isoenv.coordination.store import pipes

            pipes.wake(waiting)

    def beat(self, session_id: str) -> bool:
        """Record a heartbeat; False where there is no such session."""
        return self._update(session_id, "beat = ?, beaten_at = ?", time.monotonic_ns(), time.time())

    def set_state(self, session_id: str, state: str) -> bool:
        """Record what a session is doing; False where there is no such session."""
        return self._update(session_id, "state = ?", state)

    def set_place(self, session_id: str, place: Place | None) -> bool:
        """Record where a session belongs now; False where there is no such session."""
        with self.transaction() as connection:
            cursor = connection.execute(
                "UPDATE session SET project_key = ?, project = ?, slot = ?, instance = ?"
                " WHERE id = ?",
                (*place_values(place), session_id),
            )
            if cursor.rowcount > 0:
                _collect(connection, session_id)
        return cursor.rowcount > 0

    def _update(self, session_id: str, change: str, *values: object) -> bool:
        with self.transaction() as connection:
            cursor = connection.execute(
                f"UPDATE session SET {change} WHERE id = ?",  # noqa: S608  # of this module
                (*values, session_id),
            )
        return cursor.rowcount > 0


def _collect(connection: sqlite3.Connection, session_id: str) -> None:
    """Give a session what waits for the first one of its instance."""
    sql = "SELECT project_key, slot FROM session WHERE id = ? AND slot IS NOT NULL"
    for key, slot in connection.execute(sql, (session_id,)).fetchall():
        connection.execute(
            "UPDATE delivery SET address = ? WHERE address = ?",
            (addresses.of_session(session_id), addresses.of_instance(os.fsdecode(key), slot)),
        )


def _pulse(connection: sqlite3.Connection, name: object) -> Pulse | None:
    found: Pulse | None = connection.execute(f"{_PULSE} WHERE name = ?", (name,)).fetchone()
    return found


def _delete(connection: sqlite3.Connection, ids: Sequence[str]) -> None:
    # Of most kinds there is nothing at all, which is seen at once.
    owned = [
        (table, column)
        for table, column in _OWNED
        if connection.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()  # noqa: S608  # of this module
    ]
    for first in range(0, len(ids), CHUNK):
        chunk = ids[first : first + CHUNK]
        marks = ", ".join("?" * len(chunk))
        for table, column in owned:
            values = map(addresses.of_session, chunk) if table == "delivery" else chunk
            connection.execute(
                f"DELETE FROM {table} WHERE {column} IN ({marks})",  # noqa: S608  # of this module
                tuple(values),
            )
