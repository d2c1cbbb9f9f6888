"""Which session a command acts as."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from isoenv import liveness
from isoenv.coordination import place, registering
from isoenv.coordination.session import Handle
from isoenv.coordination.store import open_store
from isoenv.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from isoenv.context import Caller
    from isoenv.coordination.records import Record
    from isoenv.coordination.store import Store

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
    store = open_store(caller.state)
    found = existing(caller, store, asked)
    if found is None:
        where = place.find(caller.environ, caller.directory)
        found = registering.nameless(store, liveness.parent(), where)
    return Handle(store, found)


def existing(caller: Caller, store: Store, asked: str | None) -> Record | None:
    """Return the session that ``named_or_nameless`` does, None where that has yet to be made."""
    if word := asked or caller.environ.get(VARIABLE):
        return registering.named(store, word)
    if name := caller.environ.get(CLAUDE_VARIABLE):
        with suppress(NotFoundError):
            return registering.named(store, name)
    return store.nameless(registering.identify(liveness.parent()))
