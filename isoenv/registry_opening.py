"""How a registry is opened: examined, made, rebuilt, migrated, or refused."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from typing import TYPE_CHECKING

from isoenv import (
    __version__,
    files,
    mounts,
    paths,
    rebuilding,
    registry_file,
    registry_gate,
    registry_mirror,
)
from isoenv.errors import RegistryError
from isoenv.host_claims import HostClaims
from isoenv.registry_queries import Queries
from isoenv.registry_schema import VERSION

if TYPE_CHECKING:
    from typing import Self

    from isoenv.registry_file import Opened

# Seconds that a process waits for the others before it gives up.
PATIENCE = 30.0


class OpenRegistry(Queries):
    """An open registry. Closing it is left to the process's end, or ``with``."""

    def __init__(self, state: str, *, patience: float = PATIENCE, mend: bool = True) -> None:
        """Open the registry in the state directory, and make both where they are missing.

        Without ``mend`` one that is damaged is refused, for who has no way to say so.
        """
        paths.make_private(state)
        self.state = state
        self.file = paths.registry_file(state)
        self.patience = patience
        self.host = HostClaims(paths.host_dir(os.environ), state)
        self._notes: list[str] = []
        # Why nothing can be written, where it can be read all the same.
        self.unwritable: str | None = None
        self._changed: set[tuple[str, int]] = set()
        self._use(self._opened(mend=mend))
        self._warn_of_network()

    def __enter__(self) -> Self:
        """Return the registry itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the database."""
        self.connection.close()

    def take_notes(self) -> list[str]:
        """Return the lines for the user, each once: what was rebuilt, what others can see."""
        notes, self._notes = self._notes, []
        return notes + self.host.take_notes()

    def _use(self, found: Opened) -> None:
        self.connection = found.connection
        self._identity = found.identity

    def _opened(self, *, mend: bool) -> Opened:
        """Open the registry; what is missing, damaged or old is left to one process at a time."""
        try:
            found = registry_file.opened(self.file, self.patience)
            if found and found.version >= VERSION:
                return self._mirrored(self._checked(found))
            if found:
                found.connection.close()
        except registry_file.DamagedError as damage:
            if not mend:
                raise RegistryError(
                    f"the registry {self.file} is damaged: {damage}: `isoenv list` rebuilds it"
                ) from None
        except sqlite3.Error as error:
            return self._read_only(error)
        with registry_gate.passed(self.file, self.patience):
            return self._mended()

    def _checked(self, found: Opened) -> Opened:
        if found.version <= VERSION:
            return found
        maker = registry_file.maker(found.connection)
        found.connection.close()
        by, wanted = (f" of isoenv {maker}", f"'isoenv>={maker}'") if maker else ("", "isoenv")
        raise RegistryError(
            f"{self.file} has schema {found.version}{by}, and isoenv {__version__} reads up to "
            f"{VERSION}: `pip install --upgrade {wanted}`"
        )

    def _mirrored(self, found: Opened) -> Opened:
        """Write a mirror that is missing, or that a killed process has not brought up to date."""
        if not found.is_mirrored:
            # Who holds the gate now writes it himself.
            with (
                contextlib.suppress(RegistryError),
                registry_gate.passed(self.file, patience=0),
            ):
                registry_mirror.write(self.file, found.connection)
        return found

    def _read_only(self, error: sqlite3.Error) -> Opened:
        """Return a registry of which nothing can be written: what it holds is good all the same."""
        if registry_file.code(error) in registry_file.UNWRITABLE:
            found = registry_file.read_only(self.file, self.patience)
            if found and found.version:
                self.unwritable = str(error)
                return self._checked(found)
        raise self.unusable(error) from None

    def _mended(self) -> Opened:
        """Make, rebuild or migrate the registry, unless somebody has done it meanwhile."""
        lost, aside = None, None
        try:
            try:
                found = registry_file.opened(self.file, self.patience)
            except registry_file.DamagedError as damage:
                found, lost, aside = None, str(damage), self._set_aside()
            if found and found.version >= VERSION:
                return self._checked(found)
            if found and found.version:
                found = registry_file.migrate(found)
            else:
                if found:
                    found.connection.close()
                found, count = registry_file.make(self.file, self.patience, self._refill)
                if count or aside:
                    self._say_rebuilt(lost or "it is missing", aside, count)
        except sqlite3.Error as error:
            raise self.unusable(error) from None
        registry_mirror.write(self.file, found.connection)
        return found

    def _set_aside(self) -> str | None:
        try:
            return registry_file.set_aside(self.file)
        except OSError as error:
            raise RegistryError(
                f"cannot move {self.file} aside, which is damaged: {files.reason(error)}: "
                f"`ls -ld {self.state}` shows owner and mode"
            ) from None

    def _refill(self, connection: sqlite3.Connection) -> int:
        return rebuilding.refill(connection, self.state, self.file)

    def _say_rebuilt(self, lost: str, aside: str | None, count: int) -> None:
        kept = f"; what was there is now {aside}" if aside else ""
        self._notes.append(
            f"the registry {self.file} was lost ({lost}) and is rebuilt with {count} "
            f"instance{'' if count == 1 else 's'}{kept}"
        )

    def _warn_of_network(self) -> None:
        """Note once that the state directory is on a file system that several hosts may share."""
        kind = mounts.shared_kind(self.state)
        if kind is None:
            return
        marker = f"{self.state}/{kind}.said"
        try:
            os.close(os.open(marker, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except OSError:
            return
        (mode,) = self.connection.execute("PRAGMA journal_mode").fetchone()
        log = ", and its registry has a write-ahead log" if mode == "wal" else ""
        self._notes.append(
            f"{self.state} is on {kind}{log}: that is not safe when several hosts use it: "
            "`export ISOENV_STATE_DIR=…` names a local directory"
        )
