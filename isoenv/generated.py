"""The ready environment of a checkout, written once and served until an input changes.

One directory for each base below the state directory, mirroring its path. ``@env`` holds the
environment for a warm Python: fields ended by NUL, so that it is read without a parser.
"""

from __future__ import annotations

import os
import time

from isoenv import __version__, paths

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

FORMAT = f"isoenv 1 {__version__}"
# A file younger than its clock's grain may change once more without a new time: nanoseconds for
# most file systems, and for those that keep whole seconds.
GRAIN = 20_000_000
COARSE_GRAIN = 2_000_000_000
UNSURE = "?"
ABSENT = "-"


class Ready:
    """A ready environment and what it depends on.

    ``watched`` maps files to their stamps. ``slot_variables`` decide the slot when the user sets
    them, ``pin`` is the pin it was computed under. ``dirs`` have to exist.
    """

    __slots__ = (
        "dirs",
        "home",
        "label",
        "path_prepend",
        "pin",
        "root",
        "slot_variables",
        "variables",
        "watched",
    )

    def __init__(  # noqa: PLR0913  # a dataclass would cost every warm exec 15 ms of imports
        self,
        *,
        root: str,
        label: str,
        home: str,
        pin: str,
        slot_variables: Sequence[str],
        watched: Mapping[str, str],
        dirs: Sequence[str],
        path_prepend: Sequence[str],
        variables: Mapping[str, str | None],
    ) -> None:
        """Keep the fields as they are."""
        self.root = root
        self.label = label
        self.home = home
        self.pin = pin
        self.slot_variables = tuple(slot_variables)
        self.watched = dict(watched)
        self.dirs = tuple(dirs)
        self.path_prepend = tuple(path_prepend)
        self.variables = dict(variables)


def stamp(path: str, now: int) -> str:
    """Return what identifies a file's state at ``now`` (ns), or ABSENT.

    UNSURE, which never compares equal, where the next change might not show.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    grain = GRAIN if status.st_mtime_ns % 1_000_000_000 else COARSE_GRAIN
    if status.st_mtime_ns > now - grain:
        return UNSURE
    return _stamp(status)


def sure_stamp(path: str) -> str:
    """Return the stamp of a file that only isoenv itself changes."""
    try:
        return _stamp(os.stat(path))
    except OSError:
        return ABSENT


def _stamp(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"


def is_fresh(ready: Ready) -> bool:
    """Whether every watched file is as it was and every directory still there."""
    return all(
        known != UNSURE and known == sure_stamp(path) for path, known in ready.watched.items()
    ) and all(map(os.path.isdir, ready.dirs))


def dumps(ready: Ready) -> bytes:
    """Return the content of ``@env``."""
    fields = [FORMAT, ready.root, ready.label, ready.home, ready.pin]
    for part in (
        ready.slot_variables,
        [text for pair in ready.watched.items() for text in pair],
        ready.dirs,
        ready.path_prepend,
        [
            text
            for name, value in ready.variables.items()
            for text in (name, "-" if value is None else f"={value}")
        ],
    ):
        fields += [str(len(part)), *part]
    return os.fsencode("\0".join(fields) + "\0")


def loads(content: bytes) -> Ready | None:
    """Read ``@env``; None when another version wrote it, or not to its end."""
    fields = iter(os.fsdecode(content).split("\0"))
    try:
        if next(fields) != FORMAT or not content.endswith(b"\0"):
            return None
        root, label, home, pin = next(fields), next(fields), next(fields), next(fields)
        parts = [[next(fields) for _ in range(int(next(fields)))] for _ in range(5)]
    except (RuntimeError, StopIteration, ValueError):
        return None
    slot_variables, watched, dirs, path_prepend, variables = parts
    return Ready(
        root=root,
        label=label,
        home=home,
        pin=pin,
        slot_variables=slot_variables,
        watched=dict(zip(watched[::2], watched[1::2], strict=True)),
        dirs=dirs,
        path_prepend=path_prepend,
        variables={
            name: None if text == "-" else text[1:]
            for name, text in zip(variables[::2], variables[1::2], strict=True)
        },
    )


def read(directory: str) -> Ready | None:
    """Return what is ready in a generated directory."""
    try:
        with open(f"{directory}/@env", "rb") as file:
            return loads(file.read())
    except OSError:
        return None


def publish(state: str, base: str, ready: Ready) -> None:
    """Write the environment of ``base``, whole or not at all."""
    directory = paths.generated_dir(state, base)
    paths.make_private(directory)
    _replace(f"{directory}/@env", dumps(ready))


def _replace(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
    try:
        with open(temporary, "wb", opener=_private) as file:
            file.write(content)
        os.rename(temporary, path)
    except OSError:
        # A full disk or a read-only state directory costs speed, not the command.
        try:
            os.unlink(temporary)
        except OSError:
            return


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def forget(state: str, base: str) -> None:
    """Drop what is ready for ``base``: the next use computes it anew."""
    directory = paths.generated_dir(state, base)
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        if name.startswith("@"):
            try:
                os.unlink(f"{directory}/{name}")
            except OSError:
                continue
