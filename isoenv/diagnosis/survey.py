"""Look everywhere for what is wrong on this machine. Nothing is made and nothing is changed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv import paths
from isoenv.diagnosis import host, leases, project_files, shell, state, versions
from isoenv.diagnosis.finding import Finding
from isoenv.errors import IsoenvError
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoenv.context import Caller


def findings(caller: Caller, *, interactive: bool) -> Iterator[Finding]:
    """Yield all that is found; a missing hook is worth a word in an ``interactive`` shell."""
    yield from state.findings(caller)
    damages = list(state.registry(caller.state))
    yield from damages
    if not any(found.kind in state.UNREADABLE for found in damages):
        try:
            yield from _in_registry(caller)
        except IsoenvError as error:
            message, _, remedy = str(error).partition(": `")
            yield Finding(
                "registry", message, f"`{remedy}" if remedy else f"`ls -ld {caller.state}`"
            )
    yield from versions.findings(caller)
    yield from shell.findings(caller, interactive=interactive)


def _in_registry(caller: Caller) -> Iterator[Finding]:
    if not os.path.exists(paths.registry_file(caller.state)):
        # Looking must not make one.
        yield from project_files.findings(caller, ())
        return
    with Registry(caller.state) as registry:
        held = registry.leases()
        yield from leases.findings(caller, registry, held)
        yield from host.findings(caller, registry, held)
        yield from project_files.findings(caller, held)
