"""Tables for people and JSON for programs."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Sequence

ENVELOPE_VERSION = 1


def clean(text: str) -> str:
    """Return text that neither moves the cursor nor fails to encode."""
    printable = os.fsencode(text).decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in printable)


def write_json(content: dict[str, object]) -> None:
    """Print a versioned envelope; bytes that are no UTF-8 stay recognisable as escapes."""
    click.echo(json.dumps({"version": ENVELOPE_VERSION, **content}, indent=2, ensure_ascii=True))


def write_table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print with rich on a terminal, in plain columns elsewhere."""
    cells = [[clean(cell) for cell in row] for row in rows]
    if sys.stdout.isatty():
        _write_rich(headers, cells)
        return
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    for row in (headers, *cells):
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def _write_rich(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, overflow="fold")
    for row in rows:
        # Text, not str: a name may hold what rich would take for markup.
        table.add_row(*map(Text, row))
    Console().print(table)


def write_bytes(text: str) -> None:
    """Write text to standard output byte for byte as the environment holds it."""
    sys.stdout.flush()
    sys.stdout.buffer.write(os.fsencode(text))
    sys.stdout.buffer.flush()
