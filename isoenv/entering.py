"""Enter an instance: its environment computed, its directories made, kept ready for next time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import directories, generated, instances, launch, paths
from isoenv.errors import ConfigError, NotTrustedError
from isoenv.registry import Registry

if TYPE_CHECKING:
    from isoenv.instances import Caller

# The largest .envrc that is looked through for `use isoenv`, in bytes.
ENVRC_LIMIT = 1 << 20


def enter(
    caller: Caller, registry: Registry, operand: str | None
) -> tuple[instances.Selected, generated.Ready]:
    """Return the instance that ``operand`` names and its ready environment, leasing as needed."""
    selected = instances.select(caller, registry, operand)
    computed = instances.environment(selected, registry)
    here = selected.context
    directories.make(computed.dirs.values(), here.checkout.root if here.checkout else None)
    # Made before the stamps are taken: a directory that appears is no change of an input.
    ready = instances.ready(selected, computed)
    ready.direnv = here.base is not None and _uses_direnv(f"{here.base}/.envrc")
    if selected.own and here.base and not here.by_program:
        generated.publish(paths.generated_dir(caller.state, here.base), ready)
    return selected, ready


def hook_code(caller: Caller, shell: str) -> str:
    """Return the code that a hook in the caller's directory evaluates: what to load and when not.

    A repository without configuration is remembered as such, and so is what is wrong with a file,
    until it changes. Raises IsoenvError for what may be right at the next try.
    """
    base = launch.base_of(caller.directory)
    if base is None:
        return ""
    directory = paths.generated_dir(caller.state, base)
    here = None
    try:
        here = instances.context(caller)
        if here.base != base or not here.configured:
            ready = instances.nothing(caller, base, here)
        else:
            with Registry(caller.state) as registry:
                selected, ready = enter(caller, registry, None)
            if not selected.own:
                directory = f"{directory}/@slot.{selected.slot}"
    except (ConfigError, NotTrustedError) as error:
        ready = instances.nothing(caller, base, here, f"isoenv: {error}")
    generation = generated.publish(directory, ready)
    conditions = generated.conditions_of(ready, directory, generation)
    return generated.script(ready, "fish" if shell == "fish" else "sh", conditions)


def _uses_direnv(path: str) -> bool:
    """Whether a .envrc loads isoenv's environment itself."""
    try:
        with open(path, "rb") as file:
            lines = file.read(ENVRC_LIMIT).split(b"\n")
    except OSError:
        return False
    return any(line.split()[:2] == [b"use", b"isoenv"] for line in lines)
