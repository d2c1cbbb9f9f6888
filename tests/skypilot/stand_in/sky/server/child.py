"""A process below the server's: the queue manager, or an executor of requests.

Its master's death does not end it, and from then on nothing but SIGKILL does.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType

MASTER = os.getppid()


def main(role: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    if role == "executor":
        hide()
        print("ready", flush=True)
        while True:
            time.sleep(60)
    with socket.create_server(("127.0.0.1", int(role))) as queue:
        print("ready", flush=True)
        while True:
            queue.accept()[0].close()


def end(_signal: int, _frame: FrameType | None) -> None:
    if os.getppid() == MASTER:
        sys.exit(0)


def hide() -> None:
    """Overwrite the environment in /proc, as setproctitle does with a long title."""
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    begin, after = int(fields[47]), int(fields[48])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(begin)
        memory.write(bytes(after - begin))


if __name__ == "__main__":
    main(sys.argv[1])
