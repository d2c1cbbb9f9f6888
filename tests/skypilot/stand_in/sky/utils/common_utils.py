"""Who a user is to SkyPilot."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path


def user_hash_file() -> Path:
    return Path.home() / ".sky/user_hash"


def user_hash() -> str:
    if chosen := os.environ.get("SKYPILOT_USER_ID"):
        return chosen
    if user_hash_file().exists():
        return user_hash_file().read_text()
    # The same for all homes of one user on one machine.
    text = f"{os.getuid()}@{socket.gethostname()}"
    write_user_hash(hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8])
    return user_hash_file().read_text()


def write_user_hash(value: str) -> None:
    user_hash_file().parent.mkdir(parents=True, exist_ok=True)
    user_hash_file().write_text(value)
