"""The session that a window of Claude Code is, registered under its own session id.

It lives with Claude Code's process: whatever event is late or never comes, nothing of it is
counted once that process is gone.
"""

from __future__ import annotations

import os
import sys

from isoenv import liveness
from isoenv.coordination.session import Handle
from isoenv.coordination.store import open_store
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from isoenv.agents.claude import Event
    from isoenv.coordination.records import Place, Record
    from isoenv.coordination.store.sqlite import SqliteStore

LABEL = "claude"
# What may stand between Claude Code and the command of a hook.
SHELLS = frozenset(("sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "env", "timeout"))
# More windows than ever resume one session at once.
MOST = 100


def own(event: Event, *, start: bool) -> Handle | None:
    """Return the event's session; where there is none, a new one, or with ``start`` False None."""
    from isoenv.agents import claude

    name = event.text("session_id")
    store = open_store(event.state, claude.PATIENCE)
    pid = _process_of(event)
    found = _find(store, name, pid)
    if found is None and start:
        found = _register(store, event, name, pid, _place_known(event))
    if found is None:
        store.close()
        return None
    return Handle(store, found)


def arrive(event: Event, place: Place | None) -> None:
    """Register the session of the event in a place, or move it there.

    Another session of the same window is over: its SessionEnd has not come.
    """
    session = event.session()
    assert session is not None  # noqa: S101  # registered by the call
    store = session.store
    if place is not None and session.record.place != place:
        store.set_place(session.id, place)
    if event.name == "SessionStart":
        process = session.record.process
        others = [
            record.id
            for record in store.sessions()
            if record.process == process and LABEL in record.labels and record.id != session.id
        ]
        if others:
            from isoenv.coordination import reaping

            reaping.remove(store, others)


def _find(store: SqliteStore, name: str, pid: int) -> Record | None:
    """Return the session of that name that lives with the process; a second window has a number."""
    start = liveness.start_of(pid)
    for number in range(1, MOST):
        found = store.find(name if number == 1 else f"{name}-{number}")
        if found is None:
            return None
        if (found.process.pid, found.process.start) == (pid, start):
            return found
    return None


def _register(store: SqliteStore, event: Event, name: str, pid: int, place: Place | None) -> Record:
    from isoenv.coordination import registering

    labels = {LABEL: name}
    if title := event.fields.get("session_title"):
        labels["title"] = title
    record = registering.draft(registering.identify(pid), name, place, labels)
    return registering.start(store, record, new=True)


def _place_known(event: Event) -> Place | None:
    from isoenv.agents import surroundings

    try:
        return surroundings.place_known(event)
    except IsoenvError:
        return None


def _process_of(event: Event) -> int:
    """Return the pid of Claude Code: what it says itself, else the nearest ancestor that it is."""
    said = event.environ.get("CLAUDE_PID", "")
    if said.isascii() and said.isdigit() and len(said) < len(str(1 << 31)) and int(said) > 1:
        pid = int(said)
        if liveness.start_of(pid) is not None:
            return pid
    nearest, pid = 0, os.getppid()
    while pid > 1:
        name, parent = _ancestor(pid)
        if name == "claude":
            return pid
        if not nearest and name not in SHELLS:
            nearest = pid
        pid = parent
    if not nearest:
        raise IsoenvError("the process of Claude Code is not to be found: no session registered")
    return nearest


def _ancestor(pid: int) -> tuple[str, int]:
    """Return the name that a process was started by, and its parent; 0 where it is gone."""
    if sys.platform != "linux":
        return _psutil_ancestor(pid)
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            words = os.fsdecode(file.read(4096)).split("\0")
        with open(f"/proc/{pid}/stat", "rb") as file:
            parent = int(file.read(4096).rpartition(b")")[2].split()[1])
    except (OSError, ValueError, IndexError):
        return "", 0
    return _program(words), parent


def _psutil_ancestor(pid: int) -> tuple[str, int]:
    import psutil

    try:
        process = psutil.Process(pid)
        return _program(process.cmdline()), process.ppid()
    except psutil.Error:
        return "", 0


def _program(words: list[str]) -> str:
    """Return the name of a program; that of the script where it is Node's or Python's."""
    names = [word.rpartition("/")[2].lstrip("-") for word in words[:2]] + ["", ""]
    if names[0].startswith(("node", "bun", "python")) and names[1].startswith("claude"):
        return "claude"
    return names[0].removesuffix(".exe")
