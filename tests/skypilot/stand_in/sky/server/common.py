"""Ports, addresses and files, as client and server know them."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from pathlib import Path

from sky.skylet import constants

DEFAULT_PORT = 46580
HOSTS = ("0.0.0.0", "localhost", "127.0.0.1", "[::]", "[::1]")  # noqa: S104  # to compare with


def port() -> int:
    if constants.LOCAL_PORT is None:
        return DEFAULT_PORT
    return int(os.environ.get(constants.LOCAL_PORT, DEFAULT_PORT))


def url() -> str:
    default = f"http://127.0.0.1:{port()}"
    return os.environ.get("SKYPILOT_API_SERVER_ENDPOINT", default).rstrip("/")


def is_local() -> bool:
    return url() in [f"http://{host}:{port()}" for host in HOSTS]


def is_healthy() -> bool:
    try:
        with urllib.request.urlopen(f"{url()}/api/health", timeout=2.5) as answer:  # noqa: S310  # local
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def state() -> Path:
    directory = Path(os.environ.get("SKY_RUNTIME_DIR") or Path.home()) / ".sky"
    directory.mkdir(parents=True, exist_ok=True)
    return directory
