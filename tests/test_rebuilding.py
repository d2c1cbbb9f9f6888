"""A registry that is damaged, lost or out of reach: everybody keeps what they had."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from isoenv import (
    context,
    entering,
    flock,
    leasing,
    lock_holders,
    mounts,
    registry_schema,
    trust,
)
from isoenv.errors import RegistryBusyError, RegistryError
from isoenv.models import Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.models import Lease

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
SHOP = Project("/srv/shop/.git", "shop")

BLOCKS = """
project = "shop"
[instance]
ports = "block"
[ports]
web = 3000
api = 3001
[flags]
LIVE = {}
"""

# Root may write everywhere; without these capabilities it is a user like any other.
DAC = "-dac_override,-dac_read_search"
UNPRIVILEGED = ["setpriv", f"--bounding-set={DAC}", f"--inh-caps={DAC}"]

# Runs the command with little patience: in the tests nobody waits for half a minute.
IMPATIENT = """
import sys
from isoenv import registry_opening
registry_opening.OpenRegistry.__init__.__kwdefaults__["patience"] = 0.3
from isoenv.__main__ import main
main()
"""

# Writes, and waits in the middle of its transaction.
WRITER = """
import sys, time
from isoenv.models import Project
from isoenv.registry import Registry
with Registry(sys.argv[1]) as registry, registry.transaction():
    registry.insert(Project("other", "other"), 1, "other-1")
    print("writing", flush=True)
    time.sleep(600)
"""


class Kept(NamedTuple):
    """All that an instance must keep."""

    lease: Lease
    flags: dict[str, bool]
    blocks: dict[int, int]
    positions: dict[str, int]


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def here(directory: Path) -> context.Context:
    return context.find(context.Caller(str(directory), os.environ))


@pytest.fixture
def trees(
    state: Path,
    allow: Callable[[Path], None],
    git: Callable[..., str],
    make_repo: Callable[[str], Path],
    worktree: Callable[[Path, str], Path],
) -> list[Path]:
    """A repository with two work trees that hold slots, ports in blocks, a name and a flag."""
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(BLOCKS)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "-m", "configured")
    allow(repo)
    trees = [repo, worktree(repo, "one"), worktree(repo, "two")]
    # A shell was in the first one.
    assert entering.hook_code(here(repo).caller, "bash")
    with Registry(str(state)) as registry:
        for tree in trees:
            leasing.hold(registry, here(tree).claim)
        lease = leasing.take(registry, here(trees[2]).claim, 7, "review")
        # A number that no checkout holds.
        leasing.hold_number(registry, here(repo).claim, 4)
        with registry.transaction():
            registry.set_flag(lease, "LIVE", value=True)
    return trees


def kept(state: Path) -> list[Kept]:
    with Registry(str(state)) as registry:
        assert registry.connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return [
            Kept(
                lease,
                registry.flags(lease),
                registry.blocks(lease),
                registry.positions(lease.project),
            )
            for lease in registry.leases()
        ]


def checkpoint(state: Path) -> bytes:
    """Bring the log into the database, and return its bytes."""
    with closing(sqlite3.connect(state / "registry.db")) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return (state / "registry.db").read_bytes()


def garbage(content: bytes) -> bytes:
    return b"no database\n" * (len(content) // 12)


def torn_header(content: bytes) -> bytes:
    return b"SQLite format 3\0" + b"\xff" * (len(content) - 16)


def first_byte(content: bytes) -> bytes:
    return content[:1]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def nothing(_content: bytes) -> bytes:
    return b""


def zeros(content: bytes) -> bytes:
    return bytes(len(content))


def damaged_pages(content: bytes) -> bytes:
    """Keep what is read when a database is opened: the damage is found by looking for it."""
    return content[:4096] + b"\xff" * (len(content) - 4096)


def another_program(_content: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")
        return connection.serialize()


DAMAGES = (
    *(garbage, torn_header, first_byte, half, nothing, zeros, damaged_pages, another_program),
)


def set_aside(state: Path) -> list[Path]:
    return sorted(state.glob("registry.db.corrupt-*"))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_registry_is_set_aside_and_rebuilt_with_what_everybody_had(
    isoenv: Run, state: Path, trees: list[Path], damage: Callable[[bytes], bytes]
) -> None:
    before = kept(state)
    content = damage(checkpoint(state))
    (state / "registry.db").write_bytes(content)
    done = isoenv("list", "--json", cwd=trees[0])
    assert done.returncode == 0
    assert re.fullmatch(
        rf"isoenv: the registry {state}/registry\.db was lost \([^\n]+\) and is rebuilt with 4 "
        rf"instances; what was there is now {state}/registry\.db\.corrupt-\d{{8}}T\d{{6}}Z\n",
        done.stderr,
    )
    (aside,) = set_aside(state)
    assert aside.read_bytes() == content
    assert kept(state) == before
    assert len(before) == 4
    assert before[3].lease.name == "review"
    assert before[3].flags == {"LIVE": True}
    assert before[3].blocks
    # Said once, and nobody has been moved.
    again = isoenv("port", "web", cwd=trees[2])
    assert (again.returncode, again.stderr) == (0, "")
    assert again.stdout == f"{before[3].lease.ports['web']}\n"
    assert kept(state) == before


def test_a_missing_registry_is_rebuilt_and_a_new_one_is_not_news(
    isoenv: Run, state: Path, trees: list[Path], tmp_path: Path
) -> None:
    before = kept(state)
    (state / "registry.db").unlink()
    done = isoenv("port", "web", cwd=trees[1])
    assert done.stderr == (
        f"isoenv: the registry {state}/registry.db was lost (it is missing) and is rebuilt with 4 "
        "instances\n"
    )
    assert kept(state) == before
    assert set_aside(state) == []
    new = {"ISOENV_STATE_DIR": str(tmp_path / "new")}
    assert isoenv("claim", cwd=trees[1], env=new).stderr.count("\n") == 1


@pytest.mark.parametrize("is_mirrored", [True, False])
def test_a_log_without_its_database_is_set_aside_and_not_thrown_away(
    isoenv: Run,
    state: Path,
    trees: list[Path],
    is_mirrored: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    before = kept(state)
    for emptied in (True, False):
        (state / "registry.db-wal").write_bytes(b"what was written last")
        if emptied:
            (state / "registry.db").write_bytes(b"")
        else:
            (state / "registry.db").unlink()
        if not is_mirrored:
            (state / "registry.txt").unlink()
        done = isoenv("list", cwd=trees[0])
        assert f"is rebuilt with {4 if is_mirrored else 3} instances; what was" in done.stderr
        if is_mirrored:
            assert kept(state) == before
    logs = [path.read_bytes() for path in set_aside(state) if path.name.endswith("-wal")]
    assert logs == [b"what was written last"] * 2


def test_a_damaged_index_is_found_before_it_gives_a_port_twice(
    isoenv: Run, state: Path, trees: list[Path]
) -> None:
    before = kept(state)
    with closing(sqlite3.connect(state / "registry.db")) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        # The index forgets the blocks: it has the root page of an empty one.
        connection.execute("CREATE TABLE empty (a UNIQUE)")
        connection.execute(
            "UPDATE sqlite_master SET rootpage = (SELECT rootpage FROM sqlite_master"
            " WHERE name = 'sqlite_autoindex_empty_1') WHERE name = 'reservation_port'"
        )
        connection.commit()
    done = isoenv("list", cwd=trees[0])
    assert "was lost (" in done.stderr
    assert kept(state) == before


def test_a_registry_that_lost_its_last_commits_is_not_taken_for_whole(
    isoenv: Run, state: Path, trees: list[Path]
) -> None:
    old = checkpoint(state)
    assert isoenv("claim", "9", cwd=trees[1]).returncode == 0
    before = kept(state)
    checkpoint(state)
    # As after a log that was damaged: SQLite goes back to what was there before.
    (state / "registry.db").write_bytes(old)
    done = isoenv("list", cwd=trees[0])
    assert "was lost (it is older than its mirror)" in done.stderr
    assert kept(state) == before
    assert [each.lease.slot for each in before] == [0, 4, 7, 9]


def test_what_checkouts_remember_fills_in_for_a_mirror_that_is_lost_too(
    isoenv: Run, state: Path, trees: list[Path]
) -> None:
    before = {each.lease.root: each.lease for each in kept(state) if each.lease.root}
    (state / "registry.db").unlink()
    (state / "registry.txt").unlink()
    done = isoenv("list", "--json", cwd=trees[0])
    assert "is rebuilt with 3 instances\n" in done.stderr
    after = {each.lease.root: each.lease for each in kept(state)}
    assert after.keys() == before.keys()
    for root, lease in after.items():
        assert root is not None
        known = before[root]
        assert (lease.slot, lease.name, lease.token) == (known.slot, known.name, known.token)
        # What somebody still has in his hands is no other lease by its id.
        assert lease.id not in {each.id for each in before.values()}
    ports = {root: int(isoenv("port", "web", cwd=Path(root)).stdout) for root in before if root}
    assert ports == {root: lease.ports["web"] for root, lease in before.items()}


@pytest.mark.parametrize("how", ["cut", "garbled", "garbage"])
def test_a_torn_mirror_costs_the_torn_lines_and_tokens_fill_them(
    isoenv: Run, state: Path, trees: list[Path], how: str
) -> None:
    before = [(each.lease.slot, each.lease.name) for each in kept(state)]
    mirror = state / "registry.txt"
    lines = mirror.read_bytes().splitlines(keepends=True)
    number = next(index for index, line in enumerate(lines) if b"name=review" in line)
    if how == "cut":
        mirror.write_bytes(b"".join(lines[:number]) + lines[number][:40])
    elif how == "garbled":
        lines[number] = lines[number].replace(b"slot=7", b"slot=3")
        mirror.write_bytes(b"".join(lines))
    else:
        mirror.write_bytes(b"\xff\0no mirror\n" * 100)
    (state / "registry.db").write_bytes(b"x")
    done = isoenv("list", cwd=trees[0])
    assert "was lost" in done.stderr
    after = [(each.lease.slot, each.lease.name) for each in kept(state)]
    # A bare number is remembered by nobody else.
    assert [row for row in before if row[0] != 4] == [row for row in after if row[0] != 4]


def test_a_stale_mirror_is_completed_by_what_checkouts_remember(
    isoenv: Run, state: Path, trees: list[Path], worktree: Callable[[Path, str], Path]
) -> None:
    stale = (state / "registry.txt").read_bytes()
    late = worktree(trees[0], "late")
    assert isoenv("claim", "5", cwd=late).returncode == 0
    before = [(each.lease.slot, each.lease.name, each.lease.root) for each in kept(state)]
    # As when a process is killed between its commit and the mirror.
    (state / "registry.txt").write_bytes(stale)
    (state / "registry.db").unlink()
    assert "is rebuilt with 5 instances" in isoenv("list", cwd=trees[0]).stderr
    assert [(each.lease.slot, each.lease.name, each.lease.root) for each in kept(state)] == before


def test_a_slot_that_was_given_back_is_nobodys_after_a_rebuild(
    isoenv: Run, state: Path, trees: list[Path], make_repo: Callable[[str], Path]
) -> None:
    main = make_repo("other")
    (main / "isoenv.toml").write_text(BLOCKS)
    # Copied before it was given back, it remembers what it never held itself.
    assert isoenv("claim", "5", cwd=main).returncode == 0
    copy = main.parent / "copy"
    shutil.copytree(main, copy)
    assert isoenv("exec", ".", "true", cwd=copy).returncode == 0
    shutil.rmtree(copy)
    shutil.copytree(main, copy)
    assert isoenv("release", cwd=main).returncode == 0
    before = kept(state)
    (state / "registry.db").unlink()
    assert "is rebuilt with" in isoenv("list", cwd=trees[0]).stderr
    assert kept(state) == before
    assert 5 not in {each.lease.slot for each in before}


@pytest.mark.parametrize("how", ["stale", "missing", "garbage"])
def test_who_opens_it_next_brings_a_mirror_up_to_date(
    isoenv: Run, state: Path, trees: list[Path], how: str
) -> None:
    mirror = state / "registry.txt"
    stale = mirror.read_bytes()
    assert isoenv("claim", "8", cwd=trees[1]).returncode == 0
    whole = mirror.read_bytes()
    assert whole != stale
    if how == "missing":
        mirror.unlink()
    else:
        mirror.write_bytes(stale if how == "stale" else b"garbage")
    # As a killed process has left it, before it could say what it had: the next one says it.
    assert isoenv("port", "web", cwd=trees[1]).returncode == 0
    assert mirror.read_bytes() == whole


def test_a_mirror_is_left_to_who_is_writing(
    state: Path, trees: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trees
    waits: list[float | None] = []
    acquire = flock.acquire

    def recorded(descriptor: int, timeout: float | None) -> bool:
        waits.append(timeout)
        return acquire(descriptor, timeout)

    monkeypatch.setattr(flock, "acquire", recorded)
    with writer(state) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        (state / "registry.txt").unlink()
        with Registry(str(state)) as registry:
            assert len(registry.leases()) == 4
    assert waits == [0]


def test_a_mirror_that_cannot_be_written_costs_no_lease(
    isoenv: Run, state: Path, trees: list[Path]
) -> None:
    (state / "registry.txt.new").mkdir()
    done = isoenv("claim", "8", cwd=trees[1])
    assert (done.returncode, done.stderr.count("\n")) == (0, 1)
    assert [each.lease.slot for each in kept(state)] == [0, 4, 7, 8]


def test_paths_and_names_of_any_bytes_survive_in_the_mirror(state: Path, tmp_path: Path) -> None:
    directory = tmp_path / os.fsdecode(b"\xff new\nline\ttab \\N \\\\t '\xc3\xa9=")
    directory.mkdir()
    project = Project(str(directory), "awk=ward \\ é🚒")
    with Registry(str(state)) as registry, registry.transaction():
        lease = registry.insert(project, 1, "na\\tme=1")
        registry.connection.execute(
            "UPDATE lease SET root = ?, git_dir = ?, device = ?, inode = ?, token = ? WHERE id = ?",
            (*[os.fsencode(directory)] * 2, str(2**64 - 1), str(2**64 - 2), "ab" * 16, lease.id),
        )
    before = kept(state)
    (state / "registry.db").unlink()
    assert kept(state) == before
    assert before[0].lease.root == str(directory)


def test_trust_does_not_hang_on_the_registry(isoenv: Run, state: Path, trees: list[Path]) -> None:
    checkpoint(state)
    (state / "registry.db").write_bytes(b"garbage" * 1000)
    for tree in trees:
        assert isoenv("port", "web", cwd=tree, trusted=False).returncode == 0
        found = here(tree)
        assert found.checkout is not None
        assert all(trust.is_allowed(str(state), found.checkout, each) for each in found.subjects)
    (trees[1] / "isoenv.toml").write_text(BLOCKS + "# changed\n")
    (state / "registry.db").unlink()
    assert isoenv("port", "web", cwd=trees[1], trusted=False).returncode == 4


@contextmanager
def waiting(
    state: Path, argv: list[str], trees: list[Path]
) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes that have looked at the registry and wait to write; they go on afterwards."""
    gate = state / "registry.db.lock"
    gate.touch()
    with gate.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        started = [
            subprocess.Popen(
                argv,
                cwd=tree,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for tree in trees
        ]
        deadline = time.monotonic() + 60
        line = f":{gate.stat().st_ino} "
        while Path("/proc/locks").read_text().count(line) <= len(trees):
            assert time.monotonic() < deadline, "they do not wait"
            time.sleep(0.05)
        yield started


def test_processes_that_find_it_damaged_at_once_rebuild_it_once(
    state: Path, trees: list[Path]
) -> None:
    before = kept(state)
    checkpoint(state)
    (state / "registry.db").write_bytes(b"garbage" * 1000)
    with waiting(state, [sys.executable, "-m", "isoenv", "port", "web"], trees * 2) as started:
        assert set_aside(state) == []
    done = [process.communicate() for process in started]
    assert [process.returncode for process in started] == [0] * 6
    assert sum("is rebuilt with 4 instances" in stderr for _, stderr in done) == 1
    assert "".join(stderr for _, stderr in done).count("\n") == 1
    assert len(set_aside(state)) == 1
    assert kept(state) == before


def test_what_is_written_after_a_rebuild_goes_to_the_new_registry(state: Path) -> None:
    with Registry(str(state)) as first:
        with first.transaction():
            first.insert(SHOP, 1, "one")
        checkpoint(state)
        aside = state / "aside"
        os.rename(state / "registry.db", aside)
        with Registry(str(state)) as second:
            assert second.slots(SHOP) == {1: "one"}
            # Who had it open before writes as well, and nothing of that is lost.
            with first.transaction():
                first.insert(SHOP, 2, "two")
            assert second.slots(SHOP) == {1: "one", 2: "two"}
    with closing(sqlite3.connect(aside)) as connection:
        assert connection.execute("SELECT count(*) FROM lease").fetchone() == (1,)


def test_two_files_set_aside_in_one_second_are_two(state: Path) -> None:
    for count in (1, 2, 3):
        state.mkdir(exist_ok=True)
        (state / "registry.db").write_bytes(b"garbage %d" % count * 200)
        Registry(str(state)).connection.close()
        contents = {path.read_bytes() for path in set_aside(state)}
        assert len(contents) == count


@pytest.mark.parametrize("after", ["registry_mirror.restore", "_recall"])
def test_a_rebuild_that_is_killed_is_done_again(
    isoenv: Run, state: Path, trees: list[Path], after: str
) -> None:
    if after == "_recall":
        (state / "registry.txt").unlink()
    before = [(each.lease.slot, each.lease.name) for each in kept(state)]
    if after == "_recall":
        # Opened, it has a mirror again. A bare number is in nothing else.
        (state / "registry.txt").unlink()
        before = [row for row in before if row[0] != 4]
    code = (
        "import os, signal, sys\n"
        "from isoenv import rebuilding\n"
        "from isoenv.registry import Registry\n"
        f"done = rebuilding.{after}\n"
        "def killed(*args):\n"
        "    done(*args)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        f"rebuilding.{after} = killed\n"
        "Registry(sys.argv[1])\n"
    )
    checkpoint(state)
    (state / "registry.db").write_bytes(b"garbage" * 1000)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", code, str(state)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
        assert done.returncode == -signal.SIGKILL
    assert f"is rebuilt with {len(before)} instances" in isoenv("list", cwd=trees[0]).stderr
    assert [(each.lease.slot, each.lease.name) for each in kept(state)] == before


def test_completion_leaves_a_damaged_registry_to_who_can_say_so(state: Path) -> None:
    Registry(str(state)).connection.close()
    (state / "registry.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(RegistryError, match="is damaged: file is not a database: `isoenv list`"):
        Registry(str(state), mend=False)
    assert (state / "registry.db").read_bytes() == b"garbage" * 1000
    assert set_aside(state) == []


# -- another version ------------------------------------------------------------------------------

FIRST_SCHEMA = """
CREATE TABLE project (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, name TEXT NOT NULL);
CREATE TABLE lease (
  id INTEGER PRIMARY KEY AUTOINCREMENT, project_id INTEGER NOT NULL REFERENCES project,
  slot INTEGER NOT NULL, name TEXT NOT NULL, token TEXT, root BLOB, git_dir BLOB, device TEXT,
  inode TEXT, created_at REAL NOT NULL, UNIQUE (project_id, slot), UNIQUE (project_id, name)
);
CREATE UNIQUE INDEX lease_token ON lease (token, project_id) WHERE token IS NOT NULL;
CREATE TABLE reservation (
  lease_id INTEGER NOT NULL REFERENCES lease ON DELETE CASCADE, name TEXT NOT NULL,
  port INTEGER NOT NULL, shared INTEGER NOT NULL, PRIMARY KEY (lease_id, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX reservation_port ON reservation (port) WHERE NOT shared;
CREATE INDEX reservation_every_port ON reservation (port);
CREATE TABLE block (
  lease_id INTEGER NOT NULL REFERENCES lease ON DELETE CASCADE, number INTEGER NOT NULL,
  start INTEGER NOT NULL UNIQUE, PRIMARY KEY (lease_id, number)
) WITHOUT ROWID;
CREATE TABLE position (
  project_id INTEGER NOT NULL REFERENCES project, name TEXT NOT NULL, position INTEGER NOT NULL,
  PRIMARY KEY (project_id, name), UNIQUE (project_id, position)
) WITHOUT ROWID;
CREATE TABLE flag (
  lease_id INTEGER NOT NULL REFERENCES lease ON DELETE CASCADE, name TEXT NOT NULL,
  value INTEGER NOT NULL, PRIMARY KEY (lease_id, name)
) WITHOUT ROWID;
INSERT INTO project VALUES (1, x'73686f70', 'shop');
INSERT INTO lease VALUES (5, 1, 3, 'fix', NULL, NULL, NULL, NULL, NULL, 1.5);
INSERT INTO reservation VALUES (5, 'web', 20001, 0);
INSERT INTO flag VALUES (5, 'LIVE', 1);
PRAGMA user_version = 1;
"""


@pytest.fixture
def first_schema(state: Path) -> Path:
    """A registry as the first version of its schema had it."""
    state.mkdir()
    with closing(sqlite3.connect(state / "registry.db")) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(FIRST_SCHEMA)
    return state


def test_a_registry_of_the_first_version_is_migrated_with_all_that_is_in_it(
    first_schema: Path,
) -> None:
    with Registry(str(first_schema)) as registry:
        (lease,) = registry.leases()
        assert (lease.id, lease.slot, lease.ports) == (5, 3, {"web": 20001})
        assert registry.flags(lease) == {"LIVE": True}
        assert registry.connection.execute("PRAGMA user_version").fetchone() == (2,)
        with registry.transaction():
            registry.delete(lease)
            assert registry.resting(lease.project, None) == {3}
    # From now on it has a mirror.
    before = kept(first_schema)
    (first_schema / "registry.db").unlink()
    assert kept(first_schema) == before
    # The tables are those of a new one.
    schemas = set()
    for state in (first_schema, first_schema / "new"):
        with Registry(str(state)) as registry:
            rows = registry.connection.execute(
                "SELECT m.name, c.name, c.type, c.[notnull], c.pk FROM sqlite_master AS m"
                " JOIN pragma_table_info(m.name) AS c ORDER BY 1, 2"
            )
            schemas.add(tuple(rows))
    assert len(schemas) == 1


def test_processes_that_migrate_at_once_do_it_once(first_schema: Path) -> None:
    code = "import sys; from isoenv.registry import Registry; Registry(sys.argv[1]).leases()"
    argv = [sys.executable, "-c", code, str(first_schema)]
    with (
        waiting(first_schema, argv, [first_schema] * 4) as started,
        closing(sqlite3.connect(first_schema / "registry.db")) as connection,
    ):
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert [process.communicate() for process in started] == [("", "")] * 4
    with Registry(str(first_schema)) as registry:
        assert registry.connection.execute("SELECT count(*) FROM registry").fetchone() == (1,)


def test_a_migration_that_fails_has_changed_nothing(
    first_schema: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        broken = "CREATE TABLE rest (a); INSERT INTO nosuch VALUES (1);"
        patch.setitem(registry_schema.MIGRATIONS, 1, broken)
        with pytest.raises(RegistryError, match="cannot use the registry"):
            Registry(str(first_schema))
    assert [each.lease.slot for each in kept(first_schema)] == [3]


# -- locked, full, read-only ----------------------------------------------------------------------


@contextmanager
def writer(state: Path) -> Iterator[subprocess.Popen[str]]:
    """A process in the middle of a transaction."""
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(state)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "writing\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_stopped_process_that_has_locked_it_is_named(
    isoenv: Run, state: Path, trees: list[Path]
) -> None:
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with writer(state) as holder:
        os.kill(holder.pid, signal.SIGSTOP)
        done = subprocess.run(
            [sys.executable, "-c", IMPATIENT, "claim", "9"],
            cwd=trees[1],
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (75, "")
        assert re.fullmatch(
            rf"isoenv: waited 0\.3 s for {state}/registry\.db, locked by pid {holder.pid} "
            rf"\([^\n]*\), which is stopped: `kill -CONT {holder.pid}` lets it go on\n",
            done.stderr,
        )
        # Who reads does not wait.
        assert isoenv("port", "web", cwd=trees[1]).returncode == 0
        assert isoenv("list", cwd=trees[1]).returncode == 0
        with Registry(str(state), patience=0.1) as registry:
            os.kill(holder.pid, signal.SIGCONT)
            with (
                pytest.raises(RegistryBusyError, match=rf"`kill {holder.pid}` ends it$"),
                registry.transaction(),
            ):
                pass
    assert [each.lease.slot for each in kept(state)] == [0, 1, 4, 7]


def test_another_programs_lock_on_the_database_is_named_too(state: Path) -> None:
    code = (
        "import sqlite3, sys, time\n"
        "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "connection.execute('BEGIN IMMEDIATE')\n"
        "print(flush=True)\n"
        "time.sleep(600)\n"
    )
    with (
        Registry(str(state), patience=0.2) as registry,
        subprocess.Popen(
            [sys.executable, "-c", code, registry.file], stdout=subprocess.PIPE, text=True
        ) as holder,
    ):
        try:
            assert holder.stdout
            holder.stdout.readline()
            with (
                pytest.raises(RegistryBusyError, match=f"pid {holder.pid} "),
                registry.transaction(),
            ):
                pass
        finally:
            holder.kill()
        holder.wait()
        with registry.transaction():
            registry.insert(SHOP, 1, "one")


def test_holders_are_read_from_the_kernels_table() -> None:
    text = (
        "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF\n"
        "1: -> FLOCK  ADVISORY  WRITE 4712 fe:00:1234 0 EOF\n"
        "2: OFDLCK ADVISORY  READ -1 fe:00:1234 0 EOF\n"
        "3: POSIX  ADVISORY  WRITE 0 fe:00:1234 124 124\n"
        "4: POSIX  ADVISORY  WRITE 9 fe:00:12345 124 124\n"
    )
    assert lock_holders.holders(text, "fe:00:1234") == [4711]


@contextmanager
def mounted(directory: Path, size: str) -> Iterator[Callable[[str], None]]:
    """A real file system of that size; what is yielded mounts it anew with other options."""
    if os.geteuid() != 0:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("only root can mount")
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "isoenv-test", str(directory)]
    subprocess.run(mount, check=True)

    def remount(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(directory)], check=True)

    try:
        yield remount
    finally:
        subprocess.run(["umount", str(directory)], check=True)


def fill(directory: Path) -> Path:
    """Leave no room for a byte."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (4096, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
    return ballast


def rows(state: Path) -> list[tuple[int, str, dict[str, int]]]:
    return [(each.lease.slot, each.lease.name, dict(each.lease.ports)) for each in kept(state)]


def test_a_full_disk_changes_nothing_and_what_is_held_is_read(
    isoenv: Run, trees: list[Path], state: Path, tmp_path: Path
) -> None:
    port = isoenv("port", "web", cwd=trees[1]).stdout
    with mounted(tmp_path / "disk", "2m"):
        disk = tmp_path / "disk" / "state"
        shutil.copytree(state, disk)
        env = {"ISOENV_STATE_DIR": str(disk)}
        before = rows(disk)
        ballast = fill(tmp_path / "disk")
        for reading in (
            ("port", "web"),
            ("show",),
            ("list",),
            ("exec", "review", "printenv", "WEB_PORT"),
            ("exec", ".", "printenv", "WEB_PORT"),
        ):
            done = isoenv(*reading, cwd=trees[1], env=env, trusted=False)
            assert (done.returncode, done.stderr) == (0, ""), reading
        assert done.stdout == port
        for writing in (("claim", "9"), ("release",), ("exec", "6", "true"), ("enable", "LIVE")):
            done = isoenv(*writing, cwd=trees[1], env=env, trusted=False)
            assert (done.returncode, done.stdout) == (1, ""), writing
            assert done.stderr.startswith("isoenv: cannot ")
            assert done.stderr.count("\n") == 1
        ballast.unlink()
        assert rows(disk) == before
        assert isoenv("claim", "9", cwd=trees[1], env=env, trusted=False).returncode == 0


def test_a_rebuild_on_a_full_disk_is_one_line_and_is_done_when_there_is_room(
    isoenv: Run, trees: list[Path], state: Path, tmp_path: Path
) -> None:
    with mounted(tmp_path / "disk", "2m"):
        disk = tmp_path / "disk" / "state"
        shutil.copytree(state, disk)
        env = {"ISOENV_STATE_DIR": str(disk)}
        before = rows(disk)
        (disk / "registry.db").write_bytes(b"garbage" * 1000)
        ballast = fill(tmp_path / "disk")
        for _ in range(2):
            done = isoenv("list", cwd=trees[1], env=env, trusted=False)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr.count("\n") == 1
        ballast.unlink()
        assert "is rebuilt with 4" in isoenv("list", cwd=trees[1], env=env, trusted=False).stderr
        assert rows(disk) == before


@pytest.mark.parametrize("how", ["file system", "directory"])
def test_what_is_held_is_read_from_a_read_only_state_directory(
    isoenv: Run, trees: list[Path], state: Path, tmp_path: Path, how: str
) -> None:
    assert isoenv("exec", ".", "true", cwd=trees[1]).returncode == 0
    with mounted(tmp_path / "disk", "2m") as remount:
        disk = tmp_path / "disk" / "state"
        shutil.copytree(state, disk)
        before = rows(disk)
        prefix: list[str] = []
        if how == "file system":
            remount("ro")
        else:
            for directory in (disk, *(path for path in disk.rglob("*") if path.is_dir())):
                directory.chmod(0o500)
            prefix = UNPRIVILEGED

        def run(*args: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [*prefix, sys.executable, "-m", "isoenv", *args],
                cwd=trees[1],
                env={**os.environ, "PYTHONPATH": str(ROOT), "ISOENV_STATE_DIR": str(disk)},
                capture_output=True,
                text=True,
                check=False,
            )

        for reading in (
            ("port", "web"),
            ("show",),
            ("list", "--all"),
            ("exec", ".", "true"),
            ("exec", "review", "true"),
            ("exec", "4", "true"),
        ):
            done = run(*reading)
            assert (done.returncode, done.stderr) == (0, ""), reading
        for writing in (("claim", "9"), ("release",), ("exec", "6", "true"), ("enable", "LIVE")):
            done = run(*writing)
            assert (done.returncode, done.stdout) == (1, ""), writing
            assert done.stderr.startswith("isoenv: cannot ")
            assert done.stderr.count("\n") == 1
        if how == "file system":
            remount("rw")
        else:
            for directory in (disk, *(path for path in disk.rglob("*") if path.is_dir())):
                directory.chmod(0o700)
        assert rows(disk) == before


def test_a_moved_checkout_is_served_where_nothing_can_be_written(
    isoenv: Run, git: Callable[..., str], trees: list[Path], state: Path, tmp_path: Path
) -> None:
    port = isoenv("port", "web", cwd=trees[1]).stdout
    with mounted(tmp_path / "disk", "2m") as remount:
        shutil.copytree(state, tmp_path / "disk" / "state")
        remount("ro")
        git(trees[0], "worktree", "move", str(trees[1]), str(tmp_path / "moved"))
        env = {"ISOENV_STATE_DIR": str(tmp_path / "disk" / "state")}
        done = isoenv("port", "web", cwd=tmp_path / "moved", env=env, trusted=False)
        assert (done.stdout, done.stderr) == (port, "")


def test_a_log_that_cannot_be_read_is_not_passed_over(
    isoenv: Run, trees: list[Path], state: Path, tmp_path: Path
) -> None:
    checkpoint(state)
    with mounted(tmp_path / "disk", "2m") as remount:
        disk = tmp_path / "disk" / "state"
        disk.mkdir()
        with Registry(str(state)) as registry:
            lease = registry.leases()[-1]
            with registry.transaction():
                registry.rename(lease, "later")
            # As a crash leaves them where memory does not outlive it.
            for name in ("registry.db", "registry.db-wal"):
                shutil.copy(state / name, disk)
        assert (disk / "registry.db-wal").stat().st_size
        remount("ro")
        env = {"ISOENV_STATE_DIR": str(disk)}
        done = isoenv("list", "--all", "--json", cwd=trees[0], env=env)
        assert '"review"' not in done.stdout
        assert done.returncode == 1 or '"later"' in done.stdout


# -- network file systems -------------------------------------------------------------------------


@pytest.fixture
def network(state: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The state directory, as if it were on NFS."""
    line = b"9 1 0:40 / %s rw - nfs4 server:/home rw\n" % os.fsencode(state)
    monkeypatch.setattr(mounts, "table", lambda: line)
    return state


def journal_mode(registry: Registry) -> str:
    (mode,) = registry.connection.execute("PRAGMA journal_mode").fetchone()
    return str(mode)


def test_on_a_network_file_system_there_is_no_write_ahead_log_and_it_is_said_once(
    network: Path,
) -> None:
    with Registry(str(network)) as registry:
        assert journal_mode(registry) == "delete"
        (note,) = registry.take_notes()
        assert note == (
            f"{network} is on nfs4: that is not safe when several hosts use it: "
            "`export ISOENV_STATE_DIR=…` names a local directory"
        )
        with registry.transaction():
            registry.insert(SHOP, 1, "one")
    with Registry(str(network)) as registry:
        assert registry.take_notes() == []
        assert journal_mode(registry) == "delete"
    (network / "registry.db").write_bytes(b"x")
    with Registry(str(network)) as registry:
        assert journal_mode(registry) == "delete"
        assert registry.slots(SHOP) == {1: "one"}
    assert sorted(path.suffix for path in network.glob("registry.db-*")) == []


def test_a_registry_with_a_log_keeps_it_on_a_network_file_system(
    state: Path, request: pytest.FixtureRequest
) -> None:
    Registry(str(state)).connection.close()
    request.getfixturevalue("network")
    with Registry(str(state)) as registry:
        assert journal_mode(registry) == "wal"
        (note,) = registry.take_notes()
        assert "is on nfs4, and its registry has a write-ahead log: " in note
