"""The session that a window of Claude Code is, registered under its own session id.

It lives with Claude Code's process: whatever event is late or never comes, nothing of it is
counted once that process is gone.
"""

from __future__ import annotations

import os
import sys
import time

from isoenv import liveness
from isoenv.coordination import addresses
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from isoenv.agents.claude import Event
    from isoenv.agents.surroundings import Where
    from isoenv.coordination.records import Place
    from isoenv.coordination.store import Store

LABEL = "claude"
# What may stand between Claude Code and the command of a hook.
SHELLS = frozenset(("sh", "bash", "dash", "zsh", "fish", "ksh", "busybox", "env", "timeout"))
# A subagent that was let in and has not started; behind it the time and the id of the tool's use.
PLACE = "place"
# What the session ids of Claude Code are made of, and no longer than this.
HEX, LONGEST = frozenset("0123456789abcdef-"), 100


class Window:
    """A session as an event needs it: its store, its id and name, and the instance it is in.

    ``place`` is the key of a project, a slot and a name, each None where there is none.
    """

    __slots__ = ("id", "name", "place", "store")

    def __init__(
        self,
        store: Store,
        session_id: str,
        name: str,
        place: tuple[str | None, int | None, str | None],
    ) -> None:
        """Keep the fields as they are."""
        self.store = store
        self.id = session_id
        self.name = name
        self.place = place

    def addresses(self) -> list[bytes]:
        """Return the addresses under which the session finds its messages."""
        return [addresses.of_session(self.id), addresses.of_name(self.name)]


def find(event: Event) -> Window | None:
    """Return the event's session, if it is registered."""
    return _find(event, _process_of(event))


def need(event: Event, where: Where | None = None) -> Window:
    """Return the event's session, registered where that has not been done."""
    pid = _process_of(event)
    return _find(event, pid) or _register(event, pid, where)


def move(window: Window, where: Where) -> None:
    """Record where the session is now."""
    key, _, slot, name = where
    if window.place != (key, slot, name):
        window.store.set_place(window.id, _place(where))
        window.place = key, slot, name


def leave_place(window: Window) -> None:
    """Give back the place of a subagent that has started; the oldest, for all are alike."""
    for known, kind in window.store.agents(window.id).items():
        if kind == PLACE:
            window.store.agent_ended(window.id, known)
            return


def _find(event: Event, pid: int) -> Window | None:
    name, start = event.text("session_id"), liveness.start_of(pid)
    found = event.store().window(name, pid, -1 if start is None else start)
    return Window(event.store(), found[0], found[1], found[2:]) if found else None


def _register(event: Event, pid: int, where: Where | None) -> Window:
    """Register the session. Another one of the same window is over: its end was not said."""
    name, store = event.text("session_id"), event.store()
    _check_name(name)
    start = liveness.start_of(pid)
    if start is None:
        raise IsoenvError(f"process {pid} of Claude Code is gone: no session registered")
    from isoenv.agents.claude import spelled
    from isoenv.coordination import reaping

    others = [each for each, labels in store.of_process(pid, start) if f'"{LABEL}":' in labels]
    reaping.remove(store, others)
    labels = {LABEL: name}
    if title := event.fields.get("session_title"):
        labels["title"] = title
    session_id = f"{time.strftime('%Y%m%d_%H%M%S')}_{pid}_{os.urandom(4).hex()}"
    key, project, slot, instance = where or (None, None, None, None)
    # The columns of the store, in their order: a Record would be half of an event's time.
    values = (
        *(session_id, name, "ACTIVE", pid, start, liveness.inode_of(pid), liveness.boot_id()),
        *(liveness.namespace(), liveness.hostname()),
        *(None if key is None else os.fsencode(key), project, slot, instance),
        *(spelled(labels), time.time(), time.monotonic_ns(), time.time()),
    )
    made = reaping.register(store, lambda is_gone: store.begin(values, is_gone, new=True))
    return Window(store, session_id, made or name, (key, slot, instance))


def _check_name(name: str) -> None:
    """Raise UsageError for what cannot be the name of a session; a UUID can."""
    if "-" in name and len(name) <= LONGEST and HEX.issuperset(name):
        return
    from isoenv.coordination import registering

    registering.check_name(name)


def _place(where: Where) -> Place:
    from isoenv.coordination.records import Place
    from isoenv.models import Project

    key, project, slot, name = where
    return Place(Project(key, project), slot, name)


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
