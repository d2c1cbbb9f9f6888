"""Give every checkout of a project its own ports, names, directories and endpoints."""

from __future__ import annotations

__version__ = "0.1.0"
