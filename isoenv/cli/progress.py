"""What is going on, for people: live on a terminal, a line each elsewhere."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from isoenv.cli import output, start

if TYPE_CHECKING:
    from collections.abc import Iterator

STDERR = 2


@contextmanager
def doing(text: str) -> Iterator[None]:
    """Show that something is being done for as long as it takes."""
    if not (sys.stderr is not None and os.isatty(STDERR)):
        start.say(text)
        yield
        return
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    with console.status(Text(output.clean(text))):
        yield
