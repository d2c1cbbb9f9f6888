"""Plain text in columns, for who reads a table without a terminal."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs `api status` more than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence

SERVICES = ("SERVICE", "STATE", "PID", "SINCE", "PORT", "NOTE")


def plain(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of cells that are safe to print, two spaces between its columns."""
    widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
    lines = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headers, *rows)
    )
    return "".join(f"{line}\n" for line in lines)


def age(seconds: float) -> str:
    """Return a duration in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
