"""The directory that all users of a host may write to, in which nobody is trusted.

It is used through an open descriptor, so that nobody can put another in its place. A file of
another user is never opened, whatever it is: who owns it is all that counts.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIX = "isoenv."
# What a file of claims is called while a lease is made.
DRAFT = f"{PREFIX}new."
# How many entries are looked through; what lies behind them may stay.
ENTRIES = 100_000
# The digits of 65535.
DIGITS = 5
FOLDER_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECTORY
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def make(directory: str) -> None:
    """Make the directory where it is missing: by root for all users, by others for themselves."""
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        return
    if os.geteuid() == 0:
        folder = enter(directory)
        os.fchmod(folder, 0o1777)
        os.close(folder)


def enter(directory: str) -> int:
    """Open the directory. Raises OSError where there is none, or only a link to one."""
    return os.open(directory, FOLDER_FLAGS)


def objection(folder: int) -> str | None:
    """Return why others could tamper with the files of a directory, None if they cannot."""
    status = os.fstat(folder)
    if status.st_uid not in (0, os.geteuid()):
        return f"belongs to user {user_name(status.st_uid)}"
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        return "is writable by others and not sticky"
    return None


def name_of(port: int) -> str:
    """Return the name that claims a port."""
    return f"{PREFIX}{port}"


def owner(folder: int, name: str) -> int | None:
    """Return whose a name is, None where nothing has it."""
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_uid
    except OSError:
        return None


class Entry(NamedTuple):
    """A name that claims a port, or for None that of a draft, and which file has it."""

    name: str
    port: int | None
    inode: int


def entries(folder: int) -> Iterator[Entry]:
    """Yield the names of claims and drafts."""
    with os.scandir(folder) as found:
        for entry in islice(found, ENTRIES):
            text = entry.name.removeprefix(PREFIX)
            if entry.name.startswith(DRAFT):
                yield Entry(entry.name, None, entry.inode())
            elif text != entry.name and len(text) <= DIGITS and text.isascii() and text.isdigit():
                yield Entry(entry.name, int(text), entry.inode())


def greedy(folder: int, limit: int) -> set[int | None]:
    """Return the other users who claim more than ``limit`` ports."""
    names = [entry.name for entry in entries(folder) if entry.port is not None]
    if len(names) <= limit:
        return set()
    counts = Counter(owner(folder, name) for name in names)
    return {uid for uid, count in counts.items() if count > limit} - {os.geteuid()}


@contextlib.contextmanager
def opened(folder: int, name: str) -> Iterator[int | None]:
    """Open a regular file of the user's own for a while; None for anything else."""
    try:
        descriptor = os.open(name, READ_FLAGS, dir_fd=folder)
    except OSError:
        yield None
        return
    try:
        status = os.fstat(descriptor)
        is_own = stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()
        yield descriptor if is_own else None
    finally:
        os.close(descriptor)


def user_name(uid: int) -> str:
    """Return what a user is called, or the number of one without a name."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
