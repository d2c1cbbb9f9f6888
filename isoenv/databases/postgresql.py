"""A database on a PostgreSQL server: made under another name, then given its own.

What has its own name is whole, and marked as isoenv's by a comment. What a killed isoenv has
left has the other name, and the next one drops it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv.databases import dump, marks, naming, ownership, records
from isoenv.databases.address import Postgres
from isoenv.databases.ownership import Found
from isoenv.databases.server import INTERVAL, Session, told
from isoenv.databases.targets import Dump
from isoenv.errors import IsoenvError, TimedOutError

if TYPE_CHECKING:
    from isoenv.databases.desk import Desk
    from isoenv.databases.records import Record
    from isoenv.databases.server import Row
    from isoenv.databases.targets import Target

# Seconds for a client that has just ended to be gone from the server's list.
GRACE = 1.0
# From this size on a copy file by file is faster than one through the log, in bytes; the server
# makes a checkpoint for it.
LARGE = 64 << 20
# The first server that has both ways.
HAS_STRATEGY = 150000


class Database:
    """What can be done with one database."""

    def __init__(self, target: Target, place: Postgres, desk: Desk) -> None:
        """Take what the database should be, and for whom it is done."""
        self.target = target
        self.place = place
        self.desk = desk
        self.temporary = naming.unfinished(place.database)

    def _session(self, action: str) -> Session:
        return Session(self.place, f"db {action} {self.target.name}", self.desk.deadline)

    def _record(self) -> Record | None:
        return records.read(self.desk.state, self.place)

    def look(self) -> tuple[Found | None, bool]:
        """Return what is there, and whether an unfinished one is."""
        with told(self.place), self._session("list") as session:
            rows = session.rows(self.place.database, self.temporary)
            left = self.temporary in rows
            if (row := rows.get(self.place.database)) is None:
                return None, left
            users = session.users(self.place.database)
            mark = marks.read(row.comment)
            return Found(mark, row.size, users), left

    def create(self) -> bool:
        """Make it where it is missing; return whether it was."""
        with told(self.place), self._session("create") as session:
            session.lock([self.place.database], self._source())
            row = session.rows(self.place.database).get(self.place.database)
            if row:
                mark = marks.read(row.comment)
                ownership.refuse_others(self.target, self._record(), mark)
                if mark:
                    # The slot may have come to another checkout since.
                    records.write(self.desk.state, records.of(self.target, self.desk.project))
                return False
            self._build(session)
            return True

    def reset(self, *, force: bool) -> None:
        """Make it anew: the old one stays until the new one is whole."""
        with told(self.place), self._session("reset") as session:
            session.lock([self.place.database], self._source())
            row = session.rows(self.place.database).get(self.place.database)
            if row:
                self._check_droppable(session, row, "reset", force=force)
            self._build(session, row, force=force)

    def drop(self, *, force: bool) -> bool:
        """Drop it; return whether it was there."""
        with told(self.place), self._session("drop") as session:
            session.lock([self.place.database])
            found = session.rows(self.place.database, self.temporary)
            if self.temporary in found:
                _drop(session, self.temporary, force=True)
            row = found.get(self.place.database)
            if row:
                self._check_droppable(session, row, "drop", force=force)
                self._drop(session, row, "drop", force=force)
        records.remove(self.desk.state, self.place)
        return row is not None

    def freeze(self) -> bool:
        """Let nobody connect to it and everybody copy it, as a copy of its template if missing.

        Return whether it was missing.
        """
        with told(self.place), self._session("freeze") as session:
            session.lock([self.place.database], self._source())
            row = session.rows(self.place.database).get(self.place.database)
            if row is None:
                self._build(session, frozen=True)
            else:
                _freeze(session, self.place.database)
                if users := session.users(self.place.database):
                    self.desk.say(f"still connected to {self.place}: {ownership.names(users)}")
            return row is None

    def refresh(self, *, force: bool) -> None:
        """Make a frozen template anew from its own template."""
        with told(self.place), self._session("refresh") as session:
            session.lock([self.place.database], self._source())
            row = session.rows(self.place.database).get(self.place.database)
            if row:
                ownership.refuse_foreign(self.target, self._record(), marks.read(row.comment))
            source = self.target.template
            if force and isinstance(source, Postgres):
                _end_users(session, source.database)
            self._build(session, row, force=True, frozen=True)

    def _source(self) -> list[str]:
        template = self.target.template
        return [template.database] if isinstance(template, Postgres) else []

    def _check_droppable(self, session: Session, row: Row, action: str, *, force: bool) -> None:
        ownership.refuse_foreign(self.target, self._record(), marks.read(row.comment))
        if not force:
            ownership.refuse_used(self.target, _lasting_users(session, self.place), action)

    def _build(
        self,
        session: Session,
        former: Row | None = None,
        *,
        force: bool = False,
        frozen: bool = False,
    ) -> None:
        """Make the database under its other name, and put it in the place of the former one."""
        # Whose turn it is, is settled: what is there was left by somebody who was killed.
        _drop(session, self.temporary, force=True)
        project = self.desk.project
        records.write(self.desk.state, records.of(self.target, project))
        try:
            self._fill(session)
            comment = str(self.target.mark)
            session.run("COMMENT ON DATABASE {} IS {}", self.temporary, text=comment)
            if frozen:
                _freeze(session, self.temporary)
            if former:
                self._drop(session, former, "reset", force=force)
            session.run("ALTER DATABASE {} RENAME TO {}", self.temporary, self.place.database)
        except BaseException:
            with suppress(Exception):
                _drop(session, self.temporary, force=True)
                if former is None:
                    records.remove(self.desk.state, self.place)
            raise

    def _fill(self, session: Session) -> None:
        source = self.target.template
        if isinstance(source, Postgres):
            self._copy(session, source)
            return
        session.run("CREATE DATABASE {}", self.temporary)
        if isinstance(source, Dump):
            dump.load(self.place, self.temporary, source.path, self.desk.say)

    def _copy(self, session: Session, source: Postgres) -> None:
        """Copy the template as soon as nobody is connected to it."""
        import psycopg

        row = session.rows(source.database).get(source.database)
        if row is None:
            remedy = "make it, or `template` may be a `file:`"
            raise IsoenvError(f"there is no template {source}: {remedy}")
        is_large = (row.size or 0) >= LARGE
        has_strategy = session.connection.info.server_version >= HAS_STRATEGY
        told_of: list[str] = []
        while True:
            users = session.users(source.database)
            if not users:
                try:
                    if is_large and has_strategy:
                        session.run(
                            "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy",
                            self.temporary,
                            source.database,
                        )
                    else:
                        session.run(
                            "CREATE DATABASE {} TEMPLATE {}", self.temporary, source.database
                        )
                except psycopg.errors.ObjectInUse:
                    users = session.users(source.database)
                else:
                    return
            if users and not told_of:
                self.desk.say(f"waiting: {source} is in use by {ownership.names(users)}")
            told_of = users or told_of
            if session.left() <= 0:
                raise TimedOutError(
                    f"{source} cannot be copied, it is in use by "
                    f"{ownership.names(told_of) or 'somebody'}: close them, or "
                    f"`isoenv db freeze {self.target.name}` with a template of its own"
                )
            time.sleep(INTERVAL)

    def _drop(self, session: Session, row: Row, action: str, *, force: bool) -> None:
        import psycopg

        if row.is_template:
            session.run("ALTER DATABASE {} IS_TEMPLATE false", self.place.database)
        try:
            _drop(session, self.place.database, force=force)
        except psycopg.errors.ObjectInUse:
            users = session.users(self.place.database) or ["somebody"]
            ownership.refuse_used(self.target, users, action)
            raise


def _drop(session: Session, database: str, *, force: bool) -> None:
    if force:
        session.run("DROP DATABASE IF EXISTS {} WITH (FORCE)", database)
    else:
        session.run("DROP DATABASE IF EXISTS {}", database)


def _freeze(session: Session, database: str) -> None:
    session.run("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE true", database)


def _end_users(session: Session, database: str) -> None:
    session.connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid()",
        [database],
    )


def _lasting_users(session: Session, place: Postgres) -> list[str]:
    """Return who is connected, without those who are just going."""
    until = time.monotonic() + GRACE
    while (users := session.users(place.database)) and time.monotonic() < until:
        time.sleep(INTERVAL)
    return users
