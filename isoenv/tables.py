"""A TOML table that is read key by key: what is wrong is reported, and reading goes on."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from isoenv import template

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Option = TypeVar("Option")

# The fields that a template may use at its place: None, or why one cannot be used there.
Fields = dict[str, str | None]

BARE = re.compile(r"[A-Za-z0-9_-]+")
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
# How much of a value a message shows: characters, items, and what is too large a number.
SHOWN, ITEMS, ENORMOUS = 60, 3, 10**18


class Table:
    """The entries at ``path``; ``report`` takes the path of a key and what is wrong with it."""

    def __init__(
        self,
        path: tuple[str, ...],
        entries: Mapping[str, object],
        report: Callable[[tuple[str, ...], str], None],
    ) -> None:
        """Wrap the entries as tomllib returns them."""
        self.path = path
        self.entries = entries
        self._report = report

    def report(self, key: str, message: str) -> None:
        """Report what is wrong with a key of this table."""
        self._report((*self.path, key), message)

    def report_unknown(self, *known: str) -> None:
        """Report every key that is none of these."""
        for key in self.entries:
            if key not in known:
                rest = did_you_mean(key, known) or f"expected {spell_or(known)}"
                self.report(key, f"unknown key: {rest}")

    def table(self, key: str, expected: str = "a table") -> Table:
        """Return the table at a key; an empty one if there is none."""
        value = self.entries.get(key, {})
        if not isinstance(value, dict):
            self.report(key, f"expected {expected}, got {spell(value)}")
            value = {}
        return Table((*self.path, key), value, self._report)

    def text(self, key: str, *, empty: bool = False) -> str | None:
        """Return a string, or None; ``empty`` allows the empty one."""
        if key in self.entries:
            return self.check_text(key, self.entries[key], "a string", empty=empty)
        return None

    def check_text(
        self, key: str, value: object, expected: str, *, empty: bool = False
    ) -> str | None:
        """Return ``value`` if it is a string that the system can hold."""
        if not isinstance(value, str):
            self.report(key, f"expected {expected}, got {spell(value)}")
        elif "\0" in value:
            self.report(key, f"NUL in {spell(value)}: no variable and no path can hold it")
        elif not value and not empty:
            self.report(key, f"expected {expected}, got an empty one")
        else:
            return value
        return None

    def texts(self, key: str, *, empty: bool = False) -> tuple[str, ...]:
        """Return a list of strings; ``empty`` allows empty ones."""
        value = self.entries.get(key, [])
        if not isinstance(value, list):
            self.report(key, f"expected a list of strings, got {spell(value)}")
            return ()
        expected = "a list of strings"
        checked = (self.check_text(key, item, expected, empty=empty) for item in value)
        return tuple(item for item in checked if item is not None)

    def integer(self, key: str, low: int, high: int | None, default: int) -> int:
        """Return an integer of at least ``low`` and, unless it is None, at most ``high``."""
        value = self.entries.get(key, default)
        if type(value) is int and low <= value and (high is None or value <= high):
            return value
        limits = f"of at least {low}" if high is None else f"from {low} to {high}"
        self.report(key, f"expected an integer {limits}, got {spell(value)}")
        return default

    def boolean(self, key: str, *, default: bool = False) -> bool:
        """Return true or false."""
        value = self.entries.get(key, default)
        if isinstance(value, bool):
            return value
        self.report(key, f"expected true or false, got {spell(value)}")
        return default

    def choice(self, key: str, options: tuple[Option, ...], default: Option) -> Option:
        """Return one of a few values."""
        value = self.entries.get(key, default)
        for option in options:
            # Of the same type too: False == 0.
            if type(value) is type(option) and value == option:
                return option
        self.report(key, f"expected {' or '.join(map(spell, options))}, got {spell(value)}")
        return default

    def check_name(self, key: str) -> None:
        """Report a key that cannot be typed as one plain word."""
        if not NAME.fullmatch(key):
            self.report(key, f"expected a name that matches `{NAME.pattern}`")

    def check_inside(self, key: str, path: str) -> None:
        """Report a path that leads out of the checkout, or to the checkout itself."""
        parts = path.split("/")
        if path.startswith("/") or ".." in parts or not set(parts) - {"", "."}:
            expected = "a path inside the checkout, without `..`"
            self.report(key, f"expected {expected}, got {spell(path)}")

    def check_path(self, key: str, text: str, fields: Fields) -> None:
        """Report what is wrong with the template of a path."""
        if text == "~" or text.startswith("~/"):
            self.report(key, f"`~` is not expanded: {quote(f'{{home}}{text[1:]}')}")
        self.check_template(key, text, fields)

    def check_template(self, key: str, text: str, fields: Fields) -> None:
        """Report braces that do not match, and fields that cannot be used here."""
        try:
            used = dict.fromkeys(template.fields(text))
        except ValueError as error:
            self.report(key, str(error))
            return
        for field in used:
            if field not in fields:
                hint = _field_hint(field, fields)
                self.report(key, f"no field {quote(f'{{{field}}}')} here: {hint}")
            elif reason := fields[field]:
                self.report(key, f"{quote(f'{{{field}}}')} {reason}")


def spell(value: object) -> str:
    """Spell a value as TOML does, on one line and cut to a readable length."""
    if isinstance(value, dict):
        return "a table"
    if isinstance(value, list):
        flat = len(value) <= ITEMS and not any(isinstance(item, (list, dict)) for item in value)
        return f"[{', '.join(map(spell, value))}]" if flat else "a list"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and abs(value) >= ENORMOUS:
        return "an enormous number"  # Python refuses to print very long ones.
    if isinstance(value, str):
        import json

        cut = value if len(value) <= SHOWN else f"{value[: SHOWN - 1]}…"
        return json.dumps(cut, ensure_ascii=not cut.isprintable())
    return str(value)


def quote(word: str) -> str:
    """Put a word in backticks, if it reads well there."""
    return f"`{word}`" if word.isprintable() and len(word) <= SHOWN else spell(word)


def dotted(path: Iterable[str]) -> str:
    """Spell a key path as TOML does, each key cut to a readable length."""
    return ".".join(
        key if BARE.fullmatch(key) and len(key) <= SHOWN else spell(key) for key in path
    )


def spell_or(words: Iterable[str]) -> str:
    """Spell a choice of words: ```a`, `b` or `c```."""
    *most, last = map(quote, words)
    return f"{', '.join(most)} or {last}" if most else last


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """Ask for the option that is most like a word, if one is."""
    close = nearest(word, options)
    return "" if close is None else f"did you mean {quote(close)}?"


def nearest(word: str, options: Iterable[str]) -> str | None:
    """Return the option that is most like a word, if one is."""
    import difflib

    return next(iter(difflib.get_close_matches(word, list(options), 1)), None)


def _field_hint(field: str, fields: Fields) -> str:
    usable = [name for name, reason in fields.items() if reason is None]
    close = nearest(field, usable)
    if close is not None:
        return f"did you mean {quote(f'{{{close}}}')}?"
    kinds = dict.fromkeys(re.sub(r"\..*", ".NAME", name) for name in usable)
    return f"expected {spell_or(f'{{{kind}}}' for kind in kinds)}, and `{{{{` for a plain brace"
