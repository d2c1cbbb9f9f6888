"""SkyPilot's API server: one for each instance, from SkyPilot as it is, 0.14.0 or newer.

The server gets a home of its own, its clients keep the user's: with a clients' identity in the
user's home a server would write that into ~/.sky, and the user's clusters would be somebody
else's.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from isoenv import files, paths, ports, skypilot
from isoenv.errors import IsoenvError, PortTakenError
from isoenv.services import health, own_home

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.context import Context
    from isoenv.models import Instance
    from isoenv.services.plans import Plan

COMMAND = ("sky", "api", "start")
# Seconds between TERM and KILL: its own shutdown takes 6 to 8.
STOP_PATIENCE = 15.0
# Seconds that its command may take to say its version on a busy machine, and a server to answer.
PATIENCE, ANSWER_PATIENCE = 120.0, 2.0
# The first release in which each server has a port, a queue port and a directory of its own.
OLDEST = (0, 14)
# What only clients are told.
OF_CLIENTS = (skypilot.USER_ID, "SKYPILOT_DISABLE_LOCAL_API_SERVER")
# What says which server is meant.
OF_SERVER = (
    *("HOME", "TMPDIR", "SKY_RUNTIME_DIR"),
    *("SKYPILOT_API_SERVER_LOCAL_PORT", "SKYPILOT_API_SERVER_ENDPOINT"),
)
# As SkyPilot has it: a queue port follows from the server's.
API_BASE, QUEUE_BASE, QUEUE_SPAN = 46580, 50000, 10000
QUEUE_OFFSET = 11

# Where SkyPilot's source shows what it can do, below its package.
NATIVE = ("skylet/constants.py", "SKYPILOT_API_SERVER_LOCAL_PORT")
FORK = ("utils/common_utils.py", "SKYPILOT_INSTANCE_ID")
SOURCE_LIMIT = 1 << 22

_VERSION = re.compile(r"(\d+)\.(\d+)\S*")
_OWN_VERSION = re.compile(r"^__version__ *= *['\"]([^'\"]+)", re.MULTILINE)
_INTERPRETER = re.compile(rb"#! *(?:/usr/bin/env +)?(\S*python[\d.]*)\s*$")
# What pip writes where the path is too long for a first line.
_LONG_INTERPRETER = re.compile(rb"'''exec' +\"?([^\"\n]+?)\"? +\"\$0\"")
# Finds the package without importing it, just as `python -m` would: the directory comes first.
_ORIGIN = """\
import importlib.util, os, sys
found = importlib.util.find_spec("sky")
sys.stdout.buffer.write(os.fsencode(found and found.origin or ""))
"""


@dataclass(frozen=True, slots=True)
class Server:
    """The server of one instance: ``directory`` is the instance's own, ``home`` the user's."""

    instance: Instance
    home: str
    has_launcher: bool
    hint: str

    @property
    def directory(self) -> str:
        """The directory that all of the instance is in."""
        return self.instance.dir


def is_meant(here: Context, command: object) -> bool:
    """Whether a service of a configuration is SkyPilot's API server."""
    is_sky = here.config.preset == skypilot.PRESET
    return is_sky and isinstance(command, tuple) and command[:3] == COMMAND


def adapt(plan: Plan, here: Context, found: Instance) -> Plan:
    """Return how the server is run, from how a service is run."""
    assert plan.health is not None  # noqa: S101  # the preset has it
    sky = f"{here.checkout.root}/.venv/bin/sky" if here.checkout and here.offers else ""
    hint = ""
    if sky and not here.is_developed and os.access(sky, os.X_OK):
        hint = f"`isoenv allow` takes {sky}"
    server = Server(found, here.caller.home, here.skypilot_home == skypilot.ALL, hint)
    # `python -m` runs the code of the directory that it starts in, allowed or not.
    directory = plan.directory if here.is_developed else found.dir
    environ = {name: value for name, value in plan.environ.items() if name not in OF_CLIENTS}
    own = {**own_home.variables(found.dir), "PWD": directory}
    port = health.Target(plan.health).port
    return replace(
        plan,
        directory=directory,
        environ={**environ, **own},
        ports=(port, queue_port(port)),
        stop_patience=STOP_PATIENCE,
        prepare=lambda ready: prepare(ready, server, plan.environ),
    )


def queue_port(port: int) -> int:
    """Return the port of the queue that belongs to a server's."""
    return QUEUE_BASE + (QUEUE_OFFSET + port - API_BASE) % QUEUE_SPAN


def prepare(plan: Plan, server: Server, clients: Mapping[str, str]) -> Plan:
    """Make what the server needs, and return the command that starts it.

    ``clients`` is the environment of the instance's clients. Raises IsoenvError where there is no
    SkyPilot, or one that is too old, and PortTakenError where another server answers.
    """
    _refuse_another(plan, server)
    sky = _command(plan, server)
    paths.make_private(plan.directory)
    interpreter = _interpreter(sky, plan.environ)
    package = _package(interpreter, plan) if interpreter else None
    if package and interpreter and _is_fork(package):
        own_home.make_temporary(server.directory)
        identity = clients.get(skypilot.USER_ID)
        own_home.write_identity(f"{server.directory}/user_hash", identity)
        return _of_fork(plan, interpreter, server)
    _require_new(sky, package, plan)
    own_home.make(server.directory, server.home)
    hash_file = f"{server.directory}/home/.sky/user_hash"
    own_home.write_identity(hash_file, clients.get(skypilot.USER_ID))
    launcher = f"{skypilot.launchers(server.directory)}/sky"
    own_home.write_launcher(server.directory, launcher, sky if server.has_launcher else None)
    assert plan.run is not None  # noqa: S101  # it was recognised by its command
    # Whole in itself: without its port it would stop the user's own server.
    which = [f"{name}={plan.environ[name]}" for name in OF_SERVER if name in plan.environ]
    stop = ["/usr/bin/env", *which, sky, "api", "stop"]
    return replace(plan, run=(sky, *plan.run[1:]), facts={**plan.facts, "stop": json.dumps(stop)})


def _refuse_another(plan: Plan, server: Server) -> None:
    """Raise PortTakenError where a server answers that is not the instance's."""
    port = plan.ports[0]
    if not ports.is_held(port) or health.check(plan.health or "", ANSWER_PATIENCE) is not None:
        return
    holders = ports.holders([port]).get(port)
    whose = ports.describe(holders[0]) if holders else "another user's process"
    remedy = f"`isoenv exec {server.instance.slot} sky api stop` ends it"
    raise PortTakenError(
        f"a SkyPilot API server that isoenv did not start answers on port {port}: "
        f"{whose}: {remedy if holders else 'it is theirs to stop'}"
    )


def _command(plan: Plan, server: Server) -> str:
    """Return the path of SkyPilot's own command, past the launcher that may be in front of it."""
    ours = skypilot.launchers(server.directory)
    path = [each for each in plan.environ.get("PATH", os.defpath).split(":") if each != ours]
    found = shutil.which("sky", path=":".join(path))
    if found is None:
        remedy = server.hint or "`pip install 'skypilot>=0.14'`"
        raise IsoenvError(f"there is no `sky` on PATH for {plan.title}: {remedy}")
    return os.path.abspath(found)


def _interpreter(sky: str, environ: Mapping[str, str]) -> str | None:
    """Return the Python that runs SkyPilot's command; None where it is no script of Python's."""
    try:
        with open(sky, "rb") as file:
            lines = file.read(4096).split(b"\n")
    except OSError:
        return None
    found = _INTERPRETER.match(lines[0]) or _LONG_INTERPRETER.search(b"\n".join(lines[:3]))
    return shutil.which(os.fsdecode(found[1]), path=environ.get("PATH")) if found else None


def _package(interpreter: str, plan: Plan) -> str | None:
    """Return the directory of the code that the server would run."""
    try:
        done = subprocess.run(
            [interpreter, "-c", _ORIGIN],
            cwd=plan.directory,
            env=dict(plan.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    origin = os.fsdecode(done.stdout)
    return os.path.dirname(origin) if origin.startswith("/") else None


def _source(package: str, name: str) -> str:
    """Return a file of the package, the empty text where there is none."""
    with suppress(IsoenvError):
        return os.fsdecode(files.read(f"{package}/{name}", SOURCE_LIMIT) or b"")
    return ""


def _mentions(package: str, feature: tuple[str, str]) -> bool:
    name, variable = feature
    return variable in _source(package, name)


def _is_fork(package: str) -> bool:
    """Whether it is the fork that has instances of its own, by SKYPILOT_INSTANCE_ID."""
    return _mentions(package, FORK) and not _mentions(package, NATIVE)


def _of_fork(plan: Plan, interpreter: str, server: Server) -> Plan:
    """Return how a server of the fork is run: past its command, which knows one port.

    It finds its own directory in the user's home, and a server for one machine has its queue in
    its own memory.
    """
    port = plan.ports[0]
    environ = {**plan.environ, "HOME": server.home}
    environ.pop("SKY_RUNTIME_DIR", None)
    return replace(
        plan,
        run=(interpreter, "-m", skypilot.SERVER_MODULE, "--host=127.0.0.1", f"--port={port}"),
        environ=environ,
        ports=(port,),
    )


def _require_new(sky: str, package: str | None, plan: Plan) -> None:
    """Raise IsoenvError for a SkyPilot that would have one server for all instances."""
    if package and _mentions(package, NATIVE):
        return
    version = _OWN_VERSION.search(_source(package, "__init__.py")) if package else None
    text = version[1] if version else _told(sky, plan)
    found = _VERSION.search(text)
    # A version of its own source says nothing about its age; without the source it has to do.
    is_source = bool(package) and "dev" in text
    if found and not is_source and (int(found[1]), int(found[2])) >= OLDEST:
        return
    which = f"SkyPilot {found[0]}" if found else "a SkyPilot of unknown version"
    raise IsoenvError(
        f"{package or sky} is {which}, which has one API server for all instances: "
        "`pip install --upgrade 'skypilot>=0.14'`"
    )


def _told(sky: str, plan: Plan) -> str:
    """Return what SkyPilot's command says of its version."""
    try:
        done = subprocess.run(
            [sky, "--version"],
            cwd=plan.directory,
            env=dict(plan.environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return os.fsdecode(done.stdout)
