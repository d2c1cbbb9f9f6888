"""Whose environment a process has inherited, where that is not the one of its directory.

`ISOENV_ROOT` says what checkout it was computed for. Who has asked for an instance, by
`exec 3 bash` or by a variable, has another checkout's on purpose.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import checkout, instances, launch
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.context import Caller

ROOT, PROJECT = "ISOENV_ROOT", "ISOENV_PROJECT"
DIRECTORY = "ISOENV_DIR"


@dataclass(frozen=True, slots=True)
class Foreign:
    """An environment that belongs to another place than the directory of a command.

    ``label`` is its instance, ``root`` the checkout that it was computed for, ``here`` the base
    of the directory, None outside of any checkout. ``is_gone`` says that nothing is at ``root``:
    it was removed, or moved.
    """

    label: str
    root: str
    here: str | None
    is_gone: bool

    def __str__(self) -> str:
        """Return it in words, on one line, without what follows from it."""
        gone = ", which is gone" if self.is_gone else ""
        place = f", and this is {self.here}" if self.here else ""
        return f"this environment is that of {self.label} in {self.root}{gone}{place}"

    @property
    def remedy(self) -> str:
        """What follows from it, and what to do about it."""
        right = "`isoenv exec . CMD`" if self.here else "`isoenv list --all` shows those that are"
        return f"isoenv does not use it, other programs do: {right}"


def foreign(caller: Caller) -> Foreign | None:
    """Return what has been inherited from elsewhere; None where that is right as it is.

    Outside of any checkout an environment stays what it is, as long as its checkout is there.
    """
    root = caller.environ.get(ROOT)
    if not root or caller.environ.get(instances.PIN):
        return None
    here = launch.base_of(caller.directory)
    # By names alone, which is enough nearly always and costs next to nothing.
    if here == root:
        return None
    if here is not None:
        here = _certain(caller.directory, here)
    # Outside of any checkout the instance's own directory stands for one, made or not.
    is_gone = root != caller.environ.get(DIRECTORY) and not os.path.isdir(root)
    if here is None:
        return _described(caller, root, None, is_gone=True) if is_gone else None
    if here == root or _is_same(here, root) or _is_asked_for(caller):
        return None
    return _described(caller, root, here, is_gone=is_gone)


def _certain(directory: str, likely: str) -> str | None:
    """Return the base of a directory as git sees it; where git cannot, the likely one."""
    try:
        place = checkout.locate(directory)
    except IsoenvError:
        return likely
    return place.base if place else None


def _is_same(here: str, root: str) -> bool:
    """Whether two paths lead to one directory, as with a bind mount."""
    try:
        return os.path.samefile(here, root)
    except OSError:
        return False


def _is_asked_for(caller: Caller) -> bool:
    """Whether the user has asked for this very instance, by a variable or in the .env file."""
    try:
        asked = instances.asked(caller)
    except IsoenvError:
        return False
    if asked is None:
        return False
    project, slot = asked
    environ = caller.environ
    return (project.name, str(slot)) == (environ.get(PROJECT), environ.get(instances.SLOT_VARIABLE))


def _described(caller: Caller, root: str, here: str | None, *, is_gone: bool) -> Foreign:
    project, slot = (caller.environ.get(name, "?") for name in (PROJECT, instances.SLOT_VARIABLE))
    return Foreign(f"{project}:{slot}", root, here, is_gone)
