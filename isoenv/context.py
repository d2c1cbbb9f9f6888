"""Where a command was started, and what that place is configured to be."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isoenv import checkout, config, files, leasing, paths, presets, skypilot, trust, userconfig
from isoenv.errors import ConfigError, IsoenvError, NotTrustedError
from isoenv.models import Project

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isoenv.models import Checkout, Config


# What was parsed in this process, by the texts of its layers.
_known: dict[tuple[str, ...], Config] = {}


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

    ``base`` is the directory that the environment is for, None outside any checkout.
    ``configured`` says whether the place
    itself asks for an environment: by a file or by a preset. ``subjects`` need the user's trust,
    ``offers`` are what the user may allow and nothing waits for. ``by_program`` says that the
    command alone has chosen the configuration, ``is_developed`` that this is SkyPilot's source
    and its code may be run. ``skypilot_home`` is the user's choice for SkyPilot's clients.
    """

    caller: Caller
    checkout: Checkout | None
    base: str | None
    project: Project
    config: Config
    configured: bool = False
    subjects: tuple[trust.Subject, ...] = ()
    by_program: bool = False
    offers: tuple[trust.Subject, ...] = ()
    is_developed: bool = False
    skypilot_home: str = skypilot.SERVER

    @property
    def watched(self) -> tuple[str, ...]:
        """The files that decided, whether they exist or not."""
        if self.checkout is None or self.base is None:
            return ()
        return tuple(watched_files(self.caller, checkout.Place(self.checkout, self.base)))

    @property
    def claim(self) -> leasing.Claim:
        """What asks for a lease here."""
        base = self.base or self.caller.directory
        return leasing.Claim(self.project, self.config, self.checkout, base, self.caller.say)


def find(
    caller: Caller, *, is_real: bool = False, user: userconfig.UserConfig | None = None
) -> Context:
    """Find the checkout of the caller's directory, its configuration and its project.

    With ``is_real`` the directory is one of the registry's, where no link is to be resolved.
    ``user`` is the user's own configuration for who has read it already.
    """
    place = checkout.locate(caller.directory, is_real=is_real)
    user = user or user_config(caller)
    if place is None:
        return outside(caller, user)
    found, base = place.checkout, place.base
    layers = [layer for file in config_files(base) if (layer := _layer(file))]
    top = f"{found.root.rstrip('/')}/"
    subjects = tuple(
        trust.Subject(layer.path.removeprefix(top), os.fsencode(layer.text)) for layer in layers
    )
    inferred = Project(_path_key(found, base), checkout.project_name(found, base))
    preset = user.preset_for(inferred.name, found.root)
    if preset is None and not layers and _is_tree(found, base):
        preset = skypilot.PRESET
    configured = bool(layers or preset)
    by_program = not configured and caller.program == "sky"
    if not layers and (preset or by_program):
        layers = [_preset_layer(preset or skypilot.PRESET)]
    settings = _parsed(layers)
    offers: tuple[trust.Subject, ...] = ()
    is_developed = False
    if settings.preset == skypilot.PRESET:
        is_tree = _is_tree(found, base)
        if is_tree and not subjects:
            offers = (trust.Subject(skypilot.CODE, b""),)
        # What has a file is used once the file is allowed, and so is its code.
        is_developed = is_tree and (
            bool(subjects) or trust.is_allowed(caller.state, found, offers[0])
        )
        settings = skypilot.developed(settings) if is_developed else settings
    project = Project(settings.project, settings.project) if settings.project else inferred
    return Context(
        caller,
        found,
        base,
        project,
        settings,
        configured,
        subjects,
        by_program,
        offers,
        is_developed,
        user.skypilot_home,
    )


def _is_tree(found: Checkout, base: str) -> bool:
    return base == found.root and skypilot.is_tree(found.root)


def user_config(caller: Caller) -> userconfig.UserConfig:
    """Read the user's own configuration."""
    return userconfig.read(paths.user_config_file(caller.environ), frozenset(presets.NAMES))


def _parsed(layers: list[config.Layer]) -> Config:
    """Parse each text once: the checkouts of a project mostly have the same."""
    texts = tuple(layer.text for layer in layers)
    if texts not in _known:
        _known[texts] = config.parse(layers, presets.text)
    return replace(_known[texts], sources=tuple(layer.path for layer in layers))


def config_files(base: str) -> tuple[str, str]:
    """Return the project's file and the user's own layer over it."""
    return f"{base}/{paths.CONFIG_NAME}", f"{base}/{paths.LOCAL_CONFIG_NAME}"


def watched_files(caller: Caller, place: checkout.Place) -> list[str]:
    """Return the files that decide about a place, whether they exist or not."""
    found, base = place.checkout, place.base
    watched = [*config_files(base), paths.user_config_file(caller.environ)]
    watched += [f"{base}/.env", f"{base}/.envrc", found.token_file]
    if found.git_dir and found.git_dir != f"{found.root}/.git":
        watched.append(f"{found.root}/.git")
    return watched


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


def outside(caller: Caller, user: userconfig.UserConfig) -> Context:
    """Return the context of a directory in no checkout."""
    preset = skypilot.PRESET if caller.program == "sky" else user.preset
    settings = config.parse([_preset_layer(preset)] if preset else [], presets.text)
    name = settings.project or "default"
    project = Project(name, name)
    return Context(caller, None, None, project, settings, skypilot_home=user.skypilot_home)


def _path_key(found: Checkout, base: str) -> str:
    identity = checkout.project_dir(found)
    return identity if base == found.root else f"{identity}//{os.path.relpath(base, found.root)}"


def _layer(path: str) -> config.Layer | None:
    try:
        raw = files.read(path, config.LIMIT + 1)
    except IsoenvError as error:
        raise ConfigError(str(error)) from None
    return None if raw is None else config.decode(path, raw)


def _preset_layer(name: str) -> config.Layer:
    return config.Layer(f"preset {name}", f'extends = "{name}"\n')
