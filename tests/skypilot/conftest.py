"""SkyPilot, real or its stand-in, for a user with a home and a state of the test's own."""

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isoenv import paths
from isoenv.services import members, record

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    Done = subprocess.CompletedProcess[str]

STAND_IN = Path(__file__).parent / "stand_in"
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
# What the user is to SkyPilot.
USER = "deadbeef"

COMMAND = """\
#!{python}
import sys
from sky.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Sky:
    """A user of SkyPilot: ``home`` is the home directory, ``outside`` is in no checkout."""

    home: Path
    outside: Path
    isoenv: Callable[..., Done]

    def run(self, *args: str, cwd: Path | None = None, **given: Any) -> Done:  # noqa: ANN401  # as `isoenv`
        """Run isoenv outside of any checkout, or in one."""
        return self.isoenv(*args, cwd=cwd or self.outside, **given)

    def api(self, slot: int, action: str, **given: Any) -> Done:  # noqa: ANN401  # as `run`
        """Run an action of an instance's server."""
        return self.run("api", str(slot), action, **given)

    def start(self, slot: int, **given: Any) -> None:  # noqa: ANN401  # as `run`
        """Start an instance's server, which has to go well."""
        done = self.api(slot, "start", **given)
        assert done.returncode == 0, done.stderr

    def client(self, slot: int, *args: str, **given: Any) -> dict[str, Any]:  # noqa: ANN401  # as `run`
        """Run SkyPilot's command in an instance; return what the stand-in prints."""
        done = self.run("exec", str(slot), "sky", *args, **given)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def status(self, slot: int, **given: Any) -> dict[str, Any]:  # noqa: ANN401  # as `run`
        """Return what `api status` says, with its exit code."""
        done = self.run("api", str(slot), "status", "--json", **given)
        [service] = json.loads(done.stdout)["services"]
        return {**service, "code": done.returncode}

    def state(self, slot: int) -> tuple[str, int]:
        """Return the state of an instance's server, and the exit code."""
        found = self.status(slot)
        return found["state"], found["code"]

    def directory(self, slot: int) -> Path:
        """Return an instance's own directory."""
        return self.home / f".sky-dev-{slot}"

    def place(self, slot: int) -> str:
        """Return the directory of a server's record."""
        return record.directory(paths.state_dir(os.environ), "skypilot", slot, "api")

    def record(self, slot: int) -> record.Record:
        """Return a server's record."""
        found = record.read(self.place(slot))
        assert found is not None
        return found

    def leader(self, slot: int) -> int:
        """Return the pid of a server's first process."""
        return self.record(slot).number("pid")

    def pids(self, slot: int) -> list[int]:
        """Return the processes of a server."""
        return [each.pid for each in members.find(self.place(slot), self.record(slot))]


@pytest.fixture
def sky(home: Path, tmp_path: Path, isoenv: Callable[..., Done]) -> Iterator[Sky]:
    """A user with a state of the own; what is left of servers is ended, each process on proof."""
    (home / ".sky").mkdir()
    (home / ".sky/user_hash").write_text(USER)
    (tmp_path / "outside").mkdir()
    yield Sky(home, tmp_path / "outside", isoenv)
    for file in (tmp_path / "state/services").glob("*/*/record"):
        found = record.read(str(file.parent))
        if found:
            members.end(str(file.parent), found, 1.0)


@pytest.fixture
def copy_source() -> Callable[[Path, str], None]:
    """Put the stand-in's source below a directory; before 0.14.0 it knows one port."""

    def copy_source(to: Path, version: str) -> None:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(STAND_IN, to, dirs_exist_ok=True, ignore=ignored)
        package = to / "sky/__init__.py"
        package.write_text(package.read_text().replace("0.14.1", version))
        if version < "0.14":
            (to / "sky/skylet/constants.py").write_text("LOCAL_PORT = None\n")

    return copy_source


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, copy_source: Callable[[Path, str], None]
) -> Callable[..., Path]:
    """Make a virtual environment with the stand-in, first on PATH, and return it."""

    def install(version: str = "0.14.1") -> Path:
        venv = tmp_path / "venv"
        (venv / "bin").mkdir(parents=True)
        base = Path(sys.executable).resolve()
        (venv / "pyvenv.cfg").write_text(f"home = {base.parent}\n")
        (venv / "bin/python3").symlink_to(base)
        copy_source(venv / f"lib/{PYTHON}/site-packages", version)
        command = venv / "bin/sky"
        command.write_text(COMMAND.format(python=venv / "bin/python3"))
        command.chmod(0o755)
        monkeypatch.setenv("PATH", f"{venv}/bin:{os.environ['PATH']}")
        return venv

    return install


@pytest.fixture
def tree(
    make_repo: Callable[[str], Path],
    git: Callable[..., str],
    copy_source: Callable[[Path, str], None],
) -> Path:
    """A checkout of SkyPilot's source, of the stand-in's."""
    repo = make_repo("skypilot")
    copy_source(repo, "1.0.0-dev0")
    (repo / ".gitignore").write_text(".venv\n__pycache__/\n")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=sky")
    return repo
