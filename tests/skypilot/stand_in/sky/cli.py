"""The command `sky`: `sky api …` as SkyPilot has it; all else prints what it was called with."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from sky import __version__
from sky.server import common
from sky.skylet import constants
from sky.utils import common_utils

SERVER = "-m sky.server.server"


def main() -> None:
    require_config()
    arguments = sys.argv[1:]
    if arguments == ["--version"]:
        print(f"skypilot, version {__version__}")
    elif arguments[:2] == ["api", "start"]:
        start(foreground="--foreground" in arguments)
    elif arguments == ["api", "stop"]:
        stop()
    else:
        ask(arguments)


def require_config() -> None:
    config = os.environ.get("SKYPILOT_GLOBAL_CONFIG")
    if config and not Path(config).exists():
        raise FileNotFoundError(config)


def start(*, foreground: bool) -> None:
    if not common.is_local():
        sys.exit(f"ValueError: Unable to start local API server: endpoint is {common.url()}")
    if common.is_healthy():
        # Whoever's it is.
        print("API server is already running:", common.url())
        return
    if os.environ.get("SKYPILOT_DISABLE_LOCAL_API_SERVER", "").lower() in ("1", "true"):
        sys.exit("RuntimeError: starting a local API server on this machine is disabled")
    command = [sys.executable, *SERVER.split(), "--host=127.0.0.1"]
    if constants.LOCAL_PORT:
        command.append(f"--port={common.port()}")
    if foreground:
        os.execv(command[0], command)  # noqa: S606  # as the real one
    with (common.state() / "server.log").open("w") as log:
        subprocess.Popen(command, start_new_session=True, stdout=log, stderr=log)
    while not common.is_healthy():
        time.sleep(0.05)


def stop() -> None:
    """Kill the server on this port, or before 0.14 the first there is, whoever's it is."""
    if not common.is_local():
        sys.exit(f"RuntimeError: Cannot kill the API server at {common.url()}")
    for pid, command in processes():
        found = re.search(r"--port[= ](\d+)", command)
        port = int(found[1]) if found else common.DEFAULT_PORT
        if SERVER in command and (constants.LOCAL_PORT is None or port == common.port()):
            for each in (pid, *children(pid)):
                os.kill(each, signal.SIGKILL)
            print("SkyPilot API server stopped.")
            return
    print("SkyPilot API server is not running.")


def processes() -> list[tuple[int, str]]:
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        # The real one looks at everybody's; no test may end another test's.
        if command.startswith(sys.executable):
            found.append((int(directory.name), command))
    return sorted(found)


def children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def ask(arguments: list[str]) -> None:
    """Any command starts a server where none answers at a local address."""
    if not common.is_healthy() and common.is_local():
        start(foreground=False)
    answered = {}
    if common.is_healthy():
        body = json.dumps({"user": common_utils.user_hash(), "arguments": arguments}).encode()
        request = urllib.request.Request(f"{common.url()}/requests", body)  # noqa: S310  # local
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # likewise
            answered = json.load(answer)
    seen = {"arguments": arguments, "environment": dict(os.environ), "server": answered}
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
