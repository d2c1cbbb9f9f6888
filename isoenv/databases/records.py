"""What isoenv has made, on record in the state directory: without passwords, one file each.

A record is written before its database is made and removed after it is dropped, so that a kill
at any point leaves no database that `prune` does not know.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING

from isoenv import files, paths, tokens
from isoenv.databases import address, marks
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.databases.address import Place
    from isoenv.databases.marks import Mark
    from isoenv.databases.targets import Target
    from isoenv.models import Lease

VERSION = 1
LIMIT = 1 << 16


@dataclass(frozen=True, slots=True)
class Record:
    """A database that isoenv has made: where, whose, and for which checkout.

    ``project`` is the key of the project, ``instance`` its name and slot for people. ``identity``
    is that of a SQLite file, (device, inode). ``token`` and ``git_dir`` with device and inode
    are the checkout's, where one held the slot.
    """

    name: str
    place: Place
    mark: Mark
    project: str
    identity: tuple[int, int] | None = None
    token: str | None = None
    git_dir: str | None = None
    device: int | None = None
    inode: int | None = None

    @property
    def is_gone(self) -> bool:
        """Whether the checkout that it was made for is proven gone."""
        return bool(self.git_dir and tokens.is_gone(self.git_dir, self.device, self.inode))


def of(target: Target, project: str, identity: tuple[int, int] | None = None) -> Record:
    """Return the record of a target."""
    found = Record(target.name, target.place, target.mark, project, identity)
    return _held(found, target.lease) if target.lease else found


def _held(record: Record, lease: Lease) -> Record:
    return replace(
        record,
        token=lease.token,
        git_dir=lease.git_dir,
        device=lease.device,
        inode=lease.inode,
    )


def read(state: str, place: Place) -> Record | None:
    """Return the record of what is, or is to be, at a place."""
    return _read(_file(state, place))


def every(state: str) -> Iterator[Record]:
    """Yield all records, in no order that means anything."""
    try:
        names = sorted(os.listdir(_folder(state)))
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(".json") and (found := _read(f"{_folder(state)}/{name}")):
            yield found


def write(state: str, record: Record) -> None:
    """Put a record down, whole or not at all."""
    file = _file(state, record.place)
    content = {
        "version": VERSION,
        "name": record.name,
        "place": _place(record.place),
        "mark": str(record.mark),
        "project": record.project,
        "identity": record.identity,
        "token": record.token,
        "git_dir": record.git_dir,
        "device": record.device,
        "inode": record.inode,
    }
    paths.make_private(_folder(state))
    temporary = f"{file}.{os.getpid()}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as stream:
            json.dump(content, stream)
        os.rename(temporary, file)
    except OSError as error:
        raise IsoenvError(f"cannot write {file}: {files.reason(error)}") from None


def remove(state: str, place: Place) -> None:
    """Forget what is at a place."""
    file = _file(state, place)
    try:
        os.unlink(file)
    except FileNotFoundError:
        return
    except OSError as error:
        raise IsoenvError(f"cannot remove {file}: {files.reason(error)}") from None


def lock_file(state: str, place: Place) -> str:
    """Return the file that is locked while something happens at a place."""
    return f"{_file(state, place).removesuffix('.json')}.lock"


def _folder(state: str) -> str:
    return f"{state}/databases"


def _file(state: str, place: Place) -> str:
    identity = "\0".join(place.identity).encode("utf-8", "surrogateescape")
    return f"{_folder(state)}/{sha256(identity).hexdigest()[:32]}.json"


def _place(place: Place) -> dict[str, object]:
    if isinstance(place, address.Sqlite):
        return {"path": place.path}
    # Never the secrets.
    return {"database": place.database, "parameters": dict(place.parameters)}


def _read(file: str) -> Record | None:
    """Return a record; None for a file that is none, such as one of a newer isoenv."""
    raw = files.read(file, LIMIT)
    try:
        content = json.loads(raw or b"")
        place = content["place"]
        mark = marks.read(content["mark"])
        if content["version"] != VERSION or mark is None:
            return None
        return Record(
            content["name"],
            address.Sqlite(place["path"])
            if "path" in place
            else address.Postgres(place["database"], place["parameters"]),
            mark,
            content["project"],
            tuple(content["identity"]) if content["identity"] else None,
            content["token"],
            content["git_dir"],
            content["device"],
            content["inode"],
        )
    except (ValueError, KeyError, TypeError):
        return None
