"""Numbers that a session shows to all others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoenv.coordination import reaping
from isoenv.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from isoenv.coordination.records import Sum
    from isoenv.coordination.store import Store

# The longest name of a metric, in characters.
LONGEST_NAME = 200


class Metrics:
    """The metrics of one session, and the sums over all of them. No history is kept."""

    def __init__(self, store: Store, session_id: str) -> None:
        """Open them; nothing is counted yet."""
        self._store = store
        self._session_id = session_id

    def set(self, name: str, value: float) -> float:
        """Set a value and return it. Raises NotFoundError once the session has ended."""
        _check(name, value)
        return self._given(self._store.set_metric(self._session_id, name, float(value)))

    def add(self, name: str, value: float = 1) -> float:
        """Add to a value, 0 at first, and return the new one; no other's update is lost.

        Raises NotFoundError once the session has ended.
        """
        _check(name, value)
        return self._given(self._store.add_metric(self._session_id, name, float(value)))

    def _given(self, value: float | None) -> float:
        if value is None:
            raise NotFoundError(
                f"session {self._session_id} has ended: `isoenv session start` starts one"
            )
        return value

    def get(self, name: str) -> float:
        """Return a value of this session, 0 where it is not set; ``agents`` with subagents."""
        return self.all().get(name, 0.0)

    def all(self) -> dict[str, float]:
        """Return the values of this session by name."""
        return self._store.metrics(self._session_id)

    def total(self, name: str) -> float:
        """Return the sum of a metric over all live sessions."""
        reaping.reap(self._store, reaping.BOUND)
        return self._store.total(name)

    def sums(self) -> list[Sum]:
        """Return each metric's total, average and counts over all live sessions."""
        reaping.reap(self._store, reaping.BOUND)
        return self._store.sums()


def _check(name: str, value: float) -> None:
    if not name or not name.isprintable() or len(name) > LONGEST_NAME:
        raise UsageError(f"{name!r} is no name of a metric: use up to 200 printable characters")
    if not math.isfinite(value):
        raise UsageError(f"{name} = {value} is no number that can be summed up")
