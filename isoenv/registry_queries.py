"""What a registry can be asked: leases, reservations, flags. Nothing here writes."""

from __future__ import annotations

import os
import sqlite3
from typing import TYPE_CHECKING

from isoenv import allocator, registry_gate
from isoenv.models import Lease, Project

if TYPE_CHECKING:
    from typing import Any

    from isoenv.errors import RegistryError

_LEASE = """
SELECT lease.id, project.key, project.name, slot, lease.name, token, root, git_dir, device,
       inode, created_at,
       (SELECT group_concat(name || ' ' || port, char(10)) FROM reservation
        WHERE lease_id = lease.id)
FROM lease JOIN project ON project.id = project_id
"""


class Queries:
    """The reading half of a registry."""

    connection: sqlite3.Connection
    file: str
    patience: float

    def unusable(self, error: sqlite3.Error) -> RegistryError:
        """Return what to raise for an error of SQLite's."""
        return registry_gate.refusal(self.file, self.patience, error)

    def _rows(self, sql: str, *values: object) -> list[Any]:
        try:
            return self.connection.execute(sql, values).fetchall()
        except (OverflowError, UnicodeEncodeError):
            # A number too large or a name that is no Unicode: SQLite can hold it in no row.
            return []
        except sqlite3.Error as error:
            raise self.unusable(error) from None

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

    def directories(self, project: Project, slot: int) -> list[str]:
        """Return what isoenv has made outside the state directory for an instance."""
        rows = self._rows(
            "SELECT path FROM directory JOIN project ON project.id = project_id"
            " WHERE project.key = ? AND slot = ?",
            os.fsencode(project.key),
            slot,
        )
        return [os.fsdecode(path) for (path,) in rows]

    def remains(self) -> list[tuple[Project, int, str]]:
        """Return the recorded directories of slots that nobody holds."""
        rows = self._rows(
            "SELECT project.key, project.name, slot, path FROM directory"
            " JOIN project ON project.id = project_id WHERE NOT EXISTS (SELECT * FROM lease"
            " WHERE lease.project_id = directory.project_id AND lease.slot = directory.slot)"
            " ORDER BY path"
        )
        return [
            (Project(os.fsdecode(key), name), slot, os.fsdecode(path))
            for key, name, slot, path in rows
        ]
