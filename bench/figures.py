"""Samples, their medians, and tables of them that people read as text and as Markdown."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NOTHING = "–"


@dataclass(frozen=True)
class Figure:
    """The middle of some samples, in seconds, and what the best tenth of them stays under."""

    median: float
    p10: float

    def __str__(self) -> str:
        """Return both, the second in brackets."""
        return f"{duration(self.median)} ({duration(self.p10)})"


@dataclass
class Table:
    """A table with what is measured above it."""

    title: str
    note: str
    header: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    # So many of the first cells say what a row is about.
    labels: int = 1

    def __str__(self) -> str:
        """Return it as Markdown, aligned for people."""
        if not self.header:
            return f"## {self.title}\n\n{self.note}\n"
        lines = [list(self.header), *(list(row) for row in self.rows)]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.header))]
        text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
        text.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
        return "\n".join([f"## {self.title}", "", self.note, "", *text, ""])


def interleave(
    names: Iterable[str], measure: Callable[[str], float], rounds: int
) -> dict[str, list[float]]:
    """Take a sample of each in turn, A B C A B C …, so that all see the same machine."""
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name, taken in samples.items():
            taken.append(measure(name))
    return samples


def figure(samples: Sequence[float]) -> Figure:
    """Return the figure of some samples."""
    ordered = sorted(samples)
    return Figure(statistics.median(ordered), ordered[len(ordered) // 10])


def added(samples: Sequence[float], plain: Sequence[float]) -> Figure:
    """Return what comes on top of a plain run, pair by pair of the same round."""
    median = statistics.median(one - other for one, other in zip(samples, plain, strict=True))
    # The best tenth of differences would be the worst of the plain runs.
    return Figure(median, figure(samples).p10 - figure(plain).p10)


def duration(seconds: float) -> str:
    """Return a time in the unit that leaves two or three digits in front."""
    microseconds = seconds * 1e6
    if abs(microseconds) < 1000:  # noqa: PLR2004  # the next unit
        return f"{microseconds:.1f} µs" if abs(microseconds) < 10 else f"{microseconds:.0f} µs"  # noqa: PLR2004  # likewise
    if abs(seconds) < 1:
        return f"{seconds * 1e3:.1f} ms" if abs(seconds) < 0.1 else f"{seconds * 1e3:.0f} ms"  # noqa: PLR2004  # likewise
    return f"{seconds:.2f} s"


def times(one: Figure | None, other: Figure | None) -> str:
    """Return how many times as long the one takes."""
    if one is None or other is None or other.median <= 0:
        return NOTHING
    ratio = one.median / other.median
    return f"{ratio:.0f}×" if ratio >= 10 else f"{ratio:.2g}×"  # noqa: PLR2004  # digits


def verdict(one: Figure | None, other: Figure | None, at_least: float) -> str:
    """Return whether the one takes at least so many times as long as the other."""
    if one is None or other is None:
        return NOTHING
    return judged(f"≥ {at_least:g}×", good=one.median >= at_least * other.median)


def judged(goal: str, *, good: bool) -> str:
    """Return a goal with the word for it."""
    return f"{goal}: {'meets' if good else 'misses'}"


def text(found: Figure | None) -> str:
    """Return a figure, or a dash where there is none."""
    return str(found) if found else NOTHING
