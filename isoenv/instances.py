"""From where a command was started, and what it names, to an instance and its environment.

checkout -> configuration -> project -> slot -> lease -> environment: the way of every command.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isoenv import (
    allocator,
    checkout,
    config,
    generated,
    leasing,
    paths,
    presets,
    resolver,
    userconfig,
)
from isoenv.errors import IsoenvError, NotFoundError
from isoenv.models import Config, Instance, Lease, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isoenv.models import Checkout, Environment
    from isoenv.registry import Registry

SLOT_VARIABLE = "ISOENV_INSTANCE"
# The slot that isoenv itself exported, so that a value of the user's own can be told from it.
OWN_SLOT = "__ISOENV_SLOT"
# SLOT:PROJECT-KEY of `exec NUMBER`, for hooks and nested calls inside it.
PIN = "__ISOENV_PIN"
# The largest .env file that is looked through for a slot, in bytes.
DOTENV_LIMIT = 1 << 20


@dataclass(frozen=True, slots=True)
class Caller:
    """What a command was started with.

    ``program`` is the name of the command that `exec` becomes, or ``sky`` for what serves
    SkyPilot: it chooses a preset where nothing is configured. ``say`` gets lines for the user.
    """

    directory: str
    environ: Mapping[str, str]
    say: Callable[[str], None] = field(default=lambda _line: None)
    program: str | None = None

    @property
    def home(self) -> str:
        """The user's home directory."""
        return paths.home(self.environ)

    @property
    def state(self) -> str:
        """The state directory."""
        return paths.state_dir(self.environ)


@dataclass(frozen=True, slots=True)
class Context:
    """A place, and what it is configured to be.

    ``base`` is the directory that the environment is for, None outside any checkout. ``watched``
    are the files that decided, whether they exist or not. ``configured`` says whether the place
    itself asks for an environment: by a file or by a preset.
    """

    caller: Caller
    checkout: Checkout | None
    base: str | None
    project: Project
    config: Config
    watched: tuple[str, ...] = ()
    configured: bool = False

    @property
    def claim(self) -> leasing.Claim:
        """What asks for a lease here."""
        base = self.base or self.caller.directory
        return leasing.Claim(self.project, self.config, self.checkout, base, self.caller.say)


@dataclass(frozen=True, slots=True)
class Selected:
    """An instance that a command is about.

    ``lease`` is None for a number that nobody holds and that the command does not lease.
    ``pinned`` says that it was named by number or name, ``own`` that it is the lease of the
    checkout in which the command was started, found by directory alone.
    """

    context: Context
    slot: int
    lease: Lease | None
    pinned: bool = False
    own: bool = False


def context(caller: Caller) -> Context:
    """Find the checkout of the caller's directory, its configuration and its project."""
    place = checkout.locate(caller.directory)
    user_file = paths.user_config_file(caller.environ)
    user = userconfig.read(user_file, frozenset(presets.NAMES))
    if place is None:
        return _outside(caller, user)
    found, base = place.checkout, place.base
    files = (f"{base}/{paths.CONFIG_NAME}", f"{base}/{paths.LOCAL_CONFIG_NAME}")
    layers = [layer for file in files if (layer := _layer(file))]
    inferred = Project(_path_key(found, base), checkout.project_name(found, base))
    preset = user.preset_for(inferred.name, found.root)
    if preset is None and _is_skypilot(found.root):
        preset = "sky"
    configured = bool(layers or preset)
    if not configured and caller.program == "sky":
        preset = "sky"
    if preset and not layers:
        layers = [_preset_layer(preset)]
    settings = config.parse(layers, presets.text)
    project = Project(settings.project, settings.project) if settings.project else inferred
    watched: tuple[str, ...] = (*files, user_file, f"{base}/.env", found.token_file)
    if found.git_dir and found.git_dir != f"{found.root}/.git":
        watched = (*watched, f"{found.root}/.git")
    return Context(caller, found, base, project, settings, watched, configured)


def _outside(caller: Caller, user: userconfig.UserConfig) -> Context:
    preset = "sky" if caller.program == "sky" else user.preset
    settings = config.parse([_preset_layer(preset)] if preset else [], presets.text)
    name = settings.project or "default"
    return Context(caller, None, None, Project(name, name), settings)


def _path_key(found: Checkout, base: str) -> str:
    identity = checkout.project_dir(found)
    return identity if base == found.root else f"{identity}//{os.path.relpath(base, found.root)}"


def _is_skypilot(root: str) -> bool:
    return os.path.isfile(f"{root}/sky/__init__.py") and os.path.isdir(f"{root}/sky/skylet")


def _layer(path: str) -> config.Layer | None:
    try:
        with open(path, "rb") as file:
            raw = file.read(config.LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IsoenvError(f"cannot read {path}: {error.strerror}") from None
    return config.decode(path, raw)


def _preset_layer(name: str) -> config.Layer:
    return config.Layer(f"preset {name}", f'extends = "{name}"\n')


def select(
    caller: Caller, registry: Registry, operand: str | None, *, lease: bool = True
) -> Selected:
    """Return the instance that ``operand`` names, or that of the directory for None and ``.``.

    With ``lease`` a number that nobody holds is leased. A checkout without a lease always gets
    one. Raises NotFoundError for a name, project or slot that does not exist.
    """
    here = context(caller)
    project_name, _, name = (operand or ".").rpartition(":")
    if project_name and project_name not in (here.project.name, here.project.key):
        here = _elsewhere(caller, registry, project_name)
    if name != ".":
        slot = _slot(registry, here.project, name)
        return replace(_numbered(here, registry, slot, lease=lease), pinned=True)
    if (pinned := _pinned_slot(here)) is not None:
        return replace(_numbered(here, registry, pinned, lease=lease), pinned=True)
    held = leasing.find(registry, here.claim) if here.checkout else None
    asked = _asked_slot(here)
    if asked is not None and not (held and held.slot == asked):
        taken = registry.with_slot(here.project, asked)
        if held or taken or here.checkout is None:
            return _numbered(here, registry, asked, lease=lease)
    if here.checkout is None:
        raise NotFoundError(
            f"{caller.directory} is in no checkout: "
            "name an instance by number, such as `isoenv show 1`"
        )
    held = leasing.hold(registry, here.claim, asked)
    return Selected(here, held.slot, held, own=asked is None)


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
            return context(replace(caller, directory=lease.root))
    return replace(_outside(caller, userconfig.UserConfig()), project=found[0])


def _slot(registry: Registry, project: Project, name: str) -> int:
    if name.isascii() and name.isdigit():
        return int(name)
    if found := registry.with_name(project, name):
        return found.slot
    raise NotFoundError(f"no instance {name} of {project.name}: `isoenv list` shows them")


def _pinned_slot(here: Context) -> int | None:
    slot, _, key = here.caller.environ.get(PIN, "").partition(":")
    return int(slot) if key == here.project.key and slot.isdigit() else None


def _asked_slot(here: Context) -> int | None:
    """Return the slot that a variable of the user's own asks for, in the shell or in .env."""
    names = [SLOT_VARIABLE]
    if here.config.numbering.variable:
        names.append(here.config.numbering.variable)
    ours = here.caller.environ.get(OWN_SLOT)
    for name in names:
        value = here.caller.environ.get(name)
        if value and value != ours:
            return _slot_value(name, value, "the environment")
    if here.base:
        file = f"{here.base}/.env"
        found = _dotenv(file, names)
        for name in names:
            if name in found:
                return _slot_value(name, found[name], file)
    return None


def _slot_value(name: str, value: str, source: str) -> int:
    if value.isascii() and value.isdigit():
        return int(value)
    raise IsoenvError(f"{name}={value} in {source} is no slot: `{name}=2` would be one")


def _dotenv(path: str, names: list[str]) -> dict[str, str]:
    """Return the last value of each of these names in a .env file; a missing file has none."""
    try:
        with open(path, "rb") as file:
            text = os.fsdecode(file.read(DOTENV_LIMIT))
    except OSError:
        return {}
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
        theirs = context(replace(here.caller, directory=held.root))
        if theirs.project.key == here.project.key and theirs.checkout:
            found = leasing.find(registry, theirs.claim)
            if found and found.slot == slot:
                return Selected(theirs, slot, leasing.hold(registry, theirs.claim))
    if held and held.token:
        return Selected(here, slot, held)
    if lease:
        held = leasing.hold_number(registry, here.claim, slot)
    elif held is None:
        leasing.check_slot(here.config, slot)
    return Selected(here, slot, held)


def of_lease(caller: Caller, lease: Lease) -> Selected:
    """Return the instance of a lease, with the configuration of the checkout that holds it."""
    if lease.root and os.path.isdir(lease.root):
        theirs = context(replace(caller, directory=lease.root))
    else:
        theirs = replace(context(caller), project=lease.project)
    return Selected(theirs, lease.slot, lease)


def instance(selected: Selected, registry: Registry) -> Instance:
    """Return what the environment of the selected instance is computed from."""
    here, lease, slot = selected.context, selected.lease, selected.slot
    numbering = here.config.numbering
    if lease is None and slot and numbering.ports == "block":
        raise NotFoundError(
            f"no instance {slot} of {here.project.name}: `isoenv exec {slot} …` makes it"
        )
    changed = registry.flags(lease) if lease else {}
    found = Instance(
        here.project,
        slot,
        lease.name if lease else f"{here.project.name}-{slot}",
        (lease.root if lease else None) or here.base or "",
        paths.instance_dir(here.caller.state, here.project.key, here.project.name, slot),
        lease.ports if lease else allocator.offset_ports(here.config.ports, numbering.stride, slot),
        {
            name: changed.get(name, flag.others if slot else flag.main)
            for name, flag in here.config.flags.items()
        },
    )
    if numbering.dir:
        found = replace(found, dir=resolver.instance_dir(numbering.dir, found, here.caller.home))
    # Outside any checkout the instance's own directory stands for one.
    return found if found.root else replace(found, root=found.dir)


def directory_of(caller: Caller, lease: Lease) -> str:
    """Return the own directory of an instance whose checkout may be gone."""
    return paths.instance_dir(caller.state, lease.project.key, lease.project.name, lease.slot)


def environment(selected: Selected, registry: Registry) -> Environment:
    """Compute the environment of the selected instance."""
    here = selected.context
    return resolver.resolve(here.config, instance(selected, registry), here.caller.home)


def ready(selected: Selected, computed: Environment) -> generated.Ready:
    """Return what a warm call needs to serve the environment again without computing it."""
    here, found = selected.context, computed.instance
    now = time.time_ns()
    own = (here.checkout.token_file,) if here.checkout else ()
    variable = here.config.numbering.variable
    return generated.Ready(
        root=found.root,
        label=f"{found.project.name}/{found.slot} {found.name}",
        home=here.caller.home,
        pin=here.caller.environ.get(PIN, ""),
        slot_variables=[SLOT_VARIABLE, *([variable] if variable else [])],
        watched={
            path: generated.sure_stamp(path) if path in own else generated.stamp(path, now)
            for path in here.watched
        },
        dirs=list(computed.dirs.values()),
        path_prepend=computed.path_prepend,
        variables=computed.variables and {**computed.variables, OWN_SLOT: str(found.slot)},
    )
