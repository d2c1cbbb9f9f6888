"""What the user has allowed: a file's content, in one repository.

A record is a file of its own, so that a broken registry untrusts nothing and two `allow` at once
lose neither. It binds the repository by the token and the inode of its common directory, not by
its path, and the bytes of the file: a linked worktree with the same bytes is trusted silently,
one changed byte asks again. The allowed bytes are kept, to show what has changed since.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING

from isoenv import checkout, files, paths, tokens
from isoenv.errors import IsoenvError
from isoenv.models import Checkout

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = b"isoenv trust 1"
# More than any record has, in bytes: a configuration is shorter, and the lines above it are few.
LIMIT = 1 << 21
ALLOWED, DENIED = "allow", "deny"


@dataclass(frozen=True, slots=True)
class Subject:
    """A file to be trusted: its path relative to the checkout's root, and its bytes."""

    name: str
    content: bytes

    @property
    def digest(self) -> str:
        """What its records are filed under."""
        return sha256(os.fsencode(self.name) + b"\0" + self.content).hexdigest()


def witness(state: str, place: Checkout, subject: Subject) -> str:
    """Return the file on which the verdict hangs: the record, or the token before there is one."""
    repository = _repository(place)
    token = tokens.read_token(repository)
    if token is None:
        return repository.token_file
    return f"{_folder(state, repository, token.value)}/{subject.digest}"


def is_allowed(state: str, place: Checkout, subject: Subject) -> bool:
    """Whether the user has allowed these bytes in this repository, and not denied them since."""
    return _verdict(state, place, subject) == ALLOWED


def is_denied(state: str, place: Checkout, subject: Subject) -> bool:
    """Whether the user has denied these bytes in this repository."""
    return _verdict(state, place, subject) == DENIED


def write(state: str, place: Checkout, subjects: Sequence[Subject], verdict: str) -> None:
    """Record that the user allows or denies these files here."""
    if not checkout.back_pointer_holds(place):
        raise IsoenvError(
            f"{place.root}/.git points into a repository that does not know this directory: "
            "`git worktree repair`"
        )
    repository = _repository(place)
    token = tokens.mint(repository)
    folder = _folder(state, repository, token.value)
    paths.make_private(folder)
    for subject in subjects:
        lines = [HEADER, verdict.encode(), os.fsencode(subject.name).hex().encode()]
        _replace(f"{folder}/{subject.digest}", b"\n".join([*lines, subject.content]))


def last_allowed(state: str, place: Checkout, name: str) -> bytes | None:
    """Return the bytes that were allowed last under this name in this repository."""
    repository = _repository(place)
    token = tokens.read_token(repository)
    if token is None:
        return None
    folder = _folder(state, repository, token.value)
    try:
        records = [f"{folder}/{entry}" for entry in os.listdir(folder)]
        records.sort(key=lambda file: os.stat(file).st_mtime_ns, reverse=True)
    except OSError:
        return None
    for file in records:
        record = _read(file)
        if record and record[0] == ALLOWED and record[1] == name:
            return record[2]
    return None


def _repository(place: Checkout) -> Checkout:
    """Return what all work trees of the repository share, as a checkout with a token."""
    common = place.common_dir
    if common is None or not os.path.isdir(common):
        return place
    return Checkout(place.root, common, common)


def _folder(state: str, repository: Checkout, token: str) -> str:
    # With the inode, so that a copy, which has the token too, is trusted for itself.
    return f"{state}/trust/{token}-{os.stat(repository.git_dir or repository.root).st_ino}"


def _verdict(state: str, place: Checkout, subject: Subject) -> str | None:
    if not checkout.back_pointer_holds(place):
        return None
    record = _read(witness(state, place, subject))
    if record is None:
        return None
    verdict, name, content = record
    return verdict if (name, content) == (subject.name, subject.content) else None


def _read(file: str) -> tuple[str, str, bytes] | None:
    try:
        header, verdict, name, content = (files.read(file, LIMIT) or b"").split(b"\n", 3)
        if header != HEADER:
            return None
        return verdict.decode(), os.fsdecode(bytes.fromhex(name.decode())), content
    except (IsoenvError, ValueError):
        return None


def _replace(path: str, content: bytes) -> None:
    temporary = f"{path}.{os.getpid()}.{time.monotonic_ns()}"
    try:
        with open(temporary, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, path)
    except OSError as error:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise IsoenvError(f"cannot write {path}: {files.reason(error)}") from None
