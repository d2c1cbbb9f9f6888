"""For whom something is done to a database: where it is put on record, how long, who is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Desk:
    """The state directory, the key of the project, and a deadline on the monotonic clock.

    ``say`` gets each line that the user should read.
    """

    state: str
    project: str
    deadline: float
    say: Callable[[str], None]
