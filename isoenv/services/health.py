"""Does a service answer: by HTTP with 2xx or 3xx, or by taking a TCP connection.

Spoken by hand over ``_socket``: `api status` has the time of two empty Pythons, and http.client
alone is longer to import.
"""

from __future__ import annotations

import _socket
import os
import time

TYPE_CHECKING = False  # importing typing costs `api status` more than all of this
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    _Stream = _socket.socket | ssl.SSLSocket

# Seconds that an answer may take, and the wait after which the asker is asked whether to go on.
PATIENCE = 5.0
STEP = 0.2
DEFAULT_PORTS = {"http": 80, "https": 443}
LOCAL = ("127.0.0.1", "localhost", "[::1]", "0.0.0.0", "[::]")  # noqa: S104  # to ask, not to bind


class Target:
    """What a ``health`` says: scheme ``http``, ``https`` or ``tcp``, and where."""

    __slots__ = ("host", "path", "port", "scheme", "shown_host")

    def __init__(self, health: str) -> None:
        """Take it apart; its form has been checked with the configuration."""
        self.path = "/"
        if health.startswith("tcp:"):
            self.scheme, self.shown_host, port = "tcp", "localhost", health[4:]
        else:
            self.scheme, _, rest = health.partition("://")
            cut = min((at for at in map(rest.find, "/?#") if at >= 0), default=len(rest))
            place = rest[:cut].rpartition("@")[2]
            path = rest[cut:].partition("#")[0]
            self.path = path if path.startswith("/") else f"/{path}"
            bracket = place.rfind("]")
            colon = place.rfind(":")
            self.shown_host, port = place, ""
            if colon > bracket:
                self.shown_host, port = place[:colon], place[colon + 1 :]
        self.host = self.shown_host.strip("[]")
        self.port = int(port) if port.isdecimal() else DEFAULT_PORTS.get(self.scheme, 0)

    @property
    def is_local(self) -> bool:
        """Whether it is this machine that is asked."""
        return self.shown_host in LOCAL


def check(
    health: str, patience: float = PATIENCE, give_up: Callable[[], bool] = lambda: False
) -> str | None:
    """Ask once. Return None for a good answer, else what was wrong with it, in a few words."""
    target = Target(health)
    deadline = time.monotonic() + patience
    try:
        stream = _connect(target, patience)
    except OSError as error:
        return _reason(error, patience)
    try:
        if target.scheme == "tcp":
            return None
        if target.scheme == "https":
            stream = _encrypted(stream, target)
        return _ask(stream, target, deadline, give_up)
    except TimeoutError:
        return f"no answer within {patience:g} s"
    except OSError as error:
        return _reason(error, patience)
    finally:
        stream.close()


def _connect(target: Target, patience: float) -> _socket.socket:
    """Connect to the first address that takes it."""
    failure: OSError = OSError("no address")
    # As bytes, what is plain ASCII is looked up without importing the codec for the rest.
    host = os.fsencode(target.host) if target.host.isascii() else target.host
    for family, kind, protocol, _, address in _socket.getaddrinfo(
        host, target.port, 0, _socket.SOCK_STREAM
    ):
        stream = _socket.socket(family, kind, protocol)
        stream.settimeout(patience)
        try:
            stream.connect(address)
        except OSError as error:
            stream.close()
            failure = error
        else:
            return stream
    raise failure


def _encrypted(stream: _socket.socket, target: Target) -> ssl.SSLSocket:
    import socket
    import ssl

    context = ssl.create_default_context()
    # Whether it answers is the question; who it is, on one's own machine, is not.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.socket(fileno=stream.detach())
    plain.settimeout(PATIENCE)
    return context.wrap_socket(plain, server_hostname=target.host)


def _ask(
    stream: _Stream, target: Target, deadline: float, give_up: Callable[[], bool]
) -> str | None:
    host = target.shown_host
    if target.port != DEFAULT_PORTS[target.scheme]:
        host = f"{host}:{target.port}"
    request = f"GET {target.path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: isoenv\r\n"
    stream.sendall(os.fsencode(f"{request}Accept: */*\r\nConnection: close\r\n\r\n"))
    line = _first_line(stream, deadline, give_up)
    version, _, rest = line.partition(b" ")
    status = rest[:3].decode("ascii", "replace")
    if not version.startswith(b"HTTP/") or not status.isdecimal():
        return "no answer in HTTP"
    return None if status[0] in "23" else f"HTTP {status}"


def _first_line(stream: _Stream, deadline: float, give_up: Callable[[], bool]) -> bytes:
    line = b""
    while b"\n" not in line:
        stream.settimeout(STEP)
        try:
            read = stream.recv(4096)
        except TimeoutError:
            if give_up() or time.monotonic() > deadline:
                raise
            continue
        if not read:
            break
        line += read
    return line


def _reason(error: OSError, patience: float) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {patience:g} s"
    return (error.strerror or str(error)).lower()
