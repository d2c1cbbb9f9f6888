"""Which session a command acts as."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import liveness
from isoenv.coordination import place, registering
from isoenv.coordination.session import Handle
from isoenv.coordination.store import open_store
from isoenv.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from isoenv.context import Caller

# The id or name of the session that a process and its children act as.
VARIABLE = "ISOENV_SESSION"
# What Claude Code says of itself to its commands: the name that its hooks have registered it by.
CLAUDE_VARIABLE = "CLAUDE_CODE_SESSION_ID"
ACTING = (VARIABLE, CLAUDE_VARIABLE)


def named(caller: Caller, asked: str | None) -> Handle:
    """Return the session that was asked for, else that of the environment.

    Raises UsageError where there is neither, NotFoundError for one that has ended.
    """
    word = asked or caller.environ.get(VARIABLE)
    if not word:
        raise UsageError(
            "which session? `--session NAME`, or `export ISOENV_SESSION=$(isoenv session start)`"
        )
    store = open_store(caller.state)
    return Handle(store, registering.named(store, word))


def named_or_nameless(caller: Caller, asked: str | None) -> Handle:
    """Return the session as ``named`` does, else one that ends with the parent process."""
    if asked or caller.environ.get(VARIABLE):
        return named(caller, asked)
    store = open_store(caller.state)
    if name := caller.environ.get(CLAUDE_VARIABLE):
        try:
            return Handle(store, registering.named(store, name))
        except NotFoundError:
            pass
    where = place.find(caller.environ, caller.directory)
    return Handle(store, registering.nameless(store, liveness.parent(), where))
