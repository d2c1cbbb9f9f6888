"""The parts of services by themselves: order, health, logs, members, plans."""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import pytest

from isoenv import process, scripts
from isoenv.errors import BusyError, NotFoundError
from isoenv.models import Service
from isoenv.services import (
    commands,
    health,
    locks,
    logs,
    members,
    order,
    plans,
    record,
    starting,
    states,
    stopping,
)
from isoenv.services.failure import CancelledError, ServiceError, describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    WaitFor = Callable[[Callable[[], object]], Any]

# --- order

SERVICES = {
    "api": Service("api", run="a", requires=("infra", "queue")),
    "queue": Service("queue", run="b"),
    "worker": Service("worker", run="c", requires=("api",)),
    "infra": Service("infra", start="d", stop="e"),
}


def test_the_order_is_that_of_the_file_after_what_is_required() -> None:
    assert order.starting(SERVICES, ()) == ["queue", "infra", "api", "worker"]
    assert order.starting(SERVICES, ["api"]) == ["queue", "infra", "api"]
    assert order.starting(SERVICES, ["infra", "queue"]) == ["queue", "infra"]
    assert order.stopping(SERVICES, ()) == ["worker", "api", "infra", "queue"]
    assert order.stopping(SERVICES, ["queue", "api"]) == ["api", "queue"]
    assert order.named(SERVICES, ["infra", "api"]) == ["api", "infra"]


def test_a_service_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(NotFoundError, match=r"no service web: isoenv.toml has api, queue"):
        order.starting(SERVICES, ["web"])


# --- health


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("tcp:5432", ("tcp", "localhost", 5432, "/", True)),
        ("http://127.0.0.1:80/health?a=/b#c", ("http", "127.0.0.1", 80, "/health?a=/b", True)),
        ("http://localhost", ("http", "localhost", 80, "/", True)),
        ("https://me:pw@[::1]:8443?x", ("https", "::1", 8443, "/?x", True)),
        ("https://example.org/", ("https", "example.org", 443, "/", False)),
    ],
)
def test_a_health_is_taken_apart(text: str, parts: tuple[object, ...]) -> None:
    found = health.Target(text)
    assert (found.scheme, found.host, found.port, found.path, found.is_local) == parts


class Answering:
    """A server that gives each connection the same bytes, after a pause, and keeps the requests."""

    def __init__(self, answer: bytes, pause: float, context: ssl.SSLContext | None) -> None:
        self.answer, self.pause, self.context = answer, pause, context
        self.asked: list[bytes] = []
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        while True:
            # Who asks may have gone, and at the end the server is closed.
            with suppress(OSError):
                connection, _ = self.socket.accept()
                with connection:
                    self.talk(connection)
                continue
            if self.socket.fileno() < 0:
                return

    def talk(self, connection: socket.socket) -> None:
        connection.settimeout(60)
        if self.context is None:
            self.reply(connection)
            return
        with self.context.wrap_socket(connection, server_side=True) as stream:
            self.reply(stream)

    def reply(self, stream: socket.socket) -> None:
        self.asked.append(stream.recv(4096))
        time.sleep(self.pause)
        for start in range(0, len(self.answer), 7):
            stream.sendall(self.answer[start : start + 7])

    def close(self) -> None:
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join()


@pytest.fixture
def answering() -> Iterator[Callable[..., Answering]]:
    """Answer each connection with these bytes."""
    opened: list[Answering] = []

    def answering(
        answer: bytes, pause: float = 0.0, context: ssl.SSLContext | None = None
    ) -> Answering:
        opened.append(Answering(answer, pause, context))
        return opened[-1]

    yield answering
    for server in opened:
        server.close()


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("HTTP/1.1 200 OK", None),
        ("HTTP/1.0 204 No Content", None),
        ("HTTP/1.1 302 Found", None),
        ("HTTP/1.1 399", None),
        ("HTTP/1.1 404 Not Found", "HTTP 404"),
        ("HTTP/1.1 500 Oh", "HTTP 500"),
        ("HTTP/1.1 101 Switching", "HTTP 101"),
        ("SSH-2.0-OpenSSH", "no answer in HTTP"),
        ("", "no answer in HTTP"),
    ],
)
def test_2xx_and_3xx_are_healthy(
    answering: Callable[..., Answering], line: str, problem: str | None
) -> None:
    server = answering(f"{line}\r\n\r\n".encode() if line else b"")
    assert health.check(f"http://127.0.0.1:{server.port}/up?x=1") == problem
    expected = f"GET /up?x=1 HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n"
    assert server.asked[0].startswith(expected.encode())


def test_https_with_a_certificate_of_ones_own_is_asked(
    answering: Callable[..., Answering], tmp_path: Path
) -> None:
    words = "req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=localhost"
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run(["openssl", *words.split(), *files], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = answering(b"HTTP/1.1 200 OK\r\n\r\n", context=context)
    assert health.check(f"https://localhost:{server.port}/") is None


def test_nobody_there_and_a_silent_one_are_told_apart(
    answering: Callable[..., Answering], free_port: Callable[[], int]
) -> None:
    port = free_port()
    assert health.check(f"http://127.0.0.1:{port}/") == "connection refused"
    assert health.check(f"tcp:{port}") == "connection refused"
    silent = answering(b"HTTP/1.1 200 OK\r\n", 1.0).port
    assert health.check(f"http://127.0.0.1:{silent}/", 0.3) == "no answer within 0.3 s"
    assert health.check(f"http://127.0.0.1:{silent}/", 60, lambda: True) is not None
    assert health.check(f"tcp:{silent}") is None


# --- logs


@pytest.mark.parametrize(
    ("content", "lines", "expected"),
    [
        (b"", 3, []),
        (b"a\nb\nc\n", 2, [b"b", b"c"]),
        (b"a\nb\nc", 2, [b"b", b"c"]),
        (b"a\nb\n", 9, [b"a", b"b"]),
        (b"a\n\n\n", 2, [b"", b""]),
        (b"a\nb\n", 0, []),
        (b"a", 0, []),
        (b"x" * 70_000 + b"\n" + b"y" * 70_000 + b"\nz\n", 2, [b"y" * 70_000, b"z"]),
    ],
)
def test_the_last_lines_of_a_log_are_read_from_its_end(
    tmp_path: Path, content: bytes, lines: int, expected: list[bytes]
) -> None:
    (tmp_path / "web.log").write_bytes(content)
    assert logs.tail(str(tmp_path / "web.log"), lines) == expected
    follower = logs.Follower(str(tmp_path / "web.log"), lines)
    assert [*follower.lines(), *follower.rest()] == expected
    follower.close()


def test_a_log_is_followed_from_before_it_exists_and_through_its_rotation(tmp_path: Path) -> None:
    log = tmp_path / "logs/web.log"
    follower = logs.Follower(str(log), 10)
    assert not follower.is_there
    assert list(follower.lines()) == []
    logs.rotate(str(log))
    log.write_bytes(b"one\ntw")
    assert list(follower.lines()) == [b"one"]
    with log.open("ab") as file:
        file.write(b"o\nthree")
    assert list(follower.lines()) == [b"two"]
    logs.rotate(str(log))
    log.write_bytes(b"four\n")
    assert list(follower.lines()) == [b"three", b"four"]
    follower.close()


# --- exits


def test_an_exit_status_is_spelled_with_its_signal() -> None:
    assert describe_exit(3) == "exit status 3"
    assert describe_exit(143) == "exit status 143 (SIGTERM)"
    assert describe_exit(255) == "exit status 255"


@pytest.mark.parametrize("shell", ["dash", "bash --posix", "busybox sh", "ksh", "zsh --emulate sh"])
def test_the_parent_notes_how_its_child_has_ended(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell.split(maxsplit=1)[0]) is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{shell} is not installed")
    words = [*shell.split(), scripts.path("supervise.sh"), str(tmp_path / "exit.a")]
    for code, status in (("exit 7", 7), ("kill -9 $$", 137), ("kill -USR1 $$", 138), ("", 0)):
        (tmp_path / "lock").write_text("this is the lock")
        with (tmp_path / "lock").open() as lock:
            done = subprocess.run(
                [*words, "sh", "-c", f"cat; ls -l /proc/self/fd | wc -l; {code}"],
                stdin=lock,
                capture_output=True,
                check=False,
                text=True,
            )
        # The lock, and no descriptor besides: a line for each of four, and one above them.
        assert done.stdout.split("lock")[0] == "this is the "
        assert int(done.stdout.split("lock")[1]) <= 6
        assert done.stderr == ""
        ended = record.ended(str(tmp_path), "a")
        assert ended is not None
        assert ended[0] == status
        assert ended[1] is not None
        assert ended[1] > 0


def test_a_half_written_exit_is_none_yet(tmp_path: Path) -> None:
    for text, found in (
        ("", None),
        ("3 12.34", None),
        ("3 12.34\n", (3, 12.34)),
        ("3 \n", (3, None)),
        ("x 1\n", None),
    ):
        (tmp_path / "exit.a").write_text(text)
        assert record.ended(str(tmp_path), "a") == found


# --- plans: what another module can ask for beyond the configuration


@pytest.fixture
def plan(tmp_path: Path, free_port: Callable[[], int]) -> Iterator[plans.Plan]:
    """A service of two ports that has a command of its own for its end."""
    port = free_port()
    (tmp_path / "work").mkdir()
    code = (
        "import socket, sys, time\n"
        f"a = socket.create_server(('127.0.0.1', {port}))\n"
        f"b = socket.create_server(('127.0.0.1', int(sys.argv[1])))\n"
        "time.sleep(1000)\n"
    )
    queue = free_port()
    plan = plans.Plan(
        name="api",
        title="api of sky/1",
        place=str(tmp_path / "services/api"),
        directory=str(tmp_path / "work"),
        log=str(tmp_path / "logs/api.log"),
        environ={"PATH": os.environ["PATH"], "SERVER": "1"},
        run=(sys.executable, "-c", code, str(queue)),
        stop=("/bin/sh", "-c", "echo stopping $SERVER; touch stopped"),
        health=f"tcp:{port}",
        ports=(port, queue),
    )
    yield plan
    if found := record.read(plan.place):
        members.end(plan.place, found, 0.0)


def test_a_run_service_may_have_a_command_for_its_end(plan: plans.Plan, tmp_path: Path) -> None:
    starting.start(plan, "")
    assert stopping.stop([plan], "a") == []
    assert (tmp_path / "work/stopped").exists()
    assert logs.tail(plan.log, 9) == [b"stopping 1"]
    (tmp_path / "work/stopped").unlink()
    assert stopping.stop([plan], "b") == []
    assert not (tmp_path / "work/stopped").exists()


@pytest.mark.parametrize("command", [("sleep", "1000"), ("/nonexistent/command",)])
def test_a_command_that_does_not_end_it_is_no_excuse(
    command: tuple[str, ...], plan: plans.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "STOP_TIMEOUT", 0.1)
    hanging = replace(plan, stop=command)
    starting.start(hanging, "")
    assert stopping.stop([hanging], "a") == []
    found = record.read(plan.place)
    assert found is not None
    assert members.find(plan.place, found) == []


def test_each_port_of_a_plan_must_be_free(
    plan: plans.Plan, listener: Callable[[str, int], socket.socket]
) -> None:
    listener("127.0.0.1", plan.ports[1])
    with pytest.raises(Exception, match=rf"port {plan.ports[1]} of api of sky/1 is held by"):
        starting.start(plan, "")
    assert record.read(plan.place) is None


def test_a_port_that_stays_held_after_the_stop_is_said(
    plan: plans.Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = replace(plan, ports=plan.ports[:1])
    starting.start(third, "")
    foreign = socket.create_server(("127.0.0.1", 0))
    port = foreign.getsockname()[1]
    monkeypatch.setattr(stopping, "PORT_PATIENCE", 0.1)
    (problem,) = stopping.stop([replace(third, ports=(*third.ports, port))], "a")
    foreign.close()
    assert f"is stopped, and port {port} is still held by" in str(problem)
    assert f"(pid {os.getpid()})" in str(problem)


def test_a_command_that_does_not_exist_is_told(plan: plans.Plan) -> None:
    with pytest.raises(ServiceError, match=r"exit status 127") as caught:
        starting.start(replace(plan, run=("no-such-command",)), "")
    assert caught.value.log == plan.log
    assert logs.tail(plan.log, 1) == [b"isoenv: no-such-command: command not found"]


def test_a_start_that_was_cancelled_before_it_began_starts_nothing(plan: plans.Plan) -> None:
    before = record.cancellation(plan.place)
    record.cancel(plan.place, "token")
    with pytest.raises(CancelledError):
        starting.start(plan, before)
    assert record.read(plan.place) is None


def test_who_waits_too_long_for_another_command_ends_with_75(plan: plans.Plan) -> None:
    with (
        locks.hold(plan.place, plan.title, 1),
        pytest.raises(BusyError, match="api of sky/1 is still being started") as caught,
        locks.hold(plan.place, plan.title, 0.1),
    ):
        pass
    assert caught.value.exit_code == 75


def test_nobody_starts_what_is_being_stopped_before_all_is_down(plan: plans.Plan) -> None:
    other = replace(plan, place=f"{plan.place}2", run=None, start=("true",), health=None, ports=())
    starting.start(plan, "")
    starting.start(other, "")
    refused = []

    def after(_plan: plans.Plan, _done: stopping.Stopped) -> None:
        for each in (plan, other):
            with pytest.raises(BusyError), locks.hold(each.place, each.title, 0):
                pass
            refused.append(each.name)

    assert stopping.stop([plan, other], "a", after=after) == []
    assert len(refused) == 4


def test_what_cannot_be_seen_is_neither_claimed_nor_ended(plan: plans.Plan) -> None:
    starting.start(plan, "")
    found = record.read(plan.place)
    assert found is not None
    for field, value in (("namespace", "1"), ("host", "elsewhere")):
        record.write(plan.place, found.changed(**{field: value}))
        status = states.look("api", plan.place, asked=plan.health, timeout=60)
        assert status.state == states.UNKNOWN
        with pytest.raises(ServiceError, match="stop it there"):
            starting.start(plan, "")
        (problem,) = stopping.stop([plan], "")
        assert "stop it there" in str(problem)
        assert members.find(plan.place, found)
    record.write(plan.place, found)


SPAWN_AND_DIE = """
import json, os, signal, sys
from isoenv.services import plans, record, starting

spawn = starting._spawn_parent
def spawn_and_die(*arguments):
    spawn(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

starting._spawn_parent = spawn_and_die
starting.start(plans.Plan(**json.load(sys.stdin)), "")
"""


def test_who_is_killed_on_the_way_has_started_it_once(plan: plans.Plan, tmp_path: Path) -> None:
    run = ("/bin/sh", "-c", "echo $$ >>started; exec sleep 1000")
    plan = replace(plan, run=run, stop=None, health=None, ports=())
    words = [sys.executable, "-c", SPAWN_AND_DIE]
    environ = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(scripts.path("x")))}
    # The shell it has spawned keeps the lock until the service is on record.
    killed = subprocess.run(
        words, input=json.dumps(asdict(plan)).encode(), env=environ, check=False
    )
    assert killed.returncode == -9
    assert record.read(plan.place) is None
    assert starting.start(plan, "").already
    found = record.read(plan.place)
    assert found is not None
    assert (tmp_path / "work/started").read_text().split() == [found.text("pid")]


# --- members


@pytest.fixture
def session() -> Iterator[tuple[int, int]]:
    """A session whose leader is gone: its number, and the process that is left in it."""
    command = "sleep 1000 >/dev/null 2>&1 & echo $! $$"
    words = ["sh", "-c", command]
    done = subprocess.run(words, capture_output=True, check=True, start_new_session=True)
    left, number = map(int, done.stdout.split())
    yield number, left
    os.kill(left, 9)


@pytest.mark.parametrize(("seconds", "is_ours"), [(10.0, True), (-10.0, False)])
def test_who_came_after_the_end_is_of_another_session_of_that_number(
    tmp_path: Path, session: tuple[int, int], *, seconds: float, is_ours: bool
) -> None:
    number, left = session
    me = {name: str(value) for name, value in asdict(process.myself()).items()}
    forged = record.Record({**me, "pid": str(number), "start": "1", "inode": "1", "id": "a"})
    started = process.identify(left)
    assert started is not None
    ended = started.start / os.sysconf("SC_CLK_TCK") + seconds
    (tmp_path / "exit.a").write_text(f"137 {ended:.2f}\n")
    found = [each.pid for each in members.find(str(tmp_path), forged)]
    assert found == ([left] if is_ours else [])
    # Without the time there is no proof.
    (tmp_path / "exit.a").write_text("137 \n")
    assert members.find(str(tmp_path), forged) == []


# As the first process of a pid namespace: the leader of a session starts a child and goes; its
# number is given again, to the leader of another session.
RECYCLE = """
import json, os, subprocess, sys, time
from isoenv import process, scripts
from isoenv.services import members, record

place = sys.argv[1]
os.makedirs(place)
def spawn():
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.close(read)
        os.write(write, b"x")
        time.sleep(1000)
    os.read(read, 1)
    return pid

first = spawn()
identity = process.identify(first)
fields = {name: str(getattr(identity, name)) for name in identity.__slots__}
record.write(place, record.Record({**fields, "id": "a", "state": record.UP}))
os.kill(first, 9)
os.waitpid(first, 0)
uptime = open("/proc/uptime").read().split()[0]
open(f"{place}/exit.a", "w").write(f"137 {float(uptime) + 1000}\\n")
open("/proc/sys/kernel/ns_last_pid", "w").write(str(first - 1))
second = spawn()
assert second == first, (first, second)
found = record.read(place)
ended = members.end(place, found, 0.5)
print(json.dumps({
    "life": members.life(found).value,
    "found": [each.pid for each in members.find(place, found)],
    "ended": ended,
    "alive": process.identify(second) is not None,
}))
os.kill(second, 9)
"""


def test_a_pid_that_was_really_given_again_is_never_signalled(tmp_path: Path) -> None:
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--user", "--map-root-user"]
    if os.getuid() == 0:
        words = words[:4]
    probe = subprocess.run([*words, "true"], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("this machine allows no pid namespace; forged records are tried elsewhere")
    root = os.path.dirname(os.path.dirname(os.path.abspath(process.__file__)))
    done = subprocess.run(
        [*words, sys.executable, "-c", RECYCLE, str(tmp_path / "place")],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        check=False,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == '{"life": "dead", "found": [], "ended": 0, "alive": true}'
