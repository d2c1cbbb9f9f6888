"""The file that gives each command of an agent its environment, and the line that reads it."""

from __future__ import annotations

import os
import sys

from isoenv import __version__, files, flock, paths
from isoenv.errors import IsoenvError

# More than the hooks of any agent write for one session, in bytes.
LIMIT = 1 << 20
# Seconds that the line may wait for another hook that writes to the same file.
PATIENCE = 0.2


def write(state: str) -> str:
    """Write the file for BASH_ENV where it is missing or another version's; return its path."""
    from isoenv import scripts

    file = paths.agent_env_file(state)
    content = os.fsencode(scripts.agent()) + _mark()
    if files.read(file, LIMIT) != content:
        paths.make_private(state)
        files.replace(file, content)
    return file


def is_current(state: str) -> bool:
    """Whether the file for BASH_ENV is there, written by this version: seen by its last line."""
    try:
        return (files.read(paths.agent_env_file(state), LIMIT) or b"").endswith(_mark())
    except IsoenvError:
        return False


def _mark() -> bytes:
    """Return the line that says from what the file was made: script, version, interpreter."""
    package = os.path.dirname(os.path.abspath(__file__)).rpartition("/")[0]
    made_from = [__version__, os.path.dirname(sys.executable)]
    installed = f"{package}/_shell"
    shell = installed if os.path.isdir(installed) else f"{package}/../shell"
    for script in ("env.sh", "cd.bash"):
        try:
            status = os.stat(f"{shell}/{script}")
        except OSError:
            continue
        made_from += [str(status.st_mtime_ns), str(status.st_size)]
    return os.fsencode(f"# {made_from!a}\n")


def line(state: str) -> str:
    """Return the line that reads the file in a shell, with its newline: no value stands in it."""
    quoted = "'" + paths.agent_env_file(state).replace("'", "'\\''") + "'"
    return f"[ ! -r {quoted} ] || . {quoted}\n"


def add_line(file: str, state: str) -> None:
    """Put the line at the end of an agent's environment file, once; all that is there stays."""
    wanted = os.fsencode(line(state))
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK
        descriptor = os.open(file, flags, 0o600)
    except OSError as error:
        raise IsoenvError(f"cannot open {file}: {files.reason(error)}") from None
    try:
        flock.acquire(descriptor, PATIENCE)
        found = files.read(file, LIMIT) or b""
        if b"\n" + wanted in b"\n" + found:
            return
        # One write: whoever else appends comes before it or after it.
        os.write(descriptor, (b"\n" if found and not found.endswith(b"\n") else b"") + wanted)
    except OSError as error:
        raise IsoenvError(f"cannot write to {file}: {files.reason(error)}") from None
    finally:
        os.close(descriptor)
