"""The store of several hosts, in PostgreSQL: its sessions, and all of its tables together."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv import liveness
from isoenv.coordination import addresses
from isoenv.coordination.store.columns import (
    COLUMNS,
    brief_of,
    place_values,
    process_values,
    record_of,
    values_of,
)
from isoenv.coordination.store.postgres_database import NOW, execute
from isoenv.coordination.store.postgres_locks import LockTables
from isoenv.coordination.store.postgres_messages import MessageTables, drop_deliveries, wake
from isoenv.coordination.store.postgres_metrics import MetricTables

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    import psycopg

    from isoenv.coordination.records import Place, Record
    from isoenv.coordination.store import Pulse
    from isoenv.process import Identity

_SELECT = f"SELECT {COLUMNS} FROM session"  # noqa: S608  # a constant
_PULSE = "SELECT id, pid, start, inode, boot, namespace, host, beat, beaten_at FROM session"
_BRIEF = "SELECT id, project_key FROM session WHERE"
_HERE = "pid = %(pid)s AND start = %(start)s AND boot = %(boot)s AND namespace = %(namespace)s"
# The two of a session's columns that are times by the server's clock.
_STARTED_AT, _BEATEN_AT = -3, -1


class PostgresStore(LockTables, MessageTables, MetricTables):
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

        session_id, wanted, *rest = self._shifted(values, self.ahead)
        with self.transaction(members=True) as connection:
            name, number = wanted, 1
            while name is not None and (holder := self._pulse(connection, name)):
                if is_gone(holder):
                    _delete(connection, [holder[0]])
                elif new:
                    number += 1
                    name = f"{wanted}-{number}"
                else:
                    raise IsoenvError(
                        f"{name} is the name of session {holder[0]}, process {holder[1]} on "
                        f"{holder[6]}:"
                        f" `isoenv session start --name {name} --new` takes the next free one"
                    )
            marks = ", ".join(["%s"] * len(values))
            sql = f"INSERT INTO session ({COLUMNS}) VALUES ({marks})"  # noqa: S608  # a constant
            execute(connection, sql, (session_id, name, *rest))
            _collect(connection, str(session_id))
        return None if name is None else str(name)

    def find(self, word: str) -> Record | None:
        """Return the session of that id or name."""
        return self._first(f"{_SELECT} WHERE id = %(it)s OR name = %(it)s LIMIT 1", {"it": word})

    def nameless(self, process: Identity) -> Record | None:
        """Return the session without a name of a process."""
        return self._first(
            f"{_SELECT} WHERE pid = %s AND start = %s AND inode = %s AND boot = %s"
            " AND namespace = %s AND host = %s AND name IS NULL LIMIT 1",
            process_values(process),
        )

    def brief(self, word: str) -> tuple[str, str | None] | None:
        """Return id and project of the session of that id or name."""
        rows = self.rows(f"{_BRIEF} id = %(it)s OR name = %(it)s LIMIT 1", {"it": word})
        return brief_of([(session_id, key) for session_id, key in rows])

    def brief_nameless(self, pid: int, start: int) -> tuple[str, str | None] | None:
        """Return id and project of the session without a name of a process that lives."""
        rows = self.rows(f"{_BRIEF} {_HERE} AND name IS NULL LIMIT 1", _here(pid, start))
        return brief_of([(session_id, key) for session_id, key in rows])

    def window(
        self, name: str, pid: int, start: int
    ) -> tuple[str, str, str | None, int | None, str | None] | None:
        """Return a process's session of that name, or of that name with a number behind it.

        That is its id, its name, and key, slot and name of its instance.
        """
        rows = self.rows(
            f"SELECT id, name, project_key, slot, instance FROM session WHERE {_HERE}"  # noqa: S608  # a constant
            " AND (name = %(name)s OR starts_with(name, %(name)s || '-')) LIMIT 1",
            {"name": name, **_here(pid, start)},
        )
        if not rows:
            return None
        session_id, found, key, slot, instance = rows[0]
        return session_id, found, None if key is None else os.fsdecode(key), slot, instance

    def of_process(self, pid: int, start: int) -> list[tuple[str, str]]:
        """Return the ids of a process's sessions, each with its labels as a JSON object."""
        rows = self.rows(f"SELECT id, labels FROM session WHERE {_HERE}", _here(pid, start))  # noqa: S608  # a constant
        return [(session_id, labels) for session_id, labels in rows]

    def sessions(self) -> list[Record]:
        """Return all sessions, the oldest first, dead or alive."""
        rows = self.rows(f"{_SELECT} ORDER BY started_at, id")
        return [record_of(self._shifted(row, -self.ahead)) for row in rows]

    def count(self, project_key: str | None = None) -> int:
        """Return how many sessions there are, or how many of a project."""
        key = None if project_key is None else os.fsencode(project_key)
        sql = "SELECT count(*) FROM session WHERE %(key)s::bytea IS NULL OR project_key = %(key)s"
        found: int = self.rows(sql, {"key": key})[0][0]
        return found

    def pulses(self, limit: int | None = None) -> list[Pulse]:
        """Return the sessions' processes: so many that were longest unchecked, or all."""
        # No number of rows is all of them.
        rows = self.rows(f"{_PULSE} ORDER BY checked LIMIT %s", (limit,))
        return [(*row[:-1], row[-1] - self.ahead) for row in rows]

    def check_off(self, ids: Sequence[str]) -> None:
        """Put sessions at the end of the order of ``pulses``."""
        with self.transaction() as connection:
            # Another process that has looked at the same ones has put them there.
            execute(
                connection,
                "UPDATE session SET checked = nextval('checked') WHERE id IN (SELECT id"
                " FROM session WHERE id = ANY(%s) FOR NO KEY UPDATE SKIP LOCKED)",
                (list(ids),),
            )

    def remove(self, ids: Sequence[str]) -> None:
        """Remove sessions with all that is theirs, and wake who waits as one of them."""
        with self.transaction(members=True) as connection:
            _delete(connection, ids)

    def forget_expired(self) -> None:
        """Delete the messages whose time is over, and what is known of locks that nobody has."""
        super().forget_expired()
        self.forget_lock_records()

    def beat(self, session_id: str) -> bool:
        """Record a heartbeat; False where there is no such session."""
        return self._update(session_id, f"beat = %s, beaten_at = {NOW}", time.monotonic_ns())

    def set_state(self, session_id: str, state: str) -> bool:
        """Record what a session is doing; False where there is no such session."""
        return self._update(session_id, "state = %s", state)

    def set_place(self, session_id: str, place: Place | None) -> bool:
        """Record where a session belongs now; False where there is no such session."""
        with self.transaction(members=True) as connection:
            cursor = execute(
                connection,
                "UPDATE session SET project_key = %s, project = %s, slot = %s, instance = %s"
                " WHERE id = %s",
                (*place_values(place), session_id),
            )
            if cursor.rowcount > 0:
                _collect(connection, session_id)
        return cursor.rowcount > 0

    def _update(self, session_id: str, change: str, value: object) -> bool:
        sql = f"UPDATE session SET {change} WHERE id = %s RETURNING 1"  # noqa: S608  # of this module
        return bool(self.rows(sql, (value, session_id)))

    def _first(self, sql: str, values: Sequence[object] | dict[str, object]) -> Record | None:
        rows = self.rows(sql, values)
        return record_of(self._shifted(rows[0], -self.ahead)) if rows else None

    def _pulse(self, connection: psycopg.Connection, name: object) -> Pulse | None:
        row = execute(connection, f"{_PULSE} WHERE name = %s", (name,)).fetchone()
        return None if row is None else (*row[:-1], row[-1] - self.ahead)

    @staticmethod
    def _shifted(values: tuple[Any, ...], seconds: int) -> tuple[Any, ...]:
        """Return a session's columns with its times by the other clock."""
        shifted = list(values)
        shifted[_STARTED_AT] += seconds
        shifted[_BEATEN_AT] += seconds
        return (*shifted,)


def _here(pid: int, start: int) -> dict[str, object]:
    """Return what tells a process of this host from all others."""
    boot, namespace = liveness.boot_id(), liveness.namespace()
    return {"pid": pid, "start": start, "boot": boot, "namespace": namespace}


def _collect(connection: psycopg.Connection, session_id: str) -> None:
    """Give a session what waits for the first one of its instance."""
    sql = "SELECT project_key, slot FROM session WHERE id = %s AND slot IS NOT NULL"
    for key, slot in execute(connection, sql, (session_id,)).fetchall():
        execute(
            connection,
            "UPDATE delivery SET address = %s WHERE address = %s",
            (addresses.of_session(session_id), addresses.of_instance(os.fsdecode(key), slot)),
        )


def _delete(connection: psycopg.Connection, ids: Sequence[str]) -> None:
    execute(connection, "DELETE FROM session WHERE id = ANY(%s)", (list(ids),))
    drop_deliveries(connection, "address = ANY(%s)", [addresses.of_session(each) for each in ids])
    wake(connection, ids)
