"""The instance that an agent is in: what is known of it at once, and what it takes to know more.

Most events come in a checkout whose environment is ready: that is read without the registry's
own module, which would be half of an event's time.
"""

from __future__ import annotations

import os

from isoenv import generated, launch, paths
from isoenv.agents import leases
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from isoenv.agents.claude import Event

    # Key and name of a project, slot and name of an instance of it.
    Where = tuple[str, str, int, str]

# Of more ports than these the agent is told where to find them.
PORTS_SHOWN = 8


def here(event: Event) -> tuple[Where | None, str]:
    """Return where the event's directory belongs, and the line about it for the model.

    A checkout that asks for an environment gets its lease here, if that takes no waiting.
    """
    ready = _ready(event)
    if ready is None or ready.use == generated.NONE or not ready.variables:
        from isoenv.agents import claude, entry

        ready = entry.ready(event, claude.PATIENCE) if ready is None else ready
    return _where(event, ready), _line(ready)


def known(event: Event) -> str:
    """Return the line about the event's directory, where its environment is ready; else none."""
    try:
        return _line(_ready(event))
    except IsoenvError:
        return ""


def where_known(event: Event) -> Where | None:
    """Return where the event's directory belongs, leasing nothing."""
    try:
        return _where(event, _ready(event))
    except IsoenvError:
        return None


def _ready(event: Event) -> generated.Ready | None:
    """Return what is ready and fresh for the event's directory."""
    base = launch.base_of(event.directory())
    if base is None:
        return None
    directory = paths.generated_dir(event.state, base)
    pinned = event.environ.get("__ISOENV_PIN", "").partition(":")[0]
    ready = generated.read(f"{directory}/@slot.{pinned}" if pinned.isdigit() else directory)
    return ready if ready and generated.is_fresh(ready, launch.clean(event.environ)) else None


def _where(event: Event, ready: generated.Ready | None) -> Where | None:
    """Return the instance of what is ready, else the one that the directory's lease is of."""
    base = launch.base_of(event.directory())
    if base is None:
        return None
    rows = leases.rows(event.state)
    variables = ready.variables if ready else {}
    name, slot = variables.get("ISOENV_PROJECT"), variables.get("ISOENV_INSTANCE")
    root = ready.root if ready else base
    found = [row for row in rows if row[4] is not None and os.fsdecode(row[4]) == root]
    if name is not None:
        same = [row for row in rows if (row[1], str(row[2])) == (name, slot)]
        found = [row for row in found if row in same] or same
    if not found:
        return None
    key, project, number, instance = found[0][:4]
    return os.fsdecode(key), project, number, instance


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
