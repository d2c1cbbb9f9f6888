"""Hosts of the tests' own: by their names alone, or as network namespaces of one kernel."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from servers import Postgres, binaries, make_postgres, start_postgres, stop

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Process = subprocess.Popen[str]

ROOT = Path(__file__).resolve().parents[1]

# A tenth of the times after which a lost connection is noticed, so that tests need not wait a
# minute: the server gives a silent holder up after 8 s, the holder itself after 5.
_START = """
import os, sys
from isoenv import liveness
host, what, *sys.argv[1:] = sys.argv[1:]
if host:
    liveness.hostname = lambda: host
from isoenv.coordination import host_lines, lock_ending, lock_watcher
from isoenv.coordination.store import postgres_line
postgres_line.GIVEN_UP, postgres_line.ANSWER = 8, 0.5
postgres_line._SETTINGS["tcp_keepalives_interval"] = "1"
lock_watcher.INTERVAL, lock_watcher.LISTENING, lock_watcher.ATTEMPT = 0.5, 0.2, 2.0
host_lines.RECOVERY, lock_ending.GRACE = float(os.environ.get("TEST_RECOVERY", "1")), 0.5
if what == "isoenv":
    from isoenv.__main__ import main
    main()
else:
    exec(what)
"""


@dataclass
class Host:
    """A host with a name and a state directory of its own."""

    name: str
    state: Path
    within: tuple[str, ...] = ()
    # Its end of the cable, and how to reach that: None where there is none.
    is_cabled: bool = False
    started: list[Process] = field(default_factory=list)

    def isoenv(self, *words: str, **env: str) -> Process:
        """Start a command."""
        return self._start("isoenv", *words, **env)

    def python(self, code: str, *words: str, **env: str) -> Process:
        """Start a Python."""
        return self._start(code, *words, **env)

    def say(self, *words: str, **env: str) -> tuple[int, str, str]:
        """Run a command; return its status and what it has printed."""
        process = self.isoenv(*words, **env)
        stdout, stderr = process.communicate()
        return process.returncode, stdout, stderr

    def _start(self, what: str, *words: str, **env: str) -> Process:
        name = "" if self.within else self.name
        process = subprocess.Popen(
            [*self.within, sys.executable, "-c", _START, name, what, *words],
            cwd=self.state.parent,
            env={
                **os.environ,
                "PYTHONPATH": str(ROOT),
                "ISOENV_STATE_DIR": str(self.state),
                **env,
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        """End all that it has started, with their groups."""
        for process in self.started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@dataclass
class Hosts:
    """Two hosts, and the server of the store that both have."""

    a: Host
    b: Host
    server: Postgres
    database: str

    def ask(self, statement: str) -> list[tuple[object, ...]]:
        """Ask the server, past isoenv."""
        return self.server.ask(statement, self.database)


class Network:
    """Three network namespaces, of a server and of two hosts with a cable to it each."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.processes = [
            subprocess.Popen(["unshare", "--net", "--uts", "sleep", "infinity"]) for _ in range(3)
        ]
        self.server: subprocess.Popen[bytes] | None = None

    def wire(self) -> None:
        """Name the hosts and lay the cables; CalledProcessError where that is not allowed."""
        for number, process in enumerate(self.processes):
            # Until it has namespaces of its own.
            while (
                os.stat(f"/proc/{process.pid}/ns/uts").st_ino == os.stat("/proc/self/ns/uts").st_ino
            ):
                if process.poll() is not None:
                    raise subprocess.CalledProcessError(process.returncode, "unshare")
            run([*self.within(number), "hostname", ("server", "host-a", "host-b")[number]])
            run([*self.within(number), "ip", "link", "set", "lo", "up"])
        for number in (1, 2):
            pid = str(self.processes[number].pid)
            cable = ["link", "add", f"cable{number}", "type", "veth", "peer", "eth0", "netns", pid]
            here, there = self.within(0), self.within(number)
            run([*here, "ip", *cable])
            run([*here, "ip", "address", "add", f"10.77.{number}.1/24", "dev", f"cable{number}"])
            run([*here, "ip", "link", "set", f"cable{number}", "up"])
            run([*there, "ip", "address", "add", f"10.77.{number}.2/24", "dev", "eth0"])
            run([*there, "ip", "link", "set", "eth0", "up"])

    def within(self, number: int) -> tuple[str, ...]:
        """Return what a command begins with that runs there."""
        return ("nsenter", "-t", str(self.processes[number].pid), "--net", "--uts", "--")

    def serve(self, free_port: Callable[[], int]) -> Postgres:
        """Start a server."""
        make_postgres(self.directory)
        with open(f"{self.directory}/data/postgresql.conf", "a", encoding="utf-8") as config:
            config.write("listen_addresses = '*'\n")
        with open(f"{self.directory}/data/pg_hba.conf", "a", encoding="utf-8") as access:
            access.write("host all all 10.77.0.0/16 trust\n")
        port, self.server = start_postgres(self.directory, free_port, self.within(0))
        return Postgres(port, self.directory)

    def cut(self, number: int) -> None:
        """Pull a host's cable."""
        run([*self.within(0), "ip", "link", "set", f"cable{number}", "down"])

    def mend(self, number: int) -> None:
        """Plug it in again."""
        run([*self.within(0), "ip", "link", "set", f"cable{number}", "up"])

    def end(self) -> None:
        """End the server, and the namespaces with their cables."""
        if self.server:
            stop(self.server)
        for process in self.processes:
            process.kill()
            process.wait()


def run(argv: list[str]) -> None:
    """Run a command, which must succeed."""
    subprocess.run(argv, check=True, capture_output=True)


@pytest.fixture(scope="module")
def network(free_port: Callable[[], int]) -> Iterator[tuple[Network, Postgres]]:
    """Namespaces with a server in one of them; where they are not allowed, that is said."""
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    if binaries() is None:
        missing("PostgreSQL is not installed")
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        found = Network(directory)
        try:
            try:
                found.wire()
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", None) or str(error).encode()
                missing(f"this user may have no network namespaces: {said.decode().strip()}")
            yield found, found.serve(free_port)
        finally:
            found.end()


@pytest.fixture(params=["names", "namespaces"])
def hosts(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hosts]:
    """Two hosts: by their names alone, which any machine can have, and as namespaces."""
    states = [tmp_path / name / "state" for name in ("a", "b")]
    for state in states:
        state.parent.mkdir()
    if request.param == "names":
        postgres = request.getfixturevalue("postgres")
        monkeypatch.setenv("ISOENV_STORE", request.getfixturevalue("postgres_database"))
        one, other = Host("host-a", states[0]), Host("host-b", states[1])
        found = Hosts(one, other, postgres, "shared")
    else:
        network, server = request.getfixturevalue("network")
        server.ask("DROP SCHEMA IF EXISTS isoenv CASCADE")
        one, other = (
            Host(f"host-{letter}", states[number - 1], network.within(number), is_cabled=True)
            for number, letter in ((1, "a"), (2, "b"))
        )
        found = Hosts(one, other, server, "postgres")
        # Each host has another address of the server's.
        for number, host in ((1, one), (2, other)):
            address = f"postgresql://postgres@10.77.{number}.1:{server.port}/postgres"
            host.within = (*host.within, "env", f"ISOENV_STORE={address}")
    yield found
    for host in (found.a, found.b):
        host.end()


def records(text: str) -> list[dict[str, object]]:
    """Return the locks of `lock list --json`."""
    locks: list[dict[str, object]] = json.loads(text)["locks"]
    return locks
