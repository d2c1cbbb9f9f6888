"""Leases and port reservations, in one SQLite database.

A lease and its reservations are written in one transaction, which also chooses them: whoever
chooses and inserts in two steps gives one port to two processes. Writers queue on a lock file
before ``BEGIN IMMEDIATE``, because SQLite's own waiting is unfair and sleeps.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv import allocator, flock, paths
from isoenv.errors import RegistryError
from isoenv.host_claims import HostClaims
from isoenv.models import Lease, Project
from isoenv.registry_schema import TABLES, VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Self

    from isoenv.models import Checkout

# Seconds that a writer waits for the others before it gives up.
PATIENCE = 30.0
# The smallest page of SQLite, in bytes.
SMALLEST = 512

_LEASE = """
SELECT lease.id, project.key, project.name, slot, lease.name, token, root, git_dir, device,
       inode, created_at,
       (SELECT group_concat(name || ' ' || port, char(10)) FROM reservation
        WHERE lease_id = lease.id)
FROM lease JOIN project ON project.id = project_id
"""


class Registry:
    """An open registry. Closing it is left to the process's end, or ``with``."""

    def __init__(self, state: str) -> None:
        """Open the registry in the state directory, and make both where they are missing."""
        paths.make_private(state)
        self.state = state
        self.file = paths.registry_file(state)
        self.host = HostClaims(paths.host_dir(os.environ), state)
        # The instances that a transaction has changed, by project key and slot.
        self._changed: set[tuple[str, int]] = set()
        try:
            # Transactions are begun by hand: the module's own would begin deferred ones, which
            # fail at once when two of them want to write.
            self.connection = sqlite3.connect(self.file, timeout=PATIENCE, isolation_level=None)
            self.connection.execute("PRAGMA foreign_keys = ON")
            self.connection.execute("PRAGMA synchronous = FULL")
            if self._version() == 0:
                self._create()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        if (version := self._version()) > VERSION:
            raise RegistryError(
                f"{self.file} has schema {version}, this isoenv reads up to {VERSION}: "
                "`pip install --upgrade isoenv`"
            )

    def __enter__(self) -> Self:
        """Return the registry itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the database."""
        self.connection.close()

    def _version(self) -> int:
        version: int = self.connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    def _create(self) -> None:
        with self._gate():
            # Somebody else may have made it while this process waited.
            if self._version() == 0:
                # What is shorter than any database SQLite takes for none, and overwrites.
                if 0 < os.path.getsize(self.file) < SMALLEST:
                    raise self._unusable("file is not a database")
                self.connection.execute("PRAGMA journal_mode = WAL")
                self.connection.executescript(
                    f"BEGIN IMMEDIATE; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;"
                )

    def _unusable(self, error: object) -> RegistryError:
        return RegistryError(f"cannot use the registry {self.file}: {error}: `isoenv doctor`")

    @contextmanager
    def _gate(self) -> Iterator[None]:
        name = f"{self.file}.lock"
        try:
            descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RegistryError(f"cannot open {name}: {error.strerror}") from None
        try:
            if not flock.acquire(descriptor, PATIENCE):
                raise RegistryError(f"{name} is locked by another process for {PATIENCE:g} s")
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write with everybody else kept out; all of it happens, or nothing."""
        with self._gate():
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self.connection.execute("COMMIT")
                except BaseException:
                    self._changed.clear()
                    self.host.undo()
                    # A full disk makes SQLite roll back by itself.
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
                if self._changed or self.host.is_entered:
                    self.host.settle(self.claimed())
            except sqlite3.Error as error:
                raise self._unusable(error) from None
        # After the commit: who is woken earlier reads what was before.
        while self._changed:
            paths.touch(paths.notice_file(self.state, *self._changed.pop()))

    # -- reading ---------------------------------------------------------------------------

    def _rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self.connection.execute(sql, values).fetchall()
        except (OverflowError, UnicodeEncodeError):
            # A number too large or a name that is no Unicode: SQLite can hold it in no row.
            return []
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _leases(self, where: str, *values: object) -> list[Lease]:
        return [self._lease(*row) for row in self._rows(f"{_LEASE} {where}", *values)]

    def _lease(self, lease_id: int, *row: Any) -> Lease:  # noqa: ANN401  # the columns of _LEASE
        key, project, slot, name, token, root, git_dir, device, inode, created_at, ports = row
        pairs = (line.rpartition(" ") for line in (ports or "").splitlines())
        return Lease(
            lease_id,
            Project(os.fsdecode(key), project),
            slot,
            name,
            token,
            None if root is None else os.fsdecode(root),
            None if git_dir is None else os.fsdecode(git_dir),
            None if device is None else int(device),
            None if inode is None else int(inode),
            created_at,
            {port: int(number) for port, _, number in sorted(pairs)},
        )

    def with_token(self, token: str) -> list[Lease]:
        """Return what the checkout with this token holds: a lease for each of its projects."""
        return self._leases("WHERE token = ?", token)

    def with_slot(self, project: Project, slot: int) -> Lease | None:
        """Return the lease of a slot, if somebody holds it."""
        found = self._leases("WHERE project.key = ? AND slot = ?", os.fsencode(project.key), slot)
        return found[0] if found else None

    def with_name(self, project: Project, name: str) -> Lease | None:
        """Return the lease of that name."""
        found = self._leases(
            "WHERE project.key = ? AND lease.name = ?", os.fsencode(project.key), name
        )
        return found[0] if found else None

    def leases(self, project: Project | None = None) -> list[Lease]:
        """Return all leases, or a project's, by project and slot."""
        if project is None:
            return self._leases("ORDER BY project.name, project.key, slot")
        return self._leases("WHERE project.key = ? ORDER BY slot", os.fsencode(project.key))

    def projects(self, name: str) -> list[Project]:
        """Return the projects that hold leases and have this name, or this key."""
        rows = self._rows(
            "SELECT DISTINCT project.key, project.name FROM project"
            " JOIN lease ON project_id = project.id"
            " WHERE project.name = CAST(?1 AS TEXT) OR project.key = ?1",
            os.fsencode(name),
        )
        return [Project(os.fsdecode(key), found) for key, found in rows]

    def slots(self, project: Project) -> dict[int, str]:
        """Return the slots that a project's instances hold, with their names."""
        rows = self._rows(
            "SELECT slot, lease.name FROM lease JOIN project ON project.id = project_id"
            " WHERE project.key = ?",
            os.fsencode(project.key),
        )
        return dict(rows)

    def reserved_by(self, port: int, *, other_than: int | None = None) -> str | None:
        """Return which instance has reserved a port, as ``project:slot``."""
        rows = self._rows(
            "SELECT project.name, slot FROM reservation"
            " JOIN lease ON lease.id = lease_id JOIN project ON project.id = project_id"
            " WHERE port = ?1 AND lease_id IS NOT ?2 UNION ALL"
            " SELECT project.name, slot FROM block"
            " JOIN lease ON lease.id = lease_id JOIN project ON project.id = project_id"
            " WHERE start = ?1 - ?1 % 10 AND lease_id IS NOT ?2 LIMIT 1",
            port,
            other_than,
        )
        return f"{rows[0][0]}:{rows[0][1]}" if rows else None

    def reservations(self, lease: Lease) -> list[tuple[int, bool]]:
        """Return an instance's ports, each with whether somebody else may have it too."""
        return self._rows("SELECT port, shared FROM reservation WHERE lease_id = ?", lease.id)

    def claimed(self) -> set[int]:
        """Return the ports to be claimed on this host: all but those of slot 0."""
        sql = "SELECT port FROM reservation JOIN lease ON lease.id = lease_id WHERE slot > 0"
        blocks = (range(start, start + allocator.BLOCK) for start in self.block_starts())
        return {port for (port,) in self._rows(sql)}.union(*blocks)

    def flags(self, lease: Lease) -> dict[str, bool]:
        """Return the flags that were turned on or off in one instance."""
        rows = self._rows("SELECT name, value FROM flag WHERE lease_id = ?", lease.id)
        return {name: bool(value) for name, value in rows}

    def positions(self, project: Project) -> dict[str, int]:
        """Return where in a block each of a project's services has its port."""
        rows = self._rows(
            "SELECT position.name, position FROM position JOIN project ON project.id = project_id"
            " WHERE project.key = ?",
            os.fsencode(project.key),
        )
        return dict(rows)

    def blocks(self, lease: Lease) -> dict[int, int]:
        """Return the starts of an instance's blocks by their number."""
        return dict(self._rows("SELECT number, start FROM block WHERE lease_id = ?", lease.id))

    def block_starts(self) -> set[int]:
        """Return the first ports of all blocks."""
        return {start for (start,) in self._rows("SELECT start FROM block")}

    # -- writing, inside a transaction -------------------------------------------------------

    def insert(self, project: Project, slot: int, name: str) -> Lease:
        """Record that a slot is held; of which checkout is said by ``settle``."""
        key = os.fsencode(project.key)
        self.connection.execute(
            "INSERT INTO project (key, name) VALUES (?, ?)"
            " ON CONFLICT (key) DO UPDATE SET name = excluded.name",
            (key, project.name),
        )
        cursor = self.connection.execute(
            "INSERT INTO lease (project_id, slot, name, created_at)"
            " SELECT id, ?, ?, ? FROM project WHERE key = ?",
            (slot, name, time.time(), key),
        )
        assert cursor.lastrowid is not None  # noqa: S101  # an INSERT has one
        return Lease(cursor.lastrowid, project, slot, name)

    def settle(self, lease: Lease, checkout: Checkout, base: str, token: str) -> None:
        """Say which checkout holds the lease, and where it is now."""
        identity = os.stat(checkout.git_dir or checkout.root)
        self.connection.execute(
            "UPDATE lease SET token = ?, root = ?, git_dir = ?, device = ?, inode = ? WHERE id = ?",
            (
                token,
                os.fsencode(base),
                os.fsencode(checkout.git_dir or checkout.root),
                str(identity.st_dev),
                str(identity.st_ino),
                lease.id,
            ),
        )

    def move_project(self, old: Project, new: Project) -> None:
        """Let a project that is known by its path be known by its new one.

        A project that was there before gets the old one: the two may have changed places.
        """
        update = "UPDATE project SET key = ?, name = ? WHERE key = ?"
        old_key, new_key, nowhere = os.fsencode(old.key), os.fsencode(new.key), b""
        self.connection.execute(update, (nowhere, old.name, new_key))
        self.connection.execute(update, (new_key, new.name, old_key))
        self.connection.execute(update, (old_key, old.name, nowhere))

    def disown(self, git_dir: str, token: str | None) -> None:
        """Record that who held leases in this directory is gone, unless its token is this one.

        Its inode proves nothing: file systems give it to the next directory that is made.
        """
        self.connection.execute(
            "UPDATE lease SET inode = NULL WHERE git_dir = ? AND token IS NOT ?",
            (os.fsencode(git_dir), token),
        )

    def move(self, lease: Lease, slot: int) -> None:
        """Give an instance another slot; the ports of the former one are free."""
        self._changed.add((lease.project.key, lease.slot))
        self.connection.execute("UPDATE lease SET slot = ? WHERE id = ?", (slot, lease.id))
        self.connection.execute("DELETE FROM reservation WHERE lease_id = ?", (lease.id,))
        self.connection.execute("DELETE FROM block WHERE lease_id = ?", (lease.id,))

    def rename(self, lease: Lease, name: str) -> None:
        """Give an instance another name."""
        self._changed.add((lease.project.key, lease.slot))
        self.connection.execute("UPDATE lease SET name = ? WHERE id = ?", (name, lease.id))

    def delete(self, lease: Lease) -> None:
        """Give a slot, its reservations and its flags back."""
        self._changed.add((lease.project.key, lease.slot))
        self.connection.execute("DELETE FROM lease WHERE id = ?", (lease.id,))

    def reserve(self, lease: Lease, ports: Mapping[str, tuple[int, bool]]) -> None:
        """Replace an instance's reservations: name -> (port, shared)."""
        self.connection.execute("DELETE FROM reservation WHERE lease_id = ?", (lease.id,))
        self.connection.executemany(
            "INSERT INTO reservation (lease_id, name, port, shared) VALUES (?, ?, ?, ?)",
            [(lease.id, name, port, shared) for name, (port, shared) in ports.items()],
        )

    def add_block(self, lease: Lease, number: int, start: int) -> None:
        """Reserve a block of ports for an instance."""
        self.connection.execute("INSERT INTO block VALUES (?, ?, ?)", (lease.id, number, start))

    def add_position(self, project: Project, name: str, position: int) -> None:
        """Say where in a block a service has its port, for good."""
        self.connection.execute(
            "INSERT INTO position SELECT id, ?, ? FROM project WHERE key = ?",
            (name, position, os.fsencode(project.key)),
        )

    def set_flag(self, lease: Lease, name: str, *, value: bool) -> None:
        """Turn a flag on or off in one instance."""
        self._changed.add((lease.project.key, lease.slot))
        self.connection.execute(
            "INSERT INTO flag VALUES (?, ?, ?)"
            " ON CONFLICT (lease_id, name) DO UPDATE SET value = excluded.value",
            (lease.id, name, value),
        )
