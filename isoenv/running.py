"""Run a command in an instance."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv import entering, files, instances, launch
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from isoenv.context import Caller
    from isoenv.instances import Selected


def run(
    caller: Caller,
    instance: str,
    command: Sequence[str],
    *,
    change: bool = False,
    session: str | None = None,
) -> NoReturn:
    """Become the command in the environment of an instance; with ``change`` in its checkout.

    With ``session`` it is registered under that name: this process becomes it, and stays the same.
    """
    with entering.open_registry(caller) as registry:
        selected, ready = entering.enter(caller, registry, instance)
    environ = launch.environment(caller.environ, ready)
    if selected.pinned:
        environ[instances.PIN] = f"{selected.slot}:{selected.context.project.key}"
    if change:
        try:
            os.chdir(ready.root)
        except OSError as error:
            raise IsoenvError(f"cannot enter {ready.root}: {files.reason(error)}") from None
        environ["PWD"] = ready.root
    if session is not None:
        environ |= _registered(caller, session, selected)
    launch.become(command, environ)


def _registered(caller: Caller, name: str, selected: Selected) -> dict[str, str]:
    """Register this process as a session of the instance; return the variable that says which."""
    from isoenv import process
    from isoenv.coordination import current, registering
    from isoenv.coordination.records import Place
    from isoenv.coordination.store import open_store

    instance = selected.lease.name if selected.lease else None
    where = Place(selected.context.project, selected.slot, instance)
    record = registering.draft(process.myself(), name, where)
    return {current.VARIABLE: registering.start(open_store(caller.state), record).id}
