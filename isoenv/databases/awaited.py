"""The databases of an instance that `up` makes, each as soon as its server answers."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from isoenv.databases import lifecycle, targets
from isoenv.databases.address import Postgres

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.databases.address import Place
    from isoenv.instances import Selected
    from isoenv.models import Environment

# Seconds that a server has to answer; that one may take to begin, and between two looks at it.
ANSWER, BEGINNING, LOOK = 1, 30.0, 0.1


class Awaited:
    """What is missing, or perhaps there: the server that knows may not have been started yet."""

    def __init__(
        self, selected: Selected, environment: Environment, say: Callable[[str], None]
    ) -> None:
        """Look at nothing yet."""
        self._selected, self._environment, self._say = selected, environment, say
        self._left = targets.of(selected, environment)

    def make(self, *, last: bool = False) -> None:
        """Make what is missing on the servers that are there, one that only begins waited for.

        With ``last``, on all: what cannot be made raises.
        """
        for target in list(self._left):
            if _begun(target.place) != "OK" and not last:
                continue
            lifecycle.create(target, self._selected, self._environment, self._say)
            self._left.remove(target)


def _begun(place: Place) -> str:
    """Return how far a server is, once it does more than to begin."""
    deadline = time.monotonic() + BEGINNING
    while (found := _ping(place)) == "REJECT" and time.monotonic() < deadline:
        time.sleep(LOOK)
    return found


def _ping(place: Place) -> str:
    """Return how far a server is, as libpq calls it: OK, REJECT, NO_RESPONSE, NO_ATTEMPT."""
    if not isinstance(place, Postgres):
        return "OK"
    try:
        from psycopg import conninfo, pq
    except ImportError:
        # Who wants to connect says what is to be installed.
        return "OK"
    words = {**place.parameters, "connect_timeout": str(ANSWER), "dbname": place.database}
    asked = conninfo.make_conninfo("", **words)
    return pq.Ping(pq.PGconn.ping(asked.encode())).name
