"""The queue of requests, on a port that follows from the server's."""

from __future__ import annotations

from sky.server import common
from sky.skylet import constants

DEFAULT_QUEUE_MANAGER_PORT = 50011


def port() -> int:
    if constants.LOCAL_PORT is None:
        return DEFAULT_QUEUE_MANAGER_PORT
    return 50000 + (11 + common.port() - common.DEFAULT_PORT) % 10000
