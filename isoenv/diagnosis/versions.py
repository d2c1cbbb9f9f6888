"""Whether one version of isoenv alone is at work, and whether what it has made ready still serves.

Two versions that take turns write each ready environment anew each time, and the older one refuses
a registry that the newer one has changed.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from isoenv import generated, paths, scripts
from isoenv.diagnosis.finding import FIX, Finding, several

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from isoenv.context import Caller

# How much of a ready environment, or of a command, is looked at for who wrote it, in bytes.
HEADER, LAUNCHER = 200, 1 << 14
# How many bases a message names.
NAMED = 3

_WRITTEN_BY = re.compile(rb"^__isoenv_format='# ([^'\n]{1,100})'$", re.MULTILINE)


class Ready(NamedTuple):
    """A directory of a ready environment: for which base, by which version, and when."""

    directory: str
    base: str
    format: str
    time: float


def findings(caller: Caller) -> Iterator[Finding]:
    """Look at the commands on PATH, and at all that was made ready."""
    yield from _other_commands(caller.environ)
    found = list(ready(caller.state))
    gone = [each for each in found if not os.path.isdir(each.base)]
    if gone:
        yield Finding(
            "generated-stale",
            f"{several(len(gone), 'ready environment')} of directories that are gone: "
            f"{_named(gone)}",
            FIX,
            harmless=True,
            file=gone[0].directory,
            repair=_removal(gone),
        )
    yield from _other_writers([each for each in found if each not in set(gone)])


def _other_commands(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Find commands on PATH by the same name that are of another version."""
    own = scripts.executable()
    if os.path.basename(own) == "isoenv" and scripts.is_outdated(own):
        yield Finding(
            "launcher-outdated",
            f"{own} is not the launcher of this version of isoenv",
            "install isoenv again: an editable install copies it once",
            file=own,
        )
    seen = {os.path.realpath(own)}
    for directory in environ.get("PATH", os.defpath).split(":"):
        file = f"{directory}/isoenv"
        if not directory.startswith("/") or not os.access(file, os.X_OK):
            continue
        real = os.path.realpath(file)
        written = None if real in seen else _format_of(real)
        seen.add(real)
        if written and written != generated.FORMAT:
            yield Finding(
                "two-versions",
                f"{file} is {_version(written)}, this is {_version(generated.FORMAT)} ({own})",
                "uninstall one of the two, or take its directory out of PATH",
                file=file,
            )


def _format_of(file: str) -> str | None:
    """Return what an installed launcher writes and reads; None for a program of another kind."""
    try:
        # Not executed: what else has the name may do anything.
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
            match = _WRITTEN_BY.search(stream.read(LAUNCHER))
    except OSError:
        return None
    return os.fsdecode(match[1]) if match else None


def _version(written: str) -> str:
    """Return "isoenv 0.1.0" for "isoenv 3 0.1.0"."""
    words = written.split(" ")
    return f"isoenv {words[-1]}" if len(words) > 1 else repr(written)


def ready(state: str) -> Iterator[Ready]:
    """Yield what is ready in a state directory, for whatever base, read or not."""
    top = paths.generated_dir(state, "/")
    for directory, below, names in os.walk(top):
        below.sort()
        if "@env" in names:
            file = f"{directory}/@env"
            try:
                with open(file, "rb") as stream:
                    written = os.fsdecode(stream.read(HEADER).partition(b"\0")[0])
                    time = os.fstat(stream.fileno()).st_mtime
            except OSError:
                continue
            mirrored = directory.removeprefix(top.rstrip("/"))
            base, _, _slot = mirrored.partition("/@slot.")
            yield Ready(directory, base or "/", written, time)


def _other_writers(found: Sequence[Ready]) -> Iterator[Finding]:
    """Find what another version has made ready: before this one was used, or meanwhile."""
    others = [each for each in found if each.format != generated.FORMAT]
    if not others:
        return
    since = min((each.time for each in found if each.format == generated.FORMAT), default=None)
    last = max(others, key=lambda each: each.time)
    names = ", ".join(sorted({repr(each.format) for each in others})[:NAMED])
    if since is not None and last.time > since:
        yield Finding(
            "two-versions",
            f"{last.directory}/@env was written by {names} after {generated.FORMAT!r} had written "
            "others: two versions of isoenv use this state directory",
            "start the shells anew that have the other's hook, or uninstall it",
            file=f"{last.directory}/@env",
        )
        return
    yield Finding(
        "generated-outdated",
        f"{several(len(others), 'ready environment')} written by {names}, this is "
        f"{generated.FORMAT!r}: {_named(others)}",
        FIX,
        harmless=True,
        file=f"{last.directory}/@env",
        repair=_removal(others),
    )


def _named(found: Sequence[Ready]) -> str:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(each.base for each in found[:NAMED]) + more


def _removal(found: Sequence[Ready]) -> Callable[[], str]:
    def remove() -> str:
        """Remove files only, and directories that are empty then: a base may lie below another."""
        # With a lease that was given back before, its own are gone already.
        for each in filter(lambda each: os.path.isdir(each.directory), found):
            for name in os.listdir(each.directory):
                file = f"{each.directory}/{name}"
                if name.startswith("@") and not os.path.isdir(file):
                    os.unlink(file)
            _remove_empty(each.directory)
        return f"removed {several(len(found), 'ready environment')}"

    return remove


def _remove_empty(directory: str) -> None:
    """Remove a directory and those above it, as long as they are empty."""
    try:
        while True:
            os.rmdir(directory)
            directory = os.path.dirname(directory)
    except OSError:
        return
