"""Is this port free, and whose is it.

TCP only, as this process's network namespace sees it. Holders are named by psutil.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Collection

    from psutil._ntuples import pconn, sconn

    _Pairs = list[tuple[int | None, sconn | pconn]]

COMMAND_WIDTH = 60
# What holds a port on behalf of a container, whose own process nobody sees.
PUBLISHERS = ("docker-proxy", "rootlessport", "com.docker.")
PROC_NET = ("/proc/net/tcp", "/proc/net/tcp6")
SYS_IPV4 = "/proc/sys/net/ipv4"

_NO_IPV6 = {errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.EADDRNOTAVAIL}


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that holds ``port`` on ``address``. What the kernel hides is None.

    ``command`` is its command line in printable characters, at most 60; ``started`` is in
    seconds since the epoch.
    """

    port: int
    address: str
    pid: int | None = None
    command: str | None = None
    cwd: str | None = None
    user: str | None = None
    started: float | None = None


class _Socket(NamedTuple):
    port: int
    listens: bool
    inode: int


class _Connection(NamedTuple):
    port: int
    address: str
    pid: int | None
    listens: bool


def is_held(port: int) -> bool:
    """Return whether a server that wants to listen on ``port`` now would be refused.

    Every listener counts, on whatever address; what no process holds any more, as in TIME_WAIT,
    does not. Raises IsoenvError where it cannot be told.
    """
    try:
        _bind(port)
    except PermissionError:
        return _answers(port)
    except OverflowError as error:
        raise IsoenvError(f"port {port} is outside 1-65535") from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return not _is_left_over(port)
        raise IsoenvError(
            f"cannot tell whether port {port} is free: {(error.strerror or str(error)).lower()}"
        ) from error
    return False


def listening() -> frozenset[int]:
    """Return all ports that anybody listens on."""
    sockets = _sockets()
    if sockets is None:
        return frozenset(each.port for each in _connections() if each.listens)
    return frozenset(each.port for each in sockets if each.listens)


def holders(ports: Collection[int] | None = None) -> dict[int, list[Holder]]:
    """Return who holds each of ``ports``; for None, of all ports that are listened on.

    Where nobody listens, these are the processes that hold a connection from the port.
    """
    connections = [each for each in _connections() if ports is None or each.port in ports]
    listened = {each.port for each in connections if each.listens}
    found: dict[int, dict[int | None, Holder]] = {}
    for each in connections:
        if each.listens or (ports is not None and each.port not in listened):
            holder = _holder(each)
            if holder is not None:
                found.setdefault(each.port, {})[each.pid] = holder
    return {port: list(by_pid.values()) for port, by_pid in found.items()}


def describe(holder: Holder) -> str:
    """Return "python3 -m http.server (pid 4711)", or whose it is where the kernel hides it."""
    if holder.pid is None:
        return "another user's process"
    return f"{holder.command or 'a process'} (pid {holder.pid})"


def is_publisher(holder: Holder) -> bool:
    """Whether a process holds its port on behalf of a container."""
    return (holder.command or "").startswith(PUBLISHERS)


def ephemeral_range() -> tuple[int, int] | None:
    """Return the first and last port that the kernel gives to outgoing connections, if known."""
    text = _read(f"{SYS_IPV4}/ip_local_port_range")
    if text is None:
        return None
    low, high = text.split()
    return int(low), int(high)


def reserved_ports() -> frozenset[int]:
    """Return the ports that the kernel keeps out of the ephemeral range."""
    text = _read(f"{SYS_IPV4}/ip_local_reserved_ports")
    reserved: set[int] = set()
    for part in (text or "").strip().split(","):
        low, _, high = part.partition("-")
        if low:
            reserved.update(range(int(low), int(high or low) + 1))
    return frozenset(reserved)


def _bind(port: int) -> None:
    """Bind to ``port`` on all addresses, of IPv6 and IPv4 at once, and let go.

    With SO_REUSEADDR the kernel refuses a port with a listener at bind, so nothing is gained by
    listening, and two that ask at the same time do not take each other for a holder.
    """
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("::", port))
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("0.0.0.0", port))  # noqa: S104 - all addresses is the question


def _answers(port: int) -> bool:
    """Return whether anybody listens on a port that this user may not bind."""
    sockets = _sockets()
    if sockets is not None:
        return any(each.listens for each in sockets if each.port == port)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                if probe.connect_ex((address, port)) == 0:
                    return True
        except OSError:
            continue
    return False


def _is_left_over(port: int) -> bool:
    """Return whether all that is left on a refused ``port`` are sockets of no process.

    The kernel keeps them for a minute (TIME_WAIT, FIN_WAIT2) and refuses the port when they were
    made without SO_REUSEADDR, as those of every client are. A socket that is merely bound is in
    no table: then there is nothing to see at all.
    """
    inodes = [each.inode for each in _sockets() or () if each.port == port]
    return bool(inodes) and not any(inodes)


def _sockets() -> list[_Socket] | None:
    """Return the kernel's tables of TCP sockets; None where the kernel has none to read."""
    tables = [text for text in map(_read, PROC_NET) if text is not None]
    if not tables:
        return None
    return [_parse(line) for text in tables for line in text.splitlines()[1:]]


def _parse(line: str) -> _Socket:
    _, local, _, state, *rest = line.split(maxsplit=10)
    return _Socket(int(local.rpartition(":")[2], 16), state == "0A", int(rest[5]))


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return None


def _connections() -> list[_Connection]:
    """Return the TCP sockets that a process holds, as psutil sees them."""
    import psutil

    try:
        pairs: _Pairs = [(each.pid, each) for each in psutil.net_connections("tcp")]
    except psutil.AccessDenied:
        pairs = _own_connections()
    # The states in which a socket has a process even where the kernel hides it.
    held = {"LISTEN", "ESTABLISHED", "SYN_SENT", "CLOSE_WAIT"}
    return [
        _Connection(each.laddr.port, each.laddr.ip, pid, each.status == "LISTEN")
        for pid, each in pairs
        if each.laddr and (pid is not None or each.status in held)
    ]


def _own_connections() -> _Pairs:
    """Return pid and connection for the processes of this user: all that macOS shows."""
    import psutil

    pairs: _Pairs = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            pairs += [(process.pid, each) for each in process.net_connections("tcp")]
    return pairs


def _holder(connection: _Connection) -> Holder | None:
    """Return the process at the end of ``connection``; None when it is gone meanwhile."""
    import psutil

    port, address, pid, _ = connection
    if pid is None:
        return Holder(port, address)
    try:
        seen = psutil.Process(pid).as_dict(["name", "cmdline", "cwd", "username", "create_time"])
    except psutil.NoSuchProcess:
        return None
    command = _shorten(seen["cmdline"] or [seen["name"] or ""])
    return Holder(port, address, pid, command, seen["cwd"], seen["username"], seen["create_time"])


def _shorten(argv: list[str]) -> str:
    """Return a command line that is safe to print: no path before its name, no controls."""
    name = argv[0].rpartition("/")[2] if argv[0].startswith("/") else argv[0]
    text = " ".join([name, *argv[1:]])
    printable = "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text[: COMMAND_WIDTH + 1]
    )
    if len(printable) <= COMMAND_WIDTH:
        return printable
    return f"{printable[: COMMAND_WIDTH - 3]}..."
