"""For whom a lock counts: the checkouts of a project, or all of the machine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from isoenv import mounts, paths
from isoenv.coordination import lock_names
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.context import Caller


@dataclass(frozen=True, slots=True)
class Scope:
    """The directory of some locks, and the name of the project they belong to, if any."""

    directory: str
    project: str | None

    def lock(self, name: str) -> str:
        """Return the directory of a lock. Raises UsageError for what is no name."""
        return f"{self.directory}/{lock_names.encode(name)}"


def machine(state: str) -> Scope:
    """Return the scope of all processes that have this state directory."""
    return _checked(Scope(paths.locks_dir(state, None, ""), None))


def of(caller: Caller) -> Scope:
    """Return the scope of the caller's project; outside any checkout it is the machine's."""
    from isoenv import context  # more than all else to import

    here = context.find(caller)
    if here.base is None:
        return machine(caller.state)
    key, name = here.project.key, here.project.name
    return _checked(Scope(paths.locks_dir(caller.state, key, name), name))


def current() -> Scope:
    """Return the scope of the current directory, found once for each directory of a process."""
    try:
        directory = os.getcwd()
    except OSError:
        raise IsoenvError("the current directory is gone: `cd` somewhere else") from None
    return _found(directory, paths.state_dir(os.environ))


@cache
def _found(directory: str, _state: str) -> Scope:
    from isoenv import context

    return of(context.Caller(directory, os.environ))


def _checked(scope: Scope) -> Scope:
    """Refuse a place where the kernel's locks do not keep everybody out."""
    mount = mounts.find(os.path.realpath(scope.directory), mounts.table())
    if mount and mount.is_shared:
        raise IsoenvError(
            f"cannot lock in {scope.directory}: {mount.directory} is {mount.kind}, where locks do "
            "not hold for all: `export ISOENV_STATE_DIR=/…` on a disk of this machine"
        )
    return scope
