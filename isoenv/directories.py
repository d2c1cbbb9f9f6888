"""Make the directories of an environment, on first use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv import files
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterable


def make(directories: Iterable[str], checkout: str | None) -> None:
    """Make what is missing: 0700 outside the checkout, ignored by git inside it.

    ``git worktree remove`` refuses a tree with files that git does not know; a ``.gitignore`` of
    one ``*`` in the topmost directory that was made keeps it willing.
    """
    for directory in directories:
        inside = checkout is not None and directory.startswith(f"{checkout.rstrip('/')}/")
        if checkout and inside and not os.path.isdir(checkout):
            raise IsoenvError(f"{checkout} is gone: `isoenv prune` gives its slot back")
        try:
            _make(directory, ignored=inside)
        except OSError as error:
            raise IsoenvError(
                f"cannot make {directory}: {files.reason(error)}: `ls -ld` shows what is in the way"
            ) from None


def _make(directory: str, *, ignored: bool) -> None:
    missing = []
    while not os.path.isdir(directory):
        missing.append(directory)
        directory = os.path.dirname(directory)
    for path in reversed(missing):
        try:
            os.mkdir(path, 0o777 if ignored else 0o700)
        except FileExistsError:
            # Somebody else may have been faster.
            if not os.path.isdir(path):
                raise
        if ignored and path == missing[-1]:
            with open(f"{path}/.gitignore", "w", encoding="ascii") as file:
                file.write("*\n")
