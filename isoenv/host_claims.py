"""Which ports are claimed on this host, by all of its users together.

Each user has a registry of his own; what they share is a directory. A port is claimed by the name
``isoenv.PORT`` in it, a hard link to a file of who claims it. The kernel gives a name to one
process only, so there is no lock that somebody could hold for ever, and no moment between looking
and taking. The file says which registry has the lease, to the other registries of the same user.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from typing import TYPE_CHECKING, NamedTuple

from isoenv import files, flock, host_directory, paths, tokens

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

# Seconds after which a draft was left behind by a killed process.
DRAFT_AGE = 3600.0
# Who claims more ports than this is no neighbour: his claims keep nobody from choosing a port.
QUOTA = 8192
# How often a name may vanish between two looks at it.
ATTEMPTS = 5
# Seconds that one registry of a user waits for another to judge a claim.
PATIENCE = 1.0
MAGIC = b"isoenv 1"
LIMIT = 1 << 13

_HOLDERS = """
SELECT git_dir, device, inode FROM lease WHERE slot > 0 AND id IN (
  SELECT lease_id FROM reservation WHERE port = ?1
  UNION ALL SELECT lease_id FROM block WHERE start = ?1 - ?1 % 10)
"""


class Claim(NamedTuple):
    """What a file of the user's own says: whose lease it is, by the registry's state directory.

    ``device`` is that of the directory, to tell a removed one from an unmounted disk.
    """

    state: str
    device: int


class HostClaims:
    """The claims of one registry, and what they meet. Nothing that others do makes it fail."""

    def __init__(self, directory: str, state: str) -> None:
        """Look at nothing yet; ``state`` is the registry's directory."""
        self.directory = directory
        self.state = os.path.realpath(state)
        self._notes: list[str] = []
        self._folder: int | None = None
        self._greedy: set[int | None] | None = None
        self._is_broken = False
        # The name of this transaction's file, while it has one, and those of ports.
        self._draft: str | None = None
        self._made: list[str] = []
        # Files that no other registry of the user may judge, by inode.
        self._locked: dict[int, int] = {}

    @property
    def is_entered(self) -> bool:
        """Whether something was claimed, or tried to, since the last `settle` or `undo`."""
        return self._folder is not None or self._is_broken

    def is_whole(self, ports: Iterable[tuple[int, bool]]) -> bool:
        """Whether each (port, shared) is claimed: by this user or, where shared, by anybody.

        A reboot empties the directory. Where nothing can be claimed nothing is missing.
        """
        try:
            folder = host_directory.enter(self.directory)
        except FileNotFoundError:
            return not os.access(os.path.dirname(self.directory), os.W_OK)
        except OSError:
            return True
        try:
            if host_directory.objection(folder) or not os.access(".", os.W_OK, dir_fd=folder):
                return True
            owners = (
                (host_directory.owner(folder, host_directory.name_of(port)), shared)
                for port, shared in ports
            )
            user = os.geteuid()
            return all(uid == user or (shared and uid is not None) for uid, shared in owners)
        finally:
            os.close(folder)

    def claim(self, port: int) -> str | None:
        """Claim a port; return who has it where it cannot be had, as in "claimed by user alice".

        The claim is this registry's until `settle` or `undo`, one of which ends a transaction.
        """
        folder = self._enter()
        if folder is None:
            return None
        name = host_directory.name_of(port)
        for _ in range(ATTEMPTS):
            try:
                return None if self._link(folder, name) else self._holder(folder, name, port)
            except FileNotFoundError:
                continue  # given back in this moment, or just removed
            except OSError as error:
                self._give_up(f"cannot use {self.directory}: {files.reason(error)}")
        return None if self._is_broken else "claimed by another user"

    def seek(self, port: int) -> str | None:
        """Claim a port that may be chosen; who claims too many of them is passed over."""
        reason = self.claim(port)
        if reason is None or self._folder is None:
            return reason
        if self._greedy is None:
            self._greedy = host_directory.greedy(self._folder, QUOTA)
        uid = host_directory.owner(self._folder, host_directory.name_of(port))
        if uid is None or uid not in self._greedy:
            return reason
        user = host_directory.user_name(uid)
        self._note(
            f"the claims of user {user} do not count, they are more than {QUOTA}: `sudo find "
            f"{self.directory} -name '{host_directory.PREFIX}*' -user {user} -delete`"
        )
        return None

    def settle(self, held: Container[int | None]) -> None:
        """Keep the claims of the ports that are held, and give back this registry's others.

        Runs after the commit, while nobody else can write to the registry. What killed processes
        have left goes too, and the claims of registries of this user that are gone.
        """
        if (folder := self._enter()) is not None:
            self._unlock(folder)
            # One look at a file does for all of its names.
            kept: set[int] = set()
            for entry in list(host_directory.entries(folder)):
                if entry.port not in held and entry.inode not in kept:
                    with contextlib.suppress(OSError):
                        if not self._tidy(folder, entry):
                            kept.add(entry.inode)
        self._leave()

    def undo(self) -> None:
        """Give back what was claimed in this transaction."""
        if (folder := self._folder) is not None:
            # While they are locked: nobody has put another claim in the place of one.
            for name in self._made:
                with contextlib.suppress(OSError):
                    os.unlink(name, dir_fd=folder)
            self._unlock(folder)
        self._leave()

    def take_notes(self) -> list[str]:
        """Return the lines for the user, each once: why nothing is claimed, who claims too much."""
        notes, self._notes = self._notes, []
        return notes

    # -- the directory -----------------------------------------------------------------------

    def _enter(self) -> int | None:
        """Return the open directory, None where it cannot be trusted."""
        if self._folder is None and not self._is_broken:
            try:
                host_directory.make(self.directory)
                folder = host_directory.enter(self.directory)
            except OSError as error:
                self._give_up(f"cannot open {self.directory}: {files.reason(error)}")
                return None
            if objection := host_directory.objection(folder):
                os.close(folder)
                self._give_up(f"{self.directory} {objection}")
                return None
            self._folder = folder
        return self._folder

    def _leave(self) -> None:
        if self._folder is not None:
            os.close(self._folder)
        self._folder, self._greedy, self._is_broken = None, None, False

    def _give_up(self, problem: str) -> None:
        """Go on without claims, and say why: once, until there is another reason."""
        self._is_broken = True
        line = (
            f"other users cannot see which ports are leased: {problem}: "
            f"`sudo install -d -o root -m 1777 {self.directory}`, or set ISOENV_HOST_DIR"
        )
        marker, text = f"{self.state}/host_claims.said", os.fsencode(line)
        with contextlib.suppress(OSError), open(marker, "a+b") as file:
            file.seek(0)
            if file.read(LIMIT) == text:
                return
            file.truncate(0)
            file.write(text)
        self._note(line)

    def _note(self, line: str) -> None:
        if line not in self._notes:
            self._notes.append(line)

    # -- a claim -----------------------------------------------------------------------------

    def _link(self, folder: int, name: str) -> bool:
        """Take a name for this transaction's file, unless it is taken."""
        if self._is_broken:
            return False
        try:
            draft = self._draft or self._begin_draft(folder)
            os.link(draft, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        except FileExistsError:
            return False
        except OSError as error:
            self._give_up(f"cannot write to {self.directory}: {files.reason(error)}")
            return False
        self._made.append(name)
        return True

    def _begin_draft(self, folder: int) -> str:
        """Make the file that is to have the names of ports; it is complete before it has any.

        It is closed to other users, who could hold its lock for ever.
        """
        device = b"%d" % os.stat(self.state).st_dev
        name = f"{host_directory.DRAFT}{os.urandom(8).hex()}"
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=folder)
        self._draft = name
        self._locked[os.fstat(descriptor).st_ino] = descriptor
        flock.acquire(descriptor, 0)
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, b"\0".join((MAGIC, os.fsencode(self.state), device, b"")))
        return name

    def _unlock(self, folder: int) -> None:
        if self._draft:
            with contextlib.suppress(OSError):
                os.unlink(self._draft, dir_fd=folder)
        for descriptor in self._locked.values():
            os.close(descriptor)
        self._draft, self._made, self._locked = None, [], {}

    def _holder(self, folder: int, name: str, port: int) -> str | None:
        """Return who else has claimed a port, None if this registry has.

        A claim of the user's own whose lease is gone is removed. Raises FileNotFoundError for a
        port that nobody claims, or nobody any more.
        """
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if status.st_uid != os.geteuid():
            return f"claimed by user {host_directory.user_name(status.st_uid)}"
        if status.st_ino in self._locked:
            return None
        with host_directory.opened(folder, name) as descriptor:
            claim = None if descriptor is None else read(descriptor)
            if descriptor is not None and claim and claim.state == self.state:
                self._adopt(folder, name, descriptor)
                return None
        if _remove(folder, name, lambda claim: claim is None or not _is_held(claim, port)):
            raise FileNotFoundError(name)
        return f"claimed by your registry in {claim.state}" if claim else "claimed by yourself"

    def _adopt(self, folder: int, name: str, descriptor: int) -> None:
        """Keep a claim that this registry has already from being judged by another one."""
        own = os.dup(descriptor)
        status = os.fstat(own)
        self._locked[status.st_ino] = own
        if not flock.acquire(own, PATIENCE) or not _is_same(folder, name, own):
            del self._locked[status.st_ino]
            os.close(own)
            raise FileNotFoundError(name)

    def _tidy(self, folder: int, entry: host_directory.Entry) -> bool:
        """Remove a name that no lease needs; return whether it was one."""
        status = os.stat(entry.name, dir_fd=folder, follow_symlinks=False)
        if status.st_uid != os.geteuid():
            return False
        if entry.port is not None:
            return _remove(folder, entry.name, self._is_left_over)
        if time.time() - status.st_mtime > DRAFT_AGE:
            os.unlink(entry.name, dir_fd=folder)
        return True

    def _is_left_over(self, claim: Claim | None) -> bool:
        return claim is not None and (claim.state == self.state or is_gone(claim))


def read(descriptor: int) -> Claim | None:
    """Return what a claim says, None where it is none."""
    try:
        magic, state, device, end = os.pread(descriptor, LIMIT, 0).split(b"\0")
        claim = Claim(os.fsdecode(state), int(device))
    except ValueError:
        return None
    return claim if (magic, end) == (MAGIC, b"") else None


def _is_same(folder: int, name: str, descriptor: int) -> bool:
    """Whether a name still is that of the open file."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return os.path.samestat(status, os.fstat(descriptor))


def _remove(folder: int, name: str, is_due: Callable[[Claim | None], bool]) -> bool:
    """Remove a claim of the user's own if it is due; not one whose transaction still runs."""
    with host_directory.opened(folder, name) as descriptor:
        # Who removes a claim holds its lock: what has the name afterwards is another file.
        if (
            descriptor is None
            or not flock.acquire(descriptor, 0)
            or not _is_same(folder, name, descriptor)
            or not is_due(read(descriptor))
        ):
            return False
        os.unlink(name, dir_fd=folder)
        return True


def is_gone(claim: Claim) -> bool:
    """Whether a registry is gone with its directory; an unmounted disk proves nothing."""
    nearest = claim.state
    while True:
        try:
            return os.lstat(nearest).st_dev == claim.device and nearest != claim.state
        except (FileNotFoundError, NotADirectoryError):
            nearest = os.path.dirname(nearest)
        except OSError:
            return False


def _is_held(claim: Claim, port: int) -> bool:
    """Whether a registry has a lease of the port whose git dir is not gone, as far as is known."""
    from urllib.parse import quote

    if is_gone(claim):
        return False
    file = quote(os.fsencode(paths.registry_file(claim.state)))
    try:
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as connection:
            rows = connection.execute(_HOLDERS, (port,)).fetchall()
    except sqlite3.Error:
        return True
    return not all(
        git_dir
        and tokens.is_gone(os.fsdecode(git_dir), int(device), None if inode is None else int(inode))
        for git_dir, device, inode in rows
    )
