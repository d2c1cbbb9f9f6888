"""How long a slot that was given back stays free, so that nobody meets what it had yesterday.

The time of day can be set, so within one boot the time since it counts.
"""

from __future__ import annotations

import time
from typing import NamedTuple

# Seconds that a slot rests.
DAY = 86400.0


class Moment(NamedTuple):
    """A point in time: seconds since the epoch, and since which boot of the machine."""

    time: float
    boot: str
    uptime: float


def now() -> Moment:
    """Return the present."""
    from isoenv import liveness

    # The one clock that goes on while the machine sleeps; without it, the next best.
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Moment(time.time(), liveness.boot_id(), time.clock_gettime(clock))


def is_over(since: Moment, present: Moment) -> bool:
    """Whether a slot that was given back then has rested."""
    if since.boot == present.boot:
        return present.uptime - since.uptime >= DAY
    return present.time - since.time >= DAY


def is_to_come(since: Moment, present: Moment) -> bool:
    """Whether a moment of another boot lies in the future, because the clock was set back.

    Such a slot would rest for longer than a day, perhaps for years: its rest begins now.
    """
    return since.boot != present.boot and since.time > present.time
