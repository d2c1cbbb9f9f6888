"""What doctor says of the state directory and the registry in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from isoenv import context, mounts, paths
from isoenv.diagnosis import state, survey
from isoenv.models import Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.diagnosis.finding import Finding


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A state directory with a registry in it, in which a slot is leased."""
    with Registry(str(tmp_path / "state")) as registry, registry.transaction():
        lease = registry.insert(Project("shop", "shop"), 1, "shop-1")
        registry.reserve(lease, {"web": (4000, False)})
    return tmp_path / "state"


def survey_all() -> list[Finding]:
    return list(survey.findings(context.Caller("/", os.environ), interactive=False))


def kinds() -> list[str]:
    return [found.kind for found in survey_all()]


def only(kind: str) -> Finding:
    [found] = [found for found in survey_all() if found.kind == kind]
    return found


def test_nothing_is_wrong_and_nothing_is_made_where_there_is_nothing(tmp_path: Path) -> None:
    assert survey_all() == []
    assert not (tmp_path / "state").exists()


def test_nothing_is_wrong_with_a_registry_that_is_right(directory: Path) -> None:
    before = {file.name: file.read_bytes() for file in directory.glob("registry.db")}
    assert survey_all() == []
    assert {file.name: file.read_bytes() for file in directory.glob("registry.db")} == before


@pytest.mark.parametrize(
    ("mode", "what"), [(0o755, "look into"), (0o750, "look into"), (0o777, "write to")]
)
def test_a_directory_that_others_may_enter_is_closed(directory: Path, mode: int, what: str) -> None:
    directory.chmod(mode)
    found = only("state-open")
    assert not found.harmless
    assert f"other users may {what} {directory}" in found.message
    assert found.repair is not None
    assert found.repair() == f"closed {directory} to others (mode 0700)"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert kinds() == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("name", [".", "registry.db", "registry.db.lock"])
def test_what_belongs_to_another_user_is_said(directory: Path, name: str) -> None:
    shutil.chown(directory / name, "nobody")
    found = only("state-owner")
    assert "belongs to user nobody, and this is root" in found.message
    assert found.repair is None


def damage(file: Path) -> None:
    content = bytearray(file.read_bytes())
    # Behind the header and the first page: the tables and their indexes.
    content[4096:] = os.urandom(len(content) - 4096)
    file.write_bytes(content)


def lose_an_index(file: Path) -> None:
    """Let an index forget a row, as a failing disk would: only a full check sees that."""
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'NOT shared', 'port > 9999')"
            " WHERE name = 'reservation_port'"
        )
        connection.commit()


@pytest.mark.parametrize(
    "break_it",
    [
        damage,
        lose_an_index,
        lambda file: file.write_bytes(b"no database\n" * 100),
        lambda file: file.write_bytes(file.read_bytes()[:5000]),
    ],
    ids=["random pages", "an index without a row", "no database", "cut off"],
)
def test_a_damaged_registry_is_found_and_left_as_it_is(
    directory: Path, break_it: Callable[[Path], object]
) -> None:
    file = directory / "registry.db"
    break_it(file)
    before = file.read_bytes()
    found = only("registry-damaged")
    assert f"the registry {file} is damaged: " in found.message
    assert file.read_bytes() == before


def test_a_reservation_of_no_lease_is_damage(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "registry.db")) as connection:
        connection.execute("DELETE FROM lease")
        connection.commit()
    assert "reservation row None has no lease" in only("registry-damaged").message


def test_a_registry_of_a_newer_version_is_said_with_the_remedy(directory: Path) -> None:
    with closing(sqlite3.connect(directory / "registry.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    found = only("registry-newer")
    assert "has schema 99, this isoenv reads up to " in found.message
    assert "pip install --upgrade isoenv" in found.remedy


def test_a_registry_that_cannot_be_read_is_not_called_damaged(directory: Path) -> None:
    (directory / "registry.db").unlink()
    (directory / "registry.db").mkdir()
    assert kinds() == ["registry-unreadable"]


def test_a_stopped_process_that_keeps_the_lock_is_named(directory: Path) -> None:
    code = (
        "import fcntl, sys\n"
        "file = open(sys.argv[1])\n"
        "fcntl.flock(file, fcntl.LOCK_EX)\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    lock = directory / "registry.db.lock"
    argv = [sys.executable, "-c", code, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        # Who works holds it for a moment: no news.
        assert kinds() == []
        holder.send_signal(signal.SIGSTOP)
        process = psutil.Process(holder.pid)
        while process.status() != psutil.STATUS_STOPPED:
            pass
        found = only("registry-locked")
        assert f"{lock} is locked by " in found.message
        assert f"(pid {holder.pid}), which is stopped" in found.message
        holder.send_signal(signal.SIGCONT)
        assert holder.stdin is not None
        holder.stdin.close()
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_state_directory_on_a_network_is_said(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = b"9 1 0:40 / %s rw - nfs4 server:/home rw\n" % os.fsencode(directory)
    monkeypatch.setattr(mounts, "table", lambda: line)
    found = only("state-network")
    assert f"{directory} is on a nfs4 file system" in found.message


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_a_read_only_or_full_disk_is_said(directory: Path) -> None:
    script = (
        'mount -t tmpfs -o "size=$3" tmpfs "$1" && cp -a "$2/." "$1" && '
        '{ [ -z "$4" ] || mount -o remount,ro "$1"; } && '
        'ISOENV_STATE_DIR=$1 exec "$5" -m isoenv doctor --json'
    )
    mounted = directory.with_name("mounted")
    mounted.mkdir()
    for size, read_only, kind in (("1000k", "", "state-full"), ("8m", "ro", "state-read-only")):
        words = [script, "sh", str(mounted), str(directory), size, read_only, sys.executable]
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", *words],
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(Path(state.__file__).parents[2])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "")
        assert f'"kind": "{kind}"' in done.stdout
        assert str(mounted) in done.stdout
        assert "registry-damaged" not in done.stdout


def test_a_path_that_is_no_directory_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to("state")
    assert f"cannot use {tmp_path}/state: " in only("state").message
    assert paths.registry_file(str(tmp_path / "state"))
