"""A store that several hosts share: what can go wrong between this process and its server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from psycopg.conninfo import conninfo_to_dict
from servers import PASSWORD, make_postgres, start_postgres, stop

from isoenv import Lock, Session, process
from isoenv.coordination import addresses, glance, heartbeat, reaping, registering
from isoenv.coordination.records import Record
from isoenv.coordination.store import open_store
from isoenv.coordination.store.postgres import PostgresStore
from isoenv.coordination.store.postgres_database import SETUP
from isoenv.coordination.store.postgres_schema import VERSION
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Postgres

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


@pytest.fixture
def url(postgres_database: str, monkeypatch: pytest.MonkeyPatch, home: Path) -> str:
    """Name the shared store to this test's processes."""
    assert home
    monkeypatch.setenv("ISOENV_STORE", postgres_database)
    return postgres_database


def opened() -> PostgresStore:
    store = open_store(os.environ["ISOENV_STATE_DIR"])
    assert isinstance(store, PostgresStore)
    return store


def never(_pulse: object) -> bool:
    return False


def say(*arguments: str) -> tuple[int, str]:
    """Run isoenv, and return its status and all that it says."""
    done = subprocess.run(
        [sys.executable, "-m", "isoenv", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stdout
    assert PASSWORD not in done.stdout
    assert "sesame" not in done.stdout
    return done.returncode, done.stdout


def test_concurrent_first_uses_make_the_tables_once(
    url: str, postgres: Postgres, python: Callable[..., subprocess.Popen[str]]
) -> None:
    assert url
    code = """
import os
from isoenv.coordination.store import open_store
print(open_store(os.environ["ISOENV_STATE_DIR"]).count())
"""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    with postgres.connect("shared") as first:
        first.execute("SELECT pg_advisory_lock(%s)", (SETUP,))
        started = [python(code) for _ in range(6)]
        deadline = time.monotonic() + 120
        while postgres.ask(waiting) != [(6,)]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert [each.communicate()[0] for each in started] == ["0\n"] * 6
    assert postgres.ask("SELECT version FROM isoenv.version", "shared") == [(VERSION,)]


def test_a_newer_version_is_refused_and_left_alone(url: str, postgres: Postgres) -> None:
    assert url
    opened().close()
    postgres.ask("UPDATE isoenv.version SET version = 9", "shared")
    said = f"/shared has schema 9, this isoenv reads up to {VERSION}"
    with pytest.raises(IsoenvError, match=said):
        opened()
    with pytest.raises(IsoenvError, match=said):
        Lock("it").acquire()
    assert postgres.ask("SELECT version FROM isoenv.version", "shared") == [(9,)]


def test_a_server_that_is_not_there_is_one_line_without_the_password(
    url: str, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    port = conninfo_to_dict(url)["port"]
    for wrong in (
        url.replace(f":{port}/", f":{free_port()}/"),
        url.replace("/shared", "/absent"),
        url.replace("owner:", "owner:wrong"),
        url.replace("sesame", "%zz"),
        url.replace("postgresql:", "mysql:"),
    ):
        monkeypatch.setenv("ISOENV_STORE", wrong)
        for command in (["session", "list"], ["statusline"], ["metrics", "show"]):
            status, said = say(*command)
            assert status == 1, said
            assert said.count("\n") == 1
            assert "ISOENV_STORE" in said or "try again" in said


def test_a_lost_connection_is_an_error_and_the_next_call_has_a_new_one(
    url: str, postgres: Postgres
) -> None:
    assert url
    end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{}'"
    with Session("bot") as me:
        assert me.metrics.add("agents", 2) == 2
        postgres.ask(end.format("isoenv store"))
        with pytest.raises(IsoenvError, match=r"lost the connection to .*try again") as told:
            me.metrics.add("agents", 2)
        assert PASSWORD not in str(told.value)
        assert me.metrics.add("agents", 2) == 4
        with closing(opened()) as store, closing(store.waiter(me.id)) as waiter:
            threading.Timer(0.1, postgres.ask, [end.format("isoenv waiter")]).start()
            with pytest.raises(IsoenvError, match="lost the connection to"):
                waiter.wait(120)
        assert me.send("bot", "still there") == 1
        assert [message.text for message in me.receive()] == ["still there"]


def test_what_returned_survives_a_server_that_crashes(
    home: Path, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert home
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        make_postgres(directory, "max_connections = 20\n")
        port, server = start_postgres(directory, free_port)
        try:
            address = f"postgresql://postgres@/postgres?host={directory}"
            monkeypatch.setenv("ISOENV_STORE", f"{address}&port={port}")
            session = Session("bot")
            session.metrics.add("agents", 3)
            stop(server)
            with pytest.raises(IsoenvError, match="lost the connection"):
                session.metrics.add("agents", 1)
            with pytest.raises(IsoenvError, match="try again"):
                session.metrics.add("agents", 1)
            again, server = start_postgres(directory, lambda: port)
            assert again == port
            assert session.metrics.add("agents", 1) == 4
            session.end()
        finally:
            stop(server)


def test_behind_a_pooler_it_says_so(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that gives out another process id than the server's, as poolers do."""
    given = conninfo_to_dict(url)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        relay = threading.Thread(target=_relay, args=(listening, int(str(given["port"]))))
        relay.start()
        port = listening.getsockname()[1]
        monkeypatch.setenv("ISOENV_STORE", url.replace(f":{given['port']}/", f":{port}/"))
        with pytest.raises(IsoenvError, match=r"is the address of a pooler, 127\.0\.0\.1"):
            opened()
        relay.join()


def _relay(listening: socket.socket, port: int) -> None:
    client, _ = listening.accept()
    with client, socket.create_connection(("127.0.0.1", port)) as server:
        back = threading.Thread(target=_copy, args=(client, server))
        back.start()
        _copy(server, client, is_changed=True)
        back.join()


def _copy(source: socket.socket, target: socket.socket, *, is_changed: bool = False) -> None:
    while data := source.recv(1 << 16):
        if is_changed and (at := data.find(b"K\0\0\0\x0c")) >= 0:
            data = data[: at + 5] + b"\0\0\0\x07" + data[at + 9 :]
        target.sendall(data)
    target.shutdown(socket.SHUT_WR)


def test_a_forked_child_and_its_end_leave_the_parents_connection_alone(url: str) -> None:
    assert url
    asked = "SELECT pg_backend_pid()"
    with closing(opened()) as store:
        ours = store.rows(asked)
        for _ in range(3):
            pid = os.fork()
            if not pid:
                os._exit(store.rows(asked) == ours)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
            assert store.rows(asked) == ours


def test_hosts_whose_clocks_differ_agree_on_what_is_old(url: str) -> None:
    assert url
    far = "far"
    me = process.myself()
    there = Record("1", None, Record("", None, me).process)
    with closing(opened()) as near, closing(opened()) as late:
        # As seen by a host whose clock is two hours behind the server's.
        late.ahead = 7200
        elsewhere = process.Identity(me.pid, me.start, me.inode, "its own", me.namespace, far)
        record = Record("2", None, elsewhere, beaten_at=time.time() - 7200)
        late.start(record, never, new=False)
        near.start(there, never, new=False)
        assert reaping.find(near) == []
        assert late.find("2") == record
        found = near.find("2")
        assert found is not None
        assert abs(found.beaten_at - time.time()) < 600
        late.beat("2")
        assert reaping.find(near) == []


def test_a_process_with_the_same_pid_on_another_host_is_another(url: str) -> None:
    assert url
    me = process.myself()
    elsewhere = process.Identity(me.pid, me.start, me.inode, "its own", me.namespace, "far")
    with closing(opened()) as store:
        store.start(Record("1", None, elsewhere), never, new=False)
        store.start(Record("2", "w", elsewhere), never, new=False)
        assert store.brief_nameless(me.pid, me.start) is None
        assert store.window("w", me.pid, me.start) is None
        assert store.of_process(me.pid, me.start) == []


def test_a_session_beats_always_for_other_hosts_cannot_see_it(url: str) -> None:
    assert url
    with closing(opened()) as store:
        beats = heartbeat.keep(store, "1")
        assert beats is not None
        beats.stop()


def test_who_looks_beats_for_the_live_sessions_of_its_host(url: str) -> None:
    assert url
    hour = 3600 * 10**9
    with closing(opened()) as store:
        silent = Record("1", None, process.myself(), beat=time.monotonic_ns() - hour, beaten_at=0)
        store.start(silent, never, new=False)
        assert reaping.find(store) == []
        found = store.find("1")
        assert found is not None
        assert abs(found.beaten_at - time.time()) < 600


def test_who_takes_passes_over_what_another_is_taking(url: str) -> None:
    state = os.environ["ISOENV_STATE_DIR"]
    where = [addresses.of_name("bot")]
    with closing(opened()) as one, closing(PostgresStore(state, url, 2.0)) as two:
        sender = one.start(Record("1", None, process.myself()), never, new=False)
        for number in range(3):
            one.send(sender, where[0], b"%d" % number, 60)
        with one.transaction():
            assert [message.text for message in one.take(where, "1", 2)] == ["0", "1"]
            assert [message.text for message in two.take(where, "2", 3)] == ["2"]


def test_who_expires_messages_waits_for_no_reader(url: str, postgres: Postgres) -> None:
    assert url
    reader, sender = Session("reader"), Session("sender")
    for text in ("first", "second"):
        sender.send("reader", text)
    with closing(opened()) as store, postgres.connect("shared") as acknowledging:
        postgres.ask("UPDATE isoenv.message SET expires_at = 0", "shared")
        with acknowledging.transaction():
            acknowledging.execute("SELECT FROM isoenv.delivery WHERE id = 1 FOR UPDATE")
            # It would be told that others were before it.
            store.rows("SELECT set_config('lock_timeout', '1s', false)")
            store.forget_expired()
            assert postgres.ask("SELECT id FROM isoenv.message", "shared") == [(1,)]
        store.forget_expired()
        assert postgres.ask("SELECT count(*) FROM isoenv.message", "shared") == [(0,)]
        assert postgres.ask("SELECT count(*) FROM isoenv.delivery", "shared") == [(0,)]
    reader.close()
    sender.close()


def test_of_messages_and_sessions_that_come_at_once_none_is_missed(
    url: str, python: Callable[..., subprocess.Popen[str]]
) -> None:
    """Two readers and four senders: each message once, in the order of its sender."""
    assert url
    code = """
import sys
from isoenv import Session
with Session() as me:
    if sys.argv[1] == "send":
        for number in range(50):
            me.send("inbox", f"{sys.argv[2]} {number}")
    else:
        from isoenv.coordination import registering
        from isoenv.coordination.session import Handle
        inbox = Handle(me._store, registering.named(me._store, "inbox"))
        while found := inbox.receive(wait=120, limit=7):
            for message in found:
                print(message.text, flush=True)
            if any(message.text == "end" for message in found):
                break
        inbox.acknowledge()
"""
    with Session("inbox") as inbox:
        readers = [python(code, "read") for _ in range(2)]
        senders = [python(code, "send", number) for number in range(4)]
        for each in senders:
            assert each.wait() == 0
        seen: list[list[str]] = []
        for _ in readers:
            inbox.send("inbox", "end")
        for reader in readers:
            assert reader.stdout is not None
            seen.append(reader.stdout.read().splitlines())
            assert reader.wait() == 0
        rest = [message.text for message in inbox.receive()]
    texts = [text for texts in (*seen, rest) for text in texts if text != "end"]
    assert sorted(texts) == sorted(f"{s} {n}" for s in range(4) for n in range(50))
    for each_seen in seen:
        for sender in range(4):
            numbers = [int(t.split()[1]) for t in each_seen if t.startswith(f"{sender} ")]
            assert numbers == sorted(numbers)


def test_the_commands_work_on_it_and_make_no_database_here(url: str, home: Path) -> None:
    assert url
    with Session("bot") as me:
        me.metrics.set("agents", 7)
        status, said = say("session", "list")
        assert status == 0
        assert "bot" in said
        assert say("metrics", "show")[0] == 0
        assert "7" in glance.line(os.environ, b"", style="full")
        assert say("send", "bot", "hello")[0] == 0
        assert [message.text for message in me.receive(wait=120)] == ["hello"]
        assert sum(registering.counts(os.environ["ISOENV_STATE_DIR"]).values()) == 2
    assert not list(home.rglob("coordination.db"))


# The table of locks as it was in version 1, and what three hosts had in it.
FIRST_LOCKS = """
SET ROLE owner;
DROP TABLE isoenv.lock, isoenv.lock_record;
CREATE TABLE isoenv.lock (
  host TEXT NOT NULL, path TEXT NOT NULL, name BYTEA NOT NULL, project BYTEA,
  token BIGINT NOT NULL, session_id TEXT COLLATE "C" REFERENCES isoenv.session ON DELETE SET NULL,
  since DOUBLE PRECISION NOT NULL, boot TEXT NOT NULL, expires BIGINT, PRIMARY KEY (host, path));
CREATE INDEX lock_session ON isoenv.lock (session_id);
INSERT INTO isoenv.lock VALUES
  ('a', 'shop-1/it', 'it', 'shop', 9, NULL, 1, 'b', NULL),
  ('b', 'shop-2/it', 'it', 'shop', 7, '{}', 1, 'b', 1),
  ('c', 'shop-3/it', 'it', 'shop', 3, NULL, 2, 'b', NULL),
  ('b', 'machine/it', 'it', NULL, 5, NULL, 1, 'b', NULL);
UPDATE isoenv.version SET version = 1;
"""


def test_a_store_of_the_last_version_goes_on_with_what_it_holds(
    url: str, postgres: Postgres, python: Callable[..., subprocess.Popen[str]]
) -> None:
    assert url
    with Session("bot") as me, Session("other") as other:
        me.metrics.add("agents", 3)
        me.send("other", "hello")
        postgres.ask(FIRST_LOCKS.format(me.id), "shared")
        # All that come find it at once.
        code = "from isoenv import Session\nwith Session() as me: print(me.metrics.add('agents'))"
        assert [each.communicate()[0] for each in [python(code) for _ in range(4)]] == ["1.0\n"] * 4
        assert postgres.ask("SELECT version FROM isoenv.version", "shared") == [(VERSION,)]
        with closing(opened()) as store:
            found = store.claim("shop/it")
            assert found is not None
            assert (found.title, found.token, found.is_over) == ("bot", 9, False)
            assert store.claim("/it") is None
            taken = store.take_lock("/it", "it", None, other.id, None, lambda _claim: False)
            assert taken is not None
            assert taken.token == 6
            assert store.free_lock("shop/it", me.id)
        assert me.metrics.add("agents", 1) == 4
        assert [message.text for message in other.receive()] == ["hello"]


def test_an_update_and_the_end_of_its_session_leave_nothing_behind(
    url: str, postgres: Postgres
) -> None:
    assert url
    with closing(opened()) as one, closing(opened()) as two:
        for number in range(30):
            record = one.start(Record(str(number), None, process.myself()), never, new=False)
            adding = threading.Thread(target=two.add_metric, args=(record.id, "agents", 1))
            adding.start()
            one.send(record, addresses.of_session(record.id), b"text", 60)
            one.remove([record.id])
            adding.join()
    for table in ("session", "metric", "delivery", "message"):
        assert postgres.ask(f"TABLE isoenv.{table}", "shared") == []
