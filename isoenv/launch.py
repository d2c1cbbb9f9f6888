"""Run or print a ready environment without what computing one needs.

The warm half of `exec` and `export`. It imports nothing but ``os`` and this package's cheap
modules, because a warm call is paid for in imports; every doubt is left to the commands proper.
"""

from __future__ import annotations

import errno
import os
import sys

from isoenv import envdiff, generated, paths

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

NOT_EXECUTABLE = 126
NOT_FOUND = 127


def base_of(directory: str) -> str | None:
    """Return the base that a directory belongs to, by the names that mark one alone."""
    while True:
        if os.path.lexists(f"{directory}/.git") or os.path.lexists(
            f"{directory}/{paths.CONFIG_NAME}"
        ):
            return directory
        if directory in ("/", ""):
            return None
        directory = directory.rpartition("/")[0] or "/"


def warm(environ: Mapping[str, str], program: str) -> generated.Ready | None:
    """Return the ready environment of the current directory, unless there is any doubt.

    Where nothing is configured, `sky` has a preset of its own.
    """
    try:
        base = base_of(os.getcwd())
    except OSError:
        return None
    if base is None:
        return None
    ready = generated.read(paths.generated_dir(paths.state_dir(environ), base))
    if ready is None or ready.use == generated.NONE:
        return None
    if ready.use == generated.EXEC and program == "sky":
        return None
    return ready if generated.is_fresh(ready, clean(environ)) else None


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the caller's environment without what isoenv has set in it."""
    record = environ.get(envdiff.RECORD)
    if not record:
        return dict(environ)
    try:
        return envdiff.revert(environ, envdiff.loads(record))[0]
    except ValueError:
        return dict(environ)


def environment(environ: Mapping[str, str], ready: generated.Ready) -> dict[str, str]:
    """Return the caller's environment with the ready one in place of any other of isoenv's."""
    if not ready.variables:
        return clean(environ)
    return envdiff.apply(clean(environ), ready.variables, ready.path_prepend, ready.root)


def become(command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Become the command, looked up in the new PATH; end as a shell does when it cannot."""
    import _signal as signal  # type: ignore[import-not-found]  # `signal` itself imports enum

    # Python ignores these two for itself, and a child would inherit that.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    name, failure = command[0], errno.ENOENT
    for path in _candidates(name, environ):
        reason = _execute(path, command, environ)
        if reason not in (errno.ENOENT, errno.ENOTDIR):
            failure = reason
            if reason != errno.EACCES:
                break
    missing = failure == errno.ENOENT
    why = "command not found" if missing else os.strerror(failure).lower()
    if sys.stderr is not None:
        sys.stderr.write(f"isoenv: {name}: {why}\n")
    sys.exit(NOT_FOUND if missing else NOT_EXECUTABLE)


def _execute(path: str, command: Sequence[str], environ: Mapping[str, str]) -> int:
    """Become a file, or return why not."""
    try:
        try:
            os.execve(path, list(command), environ)  # noqa: S606  # becoming it is the job
        except OSError as error:
            if error.errno != errno.ENOEXEC:
                raise
            # A script without a first line that names its interpreter: execvp(3) takes the shell.
            os.execve("/bin/sh", ["/bin/sh", path, *command[1:]], environ)  # noqa: S606  # likewise
    except OSError as error:
        return error.errno or 0


def _candidates(name: str, environ: Mapping[str, str]) -> list[str]:
    """Return the files that a command may be, as execvp(3) looks for it."""
    if "/" in name or not name:
        return [name] if name else []
    directories = environ.get("PATH", os.defpath).split(":")
    return [f"{directory or '.'}/{name}" for directory in directories]
