"""Who holds a lock, written into its file for people to read: the kernel alone decides."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import time
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING

from isoenv import launch, liveness, process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# How much of a command is written down, in characters, and of a file read, in bytes.
COMMAND, LIMIT = 300, 1 << 16
# How much of it a message shows.
SHOWN = 80
IDENTITY = tuple(field.name for field in fields(process.Identity))


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a lock; all but the pid may be unknown.

    ``mode`` is "exclusive", "shared", "slot" or "sticky". ``since`` is in seconds since the epoch.
    ``is_gone`` says that the process has ended: a child that it left has the lock. ``token`` is
    that of a sticky one.
    """

    mode: str
    pid: int | None = None
    session: str | None = None
    command: str | None = None
    instance: str | None = None
    host: str | None = None
    since: float | None = None
    is_gone: bool = False
    token: int | None = None

    @property
    def who(self) -> str:
        """The holder in words, on one line, without the time."""
        about = [self.instance] if self.instance else []
        about += [f"on {self.host}"] if self.host and self.host != liveness.hostname() else []
        about += ["gone, a child has the lock"] if self.is_gone else []
        words = [f"session {self.session}"] if self.session else []
        words += [f"pid {self.pid}"] if self.pid else []
        words += [f"({', '.join(about)})"] if about else []
        command = f": {_short(self.command)}" if self.command else ""
        return printable((" ".join(words) or "an unknown process") + command)

    def __str__(self) -> str:
        """Return it in words, on one line, for a message."""
        return f"{self.who}, since {moment(self.since)}" if self.since else self.who


def moment(since: float | None) -> str:
    """Return a time for people; the date only where it is not today's."""
    if since is None:
        return "-"
    then, now = time.localtime(since), time.localtime()
    return time.strftime("%H:%M:%S" if then[:3] == now[:3] else "%Y-%m-%d %H:%M:%S", then)


def compose(
    name: str, *, project: str | None, session: str | None, argv: Sequence[str] | None
) -> bytes:
    """Return the record of this process, one line of JSON; ``argv`` is what it will become."""
    own = _own(os.getpid()) if argv is None else _describe(argv)
    lock = _lock(name, project, session)
    return f'{own[:-1]}, "since": {time.time():.3f}, {lock[1:]}\n'.encode()


def write(descriptor: int, record: bytes, *, shared: bool = False) -> None:
    """Write a record in place of what is there; with ``shared``, after those of other holders."""
    # A full disk must not take the lock away: it holds without a record, too.
    with contextlib.suppress(OSError):
        size = os.fstat(descriptor).st_size
        if size and not (shared and size < LIMIT):
            os.ftruncate(descriptor, 0)
            size = 0
        os.pwrite(descriptor, record, size)


def read(descriptor: int) -> list[dict[str, object]]:
    """Return the records in a file; what is none is passed over."""
    found = []
    for line in os.pread(descriptor, LIMIT, 0).splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(record := json.loads(line), dict):
                found.append(record)
    return found


def holder(record: Mapping[str, object], mode: str) -> Holder:
    """Return who wrote a record; a field of a wrong type is unknown."""
    identity = identity_of(record)
    pid, since = record.get("pid"), record.get("since")
    return Holder(
        mode,
        pid if isinstance(pid, int) else None,
        session=_text(record.get("session")),
        command=_text(record.get("command")),
        instance=_text(record.get("instance")),
        host=_text(record.get("host")),
        since=since if isinstance(since, float) else None,
        is_gone=identity is not None and process.life(identity) is process.Life.DEAD,
    )


def identity_of(record: Mapping[str, object]) -> process.Identity | None:
    """Return the process that wrote a record, None where it does not say."""
    values = [record.get(field) for field in IDENTITY]
    kinds = [type(value) for value in values]
    if kinds != [int, int, int, str, int, str]:
        return None
    return process.Identity(*values)  # type: ignore[arg-type]  # just compared


def bare(pid: int, mode: str) -> Holder:
    """Return the holder of a lock that has no record, from what the kernel says of its process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read(COMMAND)).rstrip("\0").split("\0")
    except OSError:
        words = []
    command = shlex.join(words) if any(words) else None
    return Holder(mode, pid, command=command, is_gone=process.identify(pid) is None)


def _short(command: str) -> str:
    return f"{command[:SHOWN]}…" if len(command) > SHOWN else command


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


@lru_cache
def _lock(name: str, project: str | None, session: str | None) -> str:
    return json.dumps({"name": name, "project": project, "session": session})


@lru_cache(maxsize=1)
def _own(_pid: int) -> str:
    """Return the part of a record that is the same for all locks of a process."""
    try:
        with open("/proc/self/cmdline", "rb") as file:
            words = os.fsdecode(file.read(COMMAND)).rstrip("\0").split("\0")
    except OSError:
        words = []
    return _describe(words)


def _describe(argv: Sequence[str]) -> str:
    identity = None
    with contextlib.suppress(OSError):
        identity = process.identify(os.getpid())
    known: dict[str, object] = asdict(identity) if identity else {"pid": os.getpid()}
    known["instance"] = _instance()
    known["command"] = shlex.join(argv)[:COMMAND] or None
    return json.dumps(known)


def _instance() -> str | None:
    """Return the instance of this process as ``project:slot``, if it has one."""
    project, slot = os.environ.get("ISOENV_PROJECT"), os.environ.get("ISOENV_INSTANCE")
    if not (project and slot):
        return None
    directory = "/"
    with contextlib.suppress(OSError):
        directory = os.getcwd()
    if launch.base_of(directory) in (None, os.environ.get("ISOENV_ROOT")):
        return f"{project}:{slot}"
    from isoenv.coordination import place  # more than all else to import

    where = place.find(os.environ, directory)
    return f"{where.project.name}:{where.slot}" if where and where.slot is not None else None


def printable(text: str) -> str:
    """Return a text on one line, with nothing in it that moves the cursor."""
    return "".join(c if c.isprintable() else "?" for c in text)
