"""Real shells, real git, real processes and sockets, in a home of the test's own."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hosts import hosts, network  # noqa: F401  # fixtures, found by their names
from servers import postgres, postgres_database, postgres_server  # noqa: F401  # fixtures, found by their names

from isoenv import context, paths, trust
from isoenv.coordination.store import open_store
from isoenv.errors import IsoenvError, NotTrustedError
from isoenv.services import members, record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from isoenv.coordination.store import Store

    Done = subprocess.CompletedProcess[str]

T = TypeVar("T")

# Started in the background, a process ignores Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parents[1]

AWKWARD = """it's; $HOME && "x" é🚒"""

# What a test waits for comes at once; so many seconds mean that it never comes.
DEADLINE = 60.0

# What a shell, git, isoenv or a table on the caller's terminal would have put there.
FOREIGN = (
    "ISOENV_",
    "__ISOENV_",
    "_ISOENV_",
    "GIT_",
    "SKY",
    "DIRENV_",
    "XDG_",
    "LC_",
    "CLAUDE_",
    "PG",
)
FOREIGN_NAMES = {
    *("AI_INSTANCE_ID", "BASH_ENV", "ENV", "ZDOTDIR", "PROMPT_COMMAND", "PWD", "OLDPWD"),
    *("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "PYTHONPATH"),
}

GIT = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}
GIT |= dict.fromkeys(("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"), "tester")
GIT |= dict.fromkeys(("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"), "tester@example.org")

# Ports that no configuration of the tests leads to: outside the ranges of "block" and of the
# kernel, and, by the last three digits, off every multiple of a thousand from a preset's base.
PORTS = tuple(port for port in range(10000, 20000) if port % 1000 >= 700)


@dataclass(frozen=True)
class Shell:
    """A real shell, started without the user's configuration and in its strictest mode."""

    name: str
    argv: tuple[str, ...]

    def run(
        self, script: str, *, cwd: Path | None = None, env: Mapping[str, str | None] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run ``script``; ``env`` is laid over the environment, None takes a variable out."""
        return run([*self.argv, script], cwd=cwd, env=env)


SHELLS = (
    Shell("bash", ("bash", "--noprofile", "--norc", "-eu", "-o", "pipefail", "-c")),
    Shell("zsh", ("zsh", "-f", "-eu", "-o", "pipefail", "-c")),
    Shell("fish", ("fish", "--no-config", "--command")),
)


def run(
    argv: list[str],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str | None] | None = None,
    text: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command with ``text`` as input; its output is exact, as surrogateescape text."""
    given = {**os.environ, **(env or {})}
    environ = {name: value for name, value in given.items() if value is not None}
    # Pipes of bytes: text mode would turn a carriage return into a newline.
    done = subprocess.run(
        argv, cwd=cwd, env=environ, input=os.fsencode(text), capture_output=True, check=False
    )
    stdout, stderr = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    return subprocess.CompletedProcess(argv, done.returncode, stdout, stderr)


@pytest.fixture(params=SHELLS, ids=lambda shell: shell.name)
def shell(request: pytest.FixtureRequest) -> Shell:
    """Each supported shell; a missing one skips on a laptop and fails in CI."""
    shell: Shell = request.param
    if shutil.which(shell.name) is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{shell.name} is not installed")
    return shell


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory of the test's own, and an environment without traces of the caller's."""
    for name in os.environ:
        if name.startswith(FOREIGN) or name in FOREIGN_NAMES:
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    ours = {
        **GIT,
        "HOME": home,
        "XDG_CONFIG_HOME": home / ".config",
        "XDG_DATA_HOME": home / ".local/share",
        "XDG_STATE_HOME": home / ".local/state",
        "XDG_CACHE_HOME": home / ".cache",
        "ISOENV_STATE_DIR": tmp_path / "state",
        "ISOENV_HOST_DIR": tmp_path / "host",
        "LC_ALL": "C.UTF-8",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for name, value in ours.items():
        monkeypatch.setenv(name, str(value))
    return home


@pytest.fixture
def git() -> Callable[..., str]:
    """Run git in a directory, ``git(cwd, "status")``, and return what it printed."""

    def git(cwd: Path, *args: str) -> str:
        done = run(["git", *args], cwd=cwd)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return git


@pytest.fixture(scope="session")
def template_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one commit, made once and copied for each test."""
    template = tmp_path_factory.mktemp("template")
    (template / "README").write_text("one commit\n")
    theirs = dict.fromkeys(name for name in os.environ if name.startswith("GIT_"))
    # No template of git's own: the sample hooks would be most of what is copied.
    for command in ("init -q -b main --template=", "add README", "commit -q -m first"):
        done = run(["git", *command.split()], cwd=template, env={**theirs, **GIT})
        assert done.returncode == 0, done.stderr
    return template


@pytest.fixture
def make_repo(tmp_path: Path, template_repository: Path) -> Callable[[str], Path]:
    """Make a repository with one commit at a path relative to the test's own directory."""

    def make_repo(name: str) -> Path:
        return Path(shutil.copytree(template_repository, tmp_path / name, symlinks=True))

    return make_repo


@pytest.fixture
def repo(make_repo: Callable[[str], Path]) -> Path:
    """A repository with one commit, in a directory with an awkward name."""
    return make_repo(f"{AWKWARD}/{AWKWARD}")


@pytest.fixture
def worktree(git: Callable[..., str]) -> Callable[[Path, str], Path]:
    """Add a linked worktree: ``name`` is a path relative to the directory the repository is in."""

    def worktree(repo: Path, name: str) -> Path:
        git(repo, "worktree", "add", "--quiet", "--detach", str(repo.parent / name))
        return repo.parent / name

    return worktree


@pytest.fixture
def linked(
    git: Callable[..., str], worktree: Callable[[Path, str], Path]
) -> Callable[[Path, str], Path]:
    """Commit all that is in a repository and add a linked worktree, which so has it too."""

    def linked(repo: Path, name: str) -> Path:
        git(repo, "add", "--all")
        git(repo, "commit", "--quiet", "--allow-empty", "--message=configured")
        return worktree(repo, name)

    return linked


@pytest.fixture
def allow() -> Callable[[Path], None]:
    """Trust the configuration of a directory, as `isoenv allow` does; not a broken one."""

    def allow(directory: Path) -> None:
        try:
            here = context.find(context.Caller(str(directory), os.environ))
            context.require_trust(here)
        except NotTrustedError:
            assert here.checkout is not None
            trust.write(here.caller.state, here.checkout, here.subjects, trust.ALLOWED)
        except IsoenvError:
            return

    return allow


@pytest.fixture
def isoenv(allow: Callable[[Path], None]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as a process: ``isoenv("show", cwd=…, env={…}, text=…)``, as ``run``.

    The configuration of ``cwd`` is allowed first, unless ``trusted`` is False.
    """

    def isoenv(
        *args: str,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        text: str = "",
        trusted: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        if trusted and cwd:
            allow(cwd)
        env = {"PYTHONPATH": str(ROOT), **(env or {})}
        return run([sys.executable, "-m", "isoenv", *args], cwd=cwd, env=env, text=text)

    return isoenv


class Serving:
    """Services of the checkout ``root``, whose configuration has the port ``web``."""

    def __init__(self, root: Path, port: int, isoenv: Callable[..., Done]) -> None:
        self.root = root
        self.port = port
        self.isoenv = isoenv

    def run(self, *args: str, **given: Any) -> Done:  # noqa: ANN401  # what `isoenv` takes
        """Run the command in the checkout."""
        return self.isoenv(*args, cwd=self.root, **given)

    def configure(self, services: str, more: str = "") -> None:
        """Write the configuration."""
        text = f'project = "shop"\n{more}\n[ports]\nweb = {self.port}\n{services}'
        (self.root / "isoenv.toml").write_text(text)

    def place(self, service: str = "web", slot: int = 0) -> str:
        """Return the directory of a service's record."""
        return record.directory(paths.state_dir(os.environ), "shop", slot, service)

    def record(self, service: str = "web", slot: int = 0) -> record.Record:
        """Return a service's record."""
        found = record.read(self.place(service, slot))
        assert found is not None
        return found

    def pid(self, service: str = "web", slot: int = 0) -> int:
        """Return the pid of a service's first process."""
        return self.record(service, slot).number("pid")

    def ps(self, *operands: str) -> dict[str, dict[str, Any]]:
        """Return what `ps --json` says of each service."""
        envelope = json.loads(self.run("ps", "--json", *operands).stdout)
        assert envelope["version"] == 1
        return {service["name"]: service for service in envelope["services"]}

    def states(self, *operands: str) -> dict[str, str]:
        """Return the state of each service."""
        return {name: found["state"] for name, found in self.ps(*operands).items()}


@pytest.fixture
def serving(
    make_repo: Callable[[str], Path],
    isoenv: Callable[..., Done],
    free_port: Callable[[], int],
    home: Path,
) -> Iterator[Serving]:
    """A checkout for services; what is left of them is ended, each process on proof."""
    yield Serving(make_repo("shop"), free_port(), isoenv)
    for file in (home.parent / "state/services").glob("*/*/record"):
        found = record.read(str(file.parent))
        if found:
            members.end(str(file.parent), found, 0.0)


@pytest.fixture
def wait_for() -> Callable[[Callable[[], T]], T]:
    """Wait until a function returns something true, and return that."""

    def wait_for(condition: Callable[[], T]) -> T:
        deadline = time.monotonic() + DEADLINE
        while not (found := condition()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return found

    return wait_for


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """Each kind of store, empty, where this test's processes find it."""
    assert home
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_database")
        monkeypatch.setenv("ISOENV_STORE", url)
    with closing(open_store(os.environ["ISOENV_STATE_DIR"])) as opened:
        yield opened


@pytest.fixture(params=["of a machine", "of all hosts"])
def kind(request: pytest.FixtureRequest, home: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each kind of locks: those of the machine alone, and those of a store that hosts share."""
    assert home
    found: str = request.param
    if found == "of all hosts":
        monkeypatch.setenv("ISOENV_STORE", request.getfixturevalue("postgres_database"))
    return found


@pytest.fixture
def python() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a Python process with this tree's isoenv: ``python(code, *arguments)``, with pipes."""
    started: list[subprocess.Popen[str]] = []

    def python(code: str, *arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield python
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Return a port that nobody holds on any address, another one at each call."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    # Apart by the last three digits, so that port + 1000 * N stays this worker's own.
    ports = cycle([port for port in PORTS if port % 1000 % workers == worker])

    def free_port() -> int:
        return next(port for port in ports if is_free(port))

    return free_port


def is_free(port: int) -> bool:
    """Whether nobody listens on the port, on any address of either family."""
    try:
        socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True).close()
    except OSError:
        return False
    return True


@pytest.fixture
def listener() -> Iterator[Callable[[str, int], socket.socket]]:
    """Listen on an address and a port, until the test ends."""
    sockets: list[socket.socket] = []

    def listener(address: str, port: int) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        dual = address == "::"
        sockets.append(socket.create_server((address, port), family=family, dualstack_ipv6=dual))
        return sockets[-1]

    yield listener
    for opened in sockets:
        opened.close()


# Claude Code as its hooks and commands see it: a process that starts each of them anew.
CLAUDE = """\
import json, os, subprocess, sys
for line in sys.stdin:
    argv, cwd, environ, given = json.loads(line)
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, **environ}, input=given.encode(), capture_output=True
    )
    said = [done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr)]
    print(json.dumps(said), flush=True)
"""


class Claude:
    """A window of Claude Code: it reads its settings, calls its hooks, and runs commands.

    ``env_files`` are those that its hooks were given, one for each event; commands read them in
    front, as the Bash tool does.
    """

    def __init__(self, directory: Path, session_id: str, env: Mapping[str, str | None]) -> None:
        program = directory / "claude"
        program.write_text(CLAUDE)
        given = {**os.environ, **env}
        environ = {name: value for name, value in given.items() if value is not None}
        self.process = subprocess.Popen(
            [sys.executable, program], env=environ, stdin=PIPE, stdout=PIPE, text=True
        )
        self.directory = directory
        self.session_id = session_id
        self.env_files: list[Path] = []
        self.settings: dict[str, Any] = {}

    def read_settings(self, file: Path) -> None:
        """Start with these settings, from then on."""
        self.settings = json.loads(file.read_text())

    def event(self, name: str, cwd: Path | str, **fields: str) -> list[tuple[int, str, str]]:
        """Call the hooks of an event; return of each its exit code and what it printed."""
        event = {"hook_event_name": name, "session_id": self.session_id, "cwd": str(cwd), **fields}
        environ = dict(self.settings.get("env", {}))
        if name in ("SessionStart", "CwdChanged"):
            self.env_files.append(self.directory / f"env-{len(self.env_files)}.sh")
            environ["CLAUDE_ENV_FILE"] = str(self.env_files[-1])
        return [
            self.run(["sh", "-c", hook["command"]], "/", environ, json.dumps(event))
            for group in self.settings["hooks"].get(name, [])
            if re.fullmatch(group.get("matcher", ".*"), fields.get("tool_name", ""))
            for hook in group["hooks"]
        ]

    def bash(self, command: str, cwd: Path, *, env_files: bool = True) -> str:
        """Run a command as the Bash tool does, which must succeed; return what it printed."""
        files = [file for file in self.env_files if env_files and file.exists()]
        script = "".join(file.read_text() for file in files) + f"eval {shlex.quote(command)}"
        environ = self.settings.get("env", {})
        code, stdout, stderr = self.run(["bash", "-c", script], str(cwd), environ, "")
        assert (code, stderr) == (0, ""), stderr
        return stdout

    def run(
        self, argv: list[str], cwd: str, environ: Mapping[str, str], given: str
    ) -> tuple[int, str, str]:
        """Run a program as a child of the window."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps([argv, cwd, environ, given]) + "\n")
        self.process.stdin.flush()
        code, stdout, stderr = json.loads(self.process.stdout.readline())
        return code, stdout, stderr

    def kill(self) -> None:
        """End the window as the kernel does when memory is short."""
        self.process.kill()
        self.close()

    def close(self) -> None:
        """End the window without a word to its hooks."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def claude(tmp_path: Path) -> Iterator[Callable[..., Claude]]:
    """Open windows of Claude Code: ``claude("session-id", NAME="value")``."""
    windows: list[Claude] = []

    def claude(session_id: str = "5e551011", **env: str | None) -> Claude:
        directory = tmp_path / f"window-{len(windows)}"
        directory.mkdir()
        windows.append(Claude(directory, session_id, env))
        return windows[-1]

    yield claude
    for window in windows:
        window.close()
