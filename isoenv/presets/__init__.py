"""The configurations that come with isoenv, for ``extends`` and ``isoenv init --preset``."""

from __future__ import annotations

NAMES = ("orient", "sky")


def text(name: str) -> str | None:
    """Return the TOML text of a preset, or None if there is none of this name."""
    if name not in NAMES:
        return None
    from importlib.resources import files

    return files(__name__).joinpath(f"{name}.toml").read_text("utf-8")
