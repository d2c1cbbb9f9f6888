"""The API server, started as `python -m sky.server.server --host=… --port=…`."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from sky import __version__
from sky.server import common
from sky.server.requests.queues import mp_queue
from sky.skylet import constants
from sky.utils import common_utils

if TYPE_CHECKING:
    from types import FrameType

HEALTH = {"status": "healthy", "api_version": "62", "version": __version__}
# Seconds between SIGTERM and the end of the master alone.
SHUTDOWN = 0.3


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.answer(HEALTH if self.path == "/api/health" else {"file": __file__})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        with (common.state() / "requests").open("a") as requests:
            requests.write(f"{body}\n")
        self.answer({"user": common_utils.user_hash(), "home": os.environ["HOME"]})

    def answer(self, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", default=common.DEFAULT_PORT, type=int)
    given = parser.parse_args()
    keep_user_hash()
    # A server of the fork, for one machine, has no queue in a process of its own.
    queue = [str(mp_queue.port())] if constants.LOCAL_PORT else []
    for role in (*queue, "executor", "executor"):
        start_child(role)
    ThreadingHTTPServer.allow_reuse_address = True
    server = ThreadingHTTPServer((given.host, given.port), Handler)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, end)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"Uvicorn running on http://{given.host}:{given.port}", flush=True)
    print("environment", json.dumps(dict(os.environ)), flush=True)
    while True:
        time.sleep(60)


def keep_user_hash() -> None:
    """The database has the last word, and the home's file is written at every start."""
    kept = common.state() / "server_user_hash"
    if not kept.exists():
        kept.write_text(common_utils.user_hash())
    common_utils.write_user_hash(kept.read_text())


def start_child(role: str) -> None:
    command = [sys.executable, "-m", "sky.server.child", role]
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert child.stdout is not None
    if not child.stdout.readline():
        sys.exit(f"RuntimeError: port {role} is already in use by another process")


def end(_signal: int, _frame: FrameType | None) -> None:
    time.sleep(SHUTDOWN)
    os._exit(0)


if __name__ == "__main__":
    main()
