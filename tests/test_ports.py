from __future__ import annotations

import errno
import getpass
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import Mock

import psutil
import pytest

from isoenv import ports
from isoenv.errors import IsoenvError
from isoenv.ports import Holder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., subprocess.Popen[str]]

ALL = "0.0.0.0"  # noqa: S104 - what servers in containers listen on
ADDRESSES = ("127.0.0.1", ALL, "127.0.0.2", "::1", "::")
ROOT = Path(__file__).resolve().parents[1]
LISTEN = """
import socket, sys
listener = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
listener.bind((sys.argv[1], int(sys.argv[2])))
listener.listen()
print("listening", flush=True)
connections = []
while True:
    connections.append(listener.accept())
    print("accepted", flush=True)
"""
# Another user where that is possible, so that the kernel hides what is root's.
DROP = "import os, psutil\nif os.geteuid() == 0: os.setgroups([]); os.setuid(65534)\n"


def bound(
    address: str, port: int, *, reuse: bool = False, listen: bool = False, share: bool = False
) -> socket.socket:
    opened = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
    opened.bind((address, port))
    if listen:
        opened.listen()
    return opened


def refused(port: int) -> bool:
    """Whether the kernel refuses the port to a server with SO_REUSEADDR, for any reason."""
    try:
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        return True
    return False


def wait_for_states(port: int, *expected: str) -> None:
    """Wait until the sockets on the port, in the kernel's IPv4 table, are in these states."""
    states: set[str] = set()
    while states != set(expected):
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()]
        states = {row[3] for row in rows if row[1].endswith(f":{port:04X}")}


def python(code: str, *args: str) -> str:
    """Run a script in a process of its own and return what it printed."""
    argv, env = [sys.executable, "-c", code, *args], {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def pids(port: int) -> set[int | None]:
    holders = ports.holders([port]).get(port, [])
    found = {holder.pid for holder in holders}
    assert len(found) == len(holders)
    return found


@pytest.fixture
def port(free_port: Callable[[], int]) -> int:
    """A free port that no TIME_WAIT denies to a server without SO_REUSEADDR either."""
    while True:
        port = free_port()
        with suppress(OSError), closing(socket.socket(socket.AF_INET6)) as probe:
            probe.bind(("::", port))
            return port


@pytest.fixture
def other(free_port: Callable[[], int]) -> int:
    """Another free port, for servers with SO_REUSEADDR."""
    return free_port()


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a python that prints a line when it is ready, until the test ends."""
    with ExitStack() as stack:

        def start(*args: str | bytes, cwd: Path | None = None) -> subprocess.Popen[str]:
            argv = [sys.executable, *args]
            process = subprocess.Popen(argv, cwd=cwd, stdout=subprocess.PIPE, text=True)
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline()
            return process

        yield start


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("share", [False, True])
def test_a_listener_on_any_address_holds_its_port(
    port: int, address: str, *, reuse: bool, share: bool
) -> None:
    assert not ports.is_held(port)
    with bound(address, port, reuse=reuse, share=share, listen=True):
        assert ports.is_held(port)
        assert refused(port)
    assert not ports.is_held(port)


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("reuse", [False, True])
def test_a_bound_socket_holds_its_port_unless_it_shares_the_address(
    port: int, address: str, *, reuse: bool
) -> None:
    with bound(address, port, reuse=reuse):
        assert ports.is_held(port) is refused(port) is not reuse


@pytest.mark.parametrize("reuse", [False, True])
def test_the_source_port_of_a_connection_is_held_unless_it_shares_the_address(
    port: int, other: int, *, reuse: bool
) -> None:
    with (
        bound("127.0.0.1", other, reuse=True, listen=True),
        bound("127.0.0.1", port, reuse=reuse) as client,
    ):
        client.connect(("127.0.0.1", other))
        assert ports.is_held(port) is refused(port) is not reuse


def test_a_port_the_kernel_gave_to_a_connection_is_held_and_named_when_asked(port: int) -> None:
    address = ("127.0.0.1", port)
    with bound(*address, listen=True), socket.create_connection(address) as client:
        source = client.getsockname()[1]
        assert ports.is_held(source)
        assert pids(source) == {os.getpid()}
        assert source not in ports.holders()
        assert source not in ports.listening()


@pytest.mark.parametrize("reuse", [False, True])
def test_time_wait_holds_no_port(port: int, *, reuse: bool) -> None:
    with bound("127.0.0.1", port, reuse=reuse, listen=True) as server:
        with socket.create_connection(("127.0.0.1", port)) as client:
            server.accept()[0].close()
            client.recv(1)
        wait_for_states(port, "0A", "06")
        assert ports.is_held(port)
        assert pids(port) == {os.getpid()}
    wait_for_states(port, "06")
    assert refused(port) is not reuse
    assert not ports.is_held(port)
    assert pids(port) == set()


def test_what_a_killed_server_leaves_holds_no_port(port: int, start: Start) -> None:
    server = start("-c", LISTEN, "127.0.0.1", str(port))
    with socket.create_connection(("127.0.0.1", port)):
        assert server.stdout is not None
        assert server.stdout.readline() == "accepted\n"
        assert ports.is_held(port)
        server.kill()
        server.wait()
        wait_for_states(port, "05")
        assert refused(port)
        assert not ports.is_held(port)
        assert pids(port) == set()


def test_those_who_ask_at_once_do_not_see_each_other() -> None:
    # Bound, so that the kernel gives the port to nobody else meanwhile.
    with bound("127.0.0.1", 0, reuse=True) as kept, ThreadPoolExecutor(8) as pool:
        assert not any(pool.map(ports.is_held, [kept.getsockname()[1]] * 4000))


class WithoutIPv6(socket.socket):
    def __init__(self, family: int = -1, *args: int, **kwargs: int) -> None:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))
        super().__init__(family, *args, **kwargs)


class Privileged(socket.socket):
    def bind(self, _: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.parametrize("address", ["127.0.0.1", ALL, "127.0.0.2"])
def test_a_machine_without_ipv6_is_asked_by_ipv4(
    port: int, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    with bound(address, port, listen=True):
        monkeypatch.setattr(socket, "socket", WithoutIPv6)
        assert ports.is_held(port)
    assert not ports.is_held(port)


@pytest.mark.parametrize("tables", [ports.PROC_NET, ()])
@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_port_that_may_not_be_bound_is_looked_up(
    port: int, monkeypatch: pytest.MonkeyPatch, address: str, tables: tuple[str, ...]
) -> None:
    monkeypatch.setattr(ports, "PROC_NET", tables)
    with bound(address, port, listen=True):
        monkeypatch.setattr(socket, "socket", Privileged)
        assert ports.is_held(port)
    assert not ports.is_held(port)


def test_an_ordinary_user_is_told_about_privileged_ports() -> None:
    # Only root can open one, and every user must then be told of it.
    code = f"""
import contextlib, socket
from isoenv import ports
listener, opened = socket.socket(), set()
for port in range(1000, 1020):
    with contextlib.suppress(OSError):
        listener.bind(("127.0.0.1", port))
        listener.listen()
        opened.add(port)
        break
{DROP}
told = {{port for port in range(1000, 1020) if ports.is_held(port)}}
print(opened <= told, told == ports.listening() & set(range(1000, 1020)))
"""
    assert python(code) == "True True\n"


@pytest.mark.parametrize("wrong", [-1, 65536])
def test_a_port_that_does_not_exist_is_an_error(wrong: int) -> None:
    with pytest.raises(IsoenvError) as failure:
        ports.is_held(wrong)
    assert str(failure.value) == f"port {wrong} is outside 1-65535"


def test_what_cannot_be_told_is_an_error_with_the_port() -> None:
    code = """
import resource
from isoenv import errors, ports
resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
try:
    ports.is_held(15123)
except errors.IsoenvError as error:
    print(error)
"""
    assert python(code) == "cannot tell whether port 15123 is free: too many open files\n"


@pytest.mark.parametrize("tables", [ports.PROC_NET, ()])
def test_listening_are_the_ports_with_a_listener_on_any_address(
    free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch, tables: tuple[str, ...]
) -> None:
    monkeypatch.setattr(ports, "PROC_NET", tables)
    expected = {free_port(): address for address in ADDRESSES}
    with ExitStack() as stack:
        for port, address in expected.items():
            stack.enter_context(bound(address, port, reuse=True))
        assert not expected.keys() & ports.listening()
    with ExitStack() as stack:
        for port, address in expected.items():
            stack.enter_context(bound(address, port, reuse=True, listen=True))
        assert expected.keys() <= ports.listening()


def test_a_holder_is_named_with_all_that_is_known(port: int, start: Start, tmp_path: Path) -> None:
    before = time.time()
    server = start("-um", "http.server", str(port), "--bind", "::1", cwd=tmp_path)
    [holder] = ports.holders([port])[port]
    assert holder.started is not None
    # The kernel counts the start in ticks since the boot.
    assert before - 1 < holder.started < time.time() + 1
    command = f"{Path(sys.executable).name} -um http.server {port} --bind ::1"
    user, started = getpass.getuser(), holder.started
    assert holder == Holder(port, "::1", server.pid, command, str(tmp_path), user, started)
    assert ports.describe(holder) == f"{command} (pid {server.pid})"


def test_every_process_on_a_port_is_named_once(port: int, start: Start) -> None:
    also = start("-c", LISTEN, "127.0.0.2", str(port))
    with bound("127.0.0.1", port, listen=True), bound("::1", port, listen=True):
        assert pids(port) == {os.getpid(), also.pid}


def test_only_the_ports_asked_for_are_named(port: int, other: int) -> None:
    with bound("127.0.0.1", port, listen=True), bound("127.0.0.1", other, reuse=True, listen=True):
        assert ports.holders([port, 1]).keys() == {port}
        assert ports.holders([]) == {}
        assert {port, other} <= ports.holders().keys()


def test_a_connection_beside_a_listener_is_not_named(port: int, other: int, start: Start) -> None:
    server = start("-c", LISTEN, "127.0.0.1", str(port))
    with bound("127.0.0.2", other, reuse=True, listen=True), bound("127.0.0.2", port) as client:
        client.connect(("127.0.0.2", other))
        assert pids(port) == {server.pid}


def test_a_process_that_the_kernel_hides_is_another_users(port: int, start: Start) -> None:
    # PR_SET_DUMPABLE 0 hides it from its own user as well, for those who do not test as root.
    hide = "import ctypes; ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)"
    start("-c", f"{hide}{LISTEN}", "127.0.0.1", str(port))
    code = f"""
import sys
from isoenv import ports
{DROP}
[[holder]] = ports.holders([int(sys.argv[1])]).values()
print(holder.pid, holder.command, holder.address, ports.describe(holder), sep="|")
"""
    assert python(code, str(port)) == "None|None|127.0.0.1|another user's process\n"


def test_a_holder_that_ends_meanwhile_is_left_out(
    port: int, other: int, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("-c", LISTEN, "127.0.0.1", str(port))
    see = psutil.net_connections

    def see_and_end(kind: str) -> object:
        seen = see(kind)
        server.kill()
        server.wait()
        return seen

    monkeypatch.setattr(psutil, "net_connections", see_and_end)
    with bound("127.0.0.1", other, reuse=True, listen=True):
        assert ports.holders([port, other]).keys() == {other}


def test_where_the_system_shows_only_ones_own_processes_these_are_named(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "net_connections", Mock(side_effect=psutil.AccessDenied))
    with bound("::1", port, listen=True):
        assert pids(port) == {os.getpid()}


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["/opt/shop/bin/serve", "-c", "read"], "serve -c read"),
        (["./serve", "-c", "read"], "./serve -c read"),
        (["serve: master of /opt/shop", "-c", "read"], "serve: master of /opt/shop -c read"),
        (
            [b"bash", b"-c", b"read", b"\x1b[31m\n\xff\xe2\x80\xae", "größe".encode(), b"x" * 80],
            r"bash -c read \x1b[31m\n\udcff\u202e größe " + "x" * 15 + "...",
        ),
    ],
)
def test_a_command_is_short_and_safe_to_print(port: int, argv: list[str], expected: str) -> None:
    with bound("127.0.0.1", port, listen=True) as listener:
        fds = [listener.fileno()]
        serve = subprocess.Popen(argv, executable="/bin/bash", stdin=subprocess.PIPE, pass_fds=fds)
    with serve:
        [holder] = ports.holders([port])[port]
        assert len(expected) <= 60
        assert ports.describe(holder) == f"{expected} (pid {serve.pid})"


def test_the_ephemeral_range_is_where_the_kernel_takes_ports_from() -> None:
    found = ports.ephemeral_range()
    assert found is not None
    for _ in range(50):
        with bound("127.0.0.1", 0) as opened:
            assert found[0] <= opened.getsockname()[1] <= found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("8080,9000-9010\n", {8080, *range(9000, 9011)}), ("\n", set()), (None, set())],
)
def test_reserved_ports_are_read_from_the_kernel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, expected: set[int]
) -> None:
    monkeypatch.setattr(ports, "SYS_IPV4", str(tmp_path))
    if text is not None:
        (tmp_path / "ip_local_reserved_ports").write_text(text)
    assert ports.reserved_ports() == expected
    assert ports.ephemeral_range() is None


def test_psutil_is_imported_for_names_only() -> None:
    code = """
import sys
from isoenv import ports
ports.is_held(15123), ports.listening(), ports.ephemeral_range(), ports.reserved_ports()
print("psutil" in sys.modules)
"""
    assert python(code) == "False\n"
