"""Which process a pid meant when it was written down, and whether that one still lives.

A pid alone proves nothing: it is given to the next process, belongs to a namespace, and outlives
no reboot. Dead is said only on proof; what cannot be seen from here is unknown.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import Enum

from isoenv import liveness
from isoenv.liveness import boot_id, hostname, namespace


class Life(Enum):
    """What is known about a process that was written down."""

    ALIVE = "alive"
    DEAD = "dead"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Identity:
    """One process, told apart from all others that have had or will have its pid.

    ``start`` is in clock ticks since boot (without Linux's /proc: in ms since the epoch).
    ``inode`` is the pidfd's where the kernel gives each process one of its own (6.9 and newer),
    else 0. ``boot`` is the kernel's boot id, ``namespace`` the inode of the pid namespace.
    """

    pid: int
    start: int
    inode: int
    boot: str
    namespace: int
    host: str


def identify(pid: int) -> Identity | None:
    """Return who has this pid now; None where nobody has, or only a zombie."""
    start = liveness.start_of(pid)
    if start is None:
        return None
    return Identity(pid, start, liveness.inode_of(pid), boot_id(), namespace(), hostname())


def myself() -> Identity:
    """Return this process."""
    identity = identify(os.getpid())
    assert identity is not None  # noqa: S101  # who asks is alive
    return identity


def life(identity: Identity) -> Life:
    """Return whether the process still runs; UNKNOWN on another host or in another namespace."""
    dead = liveness.is_dead(
        identity.pid,
        identity.start,
        identity.inode,
        identity.boot,
        identity.namespace,
        identity.host,
    )
    if dead is None:
        return Life.UNKNOWN
    return Life.DEAD if dead else Life.ALIVE
