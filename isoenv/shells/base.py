"""What every shell can spell: a word, a set, an unset."""

from __future__ import annotations


class Shell:
    """How one shell spells things: a subclass gives ``quote``, an instance its three patterns.

    Values are str with surrogateescape, so that any bytes survive: write what is returned with
    ``os.fsencode``. A name that is not ``[A-Za-z_][A-Za-z0-9_]*`` and a value with a NUL are a
    ValueError, for no shell can hold them.
    """

    def __init__(self, name: str, *, export: str, assign: str, unset: str) -> None:
        """Take the patterns of a statement: ``{0}`` is the variable's name, ``{1}`` its value."""
        self.name = name
        self._export = export
        self._assign = assign
        self._unset = unset

    def quote(self, value: str) -> str:
        """One word that is exactly this value."""
        raise NotImplementedError

    def export(self, name: str, value: str) -> str:
        """Set a variable that child processes see."""
        return self._export.format(checked_name(name), self.quote(value))

    def assign(self, name: str, value: str) -> str:
        """Set a variable that child processes do not see, even if they saw it before."""
        return self._assign.format(checked_name(name), self.quote(value))

    def unset(self, name: str) -> str:
        """Remove a variable; it is no error that there is none."""
        return self._unset.format(checked_name(name))


def checked_name(name: str) -> str:
    """Return the name of a variable, or raise ValueError if it is none."""
    if name.isascii() and name.isidentifier():
        return name
    raise ValueError(f"not the name of a variable: {name!r}")


def checked_value(value: str) -> str:
    """Return what an environment can hold, or raise ValueError if it has a NUL."""
    if "\0" not in value:
        return value
    raise ValueError("a value with a NUL, which no environment can hold")
