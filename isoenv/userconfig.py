"""The user's own ``config.toml``: which preset a machine or a project starts from, and SkyPilot."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isoenv import config, files, skypilot
from isoenv.errors import ConfigError
from isoenv.positions import positions
from isoenv.tables import Table, spell

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


@dataclass(frozen=True, slots=True)
class UserConfig:
    """``preset`` for every checkout without an ``isoenv.toml``, ``projects`` for single ones.

    A project is named by its name or by its directory. ``skypilot_home`` is one of
    `skypilot.HOMES`.
    """

    preset: str | None = None
    projects: Mapping[str, str] = field(default_factory=dict)
    skypilot_home: str = skypilot.SERVER

    def preset_for(self, *names: str) -> str | None:
        """Return the preset chosen for a project that goes by any of these names."""
        return next((self.projects[name] for name in names if name in self.projects), self.preset)


def read(path: str, presets: Collection[str]) -> UserConfig:
    """Read ``preset``, ``[projects.NAME]`` and ``[skypilot]``; a missing file has none of them.

    Raises ConfigError with file, line, key and what was expected.
    """
    raw = files.read(path, config.LIMIT)
    if raw is None:
        return UserConfig()
    text = config.decode(path, raw).text
    try:
        entries = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not valid TOML: {error}") from None

    def report(keys: tuple[str, ...], message: str) -> None:
        lines = positions(text)
        line = next(lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines)
        raise ConfigError(f"{path}:{line}: {'.'.join(keys)}: {message}")

    root = Table((), entries, report)
    root.report_unknown("preset", "projects", "skypilot")
    tables = root.table("projects")
    projects = {name: _preset(tables.table(name), presets) for name in tables.entries}
    for name in tables.entries:
        tables.table(name).report_unknown("preset")
    chosen = {name: preset for name, preset in projects.items() if preset is not None}
    of_skypilot = root.table("skypilot")
    of_skypilot.report_unknown("home")
    home = of_skypilot.choice("home", skypilot.HOMES, skypilot.SERVER)
    return UserConfig(_preset(root, presets), chosen, home)


def _preset(table: Table, presets: Collection[str]) -> str | None:
    value = table.entries.get("preset")
    if value is None or (isinstance(value, str) and value in presets):
        return value
    expected = " or ".join(map(spell, sorted(presets)))
    table.report("preset", f"expected {expected}, got {spell(value)}")
    return None
