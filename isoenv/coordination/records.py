"""What the stores keep, as values."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.coordination.store import Pulse
    from isoenv.models import Project
    from isoenv.process import Identity

STATES = ("ACTIVE", "COMPLETING", "IDLE")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a session belongs: a project, and the instance by slot and name if there is one."""

    project: Project
    slot: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Record:
    """A session as the store knows it.

    ``state`` is ACTIVE, COMPLETING or IDLE. ``started_at`` is in seconds since the epoch.
    ``beat`` is the last heartbeat in ns of CLOCK_MONOTONIC, ``beaten_at`` the same in seconds
    since the epoch.
    """

    id: str
    name: str | None
    process: Identity
    place: Place | None = None
    state: str = STATES[0]
    labels: Mapping[str, str] = field(default_factory=dict)
    started_at: float = field(default_factory=time.time)
    beat: int = field(default_factory=time.monotonic_ns)
    beaten_at: float = field(default_factory=time.time)

    @property
    def title(self) -> str:
        """What people call it: its name, or its id where it has none."""
        return self.name or self.id


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was handed out. ``sent_at`` is in seconds since the epoch.

    ``sender`` is the name of the session that sent it, or its id where it has none.
    """

    id: int
    sender: str
    sender_id: str
    text: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A lock that a session holds across commands.

    ``path`` is that of its files below the directory of all locks. ``token`` is greater than those
    of all earlier holders. ``is_over`` says that the time that was asked for is up. ``pulse`` is
    the session's, ``title`` its name, or its id where it has none.
    """

    path: str
    name: str
    project: str | None
    token: int
    since: float
    expires: int | None
    is_over: bool
    title: str
    is_named: bool
    instance: str | None
    pulse: Pulse


@dataclass(frozen=True, slots=True)
class Sum:
    """A metric over all live sessions: how many have it, in how many instances, and its total."""

    name: str
    total: float
    sessions: int
    instances: int

    @property
    def average(self) -> float:
        """The mean over the sessions that have the metric."""
        return self.total / self.sessions if self.sessions else 0.0


def new_id(pid: int) -> str:
    """Return a new session id, ``YYYYMMDD_HHMMSS_PID_xxxxxxxx``: in the order of local time."""
    return f"{time.strftime('%Y%m%d_%H%M%S')}_{pid}_{os.urandom(4).hex()}"
