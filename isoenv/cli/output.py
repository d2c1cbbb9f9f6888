"""Tables for people and JSON for programs, on standard output."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from isoenv import columns, envdiff, files
from isoenv.errors import IsoenvError
from isoenv.shells import DOTENV

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from isoenv.shells import Shell

ENVELOPE_VERSION = 1
STDOUT = 1
# The longest word that is in one line of a table, in characters.
WHOLE = 24


def write(text: str) -> None:
    """Write text to standard output, byte for byte as the environment holds it."""
    write_bytes(os.fsencode(text))


def write_bytes(content: bytes) -> None:
    """Write bytes to standard output as they are."""
    if sys.stdout is None:
        raise IsoenvError("cannot write to standard output: it is closed")
    # Unbuffered: what a full disk refuses must not be tried again when Python ends.
    rest = memoryview(content)
    try:
        while rest:
            rest = rest[os.write(STDOUT, rest) :]
    except BrokenPipeError:
        raise
    except OSError as error:
        raise IsoenvError(f"cannot write to standard output: {files.reason(error)}") from None


def write_statements(shell: Shell, changed: Iterable[tuple[str, str | None]]) -> None:
    """Print what sets each variable, or unsets it for None."""
    # With a semicolon an `eval $(…)` without quotes is right too.
    end = "\n" if shell is DOTENV else ";\n"
    write(
        "".join(
            (shell.unset(name) if value is None else shell.export(name, value)) + end
            for name, value in changed
        )
    )


def plain_changes(
    variables: Mapping[str, str | None], path_prepend: Sequence[str]
) -> list[tuple[str, str | None]]:
    """Return all variables, and PATH with the entries in front of the caller's own, once."""
    changed = list(variables.items())
    if path_prepend:
        own = envdiff.split_path(os.environ.get(envdiff.PATH))
        rest = (entry for entry in own if entry not in path_prepend)
        changed.append((envdiff.PATH, ":".join((*path_prepend, *rest))))
    return changed


def write_json(content: dict[str, object]) -> None:
    """Print a versioned envelope; bytes that are no UTF-8 stay recognisable as escapes."""
    import json

    write(json.dumps({"version": ENVELOPE_VERSION, **content}, indent=2) + "\n")


def write_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print with rich on a terminal, in plain columns elsewhere."""
    cells = [[clean(cell) for cell in row] for row in rows]
    write(_rich(headers, cells) if is_terminal() else columns.plain(headers, cells))


def is_terminal() -> bool:
    """Whether a person reads standard output."""
    return sys.stdout is not None and os.isatty(STDOUT)


def clean(text: str) -> str:
    """Return text that neither moves the cursor nor fails to encode."""
    if text.isprintable():
        return text
    printable = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable)


def _rich(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for index, header in enumerate(headers):
        # A port that is cut in two reads as another one. Paths and addresses are too long.
        words = (len(word) for row in rows for word in row[index].split())
        widest = max((width for width in words if width <= WHOLE), default=0)
        table.add_column(header, overflow="fold", min_width=widest)
    for row in rows:
        # Text, not str: a name may hold what rich would take for markup.
        table.add_row(*map(Text, row))
    console = Console()
    with console.capture() as captured:
        console.print(table)
    return captured.get()
