"""The user's own ``config.toml``: which preset a machine or a project starts from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isoenv.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class UserConfig:
    """``preset`` for every checkout without an ``isoenv.toml``, ``projects`` for single ones.

    A project is named by its name or by its directory.
    """

    preset: str | None = None
    projects: Mapping[str, str] = field(default_factory=dict)

    def preset_for(self, *names: str) -> str | None:
        """Return the preset chosen for a project that goes by any of these names."""
        return next((self.projects[name] for name in names if name in self.projects), self.preset)


def read(path: str, presets: frozenset[str]) -> UserConfig:
    """Read the file; a missing one is an empty one.

    >>> # preset = "sky"
    >>> # [projects.shop]
    >>> # preset = "orient"
    """
    try:
        with open(path, "rb") as file:
            document = tomllib.load(file)
    except FileNotFoundError:
        return UserConfig()
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from None
    projects: dict[str, str] = {}
    tables = document.pop("projects", {})
    if not isinstance(tables, dict):
        raise ConfigError(f"{path}: projects: expected tables such as [projects.shop]")
    for name, table in tables.items():
        if not isinstance(table, dict) or table.keys() - {"preset"}:
            raise ConfigError(f'{path}: projects.{name}: expected preset = "…" alone')
        projects[name] = _preset(path, f"projects.{name}.preset", table.get("preset"), presets)
    preset = document.pop("preset", None)
    if document:
        raise ConfigError(
            f"{path}: {next(iter(document))}: unknown key; expected preset or [projects.NAME]"
        )
    chosen = None if preset is None else _preset(path, "preset", preset, presets)
    return UserConfig(chosen, projects)


def _preset(path: str, key: str, value: object, presets: frozenset[str]) -> str:
    if isinstance(value, str) and value in presets:
        return value
    expected = " or ".join(sorted(presets))
    raise ConfigError(f"{path}: {key}: expected {expected}, got {value!r}")
