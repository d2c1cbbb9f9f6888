"""The port that a command listens on, from its words alone: nothing is run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from isoenv.detection.evidence import Sighting, number
from isoenv.detection.interpolation import expand, variable_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.detection.evidence import Place

LENGTH = 2000

_VALUE = r"""(\d{2,5}|\$\{[^}\s]*\}|\$\w+)(?=["'\s;&|]|$)"""
# Where a port stands in a command line; what is in front of it is the first group.
_SPELLED = (
    re.compile(rf"((?:^|[\s\"';])PORT=[\"']?){_VALUE}"),
    re.compile(rf"((?:^|\s)--(?:http-)?port(?:=|\s+)[\"']?){_VALUE}"),
    re.compile(rf"((?:^|\s)-p(?:=|\s*)[\"']?){_VALUE}"),
    re.compile(rf"((?:^|\s)(?:-b|--bind|--listen|--addr)(?:=|\s+)[\w.\[\]/]*:){_VALUE}"),
    re.compile(rf"(\brunserver\s+(?:[\w.]+:)?){_VALUE}"),
)
# Servers by their words: the port they take by themselves, and the variable that they read it
# from, or else how their command line names a port.
_SERVERS = (
    (re.compile(r"\brails\s+s(?:erver)?\b|\bpuma\b"), 3000, "PORT", ""),
    (re.compile(r"\bnext\s+(?:dev|start)\b"), 3000, "PORT", ""),
    (re.compile(r"\bnux[ti]\s+dev\b"), 3000, "PORT", ""),
    (re.compile(r"\b(?:react-scripts|craco)\s+start\b"), 3000, "PORT", ""),
    (re.compile(r"\bstorybook\s+dev\b|\bstart-storybook\b"), 6006, None, "-p "),
    (re.compile(r"\bastro\s+dev\b"), 4321, None, "--port "),
    (re.compile(r"\bng\s+serve\b"), 4200, None, "--port "),
    (re.compile(r"\bwrangler\s+dev\b"), 8787, None, "--port "),
    (re.compile(r"\bbin/vite\b"), 3036, "VITE_RUBY_PORT", ""),
    (re.compile(r"(?<![\w/-])vite\s+preview\b"), 4173, None, "--port "),
    (re.compile(r"(?<![\w/-])vite(?:\s+(?:dev|serve)\b)?(?!\s*\w)"), 5173, None, "--port "),
    (re.compile(r"\bmanage\.py\s+runserver\b"), 8000, None, ""),
    (re.compile(r"\bartisan\s+serve\b"), 8000, "SERVER_PORT", ""),
    (re.compile(r"\bflask\b.*\brun\b"), 5000, "FLASK_RUN_PORT", ""),
    (re.compile(r"\buvicorn\b"), 8000, "UVICORN_PORT", ""),
    (re.compile(r"\bgunicorn\b"), 8000, "PORT", ""),
    (re.compile(r"\bredis-server\b"), 6379, None, "--port "),
    (re.compile(r"\bmix\s+phx\.server\b"), 4000, "PORT", ""),
)
# What foreman gives its first process.
_UNKNOWN = 5000


def sighting(command: str, place: Place, name: str, values: Mapping[str, str]) -> Sighting | None:
    """Return the port that a command serves, None for one that serves none."""
    command = command[:LENGTH]
    served = next((each for each in _SERVERS if each[0].search(command)), None)
    usual = served[1] if served else _UNKNOWN
    for pattern in _SPELLED:
        if match := pattern.search(command):
            before, value = match[1].lstrip(" \t;\"'"), match[2]
            if (port := number(value)) is not None:
                return Sighting(port, place, name, fixed=(before, ""))
            variable = variable_of(value)
            port = number(expand(value, values)) or usual
            return Sighting(port, place, name, variable) if variable else None
    if served is None:
        return None
    pattern, port, variable, option = served
    if variable:
        port = number(values.get(variable)) or port
        return Sighting(port, place, name, variable)
    match = pattern.search(command)
    words = match[0].strip() if match else ""
    return Sighting(port, place, name, fixed=(f"{words} {option}", ""))
