"""What is known of a service between two commands, in files of its own.

One directory a service. ``record`` holds fields ended by NUL; ``exit.ID`` is written by the
service's parent when the run ID has ended; ``lock`` is held by who starts or stops it; ``cancel``
changes when somebody wants it down. A corrupt registry loses no running service.
"""

from __future__ import annotations

import os

from isoenv import paths
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs `api status` more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping

UP, STOPPING, DOWN = "up", "stopping", "down"
# In the environment of all that a run starts, with its ID: what has it is ours.
MARK = "__ISOENV_SERVICE"


class Record:
    """The fields of a record, as text. ``id`` is that of the run, new at each start.

    ``state`` is what was wanted last: UP, STOPPING or DOWN. Times are in seconds since the epoch.
    """

    __slots__ = ("fields",)

    def __init__(self, fields: Mapping[str, str]) -> None:
        """Keep the fields as they are."""
        self.fields = dict(fields)

    def text(self, name: str) -> str:
        """Return a field, the empty text where there is none."""
        return self.fields.get(name, "")

    def number(self, name: str) -> int:
        """Return a field as an integer, 0 where it is none."""
        value = self.text(name)
        return int(value) if value.isdecimal() else 0

    def seconds(self, name: str) -> float | None:
        """Return a field as a time or a duration, None where it is none."""
        try:
            return float(self.text(name))
        except ValueError:
            return None

    def changed(self, **fields: str) -> Record:
        """Return the same record with other values in some fields."""
        return Record({**self.fields, **fields})


def directory(state: str, project_key: str, slot: int, service: str = "") -> str:
    """Return where a service's files are, or those of all services of an instance."""
    return paths.services_dir(state, project_key, slot) + (f"/{service}" if service else "")


def read(place: str) -> Record | None:
    """Return the record of a service; None where there is none that can be read."""
    try:
        with open(f"{place}/record", "rb") as file:
            content = file.read()
    except OSError:
        return None
    pairs = [entry.partition("=") for entry in os.fsdecode(content).split("\0")[:-1]]
    return Record({name: value for name, _, value in pairs})


def write(place: str, record: Record) -> None:
    """Replace the record, whole. Raises IsoenvError where it cannot be written."""
    content = "".join(f"{name}={value}\0" for name, value in record.fields.items())
    replace(f"{place}/record", os.fsencode(content))


def replace(path: str, content: bytes, mode: int = 0o600) -> None:
    """Write a private file so that it is there whole or as before."""
    temporary = f"{path}.{os.getpid()}"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with open(descriptor, "wb") as file:
            file.write(content)
        os.rename(temporary, path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IsoenvError(f"cannot write {path}: {reason}") from None


def exit_file(place: str, run: str) -> str:
    """Return the file that the parent of a run writes when the run has ended."""
    return f"{place}/exit.{run}"


def ended(place: str, run: str) -> tuple[int, float | None] | None:
    """Return a run's exit status, as sh counts it, and when, in seconds since boot; else None."""
    try:
        with open(exit_file(place, run), encoding="ascii", errors="replace") as file:
            line = file.read()
    except OSError:
        return None
    status, _, uptime = line.partition(" ")
    # Without its newline the line is still being written.
    if not line.endswith("\n") or not status.isdecimal():
        return None
    try:
        return int(status), float(uptime)
    except ValueError:
        return int(status), None


def ended_at(place: str, run: str) -> float | None:
    """Return when a run has ended, in seconds since the epoch."""
    try:
        return os.stat(exit_file(place, run)).st_mtime
    except OSError:
        return None


def cancellation(place: str) -> str:
    """Return what changes each time that somebody wants the service down."""
    try:
        with open(f"{place}/cancel", encoding="ascii", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def cancel(place: str, token: str) -> None:
    """Tell who is starting the service, now or next, to leave off."""
    paths.make_private(place)
    replace(f"{place}/cancel", token.encode("ascii"))


def forget_runs(place: str) -> None:
    """Remove what former runs have left."""
    for name in os.listdir(place):
        if name.startswith(("exit.", "start.", "record.")):
            try:
                os.unlink(f"{place}/{name}")
            except OSError:
                continue
