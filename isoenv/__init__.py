"""Give every checkout of a project its own ports, names, directories and endpoints."""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from isoenv.coordination.lock import Lock as Lock
    from isoenv.coordination.lock_list import locks as locks
    from isoenv.coordination.pruning import prune as prune
    from isoenv.coordination.registering import sessions as sessions
    from isoenv.coordination.session import Session as Session
    from isoenv.coordination.statusline import format_status as format_status
    from isoenv.errors import LockTimeout as LockTimeout

# The public names, imported when they are asked for: a prompt must not pay for them.
_PUBLIC = {
    "Lock": "isoenv.coordination.lock",
    "LockTimeout": "isoenv.errors",
    "Session": "isoenv.coordination.session",
    "format_status": "isoenv.coordination.statusline",
    "locks": "isoenv.coordination.lock_list",
    "prune": "isoenv.coordination.pruning",
    "sessions": "isoenv.coordination.registering",
}


def __getattr__(name: str) -> object:
    """Import a public name."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_PUBLIC[name]), name)
