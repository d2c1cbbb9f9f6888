"""Make the directories of an environment, on first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterable


def make(directories: Iterable[str], checkout: str | None) -> None:
    """Make what is missing: 0700 outside the checkout, ignored by git inside it.

    ``git worktree remove`` refuses a tree with files that git does not know; a ``.gitignore`` of
    one ``*`` in the topmost directory that was made keeps it willing.
    """
    for directory in directories:
        if os.path.isdir(directory):
            continue
        inside = checkout is not None and directory.startswith(f"{checkout.rstrip('/')}/")
        top = _topmost_missing(directory)
        try:
            os.makedirs(directory, mode=0o777 if inside else 0o700, exist_ok=True)
            if inside:
                with open(f"{top}/.gitignore", "w", encoding="ascii") as file:
                    file.write("*\n")
        except OSError as error:
            raise IsoenvError(f"cannot make {directory}: {error.strerror}") from None


def _topmost_missing(directory: str) -> str:
    parent = os.path.dirname(directory)
    while not os.path.lexists(parent):
        directory, parent = parent, os.path.dirname(parent)
    return directory
