"""The queue of requests, on a port that follows from the server's."""

from __future__ import annotations

from sky.server import common


def port() -> int:
    return 50000 + (11 + common.port() - common.DEFAULT_PORT) % 10000
