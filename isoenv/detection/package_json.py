"""The scripts of package.json, and those of conductor.json, which are of the same shape."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from isoenv.detection import commands
from isoenv.detection.evidence import Place, Sighting, port_name

if TYPE_CHECKING:
    from collections.abc import Mapping

# Of these the first one that serves a port counts: `start` is often the same server, built.
_MAIN = ("dev", "develop", "run", "start", "serve")
_MORE = re.compile(r"(?:dev|start|serve):([\w:-]+)|(storybook)")
_ELSEWHERE = re.compile(r"prod|test|e2e|\bci\b|debug|watch")


def parse(text: str, file: str, values: Mapping[str, str]) -> list[Sighting]:
    """Return the ports that the scripts for development serve.

    Raises ValueError for what is no JSON, with the line where it goes wrong.
    """
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg.lower()}") from None
    except (RecursionError, ValueError):
        raise ValueError("nested too deep, or with an enormous number") from None
    scripts = document.get("scripts") if isinstance(document, dict) else None
    if not isinstance(scripts, dict):
        return []
    given = {name: words for name, words in scripts.items() if isinstance(words, str)}

    def sighting(script: str, name: str) -> Sighting | None:
        match = re.search(rf"{re.escape(json.dumps(script))}\s*:", text)
        line = text.count("\n", 0, match.start()) + 1 if match else 1
        return commands.sighting(given[script], Place(file, line), name, values)

    own = port_name(file.split("/")[-2]) if "/" in file else "web"
    found: list[Sighting | None] = []
    for name in _MAIN:
        if name in given and (seen := sighting(name, own)):
            found.append(seen)
            break
    found += [
        sighting(name, port_name(match[1] or match[2]))
        for name in given
        if (match := _MORE.fullmatch(name)) and not _ELSEWHERE.search(name)
    ]
    return [seen for seen in found if seen]
