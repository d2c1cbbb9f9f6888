"""The registry never holds one slot, name, token or port twice, and never changes by half."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from isoenv import paths
from isoenv.errors import IsoenvError, RegistryError
from isoenv.models import Checkout, Lease, Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SHOP = Project("/srv/shop/.git", "shop")
BLOG = Project("blog", "blog")

# What the plan of a look-up is made of; it is no SCAN of a table.
SEARCHES = (
    "SEARCH",
    "COMPOUND QUERY",
    "LEFT-MOST SUBQUERY",
    "UNION ALL",
    "CORRELATED SCALAR SUBQUERY ",
)

# Root may write everywhere; without these capabilities it is a user like any other.
DAC = "-dac_override,-dac_read_search"
UNPRIVILEGED = ["setpriv", f"--bounding-set={DAC}", f"--inh-caps={DAC}"]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def registry(state: Path) -> Iterator[Registry]:
    with Registry(str(state)) as opened:
        yield opened


def insert(registry: Registry, project: Project, slot: int, name: str | None = None) -> Lease:
    with registry.transaction():
        return registry.insert(project, slot, name or f"{project.name}-{slot}")


def settle(registry: Registry, lease: Lease, directory: Path, token: str) -> None:
    directory.mkdir(exist_ok=True)
    with registry.transaction():
        registry.settle(lease, Checkout(str(directory)), str(directory), token)


def held(registry: Registry, project: Project, slot: int) -> Lease:
    lease = registry.with_slot(project, slot)
    assert lease is not None
    return lease


def traced(registry: Registry, read: Callable[[], object]) -> list[str]:
    """Return the plan of each statement that a reading call runs."""
    statements: list[str] = []
    registry.connection.set_trace_callback(statements.append)
    read()
    registry.connection.set_trace_callback(None)
    return [
        row[3]
        for statement in statements
        for row in registry.connection.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]


def fill(registry: Registry, count: int) -> None:
    """Insert leases as many checkouts would hold them, with two ports each."""
    with registry.transaction():
        for slot in range(1, count + 1):
            lease = registry.insert(SHOP, slot, f"shop-{slot}")
            values = (f"{slot:032x}", b"/srv/shop", b"/srv/shop/.git", "1", str(slot), lease.id)
            registry.connection.execute(
                "UPDATE lease SET token = ?, root = ?, git_dir = ?, device = ?, inode = ?"
                " WHERE id = ?",
                values,
            )
            registry.reserve(lease, {"a": (20000 + slot, False), "b": (30000 + slot, False)})


def test_what_is_written_is_read(registry: Registry, state: Path, tmp_path: Path) -> None:
    lease = insert(registry, SHOP, 3, "fix")
    settle(registry, lease, tmp_path / "fix", "ab" * 16)
    with registry.transaction():
        registry.reserve(lease, {"web": (20001, False), "api": (20002, False)})
        registry.set_flag(lease, "LIVE", value=True)
    with Registry(str(state)) as again:
        found = held(again, SHOP, 3)
        assert again.flags(found) == {"LIVE": True}
        assert again.with_token("ab" * 16) == [found]
        assert again.with_name(SHOP, "fix") == found
        assert again.leases() == again.leases(SHOP) == [found]
        assert again.slots(SHOP) == {3: "fix"}
        assert again.projects("shop") == again.projects(SHOP.key) == [SHOP]
    identity = (tmp_path / "fix").stat()
    assert found.ports == {"web": 20001, "api": 20002}
    assert (found.root, found.git_dir) == (str(tmp_path / "fix"), str(tmp_path / "fix"))
    assert (found.device, found.inode) == (identity.st_dev, identity.st_ino)


def test_paths_of_any_bytes_survive(registry: Registry, tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"\xff new\nline '\xc3\xa9")
    project = Project(str(directory), "awkward")
    lease = insert(registry, project, 1)
    settle(registry, lease, directory, "ab" * 16)
    assert held(registry, project, 1).root == str(directory)
    assert registry.projects(project.key) == [project]


def test_an_inode_of_64_bits_survives(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = insert(registry, SHOP, 1)
    real = os.stat(tmp_path)
    huge = os.stat_result((*real[:1], 2**64 - 1, 2**64 - 2, *real[3:]))
    with monkeypatch.context() as patch:
        patch.setattr(os, "stat", lambda *_path, **_how: huge)
        settle(registry, lease, tmp_path, "ab" * 16)
    found = held(registry, SHOP, 1)
    assert (found.inode, found.device) == (2**64 - 1, 2**64 - 2)


def test_a_slot_is_held_once(registry: Registry) -> None:
    insert(registry, SHOP, 1, "one")
    with pytest.raises(RegistryError, match="UNIQUE"):
        insert(registry, SHOP, 1, "other")
    assert registry.slots(SHOP) == {1: "one"}
    insert(registry, BLOG, 1, "one")


def test_a_name_is_given_once_in_a_project(registry: Registry) -> None:
    insert(registry, SHOP, 1, "one")
    with pytest.raises(RegistryError, match="UNIQUE"):
        insert(registry, SHOP, 2, "one")


def test_a_token_holds_one_slot_of_a_project(registry: Registry, tmp_path: Path) -> None:
    settle(registry, insert(registry, SHOP, 1), tmp_path, "ab" * 16)
    settle(registry, insert(registry, BLOG, 1), tmp_path, "ab" * 16)
    with pytest.raises(RegistryError, match="UNIQUE"):
        settle(registry, insert(registry, SHOP, 2), tmp_path, "ab" * 16)


def test_a_port_is_reserved_once_unless_it_is_shared(registry: Registry) -> None:
    one, two = insert(registry, SHOP, 1), insert(registry, BLOG, 1)
    with registry.transaction():
        registry.reserve(one, {"web": (20001, False)})
    with pytest.raises(RegistryError, match="UNIQUE"), registry.transaction():
        registry.reserve(two, {"web": (20001, False)})
    with registry.transaction():
        registry.reserve(two, {"web": (20001, True)})
    assert held(registry, BLOG, 1).ports == {"web": 20001}


def test_a_block_is_given_once(registry: Registry) -> None:
    one, two = insert(registry, SHOP, 1), insert(registry, BLOG, 1)
    with registry.transaction():
        registry.add_block(one, 0, 20000)
    with pytest.raises(RegistryError, match="UNIQUE"), registry.transaction():
        registry.add_block(two, 0, 20000)
    assert registry.block_starts() == {20000}


def test_a_reservation_and_a_whole_block_are_known_by_their_owner(registry: Registry) -> None:
    one, two = insert(registry, SHOP, 1), insert(registry, BLOG, 2)
    with registry.transaction():
        registry.reserve(one, {"web": (3000, False)})
        registry.add_block(two, 0, 20000)
    assert registry.reserved_by(3000) == "shop:1"
    assert registry.reserved_by(3000, other_than=one.id) is None
    assert [registry.reserved_by(port) for port in (19999, 20000, 20009, 20010)] == [
        None,
        "blog:2",
        "blog:2",
        None,
    ]
    assert registry.reserved_by(20005, other_than=two.id) is None


def test_deleting_a_lease_frees_all_that_hung_on_it(registry: Registry) -> None:
    lease = insert(registry, SHOP, 1)
    with registry.transaction():
        registry.reserve(lease, {"web": (3000, False)})
        registry.add_block(lease, 0, 20000)
        registry.set_flag(lease, "LIVE", value=True)
        registry.delete(lease)
    assert registry.reserved_by(3000) is None
    assert registry.block_starts() == set()
    assert registry.flags(lease) == {}
    assert registry.projects("shop") == []


def test_an_id_is_never_given_again(registry: Registry) -> None:
    lease = insert(registry, SHOP, 1)
    with registry.transaction():
        registry.delete(lease)
    later = insert(registry, SHOP, 1)
    with registry.transaction():
        registry.delete(lease)
    assert held(registry, SHOP, 1).id == later.id != lease.id


def test_a_moved_lease_keeps_its_flags_and_frees_its_ports(registry: Registry) -> None:
    lease = insert(registry, SHOP, 1)
    with registry.transaction():
        registry.reserve(lease, {"web": (3000, False)})
        registry.add_block(lease, 0, 20000)
        registry.set_flag(lease, "LIVE", value=True)
        registry.move(lease, 5)
    assert registry.slots(SHOP) == {5: "shop-1"}
    assert registry.flags(held(registry, SHOP, 5)) == {"LIVE": True}
    assert registry.reserved_by(3000) is registry.reserved_by(20000) is None


def test_a_project_moves_with_its_leases(registry: Registry) -> None:
    insert(registry, SHOP, 1)
    new = Project("/srv/store/.git", "store")
    with registry.transaction():
        registry.move_project(SHOP, new)
    assert registry.slots(SHOP) == {}
    assert held(registry, new, 1).project == new


def test_two_projects_can_change_places(registry: Registry) -> None:
    other = Project("/srv/store/.git", "store")
    insert(registry, SHOP, 1, "was-shop")
    insert(registry, other, 1, "was-store")
    with registry.transaction():
        registry.move_project(SHOP, other)
    assert registry.slots(SHOP) == {1: "was-store"}
    assert registry.slots(other) == {1: "was-shop"}
    assert held(registry, other, 1).project == other


def test_a_transaction_that_fails_changes_nothing(registry: Registry, state: Path) -> None:
    lease = insert(registry, SHOP, 1)
    notices = state / "notices"
    before = sorted(notices.iterdir()) if notices.exists() else []

    def fail() -> None:
        registry.insert(SHOP, 2, "two")
        registry.rename(lease, "renamed")
        raise IsoenvError("no")

    with pytest.raises(IsoenvError, match="no"), registry.transaction():
        fail()
    assert registry.slots(SHOP) == {1: "shop-1"}
    insert(registry, SHOP, 3)
    assert (sorted(notices.iterdir()) if notices.exists() else []) == before


def test_a_full_disk_is_one_line_and_changes_nothing(registry: Registry) -> None:
    insert(registry, SHOP, 1)
    pages = registry.connection.execute("PRAGMA page_count").fetchone()[0]
    registry.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(RegistryError, match="full") as caught:
        fill(registry, 1000)
    assert "\n" not in str(caught.value)
    assert registry.slots(SHOP) == {1: "shop-1"}


def test_shells_are_told_of_what_has_changed_after_it_has(registry: Registry, state: Path) -> None:
    lease = insert(registry, SHOP, 1)
    notice = paths.notice_file(str(state), SHOP.key, 1)
    changes: list[Callable[[], None]] = [
        lambda: registry.set_flag(lease, "LIVE", value=True),
        lambda: registry.rename(lease, "renamed"),
        lambda: registry.move(lease, 5),
        lambda: registry.delete(lease),
    ]
    for change in changes:
        with registry.transaction():
            change()
            assert not os.path.exists(notice)
        assert os.path.exists(notice)
        os.unlink(notice)


def test_what_sqlite_cannot_hold_is_not_found(registry: Registry) -> None:
    insert(registry, SHOP, 1)
    assert registry.with_slot(SHOP, 10**30) is None
    assert registry.with_name(SHOP, os.fsdecode(b"\xff")) is None
    assert registry.projects(os.fsdecode(b"\xff")) == []


@pytest.mark.parametrize("count", [10, 1000])
def test_a_lease_is_looked_up_in_an_index_however_many_there_are(
    registry: Registry, count: int
) -> None:
    fill(registry, count)
    middle = count // 2
    for read in (
        lambda: registry.with_token(f"{middle:032x}"),
        lambda: registry.with_slot(SHOP, middle),
        lambda: registry.with_name(SHOP, f"shop-{middle}"),
        lambda: registry.reserved_by(20000 + middle),
    ):
        assert read()
        plans = traced(registry, read)
        assert plans
        assert [plan for plan in plans if not plan.startswith(SEARCHES)] == []


def test_how_much_longer_a_look_up_takes_among_a_thousand_is_printed(tmp_path: Path) -> None:
    times: dict[int, float] = {}
    for count in (10, 1000):
        with Registry(str(tmp_path / str(count))) as registry:
            fill(registry, count)
            times[count] = min(look_up_time(registry, count) for _ in range(5))
    print(  # noqa: T201  # a figure for the reader, not a limit
        f"look-up of a lease: {times[1000] * 1e6:.0f} us among 1000,"
        f" {times[1000] / times[10]:.2f} times that among 10"
    )


def look_up_time(registry: Registry, count: int) -> float:
    """Return the seconds that one look-up by token takes, of 200."""
    began = time.perf_counter()
    for number in range(200):
        assert len(registry.with_token(f"{number % count + 1:032x}")) == 1
    return (time.perf_counter() - began) / 200


def test_a_registry_is_closed_to_other_users(registry: Registry, state: Path) -> None:
    assert state.stat().st_mode & 0o777 == 0o700
    assert registry.connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert registry.connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_a_registry_made_by_many_at_once_is_one(state: Path) -> None:
    code = "import sys; from isoenv.registry import Registry; Registry(sys.argv[1]).leases()"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(state)],
            env={**os.environ, "PYTHONPATH": root},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    assert [process.communicate()[1] for process in started] == [""] * 8
    assert [process.returncode for process in started] == [0] * 8


def refused(isoenv: Callable[..., subprocess.CompletedProcess[str]], cwd: Path) -> str:
    """Run commands that read leases; return the one line that each of them says."""
    lines = set()
    for arguments in (("exec", "1", "true"), ("list", "--all")):
        done = isoenv(*arguments, cwd=cwd)
        assert (done.returncode, done.stdout) == (1, ""), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        lines.add(done.stderr)
    assert len(lines) == 1
    return lines.pop()


def test_a_newer_schema_is_refused_with_the_version(
    isoenv: Callable[..., subprocess.CompletedProcess[str]], state: Path, repo: Path
) -> None:
    with Registry(str(state)) as registry:
        registry.connection.execute("PRAGMA user_version = 7")
        registry.connection.execute("UPDATE registry SET maker = '3.4'")
    line = refused(isoenv, repo)
    assert "schema 7 of isoenv 3.4," in line
    assert "reads up to 2: `pip install --upgrade 'isoenv>=3.4'`" in line
    with sqlite3.connect(state / "registry.db") as connection:
        assert connection.execute("SELECT count(*) FROM lease").fetchone() == (0,)
    connection.close()


def test_a_state_directory_that_cannot_be_made_is_named(
    isoenv: Callable[..., subprocess.CompletedProcess[str]],
    repo: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ISOENV_STATE_DIR", str(tmp_path / "file" / "state"))
    assert str(tmp_path / "file") in refused(isoenv, repo)


@pytest.mark.parametrize("has_registry", [True, False])
def test_a_read_only_state_directory_is_refused_in_one_line(
    state: Path,
    repo: Path,
    has_registry: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    if has_registry:
        Registry(str(state)).connection.close()
    state.mkdir(exist_ok=True)
    before = sorted(path.name for path in state.iterdir())
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    prefix = UNPRIVILEGED if os.geteuid() == 0 else []
    state.chmod(0o500)
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "isoenv", "exec", ".", "true"],
        cwd=repo,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    state.chmod(0o700)
    assert done.returncode == 1
    assert done.stderr.startswith("isoenv: cannot ")
    assert done.stderr.count("\n") == 1
    assert str(state) in done.stderr
    assert sorted(path.name for path in state.iterdir()) == before
