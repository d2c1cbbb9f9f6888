"""`isoenv prune` gives back what is gone, deletes only what isoenv has made, forgets nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import (
    context,
    entering,
    generated,
    instance_directories,
    leasing,
    paths,
    pruning,
    registry_mirror,
)
from isoenv.errors import IsoenvError
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.models import Lease

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
CONFIG = 'project = "shop"\n[instance]\ndir = "{home}/.shop-{id}"\n'

# Root may write everywhere; without these capabilities it is a user like any other.
DAC = "-dac_override,-dac_read_search"
UNPRIVILEGED = ["setpriv", f"--bounding-set={DAC}", f"--inh-caps={DAC}"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def shop(make_repo: Callable[[str], Path], git: Callable[..., str], isoenv: Run) -> Path:
    """A main checkout whose instances have directories of their own in the user's home."""
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "-m", "configured")
    assert isoenv("exec", ".", "true", cwd=repo).returncode == 0
    return repo


@pytest.fixture
def entered(
    shop: Path, worktree: Callable[[Path, str], Path], allow: Callable[[Path], None]
) -> Callable[[str], tuple[Path, Lease]]:
    """Make a work tree and enter it as a shell does; return it with its lease."""

    def entered(name: str) -> tuple[Path, Lease]:
        tree = worktree(shop, name)
        allow(tree)
        caller = context.Caller(str(tree), os.environ)
        assert entering.hook_code(caller, "bash")
        with entering.open_registry(caller) as registry:
            return tree, leasing.hold(registry, context.find(caller).claim)

    return entered


@pytest.fixture
def registry(state: Path) -> Iterator[Registry]:
    with Registry(str(state)) as opened:
        yield opened


def remove(git: Callable[..., str], shop: Path, tree: Path) -> None:
    git(shop, "worktree", "remove", "--force", str(tree))


def said(done: subprocess.CompletedProcess[str]) -> list[str]:
    assert done.stdout == ""
    return [line.removeprefix("isoenv: ") for line in done.stderr.splitlines()]


def own_directory(state: Path, lease: Lease) -> Path:
    """Make what `ISOENV_DIR` names for a project that chooses no other directory."""
    project = lease.project
    own = Path(paths.instance_dir(str(state), project.key, project.name, lease.slot))
    own.mkdir(parents=True)
    (own / "data").write_text("theirs")
    return own


def test_what_a_dry_run_shows_is_then_done_alike(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    state: Path,
) -> None:
    (one, lease), (two, _) = entered("one"), entered("two")
    own = own_directory(state, lease)
    (home / ".shop-1" / "data").write_text("theirs")
    for tree in (one, two):
        remove(git, shop, tree)
    with Registry(str(state)) as registry:
        before = registry_mirror.dumps(registry.connection)
    files = sorted(path for top in (state, home) for path in top.rglob("*"))
    dry = isoenv("prune", "--dry-run", "--purge", cwd=shop)
    with Registry(str(state)) as registry:
        assert registry_mirror.dumps(registry.connection) == before
    assert sorted(path for top in (state, home) for path in top.rglob("*")) == files
    done = isoenv("prune", "--purge", cwd=shop)
    assert said(done) == [
        f"freed shop/1 one ({one})",
        f"removed {home}/.shop-1",
        f"removed {own}",
        f"freed shop/2 two ({two})",
        f"removed {home}/.shop-2",
    ]
    will = {"freed": "would free", "removed": "would remove"}
    words = [line.partition(" ") for line in said(done)]
    assert said(dry) == [f"{will[verb]} {rest}" for verb, _, rest in words]
    assert (dry.returncode, done.returncode) == (0, 0)
    assert not list(home.glob(".shop-[12]*"))
    assert not own.exists()
    assert said(isoenv("prune", "--purge", cwd=shop)) == ["nothing is gone"]
    with Registry(str(state)) as registry:
        assert registry.remains() == []
        assert [each.slot for each in registry.leases()] == [0]


def test_directories_stay_on_record_until_they_are_purged(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    state: Path,
) -> None:
    tree, lease = entered("one")
    own = own_directory(state, lease)
    remove(git, shop, tree)
    left = "2 directories are left of what is gone: `isoenv prune --purge` deletes them"
    assert said(isoenv("prune", cwd=shop)) == [f"freed shop/1 one ({tree})", left]
    assert said(isoenv("prune", cwd=shop)) == ["nothing is gone", left]
    assert (own / "data").read_text() == "theirs"
    # Also when the registry is lost meanwhile.
    (state / "registry.db").unlink()
    done = isoenv("prune", "--purge", cwd=shop)
    assert said(done)[1:] == [f"removed {home}/.shop-1", f"removed {own}"]
    assert not own.exists()
    assert not (home / ".shop-1").exists()


def test_the_directories_of_a_slot_that_was_released_are_left_alone(
    isoenv: Run, shop: Path, entered: Callable[[str], tuple[Path, Lease]], home: Path
) -> None:
    tree, _ = entered("one")
    assert isoenv("release", cwd=tree).returncode == 0
    assert said(isoenv("prune", "--purge", cwd=shop)) == ["nothing is gone"]
    assert (home / ".shop-1").is_dir()


def test_what_the_next_holder_of_a_slot_uses_is_his(
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
) -> None:
    tree, _ = entered("one")
    remove(git, shop, tree)
    isoenv("prune", cwd=shop)
    two, _ = entered("two")
    assert isoenv("claim", "1", cwd=two).returncode == 0
    assert said(isoenv("prune", "--purge", cwd=shop)) == ["nothing is gone"]
    assert (home / ".shop-1").is_dir()


@pytest.mark.parametrize("whose", ["user", "copy", "link", "other user", "replaced"])
def test_a_directory_that_isoenv_has_not_made_is_never_deleted(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    registry: Registry,
    whose: str,
) -> None:
    theirs = home / ".shop-1"
    if whose == "user":
        theirs.mkdir()
    tree, lease = entered("one")
    assert (str(theirs) in registry.directories(lease.project, 1)) == (whose != "user")
    if whose in ("copy", "replaced"):
        theirs.rename(home / "made")
        shutil.copytree(home / "made", theirs)
        if whose == "replaced":
            (theirs / instance_directories.MARK).unlink()
    elif whose == "link":
        theirs.rename(home / "made")
        theirs.symlink_to("made")
    elif whose == "other user":
        if os.geteuid() != 0:
            (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can give it away")
        os.chown(theirs, 65534, -1)
    (theirs / "precious").write_text("kept")
    remove(git, shop, tree)
    done = isoenv("prune", "--purge", cwd=shop)
    assert (done.returncode, said(done)) == (0, [f"freed shop/1 one ({tree})"])
    assert (theirs / "precious").read_text() == "kept"
    assert said(isoenv("prune", "--purge", cwd=shop)) == ["nothing is gone"]


def test_a_directory_that_others_use_or_work_in_stays(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    git: Callable[..., str],
    make_repo: Callable[[str], Path],
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    shop: Path,
) -> None:
    (shop / "isoenv.toml").write_text(CONFIG.replace("{id}", "shared"))
    git(shop, "commit", "--quiet", "--all", "-m", "shared")
    tree, _ = entered("one")
    entered("two")
    remove(git, shop, tree)
    shared = home / ".shop-shared"
    done = isoenv("prune", "--purge", cwd=shop)
    assert done.returncode == 1
    assert said(done) == [f"freed shop/1 one ({tree})", f"kept {shared}: shop/2 uses it too"]
    assert shared.is_dir()
    remove(git, shop, tree.parent / "two")
    inner = make_repo("home/.shop-shared/work")
    assert isoenv("claim", cwd=inner).returncode == 0
    done = isoenv("prune", "--purge", cwd=shop)
    assert done.returncode == 1
    assert f"kept {shared}: the checkout {inner} is in it" in said(done)
    assert inner.is_dir()
    shutil.rmtree(inner)
    assert isoenv("prune", "--purge", cwd=shop).returncode == 0
    assert not shared.exists()


def test_what_two_instances_that_are_gone_have_used_is_deleted_once(
    isoenv: Run,
    git: Callable[..., str],
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    shop: Path,
) -> None:
    (shop / "isoenv.toml").write_text(CONFIG.replace("{id}", "shared"))
    git(shop, "commit", "--quiet", "--all", "-m", "shared")
    trees = [entered(name)[0] for name in ("one", "two")]
    for tree in trees:
        remove(git, shop, tree)
    done = isoenv("prune", "--purge", cwd=shop)
    assert (done.returncode, len(said(done))) == (0, 3)
    assert not (home / ".shop-shared").exists()
    assert said(isoenv("prune", "--purge", cwd=shop)) == ["nothing is gone"]


def test_a_directory_in_which_a_disk_is_mounted_stays(
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
) -> None:
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can mount")
    tree, _ = entered("one")
    point = home / ".shop-1" / "disk"
    point.mkdir()
    remove(git, shop, tree)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(point)], check=True)
    try:
        (point / "precious").write_text("kept")
        done = isoenv("prune", "--purge", cwd=shop)
        assert (done.returncode, said(done)[1:]) == (
            1,
            [f"kept {home}/.shop-1: {point} is mounted"],
        )
        assert (point / "precious").read_text() == "kept"
    finally:
        subprocess.run(["umount", str(point)], check=True)
    done = isoenv("prune", "--purge", cwd=shop)
    assert (done.returncode, said(done)) == (0, [f"removed {home}/.shop-1"])


@pytest.mark.parametrize("where", ["beside", "inside"])
def test_what_could_not_be_removed_stays_on_record_and_the_rest_goes(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    state: Path,
    where: str,
) -> None:
    (tree, lease), (two, _) = entered("one"), entered("two")
    own = own_directory(state, lease)
    inner = home / ".shop-1" / "inner"
    inner.mkdir()
    (inner / "file").write_text("")
    for each in (tree, two):
        remove(git, shop, each)
    closed = inner if where == "inside" else home
    closed.chmod(0o500)
    unprivileged = UNPRIVILEGED if os.geteuid() == 0 else []
    done = subprocess.run(
        [*unprivileged, sys.executable, "-m", "isoenv", "prune", "--purge"],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    lines = said(done)
    assert done.returncode == 1
    assert lines[0] == f"freed shop/1 one ({tree})"
    what = "file in " if where == "inside" else ""
    assert lines[1].startswith(f"kept {home}/.shop-1: cannot remove {what}{home}/.shop-1")
    assert lines[1].endswith(": permission denied: `ls -ld` shows why")
    assert lines[2] == f"removed {own}"
    assert lines[3] == f"freed shop/2 two ({two})"
    # Of a directory that is half removed nobody is to be the next user.
    assert (home / ".shop-1").exists() == (where == "beside")
    for path in (home, *home.glob(".shop-1*/inner")):
        path.chmod(0o700)
    done = isoenv("prune", "--purge", cwd=shop)
    assert done.returncode == 0
    assert len(said(done)) == (1 if where == "inside" else 2)
    assert not list(home.glob(".shop-*1*"))


def test_a_purge_that_is_killed_is_finished_by_the_next(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    home: Path,
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tree, _ = entered("one")
    for name in ("a", "b"):
        (home / ".shop-1" / name).mkdir()
    remove(git, shop, tree)
    real, calls = shutil.rmtree, []

    def killed(path: str) -> None:
        if calls:
            raise KeyboardInterrupt
        calls.append(path)
        real(path)

    monkeypatch.setattr(shutil, "rmtree", killed)
    lease_item, directory_item = pruning.plan(registry, purge=True, max_age=None)
    monkeypatch.setattr(pruning, "_forget", lambda *_: None)
    lease_item.remove()
    with pytest.raises(KeyboardInterrupt):
        directory_item.remove()
    (left,) = home.glob(".shop-1*")
    assert left.name.startswith(f".shop-1{instance_directories.REMOVED}")
    done = isoenv("prune", "--purge", cwd=shop)
    assert said(done)[0] == f"removed {left}"
    assert not left.exists()


def test_what_has_changed_since_it_was_looked_at_stays(
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    registry: Registry,
) -> None:
    tree, lease = entered("one")
    remove(git, shop, tree)
    planned = pruning.plan(registry, purge=True, max_age=None)
    leasing.give_back(registry, lease)
    two, _ = entered("two")
    again = leasing.take(
        registry, context.find(context.Caller(str(two), os.environ)).claim, 1, None
    )
    for item in planned[:2]:
        with pytest.raises(IsoenvError, match=r"has changed meanwhile|is held"):
            item.remove()
    assert registry.with_slot(lease.project, 1) == again


def test_a_checkout_that_is_locked_or_still_known_to_git_is_not_gone(
    isoenv: Run, git: Callable[..., str], shop: Path, entered: Callable[[str], tuple[Path, Lease]]
) -> None:
    (locked, _), (known, _) = entered("locked"), entered("known")
    git(shop, "worktree", "lock", str(locked))
    for tree in (locked, known):
        shutil.rmtree(tree)
    git(shop, "worktree", "list")
    assert said(isoenv("prune", cwd=shop)) == ["nothing is gone"]
    git(shop, "worktree", "prune", "--expire=now")
    assert said(isoenv("prune", cwd=shop))[0] == f"freed shop/2 known ({known})"
    assert said(isoenv("prune", cwd=shop))[0] == "nothing is gone"


def test_what_is_ready_for_a_gone_directory_is_removed_and_nothing_else(
    isoenv: Run, shop: Path, state: Path, tmp_path: Path, make_repo: Callable[[str], Path]
) -> None:
    gone, unmounted, there = (make_repo(f"{name}/repo") for name in ("gone", "disk", "there"))
    for repo in (gone, unmounted, there):
        (repo / "inner").mkdir()
        (repo / "inner" / "isoenv.toml").write_text('project = "blocked"\n')
        for directory in (repo, repo / "inner"):
            entering.hook_code(context.Caller(str(directory), os.environ), "bash")
    shutil.rmtree(gone)
    shutil.rmtree(unmounted.parent)
    before = set(generated.bases(str(state)))
    assert {str(repo / "inner") for repo in (gone, unmounted, there)} <= before
    done = isoenv("prune", cwd=shop)
    assert said(done) == [f"removed what is ready for {gone}, which is gone"]
    assert set(generated.bases(str(state))) == before - {str(gone), str(gone / "inner")}
    assert not os.path.exists(paths.generated_dir(str(state), str(gone.parent)))
    assert os.path.exists(paths.generated_dir(str(state), str(tmp_path)))


def test_what_was_kept_for_a_gone_checkout_goes_with_its_slot(
    isoenv: Run,
    git: Callable[..., str],
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    state: Path,
) -> None:
    tree, lease = entered("one")
    assert isoenv("claim", "--name", "renamed", cwd=tree).returncode == 0
    assert isoenv("exec", ".", "true", cwd=tree).returncode == 0
    notice = Path(paths.notice_file(str(state), lease.project.key, 1))
    assert notice.exists()
    remove(git, shop, tree)
    assert len(said(isoenv("prune", cwd=shop))) == 2
    assert not notice.exists()
    assert str(tree) not in generated.bases(str(state))


def test_age_alone_removes_what_nobody_holds_and_never_a_lease(
    isoenv: Run,
    shop: Path,
    entered: Callable[[str], tuple[Path, Lease]],
    state: Path,
    make_repo: Callable[[str], Path],
) -> None:
    tree, lease = entered("one")
    unused = make_repo("unused")
    entering.hook_code(context.Caller(str(unused), os.environ), "bash")
    assert isoenv("claim", "--name", "renamed", cwd=tree).returncode == 0
    notices = state / "notices"
    held = Path(paths.notice_file(str(state), lease.project.key, 1))
    old, young = notices / "0123abcd.4", notices / "0123abcd.5"
    corrupt = [state / f"registry.db.corrupt-{name}" for name in ("a", "a-wal", "b")]
    for path in (old, young, *corrupt):
        path.write_text("")
    long_ago = time.time() - 3 * 3600
    ready = [
        Path(paths.generated_dir(str(state), str(base)), "@env") for base in (tree, unused, shop)
    ]
    for path in (held, old, *corrupt[:2], *(path for path in ready if path.exists())):
        os.utime(path, (long_ago, long_ago))
    assert said(isoenv("prune", cwd=shop)) == ["nothing is gone"]
    assert said(isoenv("prune", "--max-age", "4", cwd=shop)) == ["nothing is gone"]
    assert said(isoenv("prune", "--max-age", "2", cwd=shop)) == [
        f"removed {corrupt[0]}",
        f"removed {corrupt[1]}",
        f"removed {old}",
        f"removed what is ready for {unused}",
    ]
    assert held.exists()
    assert young.exists()
    assert corrupt[2].exists()
    with Registry(str(state)) as registry:
        assert [each.slot for each in registry.leases()] == [0, 1]
    assert isoenv("prune", "--max-age", "-1", cwd=shop).returncode == 2
