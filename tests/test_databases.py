"""Databases of instances on a real PostgreSQL: made, copied, told apart, and never lost."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

import psycopg
import pytest
from servers import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from servers import Postgres

    Isoenv = Callable[..., CompletedProcess[str]]
    Linked = Callable[[Path, str], Path]

ROOT = Path(__file__).resolve().parents[1]
# Seconds after which what should have happened never will.
PATIENCE = 60
SECRET = quote(PASSWORD, safe="")
MEGABYTE = 1 << 20


def url_of(server: Postgres, name: str, user: str = "owner") -> str:
    return f"postgresql://{user}:{SECRET}@127.0.0.1:{server.port}/{name}"


def config(server: Postgres, entries: str = "", name: str = "app_{id}") -> str:
    return f"project = \"shop\"\n[databases.main]\nurl = '{url_of(server, name)}'\n{entries}\n"


@pytest.fixture
def shop(repo: Path, postgres: Postgres) -> Path:
    """A checkout with one database, without a template."""
    (repo / "isoenv.toml").write_text(config(postgres))
    return repo


@pytest.fixture
def db(isoenv: Isoenv) -> Isoenv:
    """Run `isoenv db`, and see that the password is nowhere in what it says."""

    def db(*args: str, **given: object) -> CompletedProcess[str]:
        done = isoenv("db", *args, **given)
        # Its first word, which no way of quoting changes.
        assert "sesame" not in done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return db


@pytest.fixture
def template(postgres: Postgres) -> Callable[..., str]:
    """Make a template of the size of so many rows, 16 KiB each."""

    def template(rows: int = 1, name: str = "base") -> str:
        with postgres.connect() as connection:
            connection.execute(f"CREATE DATABASE {name} OWNER owner".encode())
        fill = "SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, %d) n"
        postgres.ask(f"CREATE TABLE item AS {fill % (rows * 40)}", name)
        return name

    return template


def started(db_args: list[str], cwd: Path) -> subprocess.Popen[str]:
    """Start `isoenv db` in the background."""
    return subprocess.Popen(
        [sys.executable, "-m", "isoenv", "db", *db_args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def states(done: CompletedProcess[str]) -> dict[tuple[int, str], str]:
    """Return the state of each database by slot and name."""
    listed = json.loads(done.stdout)
    assert listed["version"] == 1
    return {(row["slot"], row["database"]): row["state"] for row in listed["databases"]}


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


# -- made, twice, dropped ------------------------------------------------------------------


def test_create_makes_what_is_missing_and_twice_is_once(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    done = db("create", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert f"made app_0 on 127.0.0.1:{postgres.port} in " in done.stderr
    postgres.ask("CREATE TABLE mine ()", "app_0")
    done = db("create", cwd=shop)
    assert done.returncode == 0
    assert f"app_0 on 127.0.0.1:{postgres.port} is there" in done.stderr
    assert postgres.databases() == {"app_0"}
    assert postgres.ask("SELECT * FROM mine", "app_0") == []
    listed = db("list", cwd=shop)
    assert (listed.returncode, listed.stderr) == (0, "")
    header, row = (re.split(r" {2,}", line) for line in listed.stdout.splitlines())
    assert header == ["SLOT", "NAME", "DATABASE", "WHERE", "STATE", "SIZE", "TEMPLATE"]
    assert row[:5] == ["0", "main", "app_0", f"127.0.0.1:{postgres.port}", "whole"]
    assert re.fullmatch(r"\d+ MiB", row[5])


def test_create_of_a_number_leases_it_and_drop_leases_nothing(
    shop: Path, db: Isoenv, isoenv: Isoenv, postgres: Postgres
) -> None:
    done = db("drop", "7", cwd=shop)
    assert (done.returncode, postgres.databases()) == (0, set())
    assert "app_7" in done.stderr
    assert "is not there" in done.stderr
    assert db("create", "6", cwd=shop).returncode == 0
    assert postgres.databases() == {"app_6"}
    held = json.loads(isoenv("list", "--json", cwd=shop).stdout)["instances"]
    assert [one["slot"] for one in held] == [6]
    assert db("drop", "6", cwd=shop).returncode == 0
    assert postgres.databases() == set()


def test_a_name_that_needs_quoting_is_quoted(repo: Path, db: Isoenv, postgres: Postgres) -> None:
    name = """x"; DROP DATABASE "base"; -- it's 100% é🚒 {{}} \\ $1"""
    text = config(postgres, f"template = '''{name}'''", f"{quote(name, safe='{}')}-{{id}}")
    (repo / "isoenv.toml").write_text(text)
    plain = name.replace("{{}}", "{}")
    with postgres.connect() as connection:
        identifier = psycopg.sql.Identifier(plain)
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {} OWNER owner").format(identifier))
    for command, there in (("create", True), ("reset", True), ("drop", False)):
        done = db(command, "3", cwd=repo)
        assert done.returncode == 0, done.stderr
        assert postgres.databases() - {plain} == ({f"{plain}-3"} if there else set())


def test_long_names_are_cut_so_that_no_two_instances_share_one(
    repo: Path, linked: Linked, isoenv: Isoenv, db: Isoenv, postgres: Postgres
) -> None:
    text = config(postgres, name="{env.DB}") + "[env]\nDB = 'app_é_{name}'\n"
    (repo / "isoenv.toml").write_text(text)
    exported = set()
    for number in (1, 2):
        root = linked(repo, "long-" * 12 + str(number))
        done = db("create", cwd=root)
        assert done.returncode == 0, done.stderr
        env = json.loads(isoenv("show", "--json", cwd=root).stdout)["env"]
        exported.add(env["DB"])
    assert postgres.databases() == exported
    assert len(exported) == 2
    assert {len(name.encode()) for name in exported} <= {62, 63}


def test_ten_at_once_from_one_template_are_all_whole_and_none_is_shared(
    repo: Path, db: Isoenv, postgres: Postgres, template: Callable[..., str]
) -> None:
    (repo / "isoenv.toml").write_text(config(postgres, f'template = "{template(1250)}"'))
    size = postgres.ask("SELECT pg_database_size('base')")[0][0]
    assert isinstance(size, int)
    assert size > 20 * MEGABYTE
    assert db("list", cwd=repo).returncode == 0
    running = [started(["create", str(slot)], repo) for slot in range(1, 11)]
    said = [process.communicate(timeout=PATIENCE)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 10, said
    names = {f"app_{slot}" for slot in range(1, 11)}
    assert postgres.databases() == names | {"base"}
    count = "SELECT count(*), sum(length(repeat)) FROM item"
    whole = postgres.ask(count, "base")
    assert all(postgres.ask(count, name) == whole for name in names)
    listed = states(db("list", "--json", cwd=repo))
    assert set(listed) == {(slot, f"app_{slot}") for slot in range(1, 11)}
    assert set(listed.values()) == {"whole"}


def test_ten_at_once_of_the_same_instance_make_one(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    assert db("list", cwd=shop).returncode == 0
    running = [started(["create", "2"], shop) for _ in range(10)]
    said = [process.communicate(timeout=PATIENCE)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 10, said
    assert sorted("made" in text for text in said) == [False] * 9 + [True]
    assert postgres.databases() == {"app_2"}


# -- from a dump -----------------------------------------------------------------------------


def test_a_dump_is_run_in_the_new_database(shop: Path, db: Isoenv, postgres: Postgres) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, "template = \"file:seed '1'.sql\""))
    (shop / "seed '1'.sql").write_text(
        "CREATE TABLE item (name text);\nCOPY item FROM stdin;\none\n\\N\n\\.\n"
    )
    done = db("create", "1", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert postgres.ask("SELECT name FROM item", "app_1") == [("one",), (None,)]


def test_the_errors_of_a_dump_are_shown_and_leave_nothing(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("CREATE TABLE one ();\nCREATE TABEL two ();\nSELECT 1/0;\n")
    done = db("create", "1", cwd=shop)
    assert done.returncode == 1
    assert 'seed.sql:2: ERROR:  syntax error at or near "TABEL"' in done.stderr
    assert "division" not in done.stderr  # it has stopped at the first
    assert re.search(r"isoenv: psql ended with 3 on .*seed\.sql", done.stderr)
    assert postgres.databases() == set()
    assert states(db("list", "1", "--json", cwd=shop)) == {(1, "app_1"): "missing"}


def test_a_dump_with_an_error_costs_a_reset_nothing(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    assert db("create", "1", cwd=shop).returncode == 0
    postgres.ask("CREATE TABLE mine ()", "app_1")
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("nonsense;\n")
    assert db("reset", "1", cwd=shop).returncode == 1
    assert postgres.databases() == {"app_1"}
    assert postgres.ask("SELECT * FROM mine", "app_1") == []


def test_a_dump_that_leads_to_another_database_is_refused(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    for line in ("\\connect app_0", "\\c app_0"):
        (shop / "seed.sql").write_text(f"SELECT 1;\n{line}\nDROP TABLE item;\n")
        done = db("create", "1", cwd=shop)
        assert done.returncode == 1
        assert f"seed.sql:2: {line} leads to another database" in done.stderr
        assert postgres.databases() == set()


@pytest.mark.parametrize("content", [None, "directory"])
def test_a_dump_that_cannot_be_read_is_said(
    shop: Path, db: Isoenv, postgres: Postgres, content: str | None
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    if content:
        (shop / "seed.sql").mkdir()
    done = db("create", "1", cwd=shop)
    assert done.returncode == 1
    assert f"cannot read {shop}/seed.sql: " in done.stderr.replace("\\'", "'")
    assert postgres.databases() == set()


def test_the_password_is_in_no_argument_and_on_no_record(
    shop: Path, db: Isoenv, postgres: Postgres, tmp_path: Path
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("SELECT pg_sleep(30);\n")
    db("list", cwd=shop)
    running = started(["create", "1"], shop)
    asked = "SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    wait_for(lambda: postgres.ask(asked))
    arguments = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            arguments.append(file.read_bytes())
    assert any(b"psql" in line for line in arguments)
    postgres.ask(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    )
    output = "".join(running.communicate(timeout=PATIENCE))
    assert running.returncode == 1
    records = [file.read_bytes() for file in (tmp_path / "state/databases").iterdir()]
    assert records == []  # what was not made is forgotten
    (shop / "seed.sql").write_text("SELECT 1;\n")
    assert db("create", "1", cwd=shop).returncode == 0
    records = [file.read_bytes() for file in (tmp_path / "state/databases").iterdir()]
    assert len(records) == 1
    assert not any(b"sesame" in text for text in (*arguments, *records, output.encode()))


def test_the_password_is_taken_out_of_what_others_say(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, f"template = '''{PASSWORD}'''"))
    done = db("create", "1", cwd=shop)
    assert done.stderr.startswith("isoenv: there is no template *** on ")
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text(f"DO $$ BEGIN RAISE WARNING '%', $q${PASSWORD}$q$; END $$;\n")
    done = db("create", "1", cwd=shop)
    assert (done.returncode, "WARNING:  ***" in done.stderr) == (0, True)


# -- what is not isoenv's ----------------------------------------------------------------------


def test_a_database_that_isoenv_did_not_make_is_never_dropped(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    postgres.ask("CREATE DATABASE app_2 OWNER owner")
    postgres.ask("COMMENT ON DATABASE app_2 IS 'isoenv is not mine'")
    done = db("create", "2", cwd=shop)
    assert (done.returncode, "is there" in done.stderr) == (0, True)
    assert states(db("list", "2", "--json", cwd=shop)) == {(2, "app_2"): "foreign"}
    for command in (["drop"], ["drop", "--force"], ["reset", "--force"]):
        done = db(*command, "2", cwd=shop)
        assert done.returncode == 1
        assert "was not made by isoenv, so it stays" in done.stderr
    assert postgres.databases() == {"app_2"}


def test_the_database_of_another_project_or_slot_is_neither_used_nor_dropped(
    shop: Path, make_repo: Callable[[str], Path], db: Isoenv, postgres: Postgres
) -> None:
    assert db("create", "1", cwd=shop).returncode == 0
    other = make_repo("other")
    (other / "isoenv.toml").write_text(config(postgres).replace('"shop"', '"other"'))
    (shop / "isoenv.toml").write_text(config(postgres, name="app_{env.N}") + "[env]\nN = '1'\n")
    (shop / "isoenv.local.toml").write_text("databases.main.shared = true\n")
    for cwd, operand in ((other, "1"), (shop, "2")):
        assert set(states(db("list", operand, "--json", cwd=cwd)).values()) == {"other"}
        for command in (["create"], ["reset", "--force"], ["drop", "--force"]):
            done = db(*command, operand, cwd=cwd)
            assert done.returncode == 1
            assert "app_1 on 127.0.0.1:" in done.stderr
            assert "is already main of shop/1" in done.stderr
    assert postgres.databases() == {"app_1"}


def test_slot_0_is_dropped_and_reset_only_with_force(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    assert db("create", cwd=shop).returncode == 0
    for command in ("drop", "reset"):
        done = db(command, cwd=shop)
        assert done.returncode == 1
        assert f"is the database of slot 0: `isoenv db {command} --force`" in done.stderr
    assert postgres.databases() == {"app_0"}
    assert db("reset", "--force", cwd=shop).returncode == 0
    assert postgres.databases() == {"app_0"}
    assert db("drop", "--force", cwd=shop).returncode == 0
    assert postgres.databases() == set()


def test_a_shared_database_is_dropped_only_with_force(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, "shared = true", name="common"))
    assert db("create", "1", cwd=shop).returncode == 0
    assert "is there" in db("create", "2", cwd=shop).stderr
    done = db("drop", "2", cwd=shop)
    assert (done.returncode, "the database of all instances" in done.stderr) == (1, True)
    assert postgres.databases() == {"common"}
    assert db("drop", "2", "--force", cwd=shop).returncode == 0


@pytest.mark.parametrize("command", ["drop", "reset"])
def test_connections_of_others_are_named_and_ended_only_with_force(
    shop: Path, db: Isoenv, postgres: Postgres, command: str
) -> None:
    assert db("create", "1", cwd=shop).returncode == 0
    postgres.ask("CREATE TABLE mine ()", "app_1")
    with closing(postgres.connect("app_1", "owner")) as client:
        client.execute("SET application_name = 'the app'")
        done = db(command, "1", cwd=shop)
        assert done.returncode == 1
        pid = client.info.backend_pid
        assert f"is in use by the app (server pid {pid}, owner)" in done.stderr
        assert f"`isoenv db {command} --force`" in done.stderr
        assert client.execute("SELECT 1").fetchone() == (1,)
        done = db(command, "1", "--force", cwd=shop)
        assert done.returncode == 0, done.stderr
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    if command == "drop":
        assert postgres.databases() == set()
    else:
        with pytest.raises(psycopg.errors.UndefinedTable):
            postgres.ask("SELECT * FROM mine", "app_1")


def test_a_moved_repository_keeps_its_databases(
    make_repo: Callable[[str], Path], db: Isoenv, postgres: Postgres
) -> None:
    here = make_repo("here")
    (here / "isoenv.toml").write_text(config(postgres).replace('project = "shop"', ""))
    assert db("create", cwd=here).returncode == 0
    there = here.rename(here.parent / "there")
    assert states(db("list", ".", "--json", cwd=there)) == {(0, "app_0"): "whole"}
    assert db("drop", "--force", cwd=there).returncode == 0
    assert postgres.databases() == set()


# -- the template ------------------------------------------------------------------------------


def test_a_template_in_use_is_waited_for(
    shop: Path, db: Isoenv, postgres: Postgres, template: Callable[..., str]
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, f'template = "{template()}"'))
    db("list", cwd=shop)
    with closing(postgres.connect("base")):
        running = started(["create", "1", "--timeout", str(PATIENCE)], shop)
        assert running.stderr is not None
        line = running.stderr.readline()
        assert "waiting: base on 127.0.0.1" in line
        assert "is in use by" in line
    assert running.communicate(timeout=PATIENCE) is not None
    assert running.returncode == 0
    assert postgres.ask("SELECT count(*) FROM item", "app_1") == [(40,)]


def test_a_template_that_stays_in_use_is_said_with_who_is_connected(
    shop: Path, db: Isoenv, postgres: Postgres, template: Callable[..., str]
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, f'template = "{template()}"'))
    clients = [postgres.connect("base", "owner") for _ in range(5)]
    clients[0].execute("SET application_name = 'an app'")
    done = db("create", "1", "--timeout", "0.5", cwd=shop)
    assert done.returncode == 75
    pid = clients[0].info.backend_pid
    last = done.stderr.splitlines()[-1]
    assert f"cannot be copied, it is in use by an app (server pid {pid}, owner)" in last
    assert "and 2 more" in last
    assert "`isoenv db freeze main`" in last
    for client in clients:
        assert client.execute("SELECT 1").fetchone() == (1,)
        client.close()
    assert postgres.databases() == {"base"}


def test_a_template_that_is_not_there_is_said(shop: Path, db: Isoenv, postgres: Postgres) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "nosuch"'))
    done = db("create", "1", cwd=shop)
    assert done.returncode == 1
    assert f"there is no template nosuch on 127.0.0.1:{postgres.port}" in done.stderr
    assert postgres.databases() == set()


def test_the_main_database_is_no_copy_of_itself(shop: Path, db: Isoenv, postgres: Postgres) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "app_0"'))
    assert db("create", "0", cwd=shop).returncode == 0
    postgres.ask("CREATE TABLE of_main ()", "app_0")
    assert db("create", "1", cwd=shop).returncode == 0
    assert postgres.ask("SELECT * FROM of_main", "app_1") == []
    done = db("freeze", "main", cwd=shop)
    assert done.returncode == 1
    assert "is none, or slot 0's own database" in done.stderr


def test_a_frozen_template_is_connected_to_by_nobody_and_copied_by_all(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "shop_template"'))
    done = db("create", "1", cwd=shop)
    assert (done.returncode, "there is no template shop_template" in done.stderr) == (1, True)
    postgres.ask("CREATE DATABASE app_0 OWNER owner")
    postgres.ask("CREATE TABLE item AS SELECT 1 AS version", "app_0")
    done = db("freeze", "main", cwd=shop)
    assert done.returncode == 0, done.stderr
    assert "made shop_template" in done.stderr
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        postgres.connect("shop_template")
    assert db("create", "1", cwd=shop).returncode == 0
    assert postgres.ask("SELECT version FROM item", "app_1") == [(1,)]
    postgres.ask("UPDATE item SET version = 2", "app_0")
    with closing(postgres.connect("app_0", "owner")) as client:
        done = db("refresh", "main", "--timeout", "0.5", cwd=shop)
        assert (done.returncode, "in use by" in done.stderr) == (75, True)
        assert client.execute("SELECT 1").fetchone() == (1,)
        assert db("create", "2", cwd=shop).returncode == 0
        done = db("refresh", "main", "--force", cwd=shop)
        assert done.returncode == 0, done.stderr
    assert db("create", "3", cwd=shop).returncode == 0
    assert postgres.ask("SELECT version FROM item", "app_2") == [(1,)]
    assert postgres.ask("SELECT version FROM item", "app_3") == [(2,)]
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        postgres.connect("shop_template")
    assert postgres.databases() == {"app_0", "app_1", "app_2", "app_3", "shop_template"}


def test_a_template_made_by_hand_is_frozen_but_not_made_anew(
    shop: Path, db: Isoenv, postgres: Postgres, template: Callable[..., str]
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, f'template = "{template()}"'))
    postgres.ask("CREATE DATABASE app_0 OWNER owner")
    with closing(postgres.connect("base", "owner")):
        done = db("freeze", "main", cwd=shop)
        assert (done.returncode, "still connected to base on" in done.stderr) == (0, True)
    done = db("refresh", "main", "--force", cwd=shop)
    assert (done.returncode, "was not made by isoenv" in done.stderr) == (1, True)
    assert db("create", "1", cwd=shop).returncode == 0
    assert postgres.ask("SELECT count(*) FROM item", "app_1") == [(40,)]


def test_freeze_of_an_unknown_database_says_which_there_are(shop: Path, db: Isoenv) -> None:
    done = db("freeze", "mian", cwd=shop)
    assert done.returncode == 5
    assert "no database mian: isoenv.toml has main" in done.stderr


# -- killed, and under load ----------------------------------------------------------------------


def test_a_create_that_is_killed_leaves_nothing_or_a_whole_database(
    shop: Path, db: Isoenv, postgres: Postgres, template: Callable[..., str]
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, f'template = "{template(1250)}"'))
    db("list", cwd=shop)
    whole = postgres.ask("SELECT count(*) FROM item", "base")
    seen = set()
    for slot, pause in enumerate((0.0, 0.05, 0.15, 0.3), 1):
        running = started(["create", str(slot)], shop)
        asked = "SELECT 1 FROM pg_stat_activity WHERE application_name LIKE 'isoenv db create%'"
        wait_for(lambda: postgres.ask(asked) or running.poll() is not None)  # noqa: B023  # at once
        time.sleep(pause)
        running.kill()
        running.communicate()
        name = f"app_{slot}"
        state = states(db("list", str(slot), "--json", cwd=shop))[(slot, name)]
        seen.add(state)
        assert state in {"missing", "unfinished", "whole"}
        assert (name in postgres.databases()) == (state == "whole")
        if state == "whole":
            assert postgres.ask("SELECT count(*) FROM item", name) == whole
        assert db("create", str(slot), cwd=shop).returncode == 0
        assert postgres.ask("SELECT count(*) FROM item", name) == whole
    assert seen & {"missing", "unfinished"}, "none was killed in the middle"
    assert postgres.databases() == {"base", *(f"app_{slot}" for slot in range(1, 5))}


def test_a_dump_that_is_killed_is_told_as_unfinished_and_done_again(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("CREATE TABLE half ();\nSELECT pg_sleep(60);\n")
    db("list", cwd=shop)
    running = started(["create", "1"], shop)
    asked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    wait_for(lambda: postgres.ask(asked))
    running.kill()
    running.communicate()
    assert states(db("list", "1", "--json", cwd=shop)) == {(1, "app_1"): "unfinished"}
    assert "app_1" not in postgres.databases()
    (shop / "seed.sql").write_text("CREATE TABLE whole ();\n")
    # The psql of the killed one is still connected to what it has begun.
    assert db("create", "1", cwd=shop).returncode == 0
    assert postgres.databases() == {"app_1"}
    assert postgres.ask("SELECT relname FROM pg_class WHERE relname IN ('half', 'whole')", "app_1")


def test_who_is_interrupted_cleans_up(shop: Path, db: Isoenv, postgres: Postgres) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("SELECT pg_sleep(60);\n")
    db("list", cwd=shop)
    running = started(["create", "1"], shop)
    asked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    wait_for(lambda: postgres.ask(asked))
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert "Traceback" not in said
    assert postgres.databases() == set()


class Load:
    """Clients that write to a database all the time and connect again when they are thrown out."""

    def __init__(self, server: Postgres, database: str, count: int) -> None:
        self.server, self.database = server, database
        self.done = threading.Event()
        self.writes = [0] * count
        self.lost = [0] * count
        self.threads = [
            threading.Thread(target=self._work, args=(number,)) for number in range(count)
        ]

    def _work(self, number: int) -> None:
        while not self.done.is_set():
            with (
                suppress(psycopg.Error),
                closing(self.server.connect(self.database, "owner")) as client,
            ):
                while not self.done.is_set():
                    client.execute("INSERT INTO item (n, repeat) VALUES (-1, 'load')")
                    self.writes[number] += 1
            self.lost[number] += 1

    def __enter__(self) -> Self:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.done.set()
        for thread in self.threads:
            thread.join()


def test_reset_under_load_gives_a_whole_database_that_clients_come_back_to(
    shop: Path, db: Isoenv, postgres: Postgres, template: Callable[..., str]
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, f'template = "{template(100)}"'))
    postgres.ask("ALTER TABLE item OWNER TO owner", "base")
    assert db("create", "1", cwd=shop).returncode == 0
    before = postgres.ask("SELECT oid FROM pg_database WHERE datname = 'app_1'")
    with Load(postgres, "app_1", 4) as load:
        wait_for(lambda: min(load.writes) > 5)
        done = db("reset", "1", cwd=shop)
        assert (done.returncode, "is in use by" in done.stderr) == (1, True)
        for _ in range(3):
            done = db("reset", "1", "--force", cwd=shop)
            assert done.returncode == 0, done.stderr
        written = list(load.writes)
        wait_for(lambda: all(now > then for now, then in zip(load.writes, written, strict=True)))
    assert min(load.lost) >= 1
    assert postgres.databases() == {"app_1", "base"}
    assert postgres.ask("SELECT oid FROM pg_database WHERE datname = 'app_1'") != before
    assert postgres.ask("SELECT count(*) FROM item WHERE n > 0", "app_1") == [(4000,)]


# -- the server ------------------------------------------------------------------------------------


def test_a_server_that_is_down_is_said_in_one_line(
    shop: Path, db: Isoenv, postgres: Postgres, free_port: Callable[[], int]
) -> None:
    port = free_port()
    text = config(postgres).replace(f":{postgres.port}/", f":{port}/")
    (shop / "isoenv.toml").write_text(text)
    for command in ("create", "reset", "drop"):
        done = db(command, "1", cwd=shop)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) == 1
        assert f"cannot connect to 127.0.0.1:{port}: " in done.stderr
    done = db("list", "1", "--json", cwd=shop)
    assert done.returncode == 1
    assert states(done) == {(1, "app_1"): "unreachable"}
    assert f"cannot connect to 127.0.0.1:{port}: " in done.stderr


def test_a_wrong_or_missing_password_is_said_and_not_shown(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    right = config(postgres)
    for wrong in (f":{SECRET}wrong@", "@"):
        (shop / "isoenv.toml").write_text(right.replace(f":{SECRET}@", wrong))
        done = db("create", "1", cwd=shop)
        assert done.returncode == 1
        assert f"cannot connect to 127.0.0.1:{postgres.port}: " in done.stderr
        assert "password" in done.stderr
        assert "wrong" not in done.stderr.replace(str(shop), "")


def test_who_may_not_make_databases_is_told_the_remedy(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    postgres.ask("ALTER ROLE owner NOCREATEDB")
    try:
        done = db("create", "1", cwd=shop)
    finally:
        postgres.ask("ALTER ROLE owner CREATEDB")
    assert done.returncode == 1
    assert "permission denied to create database" in done.stderr
    assert '`ALTER ROLE "owner" CREATEDB`' in done.stderr


def test_another_isoenv_at_work_is_waited_for_and_then_named(
    shop: Path, db: Isoenv, postgres: Postgres
) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("SELECT pg_sleep(60);\n")
    db("list", cwd=shop)
    running = started(["create", "1"], shop)
    asked = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'"
    wait_for(lambda: postgres.ask(asked))
    done = db("create", "1", "--timeout", "0.2", cwd=shop)
    running.kill()
    running.communicate()
    assert done.returncode == 75
    assert "app_1 on 127.0.0.1" in done.stderr
    assert "is in the hands of isoenv db create main (server pid " in done.stderr


def test_without_psycopg_the_extra_is_named(shop: Path, db: Isoenv, tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError\n")
    done = db("create", "1", cwd=shop, env={"PYTHONPATH": f"{tmp_path}:{ROOT}"})
    assert done.returncode == 1
    assert done.stderr == "isoenv: PostgreSQL needs psycopg: `pip install 'isoenv[postgres]'`\n"


def test_without_psql_a_dump_says_so(shop: Path, db: Isoenv, postgres: Postgres) -> None:
    (shop / "isoenv.toml").write_text(config(postgres, 'template = "file:seed.sql"'))
    (shop / "seed.sql").write_text("SELECT 1;\n")
    assert db("list", cwd=shop).returncode == 0
    done = db("create", "1", cwd=shop, env={"PATH": str(Path(sys.executable).parent)})
    assert done.returncode == 1
    assert "psql is missing" in done.stderr
    assert postgres.databases() == set()


# -- trust, and nothing to do --------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [["create"], ["drop"], ["reset"], ["list"], ["freeze", "main"], ["refresh", "main"]]
)
def test_nothing_is_done_without_trust(
    shop: Path, isoenv: Isoenv, postgres: Postgres, command: list[str]
) -> None:
    done = isoenv("db", *command, cwd=shop, trusted=False)
    assert done.returncode == 4
    assert postgres.databases() == set()


def test_without_a_database_in_the_configuration_it_is_said(repo: Path, db: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("")
    done = db("create", cwd=repo)
    assert done.returncode == 1
    assert "has no database: `[databases.main]`" in done.stderr
    done = db("list", cwd=repo)
    assert (done.returncode, done.stdout) == (0, "")
    assert "`[databases.NAME]`" in done.stderr


# -- prune -----------------------------------------------------------------------------------------


@pytest.fixture
def gone(shop: Path, linked: Linked, git: Callable[..., str], db: Isoenv) -> Path:
    """The main checkout of two worktrees with databases, the first of which has been removed."""
    assert db("create", cwd=shop).returncode == 0
    roots = [linked(shop, name) for name in ("first", "second")]
    for root in roots:
        assert db("create", cwd=root).returncode == 0
    git(shop, "worktree", "remove", str(roots[0]))
    return shop


def test_prune_drops_the_databases_of_what_is_gone_naming_each_first(
    gone: Path, isoenv: Isoenv, postgres: Postgres
) -> None:
    assert isoenv("prune", "--dry-run", "--purge", cwd=gone).returncode == 0
    assert postgres.databases() == {"app_0", "app_1", "app_2"}
    done = isoenv("prune", "--purge", cwd=gone)
    assert done.returncode == 0, done.stderr
    title = f"database app_1 on 127.0.0.1:{postgres.port} (main of shop/1 first)"
    assert f"isoenv: dropping {title}\n" in done.stderr
    assert "sesame" not in done.stderr
    assert postgres.databases() == {"app_0", "app_2"}
    assert "database" not in isoenv("prune", "--purge", cwd=gone).stderr


def test_prune_without_purge_keeps_databases_and_a_later_one_knows_them(
    gone: Path, isoenv: Isoenv, postgres: Postgres
) -> None:
    assert isoenv("prune", cwd=gone).returncode == 0
    assert postgres.databases() == {"app_0", "app_1", "app_2"}
    assert isoenv("prune", "--purge", cwd=gone).returncode == 0
    assert postgres.databases() == {"app_0", "app_2"}


def test_prune_keeps_the_database_of_a_slot_that_was_taken_over(
    gone: Path, linked: Linked, isoenv: Isoenv, postgres: Postgres
) -> None:
    assert isoenv("prune", cwd=gone).returncode == 0
    root = linked(gone, "third")
    # By its number: for a day it is given to nobody who does not ask for it.
    assert isoenv("claim", "1", cwd=root).returncode == 0
    assert isoenv("prune", "--purge", cwd=gone).returncode == 0
    assert postgres.databases() == {"app_0", "app_1", "app_2"}


def test_prune_keeps_the_database_of_a_released_slot(
    gone: Path, isoenv: Isoenv, postgres: Postgres
) -> None:
    assert isoenv("release", "2", cwd=gone).returncode == 0
    assert isoenv("prune", "--purge", cwd=gone).returncode == 0
    assert postgres.databases() == {"app_0", "app_2"}


def test_prune_keeps_on_record_what_it_could_not_drop(
    gone: Path, isoenv: Isoenv, postgres: Postgres
) -> None:
    with closing(postgres.connect("app_1")):
        done = isoenv("prune", "--purge", cwd=gone)
    assert done.returncode == 1
    assert re.search(r"isoenv: kept database app_1 .*: .* is in use by", done.stderr)
    assert postgres.databases() == {"app_0", "app_1", "app_2"}
    assert isoenv("prune", "--purge", cwd=gone).returncode == 0
    assert postgres.databases() == {"app_0", "app_2"}


# -- Orient ----------------------------------------------------------------------------------------


ORIENT = """
project = "orienter"
extends = "orient"
[env]
DATABASE_URL = "{url}"
[databases.main]
url = "{{env.DATABASE_URL}}"
template = "whatsapp_bot_0"
"""


def test_a_migration_in_one_worktree_is_seen_in_no_other(
    make_repo: Callable[[str], Path], linked: Linked, isoenv: Isoenv, db: Isoenv, postgres: Postgres
) -> None:
    """The seed's "Database Migration Testing" and "Check … Database isolation"."""
    orienter = make_repo("code/orienter")
    url = url_of(postgres, "{env.POSTGRES_DB}")
    (orienter / "isoenv.toml").write_text(ORIENT.format(url=url))

    def psql(root: Path, statement: str) -> str:
        done = isoenv(
            "exec", ".", "sh", "-c", f'psql -X -At "$DATABASE_URL" -c "{statement}"', cwd=root
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert db("create", cwd=orienter).returncode == 0
    psql(orienter, "CREATE TABLE message (body text)")
    psql(orienter, "INSERT INTO message VALUES ('from main')")
    roots = [linked(orienter, name) for name in ("migration-test", "qr-login")]
    for root in roots:
        assert db("create", cwd=root).returncode == 0
    psql(roots[0], "ALTER TABLE message ADD COLUMN seen boolean NOT NULL DEFAULT true")
    columns = (
        "SELECT string_agg(attname, ',' ORDER BY attnum) FROM pg_attribute"
        " WHERE attnum > 0 AND attrelid = 'message'::regclass"
    )
    assert psql(roots[0], columns) == "body,seen"
    assert psql(roots[1], columns) == psql(orienter, columns) == "body"
    assert {psql(root, "SELECT body FROM message") for root in (orienter, *roots)} == {"from main"}
    names = {psql(root, "SELECT current_database()") for root in (orienter, *roots)}
    slots = [json.loads(isoenv("show", "--json", cwd=root).stdout)["slot"] for root in roots]
    assert names == {"whatsapp_bot_0", *(f"whatsapp_bot_{slot}" for slot in slots)}
    assert len(names) == 3
    listed = db("list", cwd=orienter)
    assert names <= set(listed.stdout.split())
    assert db("reset", cwd=roots[0]).returncode == 0
    assert psql(roots[0], columns) == "body"
