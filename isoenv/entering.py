"""Enter an instance: its environment computed, its directories made, kept ready for next time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv import (
    context,
    directories,
    envdiff,
    files,
    generated,
    instance_directories,
    instances,
    launch,
    paths,
    skypilot,
    trust,
)
from isoenv.errors import ConfigError, IsoenvError, NotTrustedError
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isoenv.context import Caller, Context
    from isoenv.instances import Selected
    from isoenv.models import Checkout, Environment

# The largest .envrc that is looked through for `use isoenv`, in bytes.
ENVRC_LIMIT = 1 << 20


def open_registry(caller: Caller, patience: float | None = None) -> Registry:
    """Open the caller's registry, and say what had to be done for it.

    ``patience`` is how many seconds it waits for other processes, None the usual.
    """
    if not os.path.exists(paths.registry_file(caller.state)):
        # What is wrong with the configuration is said before anything is made.
        context.find(caller)
    registry = (
        Registry(caller.state) if patience is None else Registry(caller.state, patience=patience)
    )
    for note in registry.take_notes():
        caller.say(note)
    return registry


def enter(
    caller: Caller, registry: Registry, operand: str | None
) -> tuple[Selected, generated.Ready]:
    """Return the instance that ``operand`` names and its ready environment, leasing as needed."""
    selected = instances.select(caller, registry, operand)
    computed = instances.environment(selected, registry)
    here, lease = selected.context, selected.lease
    if lease and lease.root and not os.path.isdir(lease.root):
        raise IsoenvError(
            f"{lease.root}, which holds {lease.project.name}:{lease.slot}, is gone: "
            "`git worktree prune`, then `isoenv prune`"
        )
    root = here.checkout.root if here.checkout else None
    if lease and computed.variables and here.config.numbering.dir:
        instance_directories.make(registry, lease, computed.instance.dir, root)
    directories.make(computed.dirs.values(), root)
    if here.config.preset == skypilot.PRESET:
        skypilot.keep(computed)
    # Made before the stamps are taken: a directory that appears is no change of an input.
    ready = _ready(selected, computed)
    ready.direnv = here.base is not None and _uses_direnv(f"{here.base}/.envrc")
    if selected.own and here.base and not (here.by_program or caller.environ.get(instances.PIN)):
        generated.publish(paths.generated_dir(caller.state, here.base), ready)
    return selected, ready


def hook_code(caller: Caller, shell: str) -> str:
    """Return the code that a hook in the caller's directory evaluates: what to load and when not.

    A repository without configuration is remembered as such, and so is what is wrong with a file,
    until it changes. Raises IsoenvError for what may be right at the next try.
    """
    if (found := prepare(caller)) is None:
        return ""
    ready, directory = found
    generation = generated.publish(directory, ready)
    conditions = generated.conditions_of(ready, directory, generation)
    return generated.script(ready, shell if shell in generated.SHELLS else "sh", conditions)


def prepare(caller: Caller, patience: float | None = None) -> tuple[generated.Ready, str] | None:
    """Return what a hook in the caller's directory loads, and where that is kept.

    None outside any checkout. ``patience`` is as in `open_registry`.
    """
    base = launch.base_of(caller.directory)
    if base is None:
        return None
    directory = paths.generated_dir(caller.state, base)
    pinned = caller.environ.get(instances.PIN, "").partition(":")[0]
    here = None
    try:
        here = context.find(caller)
        if here.base != base or not here.configured:
            ready = _nothing(caller, base, here)
        else:
            with open_registry(caller, patience) as registry:
                selected, ready = enter(caller, registry, None)
            if not selected.own and not pinned:
                directory = f"{directory}/@slot.{selected.slot}"
    except (ConfigError, NotTrustedError) as error:
        ready = _nothing(caller, base, here, f"isoenv: {error}")
    if pinned.isdigit():
        # A shell with a pin has a place of its own, whatever the pin means here: it and a shell
        # without one would take each other's environment for stale.
        directory = f"{directory}/@slot.{pinned}"
    return ready, directory


def _uses_direnv(path: str) -> bool:
    """Whether a .envrc loads isoenv's environment itself."""
    try:
        lines = (files.read(path, ENVRC_LIMIT) or b"").split(b"\n")
    except IsoenvError:
        return False
    return any(line.split()[:2] == [b"use", b"isoenv"] for line in lines)


def _ready(selected: Selected, computed: Environment) -> generated.Ready:
    """Return what a warm call needs to serve the environment again without computing it."""
    here, found = selected.context, computed.instance
    notice = paths.notice_file(here.caller.state, found.project.key, found.slot)
    return generated.Ready(
        root=found.root,
        label=f"{found.project.name}/{found.slot} {found.name}",
        guards=_guards(selected, computed),
        watched=_stamps(here.checkout, [*_deciding_files(here), *computed.watched, notice]),
        dirs=list(computed.dirs.values()),
        path_prepend=computed.path_prepend,
        variables=computed.variables
        and {**computed.variables, instances.OWN_SLOT: str(found.slot)},
        use=generated.ALL if here.configured else generated.EXEC,
    )


def _nothing(caller: Caller, base: str, here: Context | None, message: str = "") -> generated.Ready:
    """Return that there is nothing to load in ``base``, and on what that hangs.

    ``here`` is None where its files are too wrong to make a context.
    """
    found = here.checkout if here else None
    if here:
        watched = _deciding_files(here)
    else:
        watched = [
            *context.config_files(base),
            paths.user_config_file(caller.environ),
            f"{base}/.git",
        ]
    return generated.Ready(
        root=base,
        label="",
        guards=[(generated.DIFFERS, "HOME", envdiff.own(caller.environ, "HOME") or "")],
        watched=_stamps(found, watched),
        variables={},
        use=generated.NONE,
        message=message,
    )


def _deciding_files(here: Context) -> list[str]:
    """Return the watched files of a place, with those of its trust."""
    if here.checkout is None:
        return list(here.watched)
    return [
        *here.watched,
        *(
            trust.witness(here.caller.state, here.checkout, subject)
            for subject in (*here.subjects, *here.offers)
        ),
    ]


def _stamps(found: Checkout | None, watched: Iterable[str]) -> dict[str, str]:
    """Return the state of the files that decide about a place."""
    now = time.time_ns()
    # Of its own files isoenv is sure, however young they are.
    own = found.token_file if found else None
    return {path: generated.stamp(path, None if path == own else now) for path in watched}


def _guards(selected: Selected, computed: Environment) -> list[tuple[str, ...]]:
    """Return on what in the caller's environment the selection hangs."""
    here = selected.context
    users = envdiff.own(here.caller.environ, "HOME") or ""
    home: tuple[str, ...] = (generated.DIFFERS, "HOME", users)
    if "HOME" in computed.variables:
        # A shell that has this environment asks too.
        home = (generated.NEITHER, "HOME", users, computed.variables["HOME"] or "")
    guards = [
        home,
        (generated.DIFFERS, instances.PIN, here.caller.environ.get(instances.PIN, "")),
    ]
    names = instances.slot_variables(here.config)
    if selected.own:
        return guards + [(generated.ASKED, name) for name in names]
    if selected.pinned:
        return guards
    return guards + [(generated.DIFFERS, name, str(selected.slot)) for name in names]
