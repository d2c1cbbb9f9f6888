"""What doctor says of the claims that all users of a host share, and of other registries."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import context, host_directory
from isoenv.diagnosis import survey
from isoenv.models import Checkout, Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.diagnosis.finding import Finding

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


@pytest.fixture
def host(tmp_path: Path) -> Path:
    directory = tmp_path / "host"
    directory.mkdir()
    directory.chmod(0o1777)
    return directory


@pytest.fixture
def state(tmp_path: Path, host: Path) -> str:
    """A state directory with one lease, claimed."""
    assert host
    state = str(tmp_path / "state")
    lease(state, 4000)
    return state


def lease(state: str, port: int, place: Path | None = None) -> None:
    with Registry(state) as registry, registry.transaction():
        made = registry.insert(Project("shop", "shop"), port // 1000, f"shop-{port}")
        assert registry.host.claim(port) is None
        registry.reserve(made, {"web": (port, False)})
        if place:
            registry.settle(made, Checkout(str(place)), str(place), f"{port:032x}")


def all_found() -> list[Finding]:
    return list(survey.findings(context.Caller("/", os.environ), interactive=False))


def only(kind: str) -> Finding:
    [found] = all_found()
    assert found.kind == kind
    return found


def leave(state: str, *ports: int) -> None:
    """Claim ports in a process that is killed after its leases were given back."""
    code = (
        "import os, sys\n"
        "from isoenv.registry import Registry\n"
        "with Registry(sys.argv[1]) as registry, registry.transaction():\n"
        "    for port in sys.argv[2:]: assert registry.host.claim(int(port)) is None\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    environ = {**os.environ, "PYTHONPATH": str(Path(host_directory.__file__).parents[1])}
    argv = [sys.executable, "-c", code, state, *map(str, ports)]
    assert subprocess.run(argv, env=environ, check=False).returncode == -9


def test_claims_that_are_right_are_no_news(state: str) -> None:
    assert state
    assert all_found() == []


def test_claims_that_no_lease_backs_are_given_back(state: str, host: Path) -> None:
    leave(state, 5000, 5001)
    found = only("claims-left")
    assert "2 claims of ports that no lease has: 5000, 5001" in found.message
    assert found.repair is not None
    assert found.repair() == "gave 2 claims back"
    names = {file.name for file in host.iterdir() if file.name[7:].isdigit()}
    assert names == {"isoenv.4000"}
    assert all_found() == []


def test_claims_of_a_registry_that_is_gone_are_given_back(
    state: str, tmp_path: Path, host: Path
) -> None:
    gone = tmp_path / "gone"
    lease(str(gone), 6000)
    shutil.rmtree(gone)
    found = only("claims-left")
    assert found.repair is not None
    assert found.repair() == "gave 1 claim back"
    assert {file.name for file in host.iterdir()} == {"isoenv.4000"}
    assert Path(state).is_dir()


def test_another_registry_of_this_user_is_something_to_know(state: str, tmp_path: Path) -> None:
    other = str(tmp_path / "other")
    lease(other, 6000)
    found = only("two-registries")
    assert found.harmless
    assert f"another registry in {other}, with 1 port; this shell uses {state}" in found.message


def test_a_checkout_with_a_slot_in_two_registries_is_wrong(
    host: Path, tmp_path: Path, make_repo: Callable[[str], Path]
) -> None:
    assert host.is_dir()
    repo = make_repo("shop")
    for number, name in enumerate(("state", "other"), 4):
        lease(str(tmp_path / name), number * 1000, repo)
    found = only("two-registries")
    assert not found.harmless
    assert f": {repo} has a slot in each; " in found.message


@only_root
def test_a_port_that_another_user_has_claimed_too_is_wrong(state: str, host: Path) -> None:
    assert state
    shutil.chown(host / "isoenv.4000", "nobody")
    found = only("claimed-elsewhere")
    assert not found.harmless
    assert "port 4000 (web) of shop/4 shop-4000 is claimed by user nobody too" in found.message


@only_root
@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda host: shutil.chown(host, "nobody"), "belongs to user nobody"),
        (lambda host: host.chmod(0o777), "is writable by others and not sticky"),
    ],
    ids=["another user's", "not sticky"],
)
def test_a_directory_that_cannot_be_trusted_is_said(
    state: str, host: Path, prepare: Callable[[Path], object], said: str
) -> None:
    assert state
    prepare(host)
    found = only("claims-unusable")
    assert f"{host} {said}: other users cannot see which ports are leased" in found.message


@pytest.mark.parametrize("kind", ["link", "file", "fifo"])
def test_what_is_no_directory_is_said_and_does_not_hang(
    state: str, host: Path, tmp_path: Path, kind: str
) -> None:
    assert state
    shutil.move(host, tmp_path / "elsewhere")
    if kind == "link":
        host.symlink_to(tmp_path / "elsewhere")
    elif kind == "file":
        host.touch()
    else:
        os.mkfifo(host)
    assert only("claims-unusable").file == str(host)


@only_root
@pytest.mark.parametrize("make", ["link", "fifo", "directory", "huge", "unreadable", "garbage"])
@pytest.mark.parametrize("owner", ["root", "nobody"])
def test_hostile_files_are_neither_followed_nor_waited_for(
    state: str, host: Path, tmp_path: Path, make: str, owner: str
) -> None:
    path, secret = host / "isoenv.7000", tmp_path / "secret"
    secret.write_text("isoenv 1\0/\x001\0")
    if make == "link":
        path.symlink_to(secret)
    elif make == "fifo":
        os.mkfifo(path)
    elif make == "directory":
        path.mkdir()
    elif make == "huge":
        path.touch()
        os.truncate(path, 1 << 40)
    elif make == "unreadable":
        path.touch(mode=0)
    else:
        path.write_bytes(os.urandom(5000))
    user = pwd.getpwnam(owner)
    os.lchown(path, user.pw_uid, user.pw_gid)
    before = os.lstat(path)
    assert state
    assert all_found() == []
    with suppress(FileNotFoundError):
        assert os.lstat(path).st_ino == before.st_ino


def test_a_missing_directory_is_no_news_where_it_can_be_made(state: str, host: Path) -> None:
    assert state
    shutil.rmtree(host)
    assert all_found() == []
