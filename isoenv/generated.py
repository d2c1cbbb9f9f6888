"""The ready environment of a base, written once and served until an input changes.

One directory for each base below the state directory, mirroring its path, so that a shell finds
it with builtins. ``@env`` is for a warm Python: fields ended by NUL, read without a parser.
``@env.sh``, ``@env.bash`` and ``@env.fish`` are for shells. ``@g.ID`` is there while generation ID
is the current one, and ``@wN.ID`` has the time of the Nth watched file: a shell compares times
with ``-nt`` and ``-ot``, to the nanosecond, and knows no other way to. Where the state directory
keeps no such times, ``@vN.ID`` is a little older and ``@wN.ID`` a little younger than the file.
"""

from __future__ import annotations

import os
import time

from isoenv import __version__, paths
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from isoenv.shells.script import Condition

FORMAT = f"isoenv 3 {__version__}"
# A file younger than its clock's grain may change once more without a new time: nanoseconds for
# most file systems, and for those that keep whole seconds.
GRAIN = 20_000_000
COARSE_GRAIN = 2_000_000_000
ABSENT = "-"
# In front of a stamp that the next change might not show; it compares equal to none.
UNSURE = "?"

ALL, EXEC, NONE = "all", "exec", "none"
ASKED, DIFFERS, NEITHER = "asked", "differs", "neither"
SHELLS = ("sh", "bash", "fish")
PUBLISHED = ("@env", *(f"@env.{name}" for name in SHELLS))


class Ready:
    """A ready environment and what it depends on.

    ``watched`` maps files to their stamps. ``guards`` are conditions on the caller's environment:
    (ASKED, NAME) where the user asks for a slot by that variable, (DIFFERS, NAME, VALUE), and
    (NEITHER, NAME, VALUE, OTHER). ``dirs`` have to exist. ``use`` is ALL, EXEC where a shell's hook
    loads nothing because nothing is configured, or NONE, with a ``message`` for people where
    something is wrong. ``direnv`` says that direnv loads this base itself.
    """

    __slots__ = (
        "direnv",
        "dirs",
        "guards",
        "label",
        "message",
        "path_prepend",
        "root",
        "use",
        "variables",
        "watched",
    )

    def __init__(  # noqa: PLR0913  # a dataclass would cost every warm exec 15 ms of imports
        self,
        *,
        root: str,
        label: str,
        guards: Sequence[Condition],
        watched: Mapping[str, str],
        dirs: Sequence[str] = (),
        path_prepend: Sequence[str] = (),
        variables: Mapping[str, str | None],
        use: str = ALL,
        message: str = "",
        direnv: bool = False,
    ) -> None:
        """Keep the fields as they are."""
        self.root = root
        self.label = label
        self.guards = [tuple(guard) for guard in guards]
        self.watched = dict(watched)
        self.dirs = tuple(dirs)
        self.path_prepend = tuple(path_prepend)
        self.variables = dict(variables)
        self.use = use
        self.message = message
        self.direnv = direnv


def stamp(path: str, now: int | None = None) -> str:
    """Return what identifies a file's state, or ABSENT.

    With ``now``, in nanoseconds, a file too young to be sure of gets a mark in front.
    """
    try:
        status = os.stat(path)
    except OSError:
        return ABSENT
    known = f"{status.st_mtime_ns} {status.st_size} {status.st_ino}"
    if now is None:
        return known
    grain = GRAIN if status.st_mtime_ns % 1_000_000_000 else COARSE_GRAIN
    return f"{UNSURE}{known}" if status.st_mtime_ns > now - grain else known


def is_fresh(ready: Ready, environ: Mapping[str, str]) -> bool:
    """Whether the caller asks for nothing else and every input is as it was."""
    return (
        not any(_is_other(guard, environ) for guard in ready.guards)
        and all(known == stamp(path) for path, known in ready.watched.items())
        and all(map(os.path.isdir, ready.dirs))
    )


def _is_other(guard: Condition, environ: Mapping[str, str]) -> bool:
    value = environ.get(guard[1], "")
    if guard[0] in (DIFFERS, NEITHER):
        return value not in guard[2:]
    return value not in ("", environ.get("__ISOENV_SLOT"))


def dumps(ready: Ready) -> bytes:
    """Return the content of ``@env``."""
    fields = [
        FORMAT,
        ready.root,
        ready.label,
        ready.use,
        ready.message,
        "1" if ready.direnv else "",
    ]
    for part in (
        [text for guard in ready.guards for text in (*guard, "", "")[:4]],
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
        root, label, use, message, direnv = [next(fields) for _ in range(5)]
        parts = [[next(fields) for _ in range(int(next(fields)))] for _ in range(5)]
        guards, watched, dirs, path_prepend, variables = parts
        return Ready(
            root=root,
            label=label,
            use=use,
            message=message,
            direnv=bool(direnv),
            guards=[_trimmed(guards[at : at + 4]) for at in range(0, len(guards), 4)],
            watched=dict(zip(watched[::2], watched[1::2], strict=True)),
            dirs=dirs,
            path_prepend=path_prepend,
            variables={
                name: None if text == "-" else text[1:]
                for name, text in zip(variables[::2], variables[1::2], strict=True)
            },
        )
    except (RuntimeError, StopIteration, ValueError):
        return None


def _trimmed(cells: list[str]) -> tuple[str, ...]:
    """Return a guard with as many words as its kind has."""
    return tuple(cells[: {ASKED: 2, DIFFERS: 3}.get(cells[0], 4)])


def read(directory: str) -> Ready | None:
    """Return what is ready in a generated directory."""
    try:
        with open(f"{directory}/@env", "rb") as file:
            return loads(file.read())
    except OSError:
        return None


def publish(directory: str, ready: Ready) -> str | None:
    """Write a ready environment; return its generation, None where it cannot be written.

    A full disk or a read-only state directory costs speed, not the command.
    """
    generation = f"{time.time_ns():x}{os.getpid():x}"
    try:
        paths.make_private(directory)
        for index, (_, known) in enumerate(ready.watched.items()):
            if known != ABSENT:
                _refer(directory, f"{index}.{generation}", known)
        _write(f"{directory}/@g.{generation}", b"")
        conditions = conditions_of(ready, directory, generation)
        for name in SHELLS:
            content = os.fsencode(script(ready, name, conditions))
            _replace(f"{directory}/@env.{name}", content, generation)
        _replace(f"{directory}/@env", dumps(ready), generation)
    except (OSError, IsoenvError):
        _remove(directory, lambda name: name.endswith(generation))
        return None
    _remove(directory, lambda name: name not in PUBLISHED and not name.endswith(generation))
    return generation


def script(ready: Ready, shell: str, conditions: Sequence[Condition]) -> str:
    """Return the code of a ready environment for ``bash``, ``fish`` or ``sh`` (zsh alike)."""
    from isoenv import shells
    from isoenv.shells.script import Script, spell

    return spell(
        Script(
            header=FORMAT,
            root=ready.root,
            label=ready.label,
            message=ready.message,
            use=ready.use,
            direnv=ready.direnv,
            conditions=conditions,
            path=ready.path_prepend,
            variables=ready.variables,
        ),
        shells.named(shell),
    )


def conditions_of(
    ready: Ready, directory: str | None = None, generation: str | None = None
) -> list[Condition]:
    """Return what makes it stale: its guards, and for a published generation its files."""
    found: list[Condition] = []
    if directory and generation:
        found.append(("missing", f"{directory}/@g.{generation}"))
        for index, (path, known) in enumerate(ready.watched.items()):
            if known == ABSENT:
                found.append(("exists", path))
                continue
            reference = earlier = f"{directory}/@w{index}.{generation}"
            if os.path.exists(f"{directory}/@v{index}.{generation}"):
                earlier = f"{directory}/@v{index}.{generation}"
            # What a missing operand does to -nt and -ot differs from shell to shell.
            found += [
                ("missing", path),
                ("newer", path, reference),
                ("older", path, earlier),
            ]
        found += [("no-directory", path) for path in ready.dirs]
    return found + ready.guards


def _refer(directory: str, name: str, known: str) -> None:
    """Make a reference file with the time of a stamp; 1 ns off where the stamp is unsure."""
    path = f"{directory}/@w{name}"
    time_ns = int(known.lstrip(UNSURE).split(" ")[0]) - known.startswith(UNSURE)
    _date(path, time_ns)
    is_old = time_ns < time.time_ns() - COARSE_GRAIN
    if is_old and os.stat(path).st_mtime_ns != time_ns:
        # A file system that cannot keep this time. What the watched file gets by a change is later
        # than the second of these two.
        _date(f"{directory}/@v{name}", time_ns - COARSE_GRAIN)
        _date(path, time_ns + COARSE_GRAIN)


def _date(path: str, time_ns: int) -> None:
    _write(path, b"")
    os.utime(path, ns=(time_ns, time_ns))


def _replace(path: str, content: bytes, generation: str) -> None:
    temporary = f"{path}.{generation}"
    _write(temporary, content)
    os.rename(temporary, path)


def _write(path: str, content: bytes) -> None:
    with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(content)


def forget(state: str, base: str) -> None:
    """Drop what is ready for ``base``: the next use computes it anew."""
    _remove(paths.generated_dir(state, base), lambda _name: True)


def bases(state: str) -> Iterator[str]:
    """Yield the directories for which something is, or was, ready; outer ones first."""
    top = paths.generated_dir(state, "")
    for directory, below, names in os.walk(top):
        below[:] = sorted(name for name in below if not name.startswith("@slot."))
        if any(name.startswith("@") for name in [*names, *below]):
            yield directory.removeprefix(top) or "/"


def _remove(directory: str, is_meant: Callable[[str], bool]) -> None:
    try:
        names = os.listdir(directory)
    except OSError:
        return
    for name in names:
        # Without the sign, and in @slot.N, are the directories of other environments.
        if name.startswith("@") and not name.startswith("@slot.") and is_meant(name):
            _unlink(f"{directory}/{name}")


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        return
