"""`api [INSTANCE] status` of a service that runs or was stopped, without what computing needs.

Like `launch` it imports only cheap modules and leaves every doubt to the command proper: a state
that takes more than a look, an environment that is not ready, a file that has changed since the
service was started.
"""

from __future__ import annotations

import _socket
import os
import sys
import time

from isoenv import columns, generated, launch, paths
from isoenv.services import health, record

TYPE_CHECKING = False  # importing typing costs `api status` more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.services.record import Record

SKYPILOT = "skypilot"
SERVICE = "api"
# As in services.states, which is too long to import, and is tested to say the same.
PATIENCE = 2.0
NOT_HEALTHY, NOT_RUNNING = 1, 3
# Field 22 of /proc/PID/stat, counted from the state, which is field 3 and follows the command.
START_TICKS = 19
LONGEST_SLOT = 9


def status(environ: Mapping[str, str], operands: Sequence[str]) -> tuple[str, int] | None:
    """Return what to print and the exit code; None where there is any doubt."""
    if sys.platform != "linux" or len(operands) > 1:
        return None
    asked = operands[0] if operands else "."
    if asked != "." and not (asked.isascii() and asked.isdigit() and len(asked) <= LONGEST_SLOT):
        return None
    place = _place(environ, asked)
    found = record.read(place) if place else None
    if found is None or not found.number("pid") or not _is_as_started(environ, found):
        return None
    return _answer(found)


def _place(environ: Mapping[str, str], asked: str) -> str | None:
    """Return where the record is, if it is certain which instance is meant."""
    state = paths.state_dir(environ)
    base = launch.base_of(os.getcwd())
    if base is None:
        return (
            paths.services_dir(state, SKYPILOT, int(asked)) + f"/{SERVICE}"
            if asked != "."
            else None
        )
    if asked == "." and environ.get("ISOENV_ROOT", base) != base:
        # An environment of another checkout, which is worth a word.
        return None
    ready = launch.warm(environ, "sky")
    if ready is None or ready.use != generated.ALL:
        return None
    notices = paths.notices_dir(state) + "/"
    notice = next((path for path in ready.watched if path.startswith(notices)), None)
    if notice is None:
        return None
    tag, _, slot = notice.removeprefix(notices).rpartition(".")
    return f"{state}/services/{tag}.{slot if asked == '.' else int(asked)}/{SERVICE}"


def _is_as_started(environ: Mapping[str, str], found: Record) -> bool:
    """Whether the files that decide about the instance are as they were at the service's start."""
    base = found.text("base")
    if not base:
        return launch.base_of(os.getcwd()) is None
    state = paths.state_dir(environ)
    ready = generated.read(paths.generated_dir(state, base))
    if ready is None or ready.use != generated.ALL:
        return False
    started = (found.seconds("started") or 0) * 1e9
    notices = paths.notices_dir(state) + "/"
    for path, known in ready.watched.items():
        if generated.stamp(path) != known:
            return False
        if (
            known != generated.ABSENT
            and not path.startswith(notices)
            and int(known.split(" ")[0]) > started
        ):
            return False
    return True


def _answer(found: Record) -> tuple[str, int] | None:
    asked = found.text("health")
    target = health.Target(asked) if asked else None
    wanted = found.text("ports")
    port = wanted or "-"
    if found.text("state") == record.DOWN:
        if target and not (target.is_local and all(_is_free(int(each)) for each in wanted.split())):
            return None
        return _row("stopped", "-", found.seconds("stopped"), port, ""), NOT_RUNNING
    if found.text("state") != record.UP or not _is_alive(found):
        return None
    pid, since = found.text("pid"), found.seconds("started")
    problem = health.check(asked, PATIENCE) if asked else None
    if problem is None:
        return _row("healthy" if asked else "running", pid, since, port, ""), 0
    timeout = found.seconds("start_timeout") or 0.0
    is_new = not found.text("ready") and time.time() - (since or 0) < timeout
    return _row("starting" if is_new else "unhealthy", pid, since, port, problem), NOT_HEALTHY


def _row(state: str, pid: str, since: float | None, port: str, note: str) -> str:
    age = "-" if since is None else columns.age(time.time() - since)
    return columns.plain(columns.SERVICES, [(SERVICE, state, pid, age, port, note)])


def _is_alive(found: Record) -> bool:
    """Whether the process that was written down runs, as far as that can be told by reading."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            boot = file.read().strip()
        with open(f"/proc/{found.number('pid')}/stat", "rb") as file:
            # The command in parentheses may hold spaces and parentheses itself.
            state, *fields = file.read().rpartition(b")")[2].split()
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except (OSError, ValueError):
        return False
    return (
        state not in (b"Z", b"X", b"x")
        and int(fields[START_TICKS - 1]) == found.number("start")
        and boot == found.text("boot")
        and namespace == found.number("namespace")
        and os.uname().nodename == found.text("host")
    )


def _is_free(port: int) -> bool:
    """Whether a server could listen on the port, on any address."""
    try:
        probe = _socket.socket(_socket.AF_INET6, _socket.SOCK_STREAM)
    except OSError:
        return False
    try:
        probe.setsockopt(_socket.IPPROTO_IPV6, _socket.IPV6_V6ONLY, 0)
        probe.setsockopt(_socket.SOL_SOCKET, _socket.SO_REUSEADDR, 1)
        probe.bind(("::", port))
    except OSError:
        return False
    finally:
        probe.close()
    return True
