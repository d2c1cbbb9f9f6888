"""Leases and port reservations, in one SQLite database.

A lease and its reservations are written in one transaction, which also chooses them: whoever
chooses and inserts in two steps gives one port to two processes. A database that was damaged or
lost is rebuilt when it is opened, and from then on nobody writes to the former one.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv import paths, registry_file, registry_gate, registry_mirror, resting
from isoenv.errors import RegistryError
from isoenv.models import Lease
from isoenv.registry_opening import OpenRegistry

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isoenv.models import Checkout, Project

# A slot of a project that is known by its key.
_PLACE = "project_id = (SELECT id FROM project WHERE key = ?) AND slot = ?"


class Registry(OpenRegistry):
    """An open registry that can be written to, in transactions."""

    # The instances that a transaction has changed, by project key and slot.
    _changed: set[tuple[str, int]]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write with everybody else kept out; all of it happens, or nothing."""
        if self.unwritable:
            raise RegistryError(
                f"cannot write to {self.file}: {self.unwritable}: `ls -ld {self.state}` and "
                f"`df {self.state}` show why"
            )
        with registry_gate.passed(self.file, self.patience):
            if registry_file.identity(self.file) != self._identity:
                # What is written to a file that was set aside would be lost.
                self.connection.close()
                self._use(self._mended())
            try:
                self.connection.execute("BEGIN IMMEDIATE")
                before = self.connection.total_changes
                try:
                    yield
                    has_changed = self.connection.total_changes != before
                    if has_changed:
                        self.connection.execute("UPDATE registry SET revision = revision + 1")
                    self.connection.execute("COMMIT")
                except BaseException:
                    self._changed.clear()
                    self.host.undo()
                    # A full disk makes SQLite roll back by itself.
                    if self.connection.in_transaction:
                        self.connection.execute("ROLLBACK")
                    raise
                if has_changed:
                    registry_mirror.write(self.file, self.connection)
                if self._changed or self.host.is_entered:
                    self.host.settle(self.claimed())
            except sqlite3.Error as error:
                raise self.unusable(error) from None
        # After the commit: who is woken earlier reads what was before.
        while self._changed:
            paths.touch(paths.notice_file(self.state, *self._changed.pop()))

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
        self.connection.execute(f"DELETE FROM rest WHERE {_PLACE}", (key, slot))  # noqa: S608  # constant
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
        self._rest(lease)
        key = os.fsencode(lease.project.key)
        self.connection.execute(f"DELETE FROM rest WHERE {_PLACE}", (key, slot))  # noqa: S608  # constant
        self.connection.execute("UPDATE lease SET slot = ? WHERE id = ?", (slot, lease.id))
        self.connection.execute("DELETE FROM reservation WHERE lease_id = ?", (lease.id,))
        self.connection.execute("DELETE FROM block WHERE lease_id = ?", (lease.id,))

    def rename(self, lease: Lease, name: str) -> None:
        """Give an instance another name."""
        self._changed.add((lease.project.key, lease.slot))
        self.connection.execute("UPDATE lease SET name = ? WHERE id = ?", (name, lease.id))

    def delete(self, lease: Lease) -> None:
        """Give a slot, its reservations and its flags back; the slot rests."""
        self._changed.add((lease.project.key, lease.slot))
        self._rest(lease)
        self.connection.execute("DELETE FROM lease WHERE id = ?", (lease.id,))

    def _rest(self, lease: Lease) -> None:
        """Let the slot of a lease that is still there rest; its directories are nobody's."""
        self.connection.execute(
            "INSERT OR REPLACE INTO rest SELECT project_id, slot, token, ?, ?, ? FROM lease"
            " WHERE id = ?",
            (*resting.now(), lease.id),
        )
        key = os.fsencode(lease.project.key)
        self.connection.execute(f"DELETE FROM directory WHERE {_PLACE}", (key, lease.slot))  # noqa: S608  # constant

    def record_directory(self, project: Project, slot: int, directory: str) -> None:
        """Remember a directory of an instance; with a slot that nobody holds, as left over."""
        self.connection.execute(
            "INSERT OR IGNORE INTO directory SELECT id, ?, ? FROM project WHERE key = ?",
            (slot, os.fsencode(directory), os.fsencode(project.key)),
        )

    def forget_directory(self, directory: str) -> None:
        """Remember a directory no longer, whoever has used it."""
        path = os.fsencode(directory)
        self.connection.execute("DELETE FROM directory WHERE path = ?", (path,))

    def resting(self, project: Project, token: str | None) -> set[int]:
        """Return the slots that nobody is to get yet, but who has given them back himself."""
        present, found = resting.now(), set()
        rows = self._rows(
            "SELECT slot, token, time, boot, uptime FROM rest"
            " JOIN project ON project.id = project_id WHERE project.key = ?",
            os.fsencode(project.key),
        )
        for slot, former, *moment in rows:
            since = resting.Moment(*moment)
            if resting.is_to_come(since, present):
                self.connection.execute(
                    f"UPDATE rest SET time = ?, boot = ?, uptime = ? WHERE {_PLACE}",  # noqa: S608  # constant
                    (*present, os.fsencode(project.key), slot),
                )
            elif resting.is_over(since, present):
                self.connection.execute(
                    f"DELETE FROM rest WHERE {_PLACE}",  # noqa: S608  # constant
                    (os.fsencode(project.key), slot),
                )
                continue
            if token is None or token != former:
                found.add(slot)
        return found

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
