"""What isoenv changed in an environment: to apply it, to record it, to take it back.

The record is the value of ``__ISOENV_UNDO``. Each cell is ended by US, four cells are an entry:
name, kind, old value, new value. RS escapes both inside a cell.

The first character of a kind is what the variable was: ``u`` unset, ``x`` exported, ``s`` set in
the shell alone (its old value is there, in ``__isoenv_old_NAME``). The second is what isoenv did:
``=`` set it, ``-`` unset it. ``p=`` put entries in front of a list like PATH, and ``r=``, always
the first entry, holds the root of the checkout.
"""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs more than all of this
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

RECORD = "__ISOENV_UNDO"
PATH = "PATH"
ROOT_KIND = "r="
PATH_KIND = "p="
KINDS = frozenset(("u=", "u-", "x=", "x-", "s=", "s-", PATH_KIND))
US, ESCAPED_US = "\x1f", "\x1e1"
RS, ESCAPED_RS = "\x1e", "\x1e0"
INTERNAL = "__ISOENV_"
OURS = ("ISOENV_", INTERNAL)
NAMES_SHOWN = 3


class Entry:
    """What one variable was and what isoenv made of it."""

    __slots__ = ("kind", "name", "new", "old")

    def __init__(self, name: str, kind: str, old: str, new: str) -> None:
        """Take the four cells as they are, unescaped."""
        self.name = name
        self.kind = kind
        self.old = old
        self.new = new

    @property
    def cells(self) -> tuple[str, str, str, str]:
        """The four cells in the order of the record."""
        return self.name, self.kind, self.old, self.new

    def __eq__(self, other: object) -> bool:
        """Whether all four cells are equal."""
        return isinstance(other, Entry) and self.cells == other.cells

    def __hash__(self) -> int:
        """Hash the cells."""
        return hash(self.cells)

    def __repr__(self) -> str:
        """Show the cells."""
        return f"Entry{self.cells}"


def dumps(entries: Iterable[Entry]) -> str:
    """Write the record of these entries."""
    return "".join(
        cell.replace(RS, ESCAPED_RS).replace(US, ESCAPED_US) + US
        for entry in entries
        for cell in entry.cells
    )


def loads(record: str) -> tuple[Entry, ...]:
    """Read a record, or raise ValueError if it is not one that ``dumps`` could have written."""
    *cells, rest = record.split(US)
    if rest or not cells or len(cells) % 4 or "\0" in record:
        raise ValueError(f"the undo record is cut off: {len(cells)} cells")
    if record.count(RS) != record.count(ESCAPED_RS) + record.count(ESCAPED_US):
        raise ValueError("an unknown escape in the undo record")
    # In this order: the other way round, an escaped RS before a "1" would look like an escaped US.
    plain = [cell.replace(ESCAPED_US, US).replace(ESCAPED_RS, RS) for cell in cells]
    entries = tuple(Entry(*plain[at : at + 4]) for at in range(0, len(plain), 4))
    for index, entry in enumerate(entries):
        if not (is_valid(entry) if index else is_root(entry)):
            # Without the values: they may be somebody's password.
            raise ValueError(f"entry {index} of the undo record is wrong: {entry.cells[:2]}")
    return entries


def is_root(entry: Entry) -> bool:
    """Whether this can be the first entry of a record."""
    return entry.cells[:3] == ("", ROOT_KIND, "")


def is_valid(entry: Entry) -> bool:
    """Whether this can be any other entry of a record."""
    name, kind, old, new = entry.cells
    return (
        name.isascii()
        and name.isidentifier()
        and kind in KINDS
        and (kind[0] == "x" or not old)
        and (kind[1] == "=" or not new)
    )


def root_of(entries: tuple[Entry, ...]) -> str:
    """Return the root of the checkout that these entries were computed for."""
    return entries[0].new


def apply(
    environ: Mapping[str, str],
    variables: Mapping[str, str | None],
    path_prepend: tuple[str, ...],
    root: str,
) -> dict[str, str]:
    """Return the environment with the set applied, None unsets, and its record in it.

    ``environ`` is one without a record: ``revert`` comes first.
    """
    after = dict(environ)
    entries = [Entry("", ROOT_KIND, "", root)]
    for name, value in variables.items():
        was = "x" if name in environ else "u"
        done = "-" if value is None else "="
        entries.append(Entry(name, was + done, environ.get(name, ""), value or ""))
        put(after, name, value)
    if path_prepend:
        entries.append(Entry(PATH, PATH_KIND, "", ":".join(path_prepend)))
        after[PATH] = ":".join((*path_prepend, *split_path(after.get(PATH))))
    after[RECORD] = dumps(entries)
    return after


def revert(
    environ: Mapping[str, str], entries: Iterable[Entry]
) -> tuple[dict[str, str], list[str]]:
    """Return the environment before isoenv, and the names whose value is the user's by now.

    A variable is put back only if it still holds what isoenv made of it. The internal ones are
    put back whatever they hold.
    """
    before = {name: value for name, value in environ.items() if name != RECORD}
    kept: list[str] = []
    for entry in reversed(tuple(entries)):
        name, kind, old, new = entry.cells
        if kind == ROOT_KIND:
            continue
        if kind == PATH_KIND:
            put(before, name, without(before.get(name), new))
        elif before.get(name) == (new if kind[1] == "=" else None) or name.startswith(INTERNAL):
            put(before, name, old if kind[0] == "x" else None)
        else:
            kept.append(name)
    return before, kept[::-1]


def own(environ: Mapping[str, str], name: str) -> str | None:
    """Return what a variable is without isoenv; None where it is not set."""
    value, record = environ.get(name), environ.get(RECORD)
    if not record or f"{US}{name}{US}" not in record:
        return value
    try:
        return revert(environ, loads(record))[0].get(name)
    except ValueError:
        return value


def put(environ: dict[str, str], name: str, value: str | None) -> None:
    """Set a variable, or unset it."""
    if value is None:
        environ.pop(name, None)
    else:
        environ[name] = value


def split_path(path: str | None) -> list[str]:
    """Return the entries: none of an unset PATH, one empty entry of an empty PATH."""
    return [] if path is None else path.split(":")


def without(path: str | None, prepended: str) -> str | None:
    """Take each of the prepended entries out once, wherever it is; None if none is left."""
    entries = split_path(path)
    for entry in prepended.split(":"):
        if entry in entries:
            entries.remove(entry)
    return ":".join(entries) if entries else None


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """Return what a shell must set, or unset (None), to get from one environment to the other.

    By name, but a shell that fails in the middle must be able to undo the first half: the record
    is set before all else, and unset after it.
    """
    to_set = [name for name, value in after.items() if before.get(name) != value]
    to_unset = [name for name in before if name not in after]
    to_set.sort(key=lambda name: (name != RECORD, name))
    to_unset.sort(key=lambda name: (name == RECORD, name))
    return [*((name, after[name]) for name in to_set), *((name, None) for name in to_unset)]


def diff(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return every change by name, ``+FOO ~PATH -BAR``, but for the variables of isoenv itself."""
    added, changed, removed = sort_changes(before, after)
    signed = ("+", added), ("~", changed), ("-", removed)
    return " ".join(sign + name for sign, names in signed for name in names)


def summary(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return ``(+14 ~PATH -FOO)``: new ones counted, others by name if few; empty if none."""
    added, changed, removed = sort_changes(before, after)
    words = [f"+{len(added)}"] if added else []
    for sign, names in (("~", changed), ("-", removed)):
        shown = names if len(names) <= NAMES_SHOWN else [str(len(names))]
        words += [sign + name for name in shown]
    return f"({' '.join(words)})" if words else ""


def sort_changes(
    before: Mapping[str, str], after: Mapping[str, str]
) -> tuple[list[str], list[str], list[str]]:
    """Return the names that were added, changed and removed, without those of isoenv itself."""
    added: list[str] = []
    changed: list[str] = []
    removed: list[str] = []
    for name, value in changes(before, after):
        if not name.startswith(OURS):
            (removed if value is None else changed if name in before else added).append(name)
    return added, changed, removed
