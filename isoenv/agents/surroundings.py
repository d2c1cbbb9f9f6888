"""The instance that an agent is in: what is known of it at once, and what it takes to know more.

Most events come in a checkout whose environment is ready: that is read without the registry's
own module, which would be half of an event's time.
"""

from __future__ import annotations

import os

from isoenv import generated, launch, paths
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from typing import Any

    from isoenv.agents.claude import Event
    from isoenv.coordination.records import Place

# Of more ports than these the agent is told where to find them.
PORTS_SHOWN = 8
_LEASES = """
SELECT project.key, project.name, slot, lease.name, root, git_dir, inode
FROM lease JOIN project ON project.id = project_id
"""


def here(event: Event) -> tuple[Place | None, str]:
    """Return where the event's directory belongs, and the line about it for the model.

    A checkout that asks for an environment gets its lease here, if that takes no waiting.
    """
    ready = _ready(event)
    if ready is None or ready.use == generated.NONE or not ready.variables:
        from isoenv.agents import claude, entry

        ready = entry.ready(event, claude.PATIENCE) if ready is None else ready
    return _place(event, ready), _line(ready)


def known(event: Event) -> str:
    """Return the line about the event's directory, where its environment is ready; else none."""
    try:
        return _line(_ready(event))
    except IsoenvError:
        return ""


def place_known(event: Event) -> Place | None:
    """Return where the event's directory belongs, leasing nothing."""
    return _place(event, _ready(event))


def give_back(event: Event) -> None:
    """Give back the leases of linked worktrees that git no longer lists."""
    rows = _rows(event.state)
    if any(row[5] is not None and _seems_gone(os.fsdecode(row[5]), row[6]) for row in rows):
        from isoenv.agents import claude, entry

        entry.prune(event, claude.PATIENCE)


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


def _ready(event: Event) -> generated.Ready | None:
    """Return what is ready and fresh for the event's directory."""
    base = launch.base_of(event.directory())
    if base is None:
        return None
    directory = paths.generated_dir(event.state, base)
    pinned = event.environ.get("__ISOENV_PIN", "").partition(":")[0]
    ready = generated.read(f"{directory}/@slot.{pinned}" if pinned.isdigit() else directory)
    return ready if ready and generated.is_fresh(ready, launch.clean(event.environ)) else None


def _place(event: Event, ready: generated.Ready | None) -> Place | None:
    """Return the instance of what is ready, else the one that the directory's lease is of."""
    base = launch.base_of(event.directory())
    if base is None:
        return None
    rows = _rows(event.state)
    variables = ready.variables if ready else {}
    name, slot = variables.get("ISOENV_PROJECT"), variables.get("ISOENV_INSTANCE")
    root = ready.root if ready else base
    found = [row for row in rows if row[4] is not None and os.fsdecode(row[4]) == root]
    if name is not None:
        same = [row for row in rows if (row[1], str(row[2])) == (name, slot)]
        found = [row for row in found if row in same] or same
    if not found:
        return None
    from isoenv.coordination.records import Place
    from isoenv.models import Project

    key, project, number, instance = found[0][:4]
    return Place(Project(os.fsdecode(key), project), number, instance)


def _rows(state: str) -> list[Any]:
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


def _line(ready: generated.Ready | None) -> str:
    """Return what an agent should know about the instance that its commands run in."""
    if ready is None:
        return ""
    if ready.message:
        return _plain(ready.message)
    if ready.use != generated.ALL or not ready.variables:
        return ""
    ports = [
        f"{name}={value}"
        for name, value in ready.variables.items()
        if value and value.isdigit() and name.endswith("PORT")
    ]
    shown = " ".join(ports[:PORTS_SHOWN]) + (" …" if len(ports) > PORTS_SHOWN else "")
    return _plain(
        f"isoenv: your commands run in instance {ready.label}"
        + (f" with ports {shown}" if ports else "")
        + "; `isoenv list` shows the others, `isoenv session list` who works in them, and"
        " `isoenv send NAME TEXT` reaches one"
    )


def _plain(text: str) -> str:
    """Return text without what a terminal or a model would take for more than text."""
    printable = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable)
