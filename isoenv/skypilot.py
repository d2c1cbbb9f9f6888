"""SkyPilot's part of an instance: its identity, its own configuration, and the code of a checkout.

What SkyPilot itself has to see is in the preset; here is what depends on the machine or the user.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from isoenv import files
from isoenv.errors import IsoenvError
from isoenv.models import Flag

if TYPE_CHECKING:
    from isoenv.models import Config, Environment

PRESET = "sky"
# As the preset names it.
PROJECT = "skypilot"
# What its API server runs.
SERVER_MODULE = "sky.server.server"
# In a checkout without a file: what the user allows is that its code is run.
CODE = "sky"
# Whose home SkyPilot's clients see: the user's, or that of the instance's server.
SERVER, ALL = "server", "all"
HOMES = (SERVER, ALL)

USER_ID = "SKYPILOT_USER_ID"
GLOBAL_CONFIG = "SKYPILOT_GLOBAL_CONFIG"

_DEV, _DEBUG = "SKYPILOT_DEV", "SKYPILOT_DEBUG"
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ID_LIMIT = 256


def is_tree(root: str) -> bool:
    """Whether a checkout is SkyPilot's own source."""
    return os.path.isfile(f"{root}/sky/__init__.py") and os.path.isdir(f"{root}/sky/skylet")


def developed(config: Config) -> Config:
    """Return a configuration with what SkyPilot's development guide asks for, unless it says so."""
    own = {*config.env, *config.flags}
    return replace(
        config,
        env={**({} if _DEV in own else {_DEV: "1"}), **config.env},
        flags={**({} if _DEBUG in own else {_DEBUG: Flag(_DEBUG)}), **config.flags},
        path_prepend=tuple(dict.fromkeys((".venv/bin", *config.path_prepend))),
    )


def launchers(directory: str) -> str:
    """Return where a `sky` is that gives clients the server's home, in an instance's directory."""
    return f"{directory}/bin"


def complete(environment: Environment, home: str, clients: str) -> Environment:
    """Return the environment with the instance's identity, and its own configuration if any.

    ``home`` is the user's, ``clients`` is one of HOMES.
    """
    if not environment.variables:
        return environment
    found = environment.instance
    config = f"{found.dir}/config.yaml"
    own = {USER_ID: _kept(found.dir) or _identity(found.slot, home)}
    # SkyPilot stops at every command where it names no file.
    if os.path.isfile(config):
        own[GLOBAL_CONFIG] = config
    in_front = (launchers(found.dir),) if clients == ALL else ()
    return replace(
        environment,
        variables={**own, **environment.variables},
        path_prepend=(*in_front, *environment.path_prepend),
        watched=(config,),
    )


def keep(environment: Environment) -> None:
    """Write the identity down: a machine may get another name, and clusters are its owner's."""
    identity = environment.variables.get(USER_ID)
    directory = environment.instance.dir
    if not identity or _kept(directory):
        return
    # Without the file it is computed again.
    with suppress(OSError):
        os.makedirs(directory, 0o700, exist_ok=True)
        temporary = f"{directory}/user_id.{os.getpid()}"
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{identity}\n")
        os.rename(temporary, f"{directory}/user_id")


def _kept(directory: str) -> str | None:
    """Return the identity that was written down: by us, by the server, or by SkyPilot's fork."""
    for name in ("user_id", "home/.sky/user_hash", "user_hash"):
        try:
            content = files.read(f"{directory}/{name}", _ID_LIMIT)
        except IsoenvError:
            continue
        text = (content or b"").decode("ascii", "replace").strip()
        if _ID.fullmatch(text):
            return text
    return None


def _identity(slot: int, home: str) -> str:
    """Return 8 hex digits that no other instance has: not on this machine, not on another.

    SkyPilot puts them into the names of clusters: two instances with the same digits that use one
    cloud account would have the same cluster by the same name.
    """
    from hashlib import sha256

    machine = b""
    with suppress(IsoenvError):
        machine = files.read("/etc/machine-id", _ID_LIMIT) or b""
    parts = (machine.strip(), os.uname().nodename, str(os.getuid()), home, str(slot))
    text = b"\0".join(os.fsencode(part) for part in parts)
    return sha256(text).hexdigest()[:8]
