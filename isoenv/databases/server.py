"""A session with a PostgreSQL server: what is there, who is connected, and whose turn it is."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv.databases import naming
from isoenv.databases.ownership import names
from isoenv.errors import IsoenvError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import LiteralString, Self

    import psycopg
    from psycopg import sql

    from isoenv.databases.address import Postgres

# The databases that every server has; one cannot be made or dropped from within itself.
MAINTENANCE = ("postgres", "template1")
# Seconds to wait for an answer from a server, unless the URL says otherwise.
CONNECT_TIMEOUT = "10"
# Seconds between two looks at who is connected.
INTERVAL = 0.1
# What a server says while it starts, in its logs' own words.
STARTING = ("starting up", "not yet accepting", "recovery")
UNREACHED = "is it running, and is its address in `url` right?"

_DATABASES = """
SELECT datname, shobj_description(oid, 'pg_database'), datistemplate,
       CASE WHEN has_database_privilege(oid, 'CONNECT') THEN pg_database_size(oid) END
FROM pg_database WHERE datname = ANY(%s::name[])
"""
_USERS = """
SELECT pid, usename, application_name, client_addr::text FROM pg_stat_activity
WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type IS DISTINCT FROM 'autovacuum worker'
ORDER BY backend_start
"""
_HOLDERS = """
SELECT activity.pid, usename, application_name, client_addr::text
FROM pg_locks JOIN pg_stat_activity activity USING (pid)
WHERE locktype = 'advisory' AND granted AND activity.pid <> pg_backend_pid()
AND (classid::bigint << 32 | objid::bigint) = %s
"""


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the server's list of databases; ``size`` is None where it may not be asked for."""

    comment: str | None
    is_template: bool
    size: int | None


class Session:
    """A connection that commits each statement; its locks end with it, also when it is killed."""

    def __init__(self, place: Postgres, purpose: str, deadline: float) -> None:
        """Connect; ``deadline`` is on the monotonic clock and holds for all waits."""
        self.place = place
        self.deadline = deadline
        self.connection = self._connect(purpose)

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the connection."""
        self.connection.close()

    def _connect(self, purpose: str) -> psycopg.Connection:
        require_driver()
        import psycopg
        from psycopg.conninfo import make_conninfo

        given = {"connect_timeout": CONNECT_TIMEOUT, **self.place.parameters, **self.place.secrets}
        # What only the program's own library understands, such as Prisma's ?schema=, stays out.
        known = {option.keyword.decode() for option in psycopg.pq.Conninfo.get_defaults()}
        given = {name: value for name, value in given.items() if name in known}
        given |= {"application_name": f"isoenv {purpose}", "client_encoding": "UTF8"}
        databases = list(MAINTENANCE)
        while True:
            given["dbname"] = databases[0]
            try:
                return psycopg.connect(make_conninfo("", **given), autocommit=True)
            except psycopg.Error as error:
                failure = reason(error)
            if any(word in failure for word in STARTING) and self.left() > 0:
                time.sleep(INTERVAL)
            elif databases[0] in failure and databases[1:]:
                databases.pop(0)
            else:
                hint = "is `url` right?" if "FATAL" in failure else UNREACHED
                raise IsoenvError(f"cannot connect to {self.place.label}: {failure}: {hint}")

    def left(self) -> float:
        """Return the seconds left for waiting."""
        return self.deadline - time.monotonic()

    def run(self, statement: LiteralString, *names: str, text: str | None = None) -> None:
        """Run a statement with quoted names for its ``{}``, and ``text`` as a literal last."""
        from psycopg import sql

        parts: list[sql.Composable] = [sql.Identifier(name) for name in names]
        if text is not None:
            parts.append(sql.Literal(text))
        self.connection.execute(sql.SQL(statement).format(*parts))

    def rows(self, *names: str) -> dict[str, Row]:
        """Return those of these databases that are there."""
        found = self.connection.execute(_DATABASES, [list(names)]).fetchall()
        return {name: Row(comment, is_template, size) for name, comment, is_template, size in found}

    def users(self, database: str) -> list[str]:
        """Return who is connected to a database, for people."""
        return _people(self.connection.execute(_USERS, [database]).fetchall())

    def lock(self, exclusive: Sequence[str], shared: Sequence[str] = ()) -> None:
        """Wait until these databases are this session's to change, and those to copy from.

        Raises TimedOutError that names who has one of them.
        """
        kinds = [(naming.lock_key(name), name, False) for name in exclusive]
        kinds += [(naming.lock_key(name), name, True) for name in shared]
        # In one order for all, so that two never wait for each other.
        for key, name, is_shared in sorted(kinds):
            self._lock(key, name, is_shared=is_shared)
        self.connection.execute("SET lock_timeout = 0")

    def _lock(self, key: int, name: str, *, is_shared: bool) -> None:
        import psycopg

        milliseconds = str(max(1, int(self.left() * 1000)))
        self.connection.execute("SELECT set_config('lock_timeout', %s, false)", [milliseconds])
        try:
            if is_shared:
                self.connection.execute("SELECT pg_advisory_lock_shared(%s)", [key])
            else:
                self.connection.execute("SELECT pg_advisory_lock(%s)", [key])
        except psycopg.errors.LockNotAvailable:
            found = _people(self.connection.execute(_HOLDERS, [key]).fetchall())
            raise TimedOutError(
                f"{name} on {self.place.label} is in the hands of {names(found) or 'nobody now'}: "
                "`--timeout SECONDS` waits longer"
            ) from None


def require_driver() -> None:
    """Raise IsoenvError where psycopg is missing, which comes with an extra."""
    try:
        import psycopg  # noqa: F401  # whether it is there is the question
    except ImportError:
        raise IsoenvError("PostgreSQL needs psycopg: `pip install 'isoenv[postgres]'`") from None


@contextmanager
def told(place: Postgres) -> Iterator[None]:
    """Turn what the server says into one line without secrets."""
    require_driver()
    import psycopg

    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        user = place.parameters.get("user", "ROLE")
        remedy = f'`ALTER ROLE "{user}" CREATEDB`, or connect as its owner'
        raise IsoenvError(place.hide(f"{place}: {reason(error)}: {remedy}")) from None
    except psycopg.Error as error:
        raise IsoenvError(place.hide(f"{place}: {reason(error)}")) from None
    except UnicodeEncodeError:
        raise IsoenvError(f"{place}: a name that is no UTF-8: rename the instance") from None
    except IsoenvError as error:
        error.args = (place.hide(str(error)),)
        raise


def reason(error: psycopg.Error) -> str:
    """Return what the server, or the way to it, says in one line."""
    text = error.diag.message_primary
    if text:
        return f"{text}: {error.diag.message_detail}" if error.diag.message_detail else text
    line = str(error).partition("\n")[0].strip()
    return line.removeprefix("connection failed: ").removeprefix("connection is bad: ")


def _people(rows: Sequence[tuple[int, str | None, str | None, str | None]]) -> list[str]:
    """Say who is connected: the program, its pid in the server, the user and the address."""
    return [
        f"{program or 'a client'} (server pid {pid}, {user or 'unknown user'}"
        f"{f' from {client}' if client else ''})"
        for pid, user, program, client in rows
    ]
