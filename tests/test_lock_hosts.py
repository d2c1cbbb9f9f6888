"""Locks of all hosts that share a store: one holder, and none that believes so wrongly."""

from __future__ import annotations

import os
import select
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosts import records
from servers import Postgres, make_postgres, start_postgres, stop

from isoenv import Lock, Session, locks
from isoenv.coordination import host_lines, lock_ending, lock_watcher, sticky
from isoenv.coordination.store import postgres_line
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from hosts import Host, Hosts, Network

    Process = subprocess.Popen[str]
    WaitFor = Callable[[Callable[[], object]], object]

by_name = pytest.mark.parametrize("hosts", ["names"], indirect=True)
in_namespaces = pytest.mark.parametrize("hosts", ["namespaces"], indirect=True)

# Says so when it has the lock, and when it is asked to end.
SCRIPT = "trap 'echo asked; exit 3' TERM; echo in; while :; do sleep 0.05; done"
COUNT = """
from isoenv import Lock
import time
file, turns = sys.argv[1], int(sys.argv[2])
for _ in range(turns):
    with Lock("counter", slots=1), open(file, "r+") as counter:
        number = int(counter.read())
        time.sleep(0.0005)
        counter.seek(0)
        counter.write(str(number + 1))
"""
# What a test waits for comes at once; so many seconds mean that it never comes.
PATIENCE = 60
END = """
SELECT pg_terminate_backend(pid, 60000) FROM (
SELECT DISTINCT pid FROM pg_locks JOIN pg_stat_activity USING (pid)
WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND application_name = 'isoenv lock'
) AS holders
"""


@pytest.fixture(autouse=True)
def outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any checkout, as the hosts' processes are."""
    monkeypatch.chdir(tmp_path)


def line(process: Process) -> str:
    assert process.stdout
    ready, _, _ = select.select([process.stdout], [], [], PATIENCE)
    assert ready, "it never said so"
    return process.stdout.readline().strip()


def ended(process: Process, given: str | None = None) -> tuple[str, str]:
    """Wait for the end of a process, and return what it has printed."""
    return process.communicate(given, timeout=PATIENCE)


def held(host: Host, name: str, *options: str) -> Process:
    """Start a command with a lock, and wait until it has that."""
    process = host.isoenv("lock", "run", name, *options, "--", "sh", "-c", SCRIPT)
    assert line(process) == "in", ended(process)
    return process


def is_free(host: Host, name: str, *options: str) -> bool:
    status, _, stderr = host.say("lock", "run", name, "--timeout", "0", *options, "--", "true")
    assert status in (0, 75), stderr
    return status == 0


def waiting(hosts: Hosts) -> int:
    ((count,),) = hosts.ask(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    )
    assert isinstance(count, int)
    return count


# -- one holder ------------------------------------------------------------------------------------


def test_no_update_is_lost_between_hosts(hosts: Hosts, tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    both = (hosts.a, hosts.b) * 2
    running = [host.python(COUNT, str(file), "40") for host in both]
    assert [process.wait(PATIENCE) for process in running] == [0] * 4
    assert int(file.read_text()) == 4 * 40


def test_the_lock_of_a_killed_holder_is_free_for_the_other_host(
    hosts: Hosts, wait_for: WaitFor
) -> None:
    holder = held(hosts.a, "it")
    assert not is_free(hosts.b, "it")
    nexts = hosts.b.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    wait_for(lambda: waiting(hosts) == 1)
    holder.kill()
    assert line(nexts) == "in"
    assert not is_free(hosts.a, "it")
    nexts.kill()
    wait_for(lambda: is_free(hosts.a, "it"))


@by_name
def test_a_time_out_names_the_holder_and_its_host(hosts: Hosts) -> None:
    holder = held(hosts.a, "it")
    status, stdout, stderr = hosts.b.say("lock", "run", "it", "--timeout", "0.1", "--", "true")
    assert (status, stdout) == (75, "")
    assert stderr.startswith(
        f"isoenv: the lock it was not free within 0.1 s: held by pid {holder.pid} (on host-a): sh "
    )
    assert stderr.count("\n") == 1


@by_name
def test_shared_locks_and_slots_count_on_all_hosts(hosts: Hosts, wait_for: WaitFor) -> None:
    reader = held(hosts.a, "it", "--shared")
    assert is_free(hosts.b, "it", "--shared")
    assert not is_free(hosts.b, "it")
    reader.kill()
    one, other = held(hosts.a, "gpu", "--slots", "2"), held(hosts.b, "gpu", "--slots", "2")
    for host in (hosts.a, hosts.b):
        assert not is_free(host, "gpu", "--slots", "2")
        assert is_free(host, "gpu", "--slots", "3")
        assert not is_free(host, "gpu")
    # One is woken by who gives his back, one looks again for the killed one's.
    nexts = [hosts.b.isoenv("lock", "run", "gpu", "--slots", "2", "cat") for _ in range(2)]
    wait_for_list(hosts, wait_for, 2)
    one.kill()
    other.terminate()
    for process in nexts:
        assert ended(process, "through\n")[0] == "through\n"


@by_name
def test_a_lock_is_the_projects_by_name_or_global(
    hosts: Hosts, make_repo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = make_repo("here/shop"), make_repo("there/shop")
    monkeypatch.chdir(one)
    with Lock("it"):
        assert is_free(hosts.b, "it")
        there = ["-C", str(other), "lock", "run", "it", "--timeout", "0"]
        assert hosts.b.say(*there, "--", "true")[0] == 75
        assert hosts.b.say(*there, "--global", "--", "true")[0] == 0
        assert [(it.project, it.name) for it in locks()] == [("shop", "it")]


@by_name
def test_who_waits_is_served_in_order_and_sleeps(hosts: Hosts, wait_for: WaitFor) -> None:
    holder = held(hosts.a, "it")
    first = hosts.b.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    wait_for(lambda: waiting(hosts) == 1)
    second = hosts.a.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    (found,) = wait_for_list(hosts, wait_for, 1)
    assert found["waiters"] == [first.pid]
    status = Path(f"/proc/{first.pid}/status")
    before = switches(status)
    time.sleep(0.5)
    assert switches(status) == before
    holder.terminate()
    assert line(first) == "in"
    first.terminate()
    assert line(second) == "in"


def wait_for_list(hosts: Hosts, wait_for: WaitFor, count: int) -> list[dict[str, object]]:
    def look() -> list[dict[str, object]]:
        found = records(hosts.b.say("lock", "list", "--json")[1])
        return found if found and len(found[0]["waiters"]) >= count else []  # type: ignore[arg-type]

    return wait_for(look)  # type: ignore[return-value]


def switches(status: Path) -> int:
    return int(status.read_text().partition("\nvoluntary_ctxt_switches:")[2].split()[0])


@by_name
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGSTOP])
def test_a_waiter_that_is_gone_stands_in_nobodys_way(
    hosts: Hosts, wait_for: WaitFor, how: signal.Signals
) -> None:
    held(hosts.a, "it", "--shared")
    writer = hosts.b.isoenv("lock", "run", "it", "--", "touch", "made")
    wait_for(lambda: waiting(hosts) == 1)
    # Behind the writer, which would come first.
    assert not is_free(hosts.a, "it", "--shared")
    writer.send_signal(how)
    if how is signal.SIGSTOP:
        assert not is_free(hosts.a, "it", "--shared")
        return
    wait_for(lambda: is_free(hosts.a, "it", "--shared"))
    assert writer.wait(PATIENCE) == (130 if how is signal.SIGINT else -signal.SIGKILL)
    assert not (hosts.b.state.parent / "made").exists()


@by_name
def test_all_hosts_are_listed(hosts: Hosts, wait_for: WaitFor) -> None:
    holder = held(hosts.a, "it")
    nexts = hosts.b.isoenv("lock", "run", "it", "true")
    wait_for(lambda: waiting(hosts) == 1)
    for host in (hosts.a, hosts.b):
        (found,) = records(host.say("lock", "list", "--json")[1])
        ((shown),) = found["holders"]  # type: ignore[misc]
        assert (shown["pid"], shown["host"], shown["mode"]) == (holder.pid, "host-a", "exclusive")
        assert found["waiters"] == [nexts.pid]
    assert f"pid {holder.pid} (on host-a): sh" in hosts.b.say("lock", "list")[1]
    holder.kill()
    assert nexts.wait(PATIENCE) == 0
    wait_for(lambda: hosts.b.say("lock", "list")[2] == "isoenv: no lock is held\n")
    # What is known of them is forgotten, and what has been counted is not.
    assert hosts.b.say("prune")[0] == 0
    assert hosts.ask("TABLE isoenv.lock_record") == []
    assert hosts.ask("SELECT turn, token FROM isoenv.lock") == [(2, 2)]


# -- a command, and who watches over its lock ------------------------------------------------------


def watchers(name: Path) -> set[int]:
    """Return the processes that watch over a lock of that name, which `lock run` has taken."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
            directory = os.readlink(entry / "cwd")
        except OSError:
            continue
        if directory == "/" and os.fsencode(name) in words:
            found.add(int(entry.name))
    return found


@by_name
def test_who_watches_ends_with_the_last_that_has_the_lock(hosts: Hosts, wait_for: WaitFor) -> None:
    script = "sleep 600 <&- >&- 2>&- & echo $!"
    # Other tests' watch over locks with other names.
    process = hosts.a.isoenv("lock", "run", str(hosts.a.state), "--", "sh", "-c", script)
    child = int(line(process))
    assert process.wait(PATIENCE) == 0
    # It is in nobody's way: neither a pipe nor a child of the command's is left.
    assert ended(process) == ("", "")
    assert len(watchers(hosts.a.state)) == 1
    assert not is_free(hosts.b, str(hosts.a.state))
    os.kill(child, signal.SIGKILL)
    wait_for(lambda: is_free(hosts.b, str(hosts.a.state)))
    wait_for(lambda: not watchers(hosts.a.state))


@by_name
def test_the_command_has_no_child_that_it_does_not_know_and_its_token(hosts: Hosts) -> None:
    script = "read -r children < /proc/$$/task/$$/children; echo $children $ISOENV_LOCK_TOKEN"
    for token in (1, 2):
        done = hosts.a.say("lock", "run", "it", "--", "sh", "-c", script)
        assert done == (0, f"{token}\n", "")


@by_name
def test_a_lost_connection_is_made_anew_where_nobody_had_the_lock(
    hosts: Hosts, wait_for: WaitFor
) -> None:
    for options in ([], ["--shared"], ["--slots", "2"]):
        name = f"it{''.join(options)}"
        holder = held(hosts.a, name, *options)
        for _ in range(2):
            assert len(hosts.ask(END)) == 1
            wait_for(lambda: not is_free(hosts.b, name))  # noqa: B023  # called at once
            if options:
                assert is_free(hosts.b, name, *options)
        assert holder.poll() is None
        holder.kill()
        wait_for(lambda: is_free(hosts.b, name))  # noqa: B023  # called at once


@by_name
@pytest.mark.parametrize("options", [[], ["--shared"], ["--slots", "2"]])
def test_the_command_is_ended_where_another_has_the_lock(
    hosts: Hosts, wait_for: WaitFor, options: list[str]
) -> None:
    """With all that it has started, and nobody else: not who waits for the lock on its host."""
    script = f"sleep 600 & {SCRIPT}"
    holder = hosts.a.isoenv("lock", "run", "it", *options, "--", "sh", "-c", script)
    assert line(holder) == "in"
    behind = hosts.a.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    nexts = hosts.b.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    wait_for(lambda: waiting(hosts) == 1)
    hosts.ask(END)
    assert line(nexts) == "in"
    stdout, stderr = ended(holder)
    assert (holder.returncode, stdout) == (3, "asked\n")
    # Its shell says, too, what has become of its child.
    (said,) = [text for text in stderr.splitlines() if text.startswith("isoenv: ")]
    assert said.startswith("isoenv: lost the lock it: the connection to ")
    assert ": sh -c 'sleep 600 & trap " in said
    assert said.endswith(" was ended")
    assert "sesame" not in stderr
    wait_for(lambda: not in_group(holder.pid))
    assert (behind.poll(), nexts.poll()) == (None, None)


def in_group(group: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(entry.parent.name))
    return found


@by_name
def test_a_command_that_does_not_end_is_ended(hosts: Hosts, wait_for: WaitFor) -> None:
    script = "trap '' TERM; echo in; while :; do sleep 0.05; done"
    holder = hosts.a.isoenv("lock", "run", "it", "--", "sh", "-c", script)
    assert line(holder) == "in"
    nexts = hosts.b.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    wait_for(lambda: waiting(hosts) == 1)
    hosts.ask(END)
    assert holder.wait(PATIENCE) == -signal.SIGKILL
    assert line(nexts) == "in"


def test_what_a_holder_takes_to_know_is_less_than_what_the_server_waits() -> None:
    takes = (
        *(lock_watcher.INTERVAL, postgres_line.ANSWER, host_lines.RECOVERY),
        *(lock_watcher.ATTEMPT, postgres_line.ANSWER, lock_ending.GRACE),
    )
    assert sum(takes) < postgres_line.GIVEN_UP * 0.8


@pytest.fixture
def wires(network: tuple[Network, Postgres]) -> Network:
    """The cables of the hosts."""
    return network[0]


@in_namespaces
def test_the_holder_on_a_host_that_is_cut_off_is_ended_before_another_has_the_lock(
    hosts: Hosts, wires: Network, wait_for: WaitFor
) -> None:
    holder = held(hosts.a, "it")
    nexts = hosts.b.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    wait_for(lambda: waiting(hosts) == 1)
    wires.cut(1)
    try:
        stdout, stderr = ended(holder)
        assert waiting(hosts) == 1
        assert (holder.returncode, stdout) == (3, "asked\n")
        assert "isoenv: lost the lock it: the connection to 10.77.1.1:" in stderr
        assert line(nexts) == "in"
    finally:
        wires.mend(1)


@in_namespaces
def test_a_cable_that_is_out_for_a_moment_ends_nothing(
    hosts: Hosts, wires: Network, wait_for: WaitFor
) -> None:
    holder = held(hosts.a, "it")
    nexts = hosts.b.isoenv("lock", "run", "it", "--", "sh", "-c", SCRIPT)
    wait_for(lambda: waiting(hosts) == 1)
    wires.cut(1)
    time.sleep(0.7)
    wires.mend(1)
    time.sleep(3)
    assert holder.poll() is None
    assert waiting(hosts) == 1
    holder.terminate()
    assert line(nexts) == "in"


@by_name
def test_a_server_that_starts_anew_finds_the_lock_held(
    hosts: Hosts,
    monkeypatch: pytest.MonkeyPatch,
    free_port: Callable[[], int],
    wait_for: WaitFor,
) -> None:
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        make_postgres(directory, "max_connections = 20\n")
        port, server = start_postgres(directory, free_port)
        try:
            url = f"postgresql://postgres@/postgres?host={directory}&port={port}"
            monkeypatch.setenv("ISOENV_STORE", url)
            monkeypatch.setenv("TEST_RECOVERY", "60")
            holder = held(hosts.a, "it")
            monkeypatch.delenv("TEST_RECOVERY")
            mine = Lock("mine")
            mine.acquire()
            stop(server)
            status, _, stderr = hosts.b.say("lock", "run", "other", "--", "touch", "made")
            assert status == 1
            assert stderr.startswith("isoenv: cannot use ")
            assert stderr.endswith(": once it runs, try again\n")
            assert stderr.count("\n") == 1
            _, server = start_postgres(directory, lambda: port)
            has_it = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
            wait_for(lambda: Postgres(port, directory).ask(has_it) == [(1,)])
            mine.check()
            assert not is_free(hosts.b, "mine")
            mine.release()
            assert is_free(hosts.b, "mine")
            assert not is_free(hosts.b, "it")
            assert holder.poll() is None
            holder.terminate()
            wait_for(lambda: is_free(hosts.b, "it"))
            # And one that does not come back ends the command.
            holder = held(hosts.a, "it")
            stop(server)
            assert ended(holder)[0] == "asked\n"
        finally:
            stop(server)
    assert not (hosts.b.state.parent / "made").exists()


# -- in Python -------------------------------------------------------------------------------------


@by_name
def test_a_lock_that_another_has_had_is_said_by_check_and_release(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_lines, "RECOVERY", 1.0)
    mine = Lock("it")
    with mine:
        mine.check()
        hosts.ask(END)
        # Nobody has had it.
        mine.check()
        assert not is_free(hosts.b, "it")
        hosts.ask(END)
    mine.acquire()
    assert mine.token == 2
    hosts.ask(END)
    holder = held(hosts.b, "it")
    with pytest.raises(IsoenvError, match=r"lost the lock it: .* and another has had it") as told:
        mine.check()
    assert "sesame" not in str(told.value)
    with pytest.raises(IsoenvError, match="lost the lock it"):
        mine.check()
    mine.release()
    with pytest.raises(IsoenvError, match="is not held by this thread"):
        mine.release()
    holder.kill()
    with Lock("it", timeout=60) as again:
        assert again.token == 4
        hosts.ask(END)
        held(hosts.b, "it").kill()
        with pytest.raises(IsoenvError, match="lost the lock it"):
            again.release()
        again.acquire()
    assert Lock("it").token is None


@by_name
def test_readers_beside_a_reader_take_nothing_from_it(hosts: Hosts) -> None:
    with Lock("it", shared=True) as mine:
        hosts.ask(END)
        assert is_free(hosts.b, "it", "--shared")
        mine.check()
        assert mine.token is None
        hosts.ask(END)
        assert is_free(hosts.b, "it")
        with pytest.raises(IsoenvError, match="lost the lock it"):
            mine.check()


@by_name
def test_a_slot_that_another_has_had_is_lost_and_one_beside_it_is_not(hosts: Hosts) -> None:
    first = held(hosts.b, "it", "--slots", "3")
    with Lock("it", slots=3) as mine:
        first.kill()
        eventually_free(hosts, "it", "--slots", "2")
        hosts.ask(END)
        # Who comes is given the slot of the killed one, and the next one this one's.
        other = held(hosts.b, "it", "--slots", "3")
        mine.check()
        hosts.ask(END)
        assert is_free(hosts.b, "it", "--slots", "3")
        with pytest.raises(IsoenvError, match="lost the lock it"):
            mine.check()
        assert other.poll() is None


def eventually_free(hosts: Hosts, name: str, *options: str) -> None:
    deadline = time.monotonic() + 60
    while not is_free(hosts.b, name, *options):
        assert time.monotonic() < deadline


@by_name
def test_where_nobody_can_say_whether_it_was_had_it_is_lost(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    assert hosts
    monkeypatch.setattr(host_lines, "RECOVERY", 0.5)
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        make_postgres(directory, "max_connections = 20\n")
        port, server = start_postgres(directory, free_port)
        try:
            url = f"postgresql://postgres@/postgres?host={directory}&port={port}"
            monkeypatch.setenv("ISOENV_STORE", url)
            lock = Lock("it")
            lock.acquire()
            stop(server)
            with pytest.raises(IsoenvError, match="lost the lock it: cannot ask"):
                lock.release()
            # This host's own is free, and is not had without the other.
            with pytest.raises(IsoenvError, match="once it runs, try again"):
                Lock("it", timeout=0).acquire()
            monkeypatch.delenv("ISOENV_STORE")
            with Lock("it", timeout=0):
                pass
        finally:
            stop(server)


@by_name
def test_a_forked_childs_end_leaves_the_lock_and_the_connection_alone(hosts: Hosts) -> None:
    lock = Lock("it")
    with lock:
        for _ in range(2):
            child = os.fork()
            if child == 0:
                lock.release()
                os._exit(0)
            assert os.waitpid(child, 0)[1] == 0
            lock.check()
        assert not is_free(hosts.b, "it")
    assert is_free(hosts.b, "it")
    # The connection is kept for the next one, and is another's in a child.
    ours = hosts.ask("SELECT pid FROM pg_stat_activity WHERE application_name = 'isoenv lock'")
    assert len(ours) == 1
    child = os.fork()
    if child == 0:
        with Lock("it"):
            pass
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    with Lock("it"):
        pass
    assert ours == hosts.ask(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'isoenv lock'"
    )


KEPT = "pg_stat_activity, (VALUES ('advisory', 1, true)) AS any_lock (locktype, objsubid, granted)"


@by_name
def test_a_kept_connection_that_was_lost_is_no_error(hosts: Hosts) -> None:
    with Lock("it"), Lock("other"):
        pass
    hosts.ask(
        END.replace("JOIN", "RIGHT JOIN").replace(
            "locktype = 'advisory' AND objsubid = 1 AND granted AND", ""
        )
    )
    with Lock("it"), Lock("other"):
        assert not is_free(hosts.b, "other")


# -- what sessions hold ----------------------------------------------------------------------------


def test_what_a_session_holds_it_holds_on_all_hosts(hosts: Hosts, wait_for: WaitFor) -> None:
    shell = hosts.a.python("import time; print('up', flush=True); time.sleep(600)")
    assert line(shell) == "up"
    start = ["session", "start", "--name", "one", "--pid", str(shell.pid)]
    assert hosts.a.say(*start)[0] == 0
    acquire = ["lock", "acquire", "it", "--session", "one"]
    assert hosts.a.say(*acquire) == (0, "1\n", "")
    assert not is_free(hosts.b, "it")
    assert is_free(hosts.b, "it", "--global") is False  # outside any project it is the same
    status, _, stderr = hosts.b.say("lock", "acquire", "it", "--timeout", "0.1")
    assert status == 75
    assert "held by session one pid " in stderr
    assert "on host-a" in stderr
    (found,) = records(hosts.b.say("lock", "list", "--json")[1])
    ((shown),) = found["holders"]  # type: ignore[misc]
    assert (shown["mode"], shown["session"], shown["token"]) == ("sticky", "one", 1)
    # A release wakes who waits on another host, who would not look again for days.
    code = """
from isoenv import Lock
from isoenv.coordination import sticky
sticky.AGAIN = 10.0**6
with Lock("it"):
    print("had", flush=True)
"""
    waits = hosts.b.python(code)
    listening = "SELECT 1 FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR query LIKE '%notify%'"
    wait_for(lambda: hosts.ask(listening))
    assert hosts.a.say("lock", "release", "it", "--session", "one") == (0, "", "")
    assert line(waits) == "had"
    # Its own commands may.
    assert hosts.a.say(*acquire)[0] == 0
    run = ["lock", "run", "it", "--timeout", "0", "--", "echo", "mine"]
    assert hosts.a.say(*run, ISOENV_SESSION="one") == (0, "mine\n", "")
    assert hosts.b.say(*run)[0] == 75


@by_name
def test_a_time_to_live_is_over_on_all_hosts_by_the_servers_clock(hosts: Hosts) -> None:
    with Session("one") as me:
        lock = Lock("it", session=me.id)
        assert sticky.acquire(lock, me.record, 600).token == 1
        assert not is_free(hosts.b, "it")
        hosts.ask("UPDATE isoenv.lock SET expires = extract(epoch FROM clock_timestamp()) + 1")
        waits = hosts.b.isoenv("lock", "run", "it", "--", "echo", "had")
        assert ended(waits)[0] == "had\n"
        assert sticky.acquire(lock, me.record, None).token == 3


@by_name
def test_a_session_on_another_host_is_given_up_after_its_last_heartbeat(hosts: Hosts) -> None:
    with Session("one") as me:
        lock = Lock("it", session=me.id)
        sticky.acquire(lock, me.record, None)
        assert not is_free(hosts.b, "it")
        hosts.ask("UPDATE isoenv.session SET boot = 'another', beaten_at = beaten_at - 3000")
        assert not is_free(hosts.b, "it")
        hosts.ask("UPDATE isoenv.session SET beaten_at = beaten_at - 700")
        assert is_free(hosts.b, "it")
        with pytest.raises(IsoenvError, match="does not hold the lock it, it is free"):
            sticky.release(lock, me.record)


# -- what else the hosts share ---------------------------------------------------------------------


def test_a_message_wakes_its_reader_on_another_host(hosts: Hosts, wait_for: WaitFor) -> None:
    code = """
from isoenv import Session
with Session("bot") as me:
    print("up", flush=True)
    for message in me.receive(wait=600):
        print(message.sender, message.text, flush=True)
"""
    reader = hosts.b.python(code)
    assert line(reader) == "up"
    listening = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'isoenv waiter'"
    wait_for(lambda: hosts.ask(listening))
    with_name = ["session", "start", "--name", "sender", "--pid", str(os.getpid())]
    assert hosts.a.say(*with_name)[0] == 0
    assert hosts.a.say("send", "bot", "hello", "--session", "sender")[0] == 0
    assert line(reader) == "sender hello"
    assert reader.wait(PATIENCE) == 0
    wait_for(lambda: not hosts.ask(listening))
    waits = hosts.b.isoenv("receive", "--wait", "600", "--session", "sender")
    wait_for(lambda: hosts.ask(listening))
    assert hosts.a.say("send", "sender", "again")[0] == 0
    assert "again" in ended(waits)[0]


def test_the_sessions_of_all_hosts_are_known_on_each(hosts: Hosts) -> None:
    code = """
from isoenv import Session
with Session("bot") as me:
    me.metrics.add("agents", 2)
    print("up", flush=True)
    sys.stdin.read()
"""
    for host in (hosts.a, hosts.b):
        assert line(host.python(code.replace("bot", host.name))) == "up"
    for host in (hosts.a, hosts.b):
        shown = host.say("session", "list")[1]
        assert "host-a" in shown
        assert "host-b" in shown
        assert "4" in host.say("metrics", "show")[1]
    status, _, stderr = hosts.b.say("session", "start", "--name", "host-a")
    assert status == 1
    assert "on host-a" in stderr
