"""A home directory for one server: all that is in the user's, but for what has to be its own."""

from __future__ import annotations

import os
import shlex

from isoenv import files, paths
from isoenv.errors import IsoenvError
from isoenv.services import record

# SkyPilot's state and logs, which each server has for itself, and those of the other instances.
OWN = (".sky", "sky_logs")
INSTANCES = ".sky-dev-"

LAUNCHER = """\
#!/bin/sh
# Written by isoenv, for `home = "all"`: SkyPilot's clients see the home of their server.
HOME={home} exec {sky} "$@"
"""


def variables(directory: str) -> dict[str, str]:
    """Return the variables that point into an instance's directory."""
    return {"HOME": f"{directory}/home", "TMPDIR": f"{directory}/tmp"}  # noqa: S108  # its own


def make_temporary(directory: str) -> None:
    """Make the server's directory for temporary files."""
    paths.make_private(variables(directory)["TMPDIR"])


def make(directory: str, home: str) -> None:
    """Make the server's directories, with links to the entries of ``home``, the user's.

    What is gone from the user's home since goes from here too; files of the server's own stay.
    """
    make_temporary(directory)
    own = variables(directory)["HOME"]
    paths.make_private(f"{own}/.sky")
    try:
        wanted = {name for name in os.listdir(home) if not _is_own(name)}
        for name in os.listdir(own):
            if name not in wanted and _is_link(f"{own}/{name}", f"{home}/{name}"):
                os.unlink(f"{own}/{name}")
        for name in wanted:
            if not os.path.lexists(f"{own}/{name}"):
                _link(f"{home}/{name}", f"{own}/{name}")
    except OSError as error:
        raise IsoenvError(f"cannot make {own}: {files.reason(error)}") from None


def write_identity(path: str, identity: str | None) -> None:
    """Tell the server who it is, unless it knows: its database has the last word."""
    if identity and not os.path.exists(path):
        record.replace(path, os.fsencode(identity))


def write_launcher(directory: str, path: str, sky: str | None) -> None:
    """Write a command at ``path`` that runs ``sky`` in the server's home; for None remove it."""
    if sky is None:
        if os.path.lexists(path):
            _unlink(path)
        return
    paths.make_private(os.path.dirname(path))
    text = LAUNCHER.format(home=shlex.quote(f"{directory}/home"), sky=shlex.quote(sky))
    record.replace(path, os.fsencode(text), mode=0o700)


def _is_own(name: str) -> bool:
    return name in OWN or name.startswith(INSTANCES)


def _is_link(path: str, target: str) -> bool:
    return os.path.islink(path) and os.readlink(path) == target


def _link(target: str, path: str) -> None:
    try:
        os.symlink(target, path)
    except FileExistsError:
        return


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        raise IsoenvError(f"cannot remove {path}: {files.reason(error)}") from None
