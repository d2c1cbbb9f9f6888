"""From where a command was started, and what it names, to an instance and its environment.

checkout -> configuration -> project -> slot -> lease -> environment: the way of every command.
"""

from __future__ import annotations

import os
import re
import stat
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isoenv import (
    allocator,
    checkout,
    config,
    generated,
    launch,
    leasing,
    paths,
    presets,
    resolver,
    trust,
    userconfig,
)
from isoenv.errors import ConfigError, IsoenvError, NotFoundError, NotTrustedError
from isoenv.models import Config, Instance, Lease, Project

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

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
    itself asks for an environment: by a file or by a preset. ``subjects`` need the user's trust.
    ``by_program`` says that the command alone has chosen the configuration.
    """

    caller: Caller
    checkout: Checkout | None
    base: str | None
    project: Project
    config: Config
    watched: tuple[str, ...] = ()
    configured: bool = False
    subjects: tuple[trust.Subject, ...] = ()
    by_program: bool = False

    @property
    def claim(self) -> leasing.Claim:
        """What asks for a lease here."""
        base = self.base or self.caller.directory
        return leasing.Claim(self.project, self.config, self.checkout, base, self.caller.say)


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


def context(caller: Caller) -> Context:
    """Find the checkout of the caller's directory, its configuration and its project."""
    place = checkout.locate(caller.directory)
    user_file = paths.user_config_file(caller.environ)
    user = userconfig.read(user_file, frozenset(presets.NAMES))
    if place is None:
        return _outside(caller, user)
    found, base = place.checkout, place.base
    layers = [layer for file in _config_files(base) if (layer := _layer(file))]
    subjects = tuple(
        trust.Subject(os.path.relpath(layer.path, found.root), os.fsencode(layer.text))
        for layer in layers
    )
    inferred = Project(_path_key(found, base), checkout.project_name(found, base))
    preset = user.preset_for(inferred.name, found.root)
    if preset is None and _is_skypilot(found.root):
        preset = "sky"
    configured = bool(layers or preset)
    by_program = not configured and caller.program == "sky"
    if not layers and (preset or by_program):
        layers = [_preset_layer(preset or "sky")]
    settings = config.parse(layers, presets.text)
    project = Project(settings.project, settings.project) if settings.project else inferred
    watched = tuple(watched_files(caller, place))
    return Context(
        caller, found, base, project, settings, watched, configured, subjects, by_program
    )


def _config_files(base: str) -> tuple[str, str]:
    return f"{base}/{paths.CONFIG_NAME}", f"{base}/{paths.LOCAL_CONFIG_NAME}"


def watched_files(caller: Caller, place: checkout.Place) -> list[str]:
    """Return the files that decide about a place, whether they exist or not."""
    found, base = place.checkout, place.base
    files = [*_config_files(base), paths.user_config_file(caller.environ)]
    files += [f"{base}/.env", f"{base}/.envrc", found.token_file]
    if found.git_dir and found.git_dir != f"{found.root}/.git":
        files.append(f"{found.root}/.git")
    return files


def require_trust(here: Context) -> None:
    """Raise NotTrustedError unless the user has allowed the files that configure a place."""
    for subject in here.subjects:
        assert here.checkout is not None  # noqa: S101  # only a checkout has subjects
        state = here.caller.state
        if trust.is_allowed(state, here.checkout, subject):
            continue
        file = f"{here.checkout.root}/{subject.name}"
        if trust.is_denied(state, here.checkout, subject):
            raise NotTrustedError(f"{file} is denied: `isoenv allow` takes that back")
        if trust.last_allowed(state, here.checkout, subject.name) is not None:
            raise NotTrustedError(f"{file} has changed: `isoenv allow` shows how, and allows it")
        raise NotTrustedError(f"{file} is not allowed yet: read it, then `isoenv allow`")


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
        # Not to wait for a writer, should it be a FIFO.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise ConfigError(f"{path} is no file: `isoenv init` writes one")
            raw = file.read(config.LIMIT + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
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
    asked, in_shell = _asked_slot(here) or (None, False)
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


def _asked_slot(here: Context) -> tuple[int, bool] | None:
    """Return the slot that a variable of the user's own asks for, and whether in the shell.

    The user's own is what is there without what isoenv has set. Where nothing was recorded, as
    under direnv, isoenv's own slot is known from the variable beside it.
    """
    names = slot_variables(here.config)
    own = launch.clean(here.caller.environ)
    for name in names:
        value = own.get(name)
        if value and value != own.get(OWN_SLOT):
            return _slot_value(name, value, "the environment"), True
    if here.base:
        file = f"{here.base}/.env"
        found = _dotenv(file, names)
        for name in names:
            if name in found:
                return _slot_value(name, found[name], file), False
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
    notice = paths.notice_file(here.caller.state, found.project.key, found.slot)
    return generated.Ready(
        root=found.root,
        label=f"{found.project.name}/{found.slot} {found.name}",
        guards=_guards(selected),
        watched=stamps(here.checkout, [*_deciding_files(here), notice]),
        dirs=list(computed.dirs.values()),
        path_prepend=computed.path_prepend,
        variables=computed.variables and {**computed.variables, OWN_SLOT: str(found.slot)},
        use=generated.ALL if here.configured else generated.EXEC,
    )


def nothing(caller: Caller, base: str, here: Context | None, message: str = "") -> generated.Ready:
    """Return that there is nothing to load in ``base``, and on what that hangs.

    ``here`` is None where its files are too wrong to make a context.
    """
    found = here.checkout if here else None
    if here:
        files = _deciding_files(here)
    else:
        files = [*_config_files(base), paths.user_config_file(caller.environ), f"{base}/.git"]
    return generated.Ready(
        root=base,
        label="",
        guards=[(generated.DIFFERS, "HOME", caller.environ.get("HOME", ""))],
        watched=stamps(found, files),
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
        *(trust.witness(here.caller.state, here.checkout, subject) for subject in here.subjects),
    ]


def stamps(found: Checkout | None, files: Iterable[str]) -> dict[str, str]:
    """Return the state of the files that decide about a place."""
    now = time.time_ns()
    # Of its own files isoenv is sure, however young they are.
    own = found.token_file if found else None
    return {path: generated.stamp(path, None if path == own else now) for path in files}


def _guards(selected: Selected) -> list[tuple[str, ...]]:
    """Return on what in the caller's environment the selection hangs."""
    here = selected.context
    guards: list[tuple[str, ...]] = [
        (generated.DIFFERS, "HOME", here.caller.environ.get("HOME", "")),
        (generated.DIFFERS, PIN, here.caller.environ.get(PIN, "")),
    ]
    names = slot_variables(here.config)
    if selected.own:
        return guards + [(generated.ASKED, name) for name in names]
    if selected.pinned:
        return guards
    return guards + [(generated.DIFFERS, name, str(selected.slot)) for name in names]


def slot_variables(settings: Config) -> list[str]:
    """Return the variables by which a user may ask for a slot."""
    own = settings.numbering.variable
    return [SLOT_VARIABLE, own] if own else [SLOT_VARIABLE]
