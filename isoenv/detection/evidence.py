"""What a file shows, and where."""

from __future__ import annotations

import re
from dataclasses import dataclass

LOCAL_HOSTS = (
    *("localhost", "127.0.0.1", "[::1]", "::1", "host.docker.internal"),
    "0.0.0.0",  # noqa: S104 - it is read here, nothing is bound to it
)
# The first of ten ports that a workspace of Conductor has; it says nothing of what they are for.
CONDUCTOR = "CONDUCTOR_PORT"
# `localhost:5432` within a value; the port is the second group.
LOCAL_PORT = re.compile(
    r"((?<![\w.-])(?:localhost|127\.0\.0\.1|0\.0\.0\.0|\[::1\]|host\.docker\.internal):)"
    r"(\d{1,5})(?![\d.:])"
)
PORT_VARIABLE = re.compile(r"(?:.*_)?PORT(?:_.*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Place:
    """A line of a file, by its path relative to the checkout."""

    file: str
    line: int

    def __str__(self) -> str:
        """Return ``FILE:LINE``."""
        return f"{self.file}:{self.line}"

    @property
    def directory(self) -> str:
        """The directory of the file, empty for the checkout's root."""
        return self.file.rpartition("/")[0]


@dataclass(frozen=True, slots=True)
class Remark:
    """Something that a person should know about a line; ``message`` says what to do.

    ``shares`` says that it is about a name that all instances would have in common.
    """

    place: Place
    message: str
    shares: bool = False

    def __str__(self) -> str:
        """Return ``FILE:LINE: MESSAGE``."""
        return f"{self.place}: {self.message}"


@dataclass(frozen=True, slots=True)
class Sighting:
    """A port of this machine that a file names.

    ``name`` is what it could be called, ``variable`` what the file reads it from. Without one,
    the number is written in the file, and ``fixed`` is what to put before and after a variable
    instead. ``listens`` is False where the file only connects to the port.
    """

    port: int
    place: Place
    name: str
    variable: str | None = None
    fixed: tuple[str, str] | None = None
    listens: bool = True


@dataclass(frozen=True, slots=True)
class Setting:
    """A variable in a file of settings, with its value unquoted and not yet expanded.

    ``private`` is the user's own and may hold secrets; ``literal`` holds ``$`` as it is.
    """

    name: str
    value: str
    place: Place
    private: bool = False
    literal: bool = False


def port_name(text: str) -> str:
    """Return a name that a port may have, made from that of a service or a directory."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:40].strip("-_").lower()
    if not name:
        return "web"
    return name if name[0].isalpha() else f"port_{name}"


def name_in_variable(variable: str) -> str:
    """Return what a variable such as ``POSTGRES_PORT`` or ``PORT_API`` calls the port, or ""."""
    if variable == CONDUCTOR:
        return ""
    words = [word for word in variable.lower().split("_") if word and word != "port"]
    return port_name("_".join(words)) if words else ""


def number(text: str | None) -> int | None:
    """Return a port from 1 to 65535, None for anything else."""
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text.strip()):
        return None
    value = int(text)
    return value if 1 <= value <= 65535 else None  # noqa: PLR2004 - what a port is
