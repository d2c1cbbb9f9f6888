"""What can go wrong with the database is one clear line, and harms nothing else."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import Session
from isoenv.coordination.store import open_store
from isoenv.coordination.store.schema import VERSION
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Isoenv = Callable[..., subprocess.CompletedProcess[str]]

EACH = (
    ["session", "start"],
    ["session", "list"],
    ["session", "end", "--session", "bot"],
    ["metrics", "add", "agents", "1"],
    ["metrics", "show"],
    ["send", "bot", "text"],
    ["receive"],
    ["statusline"],
    ["statusline", "--wrap", "true"],
    ["prune"],
)


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no checkout, so that no project is found."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database with a session in it, closed wholly."""
    with Session("bot") as me:
        me.send("later", "kept")
    database = tmp_path / "state/coordination.db"
    assert not Path(f"{database}-wal").exists()
    return database


def fails(isoenv: Isoenv, words: list[str]) -> str:
    done = isoenv(*words)
    assert (done.returncode, done.stdout) == (1, ""), (words, done)
    line = done.stderr.replace("isoenv: nothing is gone\n", "")
    assert re.fullmatch(r"isoenv: [^\n]*`[^\n]*`[^\n]*\n", line), (words, done.stderr)
    return line


@pytest.mark.parametrize(
    "content",
    [b"", b"x", b"short", b"no database at all " * 100, b"SQLite format 3\0" + b"\xff" * 8000],
)
def test_a_corrupt_database_is_said_and_left_as_it_is(
    isoenv: Isoenv, database: Path, content: bytes
) -> None:
    whole = database.read_bytes()
    database.write_bytes(content or whole[:5000])
    before = database.read_bytes()
    for words in EACH if content == b"short" else EACH[:2]:
        assert str(database) in fails(isoenv, words)
        assert database.read_bytes() == before
    remedy = re.search("`(mv .*)`", fails(isoenv, ["session", "list"]))
    assert remedy is not None
    subprocess.run(["sh", "-c", remedy[1]], check=True)
    assert Path(f"{database}.bad").read_bytes() == before
    assert isoenv("session", "start").returncode == 0


def test_a_broken_page_is_said(isoenv: Isoenv, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'session'")
        start = (page.fetchone()[0] - 1) * 4096
    connection.close()
    content = bytearray(database.read_bytes())
    content[start : start + 4096] = b"\xee" * 4096
    database.write_bytes(content)
    assert "malformed" in fails(isoenv, ["session", "list"])
    assert "malformed" in fails(isoenv, ["session", "start"])
    # What is not in that page is not harmed, and the line goes without what is.
    assert database.read_bytes()[start : start + 4096] == b"\xee" * 4096


def test_a_newer_schema_is_refused(isoenv: Isoenv, database: Path) -> None:
    with sqlite3.connect(database) as connection:
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")
    connection.close()
    before = database.read_bytes()
    for words in EACH[::4]:
        line = fails(isoenv, words)
        assert f"has schema {VERSION + 1}, this isoenv reads up to {VERSION}" in line
    assert database.read_bytes() == before


def test_what_stands_where_the_database_belongs_is_said(isoenv: Isoenv, tmp_path: Path) -> None:
    (tmp_path / "state/coordination.db").mkdir(parents=True)
    for words in EACH[1::3]:
        fails(isoenv, words)
    shutil.rmtree(tmp_path / "state")
    (tmp_path / "state").write_text("")
    done = isoenv("session", "start")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


# Without the right of root to go past the modes of files.
LIKE_OTHERS = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


def test_a_directory_that_cannot_be_written_to_is_said(database: Path) -> None:
    run = [*(LIKE_OTHERS if os.geteuid() == 0 else []), sys.executable, "-m", "isoenv"]
    database.parent.chmod(0o555)
    for file in (database, Path(f"{database}.lock")):
        file.chmod(0o444)
    before = database.read_bytes()
    for words in EACH:
        done = subprocess.run([*run, *words], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (1, ""), (words, done)
        line = done.stderr.replace("isoenv: nothing is gone\n", "")
        assert re.fullmatch(r"isoenv: [^\n]*`[^\n]*`[^\n]*\n", line), (words, done.stderr)
    names = sorted(file.name for file in database.parent.iterdir())
    database.parent.chmod(0o700)
    assert database.read_bytes() == before
    assert names == ["coordination.db", "coordination.db.lock"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, list[str]]]:
    """A directory where little more than the database fits, and the command for who is in it.

    A file system of its own where one may be mounted, else a limit on the size of files.
    """
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "small", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode == 0:
        # What is removed when room is to be made.
        (directory / "filler").write_bytes(b"x" * 1_300_000)
        yield directory, []
        subprocess.run(["umount", "--lazy", str(directory)], check=True)
    else:
        yield directory, ["bash", "-c", 'ulimit -f 400; exec "$@"', "bash"]


FILL = """
from isoenv import Session, errors
sent = 0
me = Session("sender")
try:
    while True:
        me.send("later", "x" * 10000)
        sent += 1
except errors.IsoenvError as error:
    print(sent, error)
"""


def test_a_full_disk_is_said_and_keeps_what_was_there(
    small_disk: tuple[Path, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, limited = small_disk
    monkeypatch.setenv("ISOENV_STATE_DIR", str(directory))
    done = subprocess.run(
        [*limited, sys.executable, "-c", FILL], capture_output=True, text=True, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    sent, _, message = done.stdout.partition(" ")
    assert int(sent) > 5
    database = directory / "coordination.db"
    assert re.fullmatch(rf"cannot use {database}: [^\n]*: `df -h {directory}`\n", message)
    (directory / "filler").unlink(missing_ok=True)
    with sqlite3.connect(database) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    with Session("later") as later:
        assert len(later.receive()) == int(sent)


@pytest.mark.parametrize(
    "words", [["session", "start"], ["metrics", "add", "x", "1"], ["send", "bot", "text"]]
)
def test_where_nothing_can_be_written_it_is_one_line(isoenv: Isoenv, words: list[str]) -> None:
    assert isoenv
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 0; exec "$@"', "sh", sys.executable, "-m", "isoenv", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"isoenv: [^\n]*`[^\n]*`[^\n]*\n", done.stderr)


def test_a_gate_that_nobody_opens_again_is_said(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("isoenv.coordination.store.database.PATIENCE", 0.05)
    held = os.open(f"{database}.lock", os.O_RDWR)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(IsoenvError, match=r"coordination.db.lock is locked by another process"):
        Session("bot")
    os.close(held)
    with Session("bot") as me:
        assert me.metrics.add("agents") == 1


def test_who_writes_past_the_gate_is_waited_for(database: Path) -> None:
    with closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE delivery SET taken_at = 1")
        timer = threading.Timer(0.3, lambda: other.execute("COMMIT"))
        timer.start()
        with Session("bot") as me:
            assert me.metrics.add("agents") == 1
        timer.join()


def test_an_error_in_a_transaction_undoes_it_and_locks_nobody_out(database: Path) -> None:
    store = open_store(str(database.parent))
    with pytest.raises(KeyError), store.transaction() as connection:
        {}[connection.execute("DELETE FROM message").rowcount]
    with pytest.raises(IsoenvError), store.transaction() as connection:
        connection.execute("DELETE FROM nothing")
    other = open_store(str(database.parent))
    assert other.rows("SELECT count(*) FROM message") == [(1,)]
    with Session("later") as later:
        assert [message.text for message in later.receive()] == ["kept"]
    store.close()
    other.close()
