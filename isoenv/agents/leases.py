"""The leases of the registry, read without its own module, and given back when they are over."""

from __future__ import annotations

import os

from isoenv import paths
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from typing import Any

    from isoenv.agents.claude import Event

_LEASES = """
SELECT project.key, project.name, slot, lease.name, root, git_dir, inode
FROM lease JOIN project ON project.id = project_id
"""


def rows(state: str) -> list[Any]:
    """Return the leases of the registry, read without waiting; none where it cannot be read."""
    file = paths.registry_file(state)
    if not os.path.exists(file):
        return []
    import sqlite3

    from isoenv.agents import claude

    try:
        connection = sqlite3.connect(file, timeout=claude.PATIENCE)
        try:
            return connection.execute(_LEASES).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise IsoenvError(f"cannot read the registry {file}: {error}: `isoenv doctor`") from None


def give_back(event: Event) -> None:
    """Give back the leases of linked worktrees that git no longer lists."""
    for *_, git_dir, inode in rows(event.state):
        if git_dir is not None and _seems_gone(os.fsdecode(git_dir), inode):
            from isoenv.agents import claude, entry

            entry.prune(event, claude.PATIENCE)
            return


def is_worktree(git_dir: str) -> bool:
    """Whether this is what git keeps for a linked worktree."""
    return os.path.basename(os.path.dirname(git_dir)) == "worktrees"


def _seems_gone(git_dir: str, inode: str | None) -> bool:
    if not is_worktree(git_dir):
        return False
    try:
        return str(os.lstat(git_dir).st_ino) != str(inode)
    except OSError:
        return True
