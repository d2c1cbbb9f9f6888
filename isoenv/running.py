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


def run(caller: Caller, instance: str, command: Sequence[str], *, change: bool = False) -> NoReturn:
    """Become the command in the environment of an instance; with ``change`` in its checkout."""
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
    launch.become(command, environ)
