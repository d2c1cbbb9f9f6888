"""Directories of an environment: made on first use, private outside, unseen by git inside."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from isoenv import directories
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_outside_the_checkout_all_that_is_made_is_private(tmp_path: Path) -> None:
    top = tmp_path / "cache/shop/1"
    directories.make([str(top / "data"), str(top / "logs")], str(tmp_path / "shop"))
    made = [top.parents[1], top.parents[0], top, top / "data", top / "logs"]
    assert [mode(path) for path in made] == [0o700] * 5
    assert list(tmp_path.rglob(".gitignore")) == []


def test_inside_the_topmost_new_directory_is_ignored(tmp_path: Path) -> None:
    directories.make([str(tmp_path / ".data/1/pids"), str(tmp_path / ".data/1")], str(tmp_path))
    assert list(tmp_path.rglob(".gitignore")) == [tmp_path / ".data/.gitignore"]
    assert (tmp_path / ".data/.gitignore").read_text() == "*\n"
    assert mode(tmp_path / ".data/1/pids") == 0o755


def test_a_directory_of_the_users_own_is_not_ignored(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o750)
    directories.make([str(tmp_path / "data"), str(tmp_path / "data/1")], str(tmp_path))
    assert list(tmp_path.rglob(".gitignore")) == [tmp_path / "data/1/.gitignore"]
    assert mode(tmp_path / "data") == 0o750


def test_a_neighbour_with_the_same_beginning_is_outside(tmp_path: Path) -> None:
    directories.make([str(tmp_path / "shop-data")], str(tmp_path / "shop"))
    assert mode(tmp_path / "shop-data") == 0o700
    assert not (tmp_path / "shop-data/.gitignore").exists()


def test_the_directory_of_a_checkout_that_is_gone_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(IsoenvError, match="is gone: `isoenv prune`"):
        directories.make([str(tmp_path / "shop/data")], str(tmp_path / "shop"))
    assert list(tmp_path.iterdir()) == [tmp_path / "home"]


@pytest.mark.parametrize("path", ["data", "data/below"])
def test_a_file_in_the_way_stays(tmp_path: Path, path: str) -> None:
    (tmp_path / "data").write_text("theirs")
    with pytest.raises(IsoenvError, match=r"^cannot make .*/data.*: .*`ls -ld`"):
        directories.make([str(tmp_path / path)], str(tmp_path))
    assert (tmp_path / "data").read_text() == "theirs"


def test_many_may_make_the_same_at_once(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"data/{number}/a/b/c") for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: directories.make(paths, str(tmp_path)), range(8)))
    assert all(os.path.isdir(path) for path in paths)


def test_bytes_that_are_not_utf8_survive(
    tmp_path: Path, git: Callable[..., str], make_repo: Callable[[str], Path]
) -> None:
    repo = make_repo("repo")
    name = os.fsdecode(b"d\xff\n'")
    directories.make([f"{repo}/{name}/1"], str(repo))
    (repo / name / "1/file").touch()
    assert git(repo, "status", "--porcelain") == ""
    assert tmp_path in repo.parents
