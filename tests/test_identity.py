"""A checkout keeps its lease through what git and people do to it, and nobody else gets it."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from isoenv import context, identity, leasing, pruning
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isoenv.models import Lease

    Git = Callable[..., str]
    MakeRepo = Callable[[str], Path]
    AddWorktree = Callable[[Path, str], Path]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(str(tmp_path / "state")) as opened:
        yield opened


@pytest.fixture
def hold(registry: Registry) -> Callable[[Path], Lease]:
    """Return the lease of a directory's checkout, as a command in it does."""

    def hold(directory: Path) -> Lease:
        here = context.find(context.Caller(str(directory), os.environ))
        return leasing.hold(registry, here.claim)

    return hold


def gone(registry: Registry) -> list[str | None]:
    return [orphan.lease.root for orphan in pruning.orphans(registry)]


def test_a_checkout_entered_through_links_is_the_same(
    hold: Callable[[Path], Lease], make_repo: MakeRepo, worktree: AddWorktree, tmp_path: Path
) -> None:
    repo = make_repo("real/deep/shop")
    linked = worktree(repo, "feature")
    (linked / "inner").mkdir()
    before = hold(linked)
    (tmp_path / "parent").symlink_to("real/deep")
    (tmp_path / "direct").symlink_to(linked)
    (tmp_path / "twice").symlink_to("direct")
    (tmp_path / "inner").symlink_to(linked / "inner")
    for name in ("parent/feature", "direct", "twice", "twice/inner", "inner"):
        assert hold(tmp_path / name) == before
    assert hold(tmp_path / "parent/shop").slot == 0
    # The path that git itself was given may be one, too.
    subprocess.run(["ln", "-sfn", "real/deep", tmp_path / "other"], check=True)
    through = worktree(tmp_path / "other/shop", "through")
    lease = hold(through)
    assert lease.root == str(tmp_path / "real/deep/through")
    assert hold(tmp_path / "real/deep/through") == lease


def test_a_moved_directory_that_a_link_replaces_is_the_same(
    hold: Callable[[Path], Lease], make_repo: MakeRepo, worktree: AddWorktree, tmp_path: Path
) -> None:
    repo = make_repo("small/shop")
    trees = [repo, worktree(repo, "feature")]
    before = [hold(tree).id for tree in trees]
    # Out of room: all of it goes to a larger disk, and a link says where.
    (tmp_path / "small").rename(tmp_path / "large")
    (tmp_path / "small").symlink_to("large")
    assert [hold(tree).id for tree in trees] == before
    assert hold(trees[1]).root == str(tmp_path / "large/feature")


def test_what_git_cleans_up_costs_no_lease(
    hold: Callable[[Path], Lease],
    registry: Registry,
    git: Git,
    make_repo: MakeRepo,
    worktree: AddWorktree,
) -> None:
    repo = make_repo("shop")
    linked = worktree(repo, "feature")
    before = [hold(tree) for tree in (repo, linked)]
    for tree in (repo, linked):
        git(tree, "commit", "--quiet", "--allow-empty", "-m", "more")
        git(tree, "gc", "--quiet", "--aggressive", "--prune=now")
        git(tree, "worktree", "prune", "--expire=now")
        git(tree, "reflog", "expire", "--expire=now", "--all")
        git(tree, "repack", "-adq")
        git(tree, "clean", "-dffx", "--quiet")
        git(tree, "stash", "--quiet", "--include-untracked")
    assert [hold(tree) for tree in (repo, linked)] == before
    assert gone(registry) == []


def test_another_branch_is_no_other_checkout(
    hold: Callable[[Path], Lease], git: Git, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("shop")
    linked = worktree(repo, "feature")
    before = hold(linked)
    git(linked, "switch", "--quiet", "-c", "other")
    assert hold(linked) == before
    git(linked, "switch", "--quiet", "--detach", "HEAD")
    git(repo, "branch", "-D", "--quiet", "other")
    assert hold(linked) == before


def test_a_locked_worktree_that_is_away_keeps_its_lease(  # noqa: PLR0913, PLR0917  # fixtures
    hold: Callable[[Path], Lease],
    registry: Registry,
    git: Git,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    tmp_path: Path,
) -> None:
    repo = make_repo("shop")
    linked = worktree(repo, "stick/feature")
    before = hold(linked)
    git(repo, "worktree", "lock", "--reason", "on a stick", str(linked))
    (tmp_path / "stick").rename(tmp_path / "pulled")
    git(repo, "worktree", "prune", "--expire=now")
    assert not identity.is_gone(before)
    assert gone(registry) == []
    assert hold(worktree(repo, "next")).slot == 2
    (tmp_path / "pulled").rename(tmp_path / "stick")
    assert hold(linked) == before


@contextmanager
def bound(source: Path, point: Path) -> Iterator[None]:
    """A disk that is mounted for a while."""
    subprocess.run(["mount", "--bind", str(source), str(point)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of its own, that is mounted where nobody looks."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can mount")
    store = tmp_path / "store"
    store.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", str(store)], check=True)
    try:
        yield store
    finally:
        subprocess.run(["umount", str(store)], check=True)


@pytest.mark.parametrize("what", ["repository", "worktree", "plain"])
def test_a_checkout_on_a_disk_that_is_not_mounted_keeps_its_lease(  # noqa: PLR0913, PLR0917  # fixtures
    hold: Callable[[Path], Lease],
    registry: Registry,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    tmp_path: Path,
    disk: Path,
    what: str,
) -> None:
    point = tmp_path / "media" / "stick"
    point.mkdir(parents=True)
    other = make_repo("other")
    (other / "isoenv.toml").write_text('project = "shop"\n')
    hold(other)
    with bound(disk, point):
        if what == "repository":
            tree = make_repo("media/stick/shop")
        elif what == "worktree":
            tree = worktree(other, "media/stick/shop")
        else:
            tree = point / "shop"
            tree.mkdir()
        (tree / "isoenv.toml").write_text('project = "shop"\n')
        before = hold(tree)
        assert before.slot == 1
    assert not tree.exists()
    assert gone(registry) == []
    assert not identity.is_gone(before)
    beside = worktree(other, "shop")
    (beside / "isoenv.toml").write_text('project = "shop"\n')
    # Neither its slot nor its name is had by somebody else meanwhile, whatever else is lost.
    os.unlink(registry.file)
    assert (hold(beside).slot, hold(beside).name) == (2, "shop-2")
    with bound(disk, point):
        after = hold(tree)
        assert (after.id, after.slot, after.name, after.token) == (
            *(before.id, 1, "shop", before.token),
        )
    # The mount point, too: a stick's is made when it is put in.
    point.rmdir()
    assert gone(registry) == []


def test_a_disk_that_was_unmounted_is_told_from_a_checkout_that_was_removed(
    hold: Callable[[Path], Lease],
    registry: Registry,
    make_repo: MakeRepo,
    tmp_path: Path,
    disk: Path,
) -> None:
    point = tmp_path / "stick"
    point.mkdir()
    with bound(disk, point):
        removed, kept = make_repo("stick/removed"), make_repo("stick/kept")
        for tree in (removed, kept):
            hold(tree)
        shutil.rmtree(removed)
        assert gone(registry) == [str(removed)]
    assert gone(registry) == []


def test_a_bare_repository_that_is_renamed_keeps_the_leases_of_its_worktrees(
    hold: Callable[[Path], Lease], git: Git, make_repo: MakeRepo, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(make_repo("repo")), "shop/.bare")
    bare = tmp_path / "shop/.bare"
    for name in ("main", "one"):
        git(bare, "worktree", "add", "--quiet", "--detach", f"../{name}")
    before = [hold(tmp_path / "shop" / name) for name in ("main", "one")]
    git(bare, "worktree", "move", "../one", "../two")
    (tmp_path / "shop").rename(tmp_path / "store")
    moved = tmp_path / "store"
    git(moved / ".bare", "worktree", "repair", str(moved / "main"), str(moved / "two"))
    after = [hold(moved / name) for name in ("two", "main")][::-1]
    assert [(lease.id, lease.slot) for lease in after] == [
        (lease.id, lease.slot) for lease in before
    ]
    assert {lease.project.name for lease in after} == {"store"}
    git(moved / ".bare", "worktree", "add", "--quiet", "--detach", "../three")
    assert hold(moved / "three").slot == 3


def test_a_submodule_keeps_its_lease_through_what_happens_to_its_repository(
    hold: Callable[[Path], Lease],
    git: Git,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    tmp_path: Path,
) -> None:
    library, repo = make_repo("library"), make_repo("shop")
    allow = ("-c", "protocol.file.allow=always")
    git(repo, *allow, "submodule", "--quiet", "add", str(library), "lib")
    git(repo, "commit", "--quiet", "-m", "lib")
    linked = worktree(repo, "linked")
    git(linked, *allow, "submodule", "--quiet", "update", "--init")
    ids = [hold(tree).id for tree in (repo, repo / "lib", linked, linked / "lib")]
    assert len(set(ids)) == 4
    git(repo, "mv", "lib", "vendor")
    assert hold(repo / "vendor").id == ids[1]
    repo.rename(tmp_path / "store")
    store = tmp_path / "store"
    git(store, "worktree", "repair", str(linked))
    assert hold(store).id == ids[0]
    assert hold(store / "vendor").id == ids[1]
    assert hold(linked).id == ids[2]
    # Made again, it is another one.
    shutil.rmtree(store / "vendor")
    shutil.rmtree(store / ".git/modules/lib")
    git(store, *allow, "submodule", "--quiet", "update", "--init")
    assert hold(store / "vendor").id not in ids
