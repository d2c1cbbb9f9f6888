"""Procfiles: one process a line, ``web: bin/rails server -p 3000``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isoenv.detection import commands
from isoenv.detection.evidence import Place, Sighting, port_name

if TYPE_CHECKING:
    from collections.abc import Mapping

_PROCESS = re.compile(r"([A-Za-z0-9_-]+):\s*(\S.*)")


def parse(text: str, file: str, values: Mapping[str, str]) -> list[Sighting]:
    """Return the ports that the processes serve."""
    found = []
    for line, row in enumerate(text.splitlines(), 1):
        if match := _PROCESS.fullmatch(row.strip()):
            place = Place(file, line)
            found.append(commands.sighting(match[2], place, port_name(match[1]), values))
    return [sighting for sighting in found if sighting]
