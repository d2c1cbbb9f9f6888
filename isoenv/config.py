"""From the text of ``isoenv.toml`` to a valid Config. Pure: text in, values out."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

from isoenv import presets, sections
from isoenv.errors import ConfigError
from isoenv.positions import positions
from isoenv.tables import Table, did_you_mean, dotted, spell, spell_or

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from isoenv.models import Config

LIMIT = 1 << 20
# tomllib takes time quadratic in the parts of a dotted key, and its callers recurse by depth.
DOTS, DEPTH = 1000, 32

_AT_LINE = re.compile(r" \(at line (\d+), column \d+\)$")
_LONG_NUMBER = re.compile(r"(?<![0-9_])[0-9](?:_?[0-9]){4300}")


@dataclass(frozen=True, slots=True)
class Layer:
    """One text to read, and the path that messages call it by."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: the 1-based line, and the key as TOML spells it, or an empty one."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """Return ``FILE:LINE: KEY: MESSAGE``."""
        key = f"{self.key}: " if self.key else ""
        return f"{self.file}:{self.line}: {key}{self.message}"


class ConfigProblems(ConfigError):  # noqa: N818 - it holds several
    """All that is wrong with a configuration; reads as the first of it."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Take one problem or more, in the order of the files and lines."""
        self.problems = tuple(problems)
        more = len(self.problems) - 1
        rest = f" (and {more} more: `isoenv check`)" if more else ""
        super().__init__(f"{self.problems[0]}{rest}")


def decode(path: str, raw: bytes) -> Layer:
    """Return the text of a file, without a byte order mark.

    Raises ConfigProblems for more than LIMIT bytes, and for bytes that are not UTF-8.
    """
    if len(raw) > LIMIT:
        raise ConfigProblems([Problem(path, 1, "", "larger than 1 MiB: shorten it")])
    try:
        return Layer(path, raw.decode().removeprefix("\ufeff"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        message = f"byte 0x{raw[error.start]:02x} is not UTF-8: save the file as UTF-8"
        raise ConfigProblems([Problem(path, line, "", message)]) from None


def parse(layers: Sequence[Layer], preset_text: Callable[[str], str | None]) -> Config:
    """Lay the layers over each other, the strongest last and a preset below all, and check them.

    ``preset_text`` returns the text of a preset, or None. Raises ConfigProblems with everything
    that is wrong; with syntax errors in any layer, these alone.
    """
    sources = _load(layers)
    findings = _Findings(sources)
    preset = _extends(sources, findings)
    if preset is not None:
        text = preset_text(preset)
        if text is None:
            hint = did_you_mean(preset, presets.NAMES) or f"expected {spell_or(presets.NAMES)}"
            findings.report(("extends",), f"no preset {spell(preset)}: {hint}")
        else:
            sources[:0] = _load([Layer(f"preset {preset}", text)])
    findings.check()
    entries: dict[str, object] = {}
    for source in sources:
        entries = _merge(entries, source.entries)
    config = sections.read(Table((), entries, findings.report))
    findings.check()
    if config.databases:
        from isoenv.databases import isolation

        for name, key, message in isolation.objections(config):
            findings.report(("databases", name, key), message)
    findings.check()
    return replace(config, preset=preset, sources=tuple(layer.path for layer in layers))


class _Source:
    """A layer whose syntax is right. Ports are in their long form, so that layers merge."""

    def __init__(self, layer: Layer, entries: dict[str, object]) -> None:
        self.path = layer.path
        self._text = layer.text
        ports = entries.get("ports")
        short = (
            {k: v for k, v in ports.items() if type(v) is int} if isinstance(ports, dict) else {}
        )
        self._short = {("ports", name, "base") for name in short}
        if isinstance(ports, dict):
            long = {name: {"base": base} for name, base in short.items()}
            entries = {**entries, "ports": {**ports, **long}}
        self.entries = entries

    @cached_property
    def _lines(self) -> dict[tuple[str, ...], int]:
        lines = positions(self._text)
        return lines | {path: lines[path[:-1]] for path in self._short}

    def find(self, path: tuple[str, ...]) -> tuple[int, tuple[str, ...]] | None:
        """Return the line of a key path, and the path as this layer writes it."""
        if path not in self._lines:
            return None
        return self._lines[path], path[:-1] if path in self._short else path


class _Findings:
    """Collects what is wrong, and where that is in the sources."""

    def __init__(self, sources: list[_Source]) -> None:
        self._sources = sources
        self._found: list[tuple[int, Problem]] = []

    def report(self, path: tuple[str, ...], message: str) -> None:
        """Place a problem where the strongest layer has most of the key path."""
        number, (line, key) = next(
            (number, spot)
            for length in range(len(path), 0, -1)
            for number, source in reversed(list(enumerate(self._sources)))
            if (spot := source.find(path[:length]))
        )
        problem = Problem(self._sources[number].path, line, dotted(key), message)
        self._found.append((number, problem))

    def check(self) -> None:
        """Raise ConfigProblems if anything was reported."""
        if self._found:
            self._found.sort(key=lambda found: (found[0], found[1].line))
            raise ConfigProblems([problem for _, problem in self._found])


def _load(layers: Sequence[Layer]) -> list[_Source]:
    """Parse each layer; raises ConfigProblems with the first syntax error of each."""
    sources: list[_Source] = []
    problems: list[Problem] = []
    for layer in layers:
        try:
            sources.append(_Source(layer, _tables(layer)))
        except ConfigProblems as error:
            problems += error.problems
    if problems:
        raise ConfigProblems(problems)
    return sources


def _tables(layer: Layer) -> dict[str, object]:
    for number, line in enumerate(layer.text.split("\n"), 1):
        if line.count(".") > DOTS:
            message = f"more than {DOTS} dots in one line: shorten it"
            raise ConfigProblems([Problem(layer.path, number, "", message)])
    try:
        entries = tomllib.loads(layer.text)
    except RecursionError:
        too_deep = True
    except tomllib.TOMLDecodeError as error:
        raise ConfigProblems([_syntax_error(layer, str(error))]) from None
    except ValueError:  # of int(), which tomllib lets pass
        long = _LONG_NUMBER.search(layer.text)
        at = layer.text.count("\n", 0, long and long.start()) + 1
        message = "a number of more than 4300 digits: shorten it"
        raise ConfigProblems([Problem(layer.path, at, "", message)]) from None
    else:
        too_deep = _is_deeper(entries, DEPTH)
    if too_deep:
        message = f"tables and lists nested more than {DEPTH} deep: flatten them"
        raise ConfigProblems([Problem(layer.path, 1, "", message)])
    return entries


def _syntax_error(layer: Layer, message: str) -> Problem:
    at = _AT_LINE.search(message)
    line = int(at[1]) if at else layer.text.rstrip("\n").count("\n") + 1
    words = _AT_LINE.sub("", message).removesuffix(" (at end of document)")
    return Problem(layer.path, line, "", f"not valid TOML: {words[:1].lower()}{words[1:]}")


def _is_deeper(value: object, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        below: list[object] = []
        for item in level:
            if isinstance(item, dict):
                below += item.values()
            elif isinstance(item, list):
                below += item
        level = below
    return bool(level)


def _extends(sources: list[_Source], findings: _Findings) -> str | None:
    """Return the preset that the strongest layer with an ``extends`` names."""
    for source in reversed(sources):
        if "extends" in source.entries:
            name = source.entries["extends"]
            if isinstance(name, str):
                return name
            findings.report(("extends",), f"expected a string, got {spell(name)}")
            return None
    return None


def _merge(below: Mapping[str, object], above: Mapping[str, object]) -> dict[str, object]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        if isinstance(old, dict) and isinstance(value, dict):
            merged[key] = _merge(old, value)
        else:
            merged[key] = value
    return merged
