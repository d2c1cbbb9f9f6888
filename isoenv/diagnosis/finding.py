"""What an examination finds: what is wrong, the evidence, the remedy, and perhaps a repair."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.models import Lease
    from isoenv.ports import Holder

FIX = "`isoenv doctor --fix`"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, or with ``harmless`` something to know; ``kind`` is stable for programs.

    ``file`` with ``line``, ``port`` and ``holder`` are the evidence, where it is of that sort.
    ``repair`` puts right what can be put right safely, and returns what it did; it raises
    IsoenvError or OSError when it cannot.
    """

    kind: str
    message: str
    remedy: str
    harmless: bool = False
    file: str | None = None
    line: int | None = None
    port: int | None = None
    holder: Holder | None = None
    repair: Callable[[], str] | None = field(default=None, compare=False, repr=False)

    def described(self) -> dict[str, object]:
        """Return what JSON says of it."""
        return {
            "kind": self.kind,
            "message": self.message,
            "remedy": self.remedy,
            "harmless": self.harmless,
            "file": self.file,
            "line": self.line,
            "port": self.port,
            "holder": asdict(self.holder) if self.holder else None,
            "fixable": self.repair is not None,
        }


def title(lease: Lease) -> str:
    """Return what people call an instance: "shop/2 feature"."""
    return f"{lease.project.name}/{lease.slot} {lease.name}"


def several(number: int, noun: str) -> str:
    """Return "1 file" or "3 files"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
