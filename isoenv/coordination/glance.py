"""What the status line shows: from the store, and from the JSON that an agent gives it.

It is run several times a second: nothing is imported here that costs, SQLite reads the JSON, and
nothing that is missing or wrong keeps the rest from being shown.
"""

from __future__ import annotations

import os
import select
import stat
import time

from isoenv import liveness, paths
from isoenv.coordination import reaping, statusline
from isoenv.errors import IsoenvError, UsageError

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.coordination.statusline import Numbers
    from isoenv.coordination.store import Store

# The largest input that is read, in bytes: an agent gives a few thousand.
LIMIT = 1 << 20
# Seconds that the first byte may be late, and the rest of what has begun.
FIRST, REST = 0.1, 0.3

_FIELDS = {
    "session": "$.session_id",
    "model": "$.model.display_name",
    "model_id": "$.model.id",
    "cost": "$.cost.total_cost_usd",
    "worktree": "$.worktree.name",
    "git_worktree": "$.workspace.git_worktree",
    "size": "$.context_window.context_window_size",
    "percentage": "$.context_window.used_percentage",
    "input": "$.context_window.current_usage.input_tokens",
    "created": "$.context_window.current_usage.cache_creation_input_tokens",
    "cached": "$.context_window.current_usage.cache_read_input_tokens",
    "total_input": "$.context_window.total_input_tokens",
}
_QUERY = "SELECT " + ", ".join(f"json_extract(?1, '{path}')" for path in _FIELDS.values())


def line(  # noqa: PLR0913  # the options of the command
    environ: Mapping[str, str],
    given: bytes,
    *,
    style: str = "full",
    shared: bool = False,
    project: bool = False,
    session: str | None = None,
    segment: str | None = None,
    template: str | None = None,
) -> str:
    """Return the status line, or one segment of it, or a template filled in.

    ``given`` is what ``read_input`` returns. Raises IsoenvError for a store that cannot be used.
    """
    seen = parsed(given)
    numbers = _numbers_given(seen)
    session = session or environ.get("ISOENV_SESSION") or _text(seen.get("session"))
    state = paths.state_dir(environ)
    if paths.has_store(environ, state):
        from isoenv.coordination.store import open_store

        store = open_store(state)
        try:
            counted = bool(numbers.keys() & {"tokens_used", "tokens_total", "percentage"})
            stored = _numbers_stored(store, environ, session, project=project, counted=counted)
            numbers = {**stored, **numbers}
        finally:
            store.close()
    else:
        numbers = {"current_agents": 0, "total_agents": 0, "instance_count": 0, **numbers}
    numbers["status"] = statusline.judged(numbers)
    if template is not None:
        return _filled(template, numbers)
    if segment is not None:
        return statusline.segments(numbers, shared=shared).get(segment, "")
    return statusline.formatted(numbers, style, shared=shared)


def _numbers_stored(
    store: Store,
    environ: Mapping[str, str],
    session: str | None,
    *,
    project: bool,
    counted: bool,
) -> Numbers:
    """Return the numbers of the store; ``counted`` says that its tokens are not asked for."""
    try:  # noqa: SIM105  # contextlib is not worth its import here
        reaping.reap(store, reaping.BOUND)
    except IsoenvError:
        # A state directory that cannot be written to can still be read.
        pass
    found = store.brief(session) if session else _of_parent(store)
    own = store.metrics(found[0]) if found else {}
    key = None
    if project:
        key = found[1] if found and found[1] is not None else _project_here(environ)
    numbers: Numbers = {
        "current_agents": own.get("agents", 0),
        "total_agents": store.total("agents", key),
        "instance_count": store.count(key),
        "confidence": own.get("confidence"),
    }
    if not counted:
        numbers["tokens_used"] = own.get("tokens_used")
        numbers["tokens_total"] = own.get("tokens_total")
    return numbers


def _of_parent(store: Store) -> tuple[str, str | None] | None:
    """Return the nameless session that commands in the parent process act as."""
    pid = liveness.parent()
    start = liveness.start_of(pid)
    return None if start is None else store.brief_nameless(pid, start)


def _project_here(environ: Mapping[str, str]) -> str:
    from isoenv.coordination import place

    try:
        directory = os.getcwd()
    except OSError:
        directory = "/"
    found = place.find(environ, directory)
    # Outside any project the totals are those of no session.
    return found.project.key if found else ""


def _filled(template: str, numbers: Numbers) -> str:
    from isoenv.template import expand, fields

    known = statusline.fields(numbers)
    try:
        asked = fields(template)
    except ValueError as error:
        raise UsageError(f"--format {template}: {error}") from None
    if unknown := [name for name in asked if name not in known]:
        raise UsageError(f"--format has no {{{unknown[0]}}}: there are {', '.join(known)}")
    return expand(template, known.__getitem__)


def read_input(descriptor: int = 0) -> bytes:
    """Return what an agent has written to standard input; nothing where nobody writes.

    Only a file or a pipe is read. An agent writes at once and then closes; a pipe that stays
    empty, or open behind a whole JSON value, is not waited for.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            return os.read(descriptor, LIMIT)
        if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
            return _read_pipe(descriptor)
    except OSError:
        pass
    return b""


def _read_pipe(descriptor: int) -> bytes:
    found, deadline = b"", time.monotonic() + FIRST
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(found) < LIMIT and poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(descriptor, 1 << 16)
        if not chunk:
            break
        if not found:
            deadline = time.monotonic() + REST
        found += chunk
        if found.rstrip().endswith(b"}") and parsed(found):
            break
    return found


def parsed(given: bytes) -> dict[str, object]:
    """Return the fields that are known; nothing of what is no JSON."""
    if not given.strip():
        return {}
    import sqlite3

    text = given.decode("utf-8", "replace")
    connection = sqlite3.connect(":memory:")
    try:
        row = connection.execute(_QUERY, (text,)).fetchone()
        return dict(zip(_FIELDS, row, strict=True))
    except sqlite3.Error:
        return {}
    finally:
        connection.close()


def _numbers_given(seen: Mapping[str, object]) -> Numbers:
    numbers: Numbers = {}
    if model := _text(seen.get("model")) or _text(seen.get("model_id")):
        numbers["model"] = model
    if worktree := _text(seen.get("worktree")) or _text(seen.get("git_worktree")):
        numbers["worktree"] = worktree
    if (cost := _number(seen.get("cost"))) is not None:
        numbers["cost"] = cost
    size, percentage = _number(seen.get("size")), _number(seen.get("percentage"))
    used = _used(seen, size, percentage)
    if size is not None:
        numbers["tokens_total"] = size
    if used is not None:
        numbers["tokens_used"] = used
    if percentage is not None:
        numbers["percentage"] = percentage
    return numbers


def _used(seen: Mapping[str, object], size: float | None, percentage: float | None) -> float | None:
    """Return how much of the context window is in use: counted, else from its share."""
    if (own := _number(seen.get("input"))) is not None:
        return own + sum(_number(seen.get(name)) or 0.0 for name in ("created", "cached"))
    if percentage is not None and size is not None:
        return size * percentage / 100
    return _number(seen.get("total_input"))


def _number(value: object) -> float | None:
    # The comparison is false for what is not finite.
    return value if isinstance(value, (int, float)) and 0 <= value < 1e18 else None  # noqa: PLR2004  # beyond all that is counted


def _text(value: object) -> str | None:
    if not isinstance(value, str):
        return None
    return "".join(each for each in value if each.isprintable()) or None
