"""What Claude Code's hooks do: keep the session, its subagents and its environment in step.

An agent waits for each call: nothing is imported that the event at hand does not need, no other
process is waited for longer than PATIENCE, and what goes wrong is one line, never a failure.
"""

from __future__ import annotations

import os
import time

from isoenv import files, paths
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from isoenv.context import Caller
    from isoenv.coordination.store import Store

# The largest input, in bytes: an event with a long prompt has some ten thousand.
LIMIT = 4 << 20
# Seconds to wait for another process that holds a lock: once for the store, once for the registry.
PATIENCE = 0.35

WITH_ENV_FILE = ("SessionStart", "CwdChanged", "Setup", "FileChanged")
# After these an agent's worktree may be gone.
PRUNING = (
    *("SessionStart", "UserPromptSubmit", "CwdChanged", "SubagentStop", "WorktreeRemove"),
    "SessionEnd",
)


def run(environ: Mapping[str, str], given: bytes, write: Callable[[str], None]) -> str | None:
    """Act on one event, given as JSON; return what went wrong, in one line.

    ``write`` gets what Claude Code reads, all of it at once, or is not called.
    """
    try:
        event = Event(environ, given)
    except IsoenvError as error:
        return str(error)
    problems: list[str] = []
    begun = time.monotonic()
    for step in _steps(event):
        try:
            step()
        except IsoenvError as error:
            problems.append(str(error))
        except OSError as error:
            problems.append(f"{error.filename or event.name}: {files.reason(error)}")
        if problems and time.monotonic() - begun >= PATIENCE:
            # Somebody holds a lock, and each further step would wait for it again.
            break
    try:
        event.answer(write)
    except IsoenvError as error:
        problems.append(str(error))
    event.close()
    # The same may have been in the way twice.
    return "; ".join(dict.fromkeys(problems)) or None


class Event:
    """One event, and what is to be said to the agent about it.

    ``directory`` is the agent's, None where the event names none or it is gone. ``context`` are
    lines for the model; ``refusal`` is why a tool must not be used.
    """

    def __init__(self, environ: Mapping[str, str], given: bytes) -> None:
        """Read the JSON. Raises IsoenvError where it is none, or says too little."""
        if len(given) > LIMIT:
            raise IsoenvError(f"an event of more than {LIMIT} bytes is left alone")
        self.fields = _fields(given)
        self.environ = environ
        self.name = self.fields.get("hook_event_name", "")
        if not self.name:
            raise IsoenvError("the event on standard input has no hook_event_name: nothing done")
        self.state = paths.state_dir(environ)
        self.context: list[str] = []
        self.refusal: str | None = None
        self._store: Store | None = None
        self._after: list[tuple[Callable[[], None], Callable[[], None]]] = []

    def text(self, key: str) -> str:
        """Return a field that has to be there, as text that can be written down."""
        value = self.fields.get(key)
        if not value:
            raise IsoenvError(f"the event {self.name} has no {key}: nothing done for it")
        return value

    def caller(self) -> Caller:
        """Return what acts in the directory of the event. Raises IsoenvError where it is gone."""
        from isoenv.context import Caller

        return Caller(self.directory(), self.environ)

    def directory(self) -> str:
        """Return the physical directory of the event. Raises IsoenvError where it is gone."""
        # CwdChanged says twice where the agent is now.
        given = self.fields.get("new_cwd") or self.text("cwd")
        try:
            found = os.path.realpath(given, strict=True)
        except (OSError, ValueError):
            found = ""
        if not given.startswith("/") or not os.path.isdir(found):
            raise IsoenvError(f"the directory of the event is gone: {given!r}")
        return found

    def store(self) -> Store:
        """Return the store of sessions, open until ``close``."""
        if self._store is None:
            from isoenv.coordination.store import open_store

            self._store = open_store(self.state, PATIENCE)
        return self._store

    def afterwards(self, step: Callable[[], None], otherwise: Callable[[], None]) -> None:
        """Do this once the answer is written, and something else if it cannot be."""
        self._after.append((step, otherwise))

    def answer(self, write: Callable[[str], None]) -> None:
        """Write what the agent is to read."""
        if not self.context and self.refusal is None:
            return
        said = {"hookEventName": self.name}
        if self.context:
            said["additionalContext"] = "\n".join(self.context)
        if self.refusal is not None:
            said |= {"permissionDecision": "deny", "permissionDecisionReason": self.refusal}
        try:
            write(f'{{"hookSpecificOutput": {spelled(said)}}}\n')
        except OSError as error:
            for _, otherwise in self._after:
                otherwise()
            raise IsoenvError(f"cannot write to standard output: {files.reason(error)}") from None
        for step, _ in self._after:
            step()

    def close(self) -> None:
        """Close what was opened."""
        if self._store is not None:
            self._store.close()


def _fields(given: bytes) -> dict[str, str]:
    """Return the fields of a JSON object that are text.

    SQLite reads and writes the JSON: the json module would be a sixth of an event's time.
    """
    import sqlite3

    connection = sqlite3.connect(":memory:")
    try:
        text = given.decode()
        kind = connection.execute("SELECT json_type(?)", (text,)).fetchone()[0]
        found = connection.execute(
            "SELECT key, value FROM json_each(?) WHERE type = 'text'", (text,)
        ).fetchall()
    except (ValueError, sqlite3.Error):
        kind, found = None, []
    finally:
        connection.close()
    if kind != "object":
        raise IsoenvError("the event on standard input is no JSON object: nothing done")
    return dict(found)


def spelled(fields: Mapping[str, str]) -> str:
    """Return a JSON object."""
    import sqlite3

    connection = sqlite3.connect(":memory:")
    try:
        words = [plain(word) for pair in fields.items() for word in pair]
        marks = ", ".join("?" * len(words))
        text: str = connection.execute(f"SELECT json_object({marks})", words).fetchone()[0]
        return text
    finally:
        connection.close()


def _steps(event: Event) -> Iterator[Callable[[], object]]:
    """Yield what an event asks for; each is tried, whatever became of the others."""
    if event.name in WITH_ENV_FILE:
        yield lambda: _put_line(event)
    if event.name in ("SessionStart", "CwdChanged"):
        yield lambda: _arrive(event)
    if event.name == "SubagentStart":
        yield lambda: _start_agent(event)
    if event.name == "SubagentStop":
        yield lambda: _stop_agent(event)
    if event.name == "PreToolUse":
        yield lambda: _admit(event)
    if event.name in ("SessionStart", "UserPromptSubmit"):
        yield lambda: _deliver(event)
    if event.name == "SessionEnd":
        yield lambda: _end(event)
    if event.name in PRUNING:
        yield lambda: _give_back(event)


def plain(text: str) -> str:
    """Return text that every store can hold."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _put_line(event: Event) -> None:
    """Let the agent's next commands find the environment of the directory that they are in."""
    from isoenv.agents import envfile

    if not envfile.is_current(event.state):
        envfile.write(event.state)
    file = event.environ.get("CLAUDE_ENV_FILE")
    if not file:
        raise IsoenvError("CLAUDE_ENV_FILE is not set: BASH_ENV alone gives the environment")
    envfile.add_line(file, event.state)


def _arrive(event: Event) -> None:
    """Register the session, or where it is now, and tell it which instance that is."""
    from isoenv.agents import sessions, surroundings

    # First what is known without the registry: where one lock is held, the other is not waited for.
    window = sessions.need(event, surroundings.where_known(event))
    where, said = surroundings.here(event)
    if event.name == "SessionStart" and said:
        event.context.append(said)
    if where:
        sessions.move(window, where)


def _start_agent(event: Event) -> None:
    from isoenv.agents import sessions, surroundings

    agent_id = event.text("agent_id")
    window = sessions.find(event) or sessions.need(event, surroundings.where_known(event))
    window.store.agent_started(
        window.id, plain(agent_id), plain(event.fields.get("agent_type", ""))
    )
    sessions.leave_place(window)
    if said := surroundings.known(event):
        event.context.append(said)


def _stop_agent(event: Event) -> None:
    from isoenv.agents import sessions

    agent_id = event.text("agent_id")
    if window := sessions.find(event):
        window.store.agent_ended(window.id, plain(agent_id))


def _admit(event: Event) -> None:
    from isoenv.agents import pool

    event.refusal = pool.refusal(event)


def _deliver(event: Event) -> None:
    from isoenv.agents import post

    post.deliver(event)


def _end(event: Event) -> None:
    from isoenv.agents import sessions

    if window := sessions.find(event):
        from isoenv.coordination import reaping

        reaping.remove(window.store, [window.id])


def _give_back(event: Event) -> None:
    from isoenv.agents import leases

    leases.give_back(event)
