"""Whose a database is, by its mark and by the record: nothing else is ever dropped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv.databases import address
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.databases.marks import Mark
    from isoenv.databases.records import Record
    from isoenv.databases.targets import Target

# How many of those who are connected a message names.
SHOWN = 3


@dataclass(frozen=True, slots=True)
class Found:
    """What is at a place: the mark on it, if any, its size in bytes, and who is connected."""

    mark: Mark | None
    size: int | None = None
    users: Sequence[str] = ()


def is_ours(target: Target, record: Record | None, mark: Mark | None) -> bool:
    """Whether what is there was made by isoenv for this very instance.

    A repository that has moved is another project by its path; its checkout's token is the same.
    """
    if mark is None:
        return False
    if mark.is_of(target.mark):
        return True
    token = target.lease.token if target.lease else None
    same = bool(record and token and record.token == token)
    return same and mark.seat == target.mark.seat


def refuse_others(target: Target, record: Record | None, mark: Mark | None) -> None:
    """Raise IsoenvError for a database that isoenv has made for somebody else."""
    if mark and not is_ours(target, record, mark):
        raise IsoenvError(
            f"{target.place} is already {mark.title}: give each instance its own in `url`"
        )


def refuse_foreign(target: Target, record: Record | None, mark: Mark | None) -> None:
    """Raise IsoenvError unless isoenv has made it for this instance."""
    refuse_others(target, record, mark)
    if mark is None:
        own = "dropdb" if isinstance(target.place, address.Postgres) else "rm"
        raise IsoenvError(f"{target.place} was not made by isoenv, so it stays: `{own}` drops it")


def refuse_main(target: Target, action: str, *, force: bool) -> None:
    """Raise IsoenvError for the database of slot 0, or one for all, without ``force``."""
    if target.is_main and not force:
        whose = "slot 0" if target.mark.seat == "0" else "all instances"
        raise IsoenvError(
            f"{target.place} is the database of {whose}: `isoenv db {action} --force`"
        )


def refuse_used(target: Target, users: Sequence[str], action: str) -> None:
    """Raise IsoenvError that names who is connected."""
    if users:
        raise IsoenvError(
            f"{target.place} is in use by {names(users)}: close them, "
            f"or `isoenv db {action} --force` ends them"
        )


def names(users: Sequence[str]) -> str:
    """Name some of those who are connected, and count the rest."""
    shown = ", ".join(users[:SHOWN])
    rest = len(users) - SHOWN
    return f"{shown} and {rest} more" if rest > 0 else shown
