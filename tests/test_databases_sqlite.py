"""SQLite databases of instances: copied by the backup API, renamed whole, dropped only if ours."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Linked = Callable[[Path, str], Path]
    Git = Callable[..., str]

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60


def config(url: str = "sqlite:///data/app-{id}.db", entries: str = "") -> str:
    return f"project = 'shop'\n[databases.main]\nurl = '{url}'\n{entries}\n"


@pytest.fixture
def shop(repo: Path) -> Path:
    """A checkout with a database below it."""
    (repo / "isoenv.toml").write_text(config())
    return repo


@pytest.fixture
def db(isoenv: Isoenv) -> Isoenv:
    """Run `isoenv db`."""

    def db(*args: str, **given: object) -> CompletedProcess[str]:
        done = isoenv("db", *args, **given)
        assert "Traceback" not in done.stderr
        return done

    return db


def fill(path: Path, rows: int = 1, mode: str = "DELETE") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE IF NOT EXISTS item (text)")
        connection.executemany("INSERT INTO item VALUES (?)", [("x" * 1000,)] * rows)


def count(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (found,) = connection.execute("SELECT count(*) FROM item").fetchone()
        assert isinstance(found, int)
        return found


def states(done: CompletedProcess[str]) -> list[str]:
    return [row["state"] for row in json.loads(done.stdout)["databases"]]


def test_a_list_of_no_databases_says_what_would_make_one(
    make_repo: Callable[[str], Path], db: Isoenv
) -> None:
    repo = make_repo("bare")
    (repo / "isoenv.toml").write_text("[ports]\n")
    done = db("list", cwd=repo)
    said = "isoenv: no databases: `[databases.NAME]` in isoenv.toml names one\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
    assert json.loads(db("list", "--json", cwd=repo).stdout)["databases"] == []


def test_a_database_is_made_listed_reset_and_dropped(shop: Path, db: Isoenv) -> None:
    file = shop / "data/app-2.db"
    assert states(db("list", "2", "--json", cwd=shop)) == ["missing"]
    for expected in ("made", "is there"):
        done = db("create", "2", cwd=shop)
        assert (done.returncode, expected in done.stderr) == (0, True), done.stderr
    assert file.read_bytes().startswith(b"SQLite format 3\0")
    assert states(db("list", "2", "--json", cwd=shop)) == ["whole"]
    fill(file)
    assert db("reset", "2", cwd=shop).returncode == 0
    assert count_tables(file) == 0
    assert db("drop", "2", cwd=shop).returncode == 0
    assert sorted(file.parent.iterdir()) == []
    assert "is not there" in db("drop", "2", cwd=shop).stderr


def count_tables(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        (found,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        assert isinstance(found, int)
        return found


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_new_one_is_a_copy_of_its_template_also_while_that_is_read_and_written(
    shop: Path, db: Isoenv, mode: str
) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "data/app-0.db"'))
    template = shop / "data/app-0.db"
    fill(template, 100, mode)
    with closing(sqlite3.connect(template)) as connection:
        # In WAL mode the last rows are in the log alone.
        connection.execute("INSERT INTO item VALUES ('last')")
        connection.commit()
        done = db("create", "1", cwd=shop)
        assert done.returncode == 0, done.stderr
    assert count(shop / "data/app-1.db") == 101
    assert f"from {template}" in done.stderr


def test_a_template_that_stays_locked_is_said_with_who_holds_it(shop: Path, db: Isoenv) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "data/app-0.db"'))
    fill(shop / "data/app-0.db")
    with closing(sqlite3.connect(shop / "data/app-0.db")) as connection:
        connection.execute("BEGIN EXCLUSIVE")
        done = db("create", "1", "--timeout", "0.2", cwd=shop)
    assert done.returncode == 75
    assert f"(pid {os.getpid()})" in done.stderr
    assert "cannot be copied, it is being written by" in done.stderr
    assert not (shop / "data/app-1.db").exists()


def test_a_template_of_the_main_checkout_is_found_from_a_worktree(
    repo: Path, linked: Linked, db: Isoenv
) -> None:
    (repo / "isoenv.toml").write_text(config("sqlite:///dev.db", 'template = "sqlite:///dev.db"'))
    fill(repo / "dev.db", 7)
    assert "is there" in db("create", cwd=repo).stderr
    root = linked(repo, "feature")
    assert db("create", cwd=root).returncode == 0
    assert count(root / "dev.db") == 7
    fill(root / "dev.db")
    assert (count(root / "dev.db"), count(repo / "dev.db")) == (8, 7)


def test_a_relative_file_is_no_database_of_a_bare_number(shop: Path, db: Isoenv) -> None:
    (shop / "isoenv.toml").write_text(config("sqlite:///dev.db"))
    assert db("create", cwd=shop).returncode == 0
    done = db("create", "4", cwd=shop)
    assert done.returncode == 1
    assert f"{shop}/dev.db would be database main of every number" in done.stderr


def test_a_file_that_isoenv_did_not_make_is_never_removed(shop: Path, db: Isoenv) -> None:
    theirs, replaced = shop / "data/app-1.db", shop / "data/app-2.db"
    fill(theirs)
    assert db("create", "2", cwd=shop).returncode == 0
    fill(shop / "other.db")
    (shop / "other.db").rename(replaced)  # by somebody else: another file at the same place
    for slot, file in (("1", theirs), ("2", replaced)):
        assert db("create", slot, cwd=shop).returncode == 0
        assert states(db("list", slot, "--json", cwd=shop)) == ["foreign"]
        for command in (["drop"], ["drop", "--force"], ["reset", "--force"]):
            done = db(*command, slot, cwd=shop)
            assert (done.returncode, "was not made by isoenv" in done.stderr) == (1, True)
        assert count(file) == 1


def test_a_file_in_use_is_removed_only_with_force(shop: Path, db: Isoenv) -> None:
    assert db("create", "1", cwd=shop).returncode == 0
    file = shop / "data/app-1.db"
    fill(file, mode="WAL")
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("SELECT count(*) FROM item").fetchone() == (1,)
        for command in ("drop", "reset"):
            done = db(command, "1", cwd=shop)
            assert done.returncode == 1
            assert f"(pid {os.getpid()})" in done.stderr
        assert count(file) == 1
        done = db("reset", "1", "--force", cwd=shop)
        assert done.returncode == 0, done.stderr
        # The log of the former one is not taken for the new one's.
        assert [one.name for one in file.parent.iterdir()] == [file.name]
        assert count_tables(file) == 0


def test_slot_0_is_reset_only_with_force(shop: Path, db: Isoenv) -> None:
    assert db("create", cwd=shop).returncode == 0
    fill(shop / "data/app-0.db")
    done = db("reset", cwd=shop)
    assert (done.returncode, "the database of slot 0" in done.stderr) == (1, True)
    assert count(shop / "data/app-0.db") == 1
    assert db("reset", "--force", cwd=shop).returncode == 0


def test_a_dump_is_run_and_its_error_has_a_line(shop: Path, db: Isoenv) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "file:seed.sql"'))
    (shop / "seed.sql").write_text(
        "BEGIN TRANSACTION;\nCREATE TABLE item (text); -- one\nINSERT INTO item\n"
        "  VALUES ('a;b\nc');\nCOMMIT;\n"
    )
    done = db("create", "1", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert count(shop / "data/app-1.db") == 1
    (shop / "seed.sql").write_text(
        "CREATE TABLE item (text);\n\nINSERT INTO\n  nosuch VALUES (1);\n"
    )
    done = db("reset", "1", cwd=shop)
    assert done.returncode == 1
    assert "seed.sql:3: no such table: nosuch: the database was not made" in done.stderr
    assert count(shop / "data/app-1.db") == 1
    assert [one.name for one in (shop / "data").iterdir()] == ["app-1.db"]


def test_a_statement_that_takes_for_ever_is_interrupted(shop: Path, db: Isoenv) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "file:seed.sql"'))
    (shop / "seed.sql").write_text(
        "CREATE TABLE item (text);\n"
        "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n;\n"
    )
    db("list", cwd=shop)
    running = subprocess.Popen(
        [sys.executable, "-m", "isoenv", "db", "create", "1"],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + PATIENCE
    while not (shop / "data/.app-1.db.isoenv-new").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    # Until it is in the statement, and no longer in Python.
    time.sleep(0.5)
    running.send_signal(signal.SIGINT)
    try:
        said = running.communicate(timeout=PATIENCE)[1]
    finally:
        running.kill()
    assert running.returncode == 130
    assert b"Traceback" not in said
    assert list((shop / "data").iterdir()) == []


def test_a_create_that_is_killed_leaves_nothing_or_a_whole_database(shop: Path, db: Isoenv) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "file:seed.sql"'))
    with (shop / "seed.sql").open("w") as seed:
        seed.write("CREATE TABLE item (text);\n")
        seed.writelines("INSERT INTO item VALUES ('x');\n" for _ in range(50000))
    db("list", cwd=shop)
    file, begun = shop / "data/app-1.db", shop / "data/.app-1.db.isoenv-new"
    running = subprocess.Popen(
        [sys.executable, "-m", "isoenv", "db", "create", "1"],
        cwd=shop,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + PATIENCE
    while not begun.exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)
    running.kill()
    running.wait()
    assert not file.exists()
    assert states(db("list", "1", "--json", cwd=shop)) == ["unfinished"]
    (shop / "seed.sql").write_text("CREATE TABLE item (text);\n")
    assert db("create", "1", cwd=shop).returncode == 0
    assert count(file) == 0
    assert [one.name for one in file.parent.iterdir()] == [file.name]


def test_several_at_once_make_each_once(shop: Path, db: Isoenv) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "file:seed.sql"'))
    with (shop / "seed.sql").open("w") as seed:
        seed.write("CREATE TABLE item (text);\n")
        seed.writelines("INSERT INTO item VALUES ('x');\n" for _ in range(10000))
    db("list", cwd=shop)
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "isoenv", "db", "create", str(slot)],
            cwd=shop,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for slot in (1, 1, 1, 2, 3)
    ]
    said = [process.communicate(timeout=PATIENCE)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 5, said
    assert sorted("made" in text for text in said) == [False, False, True, True, True]
    assert [count(shop / f"data/app-{slot}.db") for slot in (1, 2, 3)] == [10000] * 3


def test_a_frozen_template_is_a_copy_of_the_main_database_that_nobody_writes(
    shop: Path, db: Isoenv
) -> None:
    (shop / "isoenv.toml").write_text(config(entries='template = "data/template.db"'))
    template = shop / "data/template.db"
    fill(shop / "data/app-0.db", 3)
    assert db("freeze", "main", cwd=shop).returncode == 0
    assert template.stat().st_mode & 0o777 == 0o444
    fill(shop / "data/app-0.db", 1)
    assert db("create", "1", cwd=shop).returncode == 0
    assert db("refresh", "main", cwd=shop).returncode == 0
    assert template.stat().st_mode & 0o777 == 0o444
    assert db("create", "2", cwd=shop).returncode == 0
    assert [count(shop / f"data/app-{slot}.db") for slot in (1, 2)] == [3, 4]
    fill(shop / "data/app-2.db")
    assert count(shop / "data/app-2.db") == 5


def test_a_database_in_a_directory_of_the_instance_keeps_the_worktree_clean(
    repo: Path, linked: Linked, git: Git, db: Isoenv
) -> None:
    (repo / "isoenv.toml").write_text(
        "project = 'shop'\n[dirs]\nDATA_DIR = '.data/{id}'\n"
        "[databases.main]\nurl = 'sqlite:///{dirs.DATA_DIR}/app.db'\n"
    )
    root = linked(repo, "feature")
    assert db("create", cwd=root).returncode == 0
    assert (root / ".data/1/app.db").exists()
    assert git(root, "status", "--porcelain") == ""


def test_prune_with_purge_removes_the_file_of_what_is_gone(
    repo: Path, linked: Linked, git: Git, isoenv: Isoenv, tmp_path: Path
) -> None:
    (repo / "isoenv.toml").write_text(config(f"sqlite:///{tmp_path}/dbs/{{id}}.db"))
    root = linked(repo, "feature")
    for cwd in (repo, root):
        assert isoenv("db", "create", cwd=cwd).returncode == 0
    git(repo, "worktree", "remove", str(root))
    done = isoenv("prune", "--purge", cwd=repo)
    assert done.returncode == 0, done.stderr
    assert f"dropping database {tmp_path}/dbs/1.db (main of shop/1 feature)" in done.stderr
    assert [one.name for one in (tmp_path / "dbs").iterdir()] == ["0.db"]


def test_what_the_system_refuses_is_one_line(shop: Path, db: Isoenv) -> None:
    (shop / "data").write_text("in the way")
    done = db("create", "1", cwd=shop)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    (shop / "isoenv.toml").write_text(config("sqlite:////dev/full/{id}.db"))
    done = db("create", "1", cwd=shop)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_path_of_any_bytes_works(
    make_repo: Callable[[str], Path], db: Isoenv, tmp_path: Path
) -> None:
    repo = make_repo("plain")
    odd = tmp_path / os.fsdecode(b"odd \xff #?%41")
    repo.rename(odd)
    (odd / "isoenv.toml").write_text(config(entries='template = "data/app-0.db"'))
    fill(odd / "data/app-0.db", 2)
    done = db("create", "1", cwd=odd)
    assert done.returncode == 0, done.stderr
    assert count(odd / "data/app-1.db") == 2
    assert states(db("list", "1", "--json", cwd=odd)) == ["whole"]
    assert db("drop", "1", cwd=odd).returncode == 0
    assert not (odd / "data/app-1.db").exists()
