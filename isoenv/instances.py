"""From where a command was started, and what it names, to an instance and its environment.

checkout -> configuration -> project -> slot -> lease -> environment: the way of every command.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isoenv import (
    allocator,
    context,
    files,
    flags,
    launch,
    leasing,
    paths,
    resolver,
    skypilot,
    userconfig,
)
from isoenv.errors import IsoenvError, NotFoundError
from isoenv.models import Config, Instance, Lease, Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isoenv.context import Caller, Context
    from isoenv.models import Environment
    from isoenv.userconfig import UserConfig

SLOT_VARIABLE = "ISOENV_INSTANCE"
# The slot that isoenv itself exported, so that a value of the user's own can be told from it.
OWN_SLOT = "__ISOENV_SLOT"
# SLOT:PROJECT-KEY of `exec NUMBER`, for hooks and nested calls inside it.
PIN = "__ISOENV_PIN"
# The largest .env file that is looked through for a slot, in bytes.
DOTENV_LIMIT = 1 << 20
# Digits of a slot: Python refuses to read thousands of them, SQLite to keep twenty.
LONGEST_SLOT = 9


@dataclass(frozen=True, slots=True)
class Selected:
    """An instance that a command is about.

    ``lease`` is None for a number that nobody holds and that the command does not lease.
    ``pinned`` says that it was named by number or name, ``own`` that the directory alone decided,
    with its files and its lease.
    """

    context: Context
    slot: int
    lease: Lease | None
    pinned: bool = False
    own: bool = False


def select(
    caller: Caller,
    registry: Registry,
    operand: str | None,
    *,
    lease: bool = True,
    check: Callable[[Config], object] = lambda _settings: None,
) -> Selected:
    """Return the instance that ``operand`` names, or that of the directory for None and ``.``.

    With ``lease`` a number that nobody holds is leased. A checkout without a lease always gets
    one, but not before ``check`` has let its configuration pass. Raises NotFoundError for a name,
    project or slot that does not exist, NotTrustedError for a configuration that the user has
    not allowed.
    """
    here = context.find(caller)
    project_name, _, name = (operand or ".").rpartition(":")
    if project_name and project_name not in (here.project.name, here.project.key):
        here = _elsewhere(caller, registry, project_name)
    if name != ".":
        slot = _slot(registry, here.project, name)
        return replace(_numbered(here, registry, slot, lease=lease), pinned=True)
    if (pinned := _pinned_slot(here)) is not None:
        return replace(_numbered(here, registry, pinned, lease=lease), pinned=True)
    context.require_trust(here)
    held = leasing.find(registry, here.claim) if here.checkout else None
    asked, in_shell = _asked_slot(here, registry) or (None, False)
    if asked is not None and not (held and held.slot == asked):
        taken = registry.with_slot(here.project, asked)
        if held or taken or here.checkout is None:
            found = _numbered(here, registry, asked, lease=lease)
            return replace(found, own=not in_shell and found.context is here)
    if here.checkout is None:
        raise NotFoundError(
            f"{caller.directory} is in no checkout: "
            "name an instance by number, such as `isoenv show 1`"
        )
    check(here.config)
    held = leasing.hold(registry, here.claim, asked)
    return Selected(here, held.slot, held, own=not in_shell)


def _elsewhere(caller: Caller, registry: Registry, name: str) -> Context:
    """Return the context of a project named in front of an instance."""
    found = registry.projects(name)
    if not found:
        raise NotFoundError(f"no project {name}: `isoenv list --all` shows them")
    if len(found) > 1:
        keys = ", ".join(project.key for project in found)
        raise NotFoundError(f"{name} is the name of several projects: {keys}: use one of these")
    for lease in registry.leases(found[0]):
        if lease.root and os.path.isdir(lease.root):
            return context.find(replace(caller, directory=lease.root))
    if found[0].key == skypilot.PROJECT:
        # Without a checkout only this one is known by its name.
        return context.outside(replace(caller, program="sky"), context.user_config(caller))
    return replace(context.outside(caller, userconfig.UserConfig()), project=found[0])


def _slot(registry: Registry, project: Project, name: str) -> int:
    if (slot := number(name)) is not None:
        return slot
    if found := registry.with_name(project, name):
        return found.slot
    raise NotFoundError(f"no instance {name} of {project.name}: `isoenv list` shows them")


def number(text: str) -> int | None:
    """Return the slot that a word of digits means; what is longer than any slot is too large."""
    if not (text.isascii() and text.isdigit()):
        return None
    return int(text) if len(text) <= LONGEST_SLOT else 10**LONGEST_SLOT


def _pinned_slot(here: Context) -> int | None:
    slot, _, key = here.caller.environ.get(PIN, "").partition(":")
    return number(slot) if key == here.project.key else None


def asked(caller: Caller) -> tuple[Project, int] | None:
    """Return the instance that the user has asked for in the directory, changing nothing.

    None where it is left to the directory. Raises IsoenvError.
    """
    here = context.find(caller)
    if not os.path.exists(paths.registry_file(caller.state)):
        found = _asked_slot(here, None)
    else:
        with Registry(caller.state, mend=False) as registry:
            found = _asked_slot(here, registry)
    return (here.project, found[0]) if found else None


def _asked_slot(here: Context, registry: Registry | None) -> tuple[int, bool] | None:
    """Return the slot that a variable of the user's own asks for, and whether in the shell.

    The user's own is what is there without what isoenv has set. Where nothing was recorded, as
    under direnv, isoenv's own slot is known from the variable beside it, or, as in a dotenv file
    that it has printed, from the checkout that it says it is for.
    """
    names = slot_variables(here.config)
    own = launch.clean(here.caller.environ)
    for name in names:
        value = own.get(name)
        if value and value != own.get(OWN_SLOT) and not _is_anothers(value, own, registry):
            return _slot_value(name, value, "the environment"), True
    if here.base:
        file = f"{here.base}/.env"
        found = _dotenv(file, names)
        for name in names:
            if name in found:
                return _slot_value(name, found[name], file), False
    return None


def _is_anothers(value: str, own: Mapping[str, str], registry: Registry | None) -> bool:
    """Whether a slot is that of the checkout that an environment without a record is for."""
    root = own.get("ISOENV_ROOT")
    if not root or registry is None or OWN_SLOT in own:
        return False
    return any(
        (str(lease.slot), lease.root) == (value, root)
        for project in registry.projects(own.get("ISOENV_PROJECT", ""))
        for lease in registry.leases(project)
    )


def _slot_value(name: str, value: str, source: str) -> int:
    if (slot := number(value)) is not None:
        return slot
    raise IsoenvError(f"{name}={value} in {source} is no slot: `{name}=2` would be one")


def _dotenv(path: str, names: list[str]) -> dict[str, str]:
    """Return the last value of each of these names in a .env file; a missing file has none."""
    text = os.fsdecode(files.read(path, DOTENV_LIMIT) or b"")
    pattern = re.compile(
        rf"^[ \t]*(?:export[ \t]+)?({'|'.join(map(re.escape, names))})[ \t]*=[ \t]*"
        r"(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^#\s]*))",
        re.MULTILINE,
    )
    return {
        match[1]: value
        for match in pattern.finditer(text)
        if (value := match[2] or match[3] or match[4])
    }


def _numbered(here: Context, registry: Registry, slot: int, *, lease: bool) -> Selected:
    """Return a slot by number: with the configuration of the checkout that holds it."""
    held = registry.with_slot(here.project, slot)
    if held and held.root and held.root != here.base and os.path.isdir(held.root):
        theirs = context.find(replace(here.caller, directory=held.root))
        context.require_trust(theirs)
        if theirs.project.key == here.project.key and theirs.checkout:
            found = leasing.find(registry, theirs.claim)
            if found and found.slot == slot:
                return Selected(theirs, slot, leasing.hold(registry, theirs.claim))
    context.require_trust(here)
    if held and held.token:
        return Selected(here, slot, held)
    is_left_alone = slot == 0 and here.config.numbering.main == "none"
    if lease and not (is_left_alone and held is None):
        held = leasing.hold_number(registry, here.claim, slot)
    elif held is None:
        leasing.check_slot(here.config, slot)
    return Selected(here, slot, held)


def of_lease(caller: Caller, lease: Lease, user: UserConfig | None = None) -> Selected:
    """Return the instance of a lease, with the configuration of the checkout that holds it.

    ``user`` is the user's own for who has read it already.
    """
    if lease.root and os.path.isdir(lease.root):
        theirs = context.find(replace(caller, directory=lease.root), is_real=True, user=user)
    else:
        theirs = replace(context.find(caller), project=lease.project)
    return Selected(theirs, lease.slot, lease)


def instance(selected: Selected, registry: Registry) -> Instance:
    """Return what the environment of the selected instance is computed from."""
    here, lease, slot = selected.context, selected.lease, selected.slot
    numbering = here.config.numbering
    wanted = here.config.flags
    defaults = {name: flag.others if slot else flag.main for name, flag in wanted.items()}
    found = Instance(
        here.project,
        slot,
        lease.name if lease else f"{here.project.name}-{slot}",
        (lease.root if lease else None) or here.base or "",
        paths.instance_dir(here.caller.state, here.project.key, here.project.name, slot),
        _ports(here, lease, slot),
        flags.states(registry, here.config, lease) if lease else defaults,
    )
    if numbering.dir:
        found = replace(found, dir=resolver.instance_dir(numbering.dir, found, here.caller.home))
    # Outside any checkout the instance's own directory stands for one.
    return found if found.root else replace(found, root=found.dir)


def _ports(here: Context, lease: Lease | None, slot: int) -> dict[str, int]:
    """Return an instance's ports in the order of the configuration.

    A port that a lease does not have yet follows from the formula, or with blocks from nothing.
    """
    numbering, wanted = here.config.numbering, here.config.ports
    reserved = lease.ports if lease else {}
    if slot == 0 or numbering.ports == "offset":
        computed = allocator.offset_ports(wanted, numbering.stride, slot)
        return {name: reserved.get(name, port) for name, port in computed.items()}
    if missing := [name for name in wanted if name not in reserved]:
        raise NotFoundError(
            f"{here.project.name}:{slot} has no port for {missing[0]} yet: "
            f"`isoenv exec {slot} …` reserves it"
        )
    return {name: reserved[name] for name in wanted}


def environment(selected: Selected, registry: Registry) -> Environment:
    """Compute the environment of the selected instance."""
    here = selected.context
    home = here.caller.home
    found = resolver.resolve(here.config, instance(selected, registry), home)
    if here.config.preset == skypilot.PRESET:
        return skypilot.complete(found, home, here.skypilot_home)
    return found


def slot_variables(settings: Config) -> list[str]:
    """Return the variables by which a user may ask for a slot."""
    own = settings.numbering.variable
    return [SLOT_VARIABLE, own] if own else [SLOT_VARIABLE]
