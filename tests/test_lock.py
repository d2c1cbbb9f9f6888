"""One holder at a time, in turn, whatever becomes of holders, files, forks and threads."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import isoenv
from isoenv import Lock, LockTimeout, locks, mounts
from isoenv.coordination import lock_files, lock_scope, lock_table
from isoenv.errors import IsoenvError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Start = Callable[..., subprocess.Popen[str]]

HOLD = """
import json, sys
from isoenv import Lock
with Lock(sys.argv[1], **json.loads(sys.argv[2])):
    print("held", flush=True)
    sys.stdin.read()
"""

# Adds to a number in a file that has no lock of its own, for so many seconds or turns.
COUNT = """
import json, sys, time
from isoenv import Lock
name, file, seconds, turns = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
lock = Lock(name)
with lock:
    print("ready", flush=True)
sys.stdin.readline()
end, done = time.monotonic() + seconds, 0
while time.monotonic() < end and done < turns:
    with lock, open(file, "r+") as counter:
        number = int(counter.read())
        time.sleep(0.0005)
        counter.seek(0)
        counter.write(str(number + 1))
    done += 1
print(done, flush=True)
"""

PATIENCE = 60

# What is about the kernel's locks and their files, which those of all hosts stand above.
of_a_machine = pytest.mark.parametrize("kind", ["of a machine"], indirect=True)


@pytest.fixture(autouse=True)
def outside(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside any checkout the scope is the machine, which here is the test's own state."""
    assert kind
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def start() -> Iterator[Start]:
    """Start a Python with its ends as pipes; all are killed in the end."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *arguments: str, **options: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            **options,  # type: ignore[call-overload]
        )
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


@pytest.fixture
def hold(start: Start) -> Start:
    """Start a process that holds a lock until its input ends or it is killed."""

    def hold(name: str, **options: object) -> subprocess.Popen[str]:
        process = start(HOLD, name, json.dumps(options))
        assert line(process) == "held"
        return process

    return hold


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def end(process: subprocess.Popen[str]) -> None:
    process.communicate()
    assert process.returncode == 0


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came to pass"
        time.sleep(0.005)


def is_free(name: str, **options: object) -> bool:
    """Whether another thread could have the lock at once."""
    results: list[bool] = []

    def attempt() -> None:
        try:
            with Lock(name, timeout=0, **options):  # type: ignore[arg-type]
                results.append(True)
        except LockTimeout:
            results.append(False)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return results[0]


def directory(name: str) -> Path:
    return Path(Lock(name).directory)


def waiters(name: str) -> int:
    return sum(len(locked.waiters) for locked in locks() if locked.name == name)


def race(start: Start, file: Path, *, seconds: float, turns: int) -> list[int]:
    """Let eight processes contend; return how often each had the lock."""
    file.write_text("0")
    processes = [start(COUNT, "counter", str(file), str(seconds), str(turns)) for _ in range(8)]
    assert [line(process) for process in processes] == ["ready"] * 8
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    return [int(line(process)) for process in processes]


# -- who has it ------------------------------------------------------------------------------


def test_no_update_is_lost_and_the_slowest_has_half_of_the_mean_at_least(
    start: Start, tmp_path: Path
) -> None:
    file = tmp_path / "number"
    had = race(start, file, seconds=3, turns=10**9)
    assert int(file.read_text()) == sum(had)
    assert min(had) >= sum(had) / len(had) / 2, had


def test_no_update_is_lost_where_holders_are_killed(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "number"
    file.write_text("0")
    code = COUNT.replace("    done += 1", "    done += 1; print(done, flush=True)")
    processes = [start(code, "counter", str(file), "60", "60") for _ in range(8)]
    assert [line(process) for process in processes] == ["ready"] * 8
    for process in processes:
        assert process.stdin
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes[:3]:
        line(process)
        process.kill()
    counted = [int(process.communicate()[0].split()[-1]) for process in processes[3:]]
    assert counted == [60] * 5
    # A killed one may have written and not said so, and may have said it and not been read.
    assert 5 * 60 + 3 <= int(file.read_text()) <= 8 * 60


def test_a_lock_is_held_and_given_back(hold: Start) -> None:
    assert is_free("it")
    process = hold("it")
    assert not is_free("it")
    end(process)
    assert is_free("it")


def test_the_lock_of_a_killed_holder_is_free_though_nobody_has_reaped_it(hold: Start) -> None:
    process = hold("it")
    threading.Timer(0.2, process.kill).start()
    with Lock("it", timeout=PATIENCE):
        # Popen has not asked for its end.
        eventually(lambda: state(process.pid) == "Z")
        assert locks()[0].holders[0].pid == os.getpid()


def test_a_waiter_waits_in_the_kernels_queue_and_not_by_polling(hold: Start, start: Start) -> None:
    holder = hold("it", slots=1)
    code = "import sys; from isoenv import Lock\nwith Lock('it', **eval(sys.argv[1])): print('in')"
    waiting = start(code, "{}"), start(code, "{'timeout': 500}")
    eventually(lambda: waiters("it") == 2)
    before = [switches(process.pid) for process in waiting]
    time.sleep(0.5)
    assert [switches(process.pid) for process in waiting] == before
    end(holder)
    assert [line(process) for process in waiting] == ["in"] * 2


@of_a_machine
def test_a_waiter_for_a_slot_does_not_poll_either(hold: Start, start: Start) -> None:
    holders = [hold("it", slots=2) for _ in range(2)]
    waiting = start("from isoenv import Lock\nwith Lock('it', slots=2): print('in')")
    eventually(lambda: waiters("it") == 1)
    before = switches(waiting.pid)
    time.sleep(0.5)
    assert switches(waiting.pid) == before
    holders[1].kill()
    assert line(waiting) == "in"


def state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def switches(pid: int) -> int:
    """How often a process has been given a processor, once it sleeps."""
    eventually(lambda: state(pid) == "S")
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("\nvoluntary_ctxt_switches:")[2].split()[0])


def test_those_that_wait_are_served_in_their_order(
    hold: Start, start: Start, tmp_path: Path
) -> None:
    holder = hold("it")
    order = tmp_path / "order"
    code = (
        "import sys; from isoenv import Lock\n"
        "with Lock('it'), open(sys.argv[1], 'a') as file: file.write(sys.argv[2])"
    )
    waiting = []
    for number in range(4):
        waiting.append(start(code, str(order), str(number)))
        eventually(lambda: waiters("it") == len(waiting))
    end(holder)
    for process in waiting:
        end(process)
    assert order.read_text() == "0123"


def test_shared_holders_are_beside_each_other_and_keep_an_exclusive_one_out(hold: Start) -> None:
    first, second = hold("it", shared=True), hold("it", shared=True)
    assert is_free("it", shared=True)
    assert not is_free("it")
    end(first)
    assert not is_free("it")
    second.kill()
    eventually(lambda: is_free("it"))
    hold("it")
    assert not is_free("it", shared=True)


def test_readers_that_come_later_do_not_pass_by_a_waiting_writer(hold: Start, start: Start) -> None:
    reader = hold("it", shared=True)
    writer = start(HOLD, "it", "{}")
    eventually(lambda: waiters("it") == 1)
    assert not is_free("it", shared=True)
    end(reader)
    assert line(writer) == "held"


def test_at_most_so_many_hold_a_lock_with_slots(hold: Start) -> None:
    first, second, third = (hold("it", slots=3) for _ in range(3))
    assert not is_free("it", slots=3)
    assert is_free("it", slots=4)
    end(second)
    assert is_free("it", slots=3)
    # By the number of the caller, wherever the others sit.
    assert not is_free("it", slots=2)
    end(first)
    assert is_free("it", slots=2)
    assert not is_free("it")
    end(third)
    assert is_free("it")


def test_the_slot_of_a_killed_holder_is_free_at_once(hold: Start) -> None:
    holders = [hold("it", slots=2) for _ in range(2)]
    assert not is_free("it", slots=2)
    threading.Timer(0.2, holders[0].kill).start()
    with Lock("it", slots=2, timeout=PATIENCE):
        assert not is_free("it", slots=2)


def test_never_more_than_the_slots_are_held_under_contention(
    kind: str, start: Start, tmp_path: Path
) -> None:
    code = """
import os, sys
from isoenv import Lock
for _ in range(60):
    with Lock("it", slots=3):
        mine = f"{sys.argv[1]}/{os.getpid()}"
        open(mine, "w").close()
        print(len(os.listdir(sys.argv[1])))
        os.unlink(mine)
"""
    inside = tmp_path / "inside"
    inside.mkdir()
    processes = [start(code, str(inside)) for _ in range(8)]
    seen = [int(word) for process in processes for word in process.communicate()[0].split()]
    assert len(seen) == 8 * 60
    # The way to a server is longer than what is done here.
    assert max(seen) in ((2, 3) if kind == "of a machine" else (1, 2, 3))


# -- threads, forks, one process twice ---------------------------------------------------------


def test_a_thread_may_take_its_lock_again_and_gives_it_back_as_often() -> None:
    with Lock("it"):
        with Lock("it"), Lock("it", shared=True), Lock("it", slots=4):
            pass
        assert not is_free("it")
    assert is_free("it")


def test_a_lock_that_waits_for_itself_is_refused() -> None:
    with Lock("it", shared=True), Lock("it", shared=True):
        with pytest.raises(IsoenvError, match="held shared by this very thread"):
            Lock("it").acquire()
        with pytest.raises(IsoenvError, match="cannot have it with a slot too"):
            Lock("it", slots=2).acquire()
    message = "for session one: it would wait for itself"
    with Lock("it", session="one"), pytest.raises(IsoenvError, match=message):
        Lock("it", session="two").acquire()
    assert is_free("it")


def test_what_is_not_held_cannot_be_given_back() -> None:
    with pytest.raises(IsoenvError, match="it is not held by this thread"):
        Lock("it").release()


def test_threads_of_one_process_keep_each_other_out() -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        for _ in range(20):
            with Lock("it"):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0002)
                inside -= 1

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"slots": 2}])
def test_a_forked_child_neither_has_nor_frees_its_parents_lock(options: dict[str, object]) -> None:
    lock = Lock("it", **options)  # type: ignore[arg-type]
    told, tell = os.pipe()
    with lock:
        child = os.fork()
        if child == 0:
            try:
                lock.release()
                os.write(tell, b"released")
                Lock("it", timeout=PATIENCE).acquire()
                os.write(tell, b", had")
            finally:
                os._exit(0)
        assert os.read(told, 100) == b"released"
        assert not is_free("it")
        assert locks()[0].holders[0].pid == os.getpid()
    assert os.read(told, 100) == b", had"
    os.waitpid(child, 0)
    os.close(told)
    os.close(tell)


def test_a_forked_child_that_lives_on_does_not_keep_the_lock_of_a_killed_parent(
    start: Start,
) -> None:
    code = """
import os, sys
from isoenv import Lock
Lock("it").acquire()
Lock("slots", slots=2).acquire()
child = os.fork()
os.write(1, b"%d\\n" % child if child else b"held\\n")  # in one piece each
sys.stdin.read()
"""
    parent = start(code)
    words = {line(parent), line(parent)} - {"held"}
    parent.kill()
    parent.wait()
    child = int(words.pop())
    os.kill(child, 0)
    assert is_free("it")
    assert is_free("slots")


def test_a_child_that_a_library_forked_does_not_keep_what_is_given_back(start: Start) -> None:
    code = """
import ctypes, sys
from isoenv import Lock
libc = ctypes.CDLL(None)
with Lock("it"), Lock("shared", shared=True), Lock("slots", slots=2):
    # Unlike os.fork this tells nobody in Python.
    child = libc.fork()
    if child == 0:
        libc.pause()
print(child, flush=True)
sys.stdin.read()
"""
    child = int(line(start(code)))
    try:
        assert [is_free(name) for name in ("it", "shared", "slots")] == [True] * 3
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_command_that_is_started_meanwhile_does_not_keep_the_lock() -> None:
    with Lock("it"), Lock("slots", slots=2):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        assert is_free("it")
        assert is_free("slots")
    finally:
        child.kill()
        child.wait()


# -- time-outs and interrupts --------------------------------------------------------------------


def test_a_time_out_names_the_holder(hold: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ISOENV_PROJECT", "shop")
    monkeypatch.setenv("ISOENV_INSTANCE", "2")
    process = hold("it", session="trainer")
    with pytest.raises(LockTimeout) as raised:
        Lock("it", timeout=0.05).acquire()
    text = str(raised.value)
    assert text.startswith(
        f"the lock it was not free within 0.05 s: held by session trainer pid {process.pid} "
        f"(shop:2): {sys.executable} -c '?import json, sys?"
    )
    assert text.endswith(": `isoenv lock list`")
    assert ", since " in text
    assert "\n" not in text
    assert raised.value.exit_code == 75
    assert isinstance(raised.value, IsoenvError)


def test_a_time_out_says_how_many_have_the_slots(hold: Start) -> None:
    for _ in range(2):
        hold("it", slots=2)
    with pytest.raises(LockTimeout, match=r"held by 2, the first is pid \d+: "):
        Lock("it", slots=2, timeout=0.05).acquire()


@pytest.mark.parametrize("options", [{}, {"shared": True}, {"slots": 2}])
def test_a_time_out_is_kept_and_leaves_nothing_open(
    hold: Start, options: dict[str, object]
) -> None:
    hold("it")
    before = os.listdir("/proc/self/fd")
    for timeout in (0, 0.1):
        began = time.monotonic()
        with pytest.raises(LockTimeout):
            Lock("it", timeout=timeout, **options).acquire()  # type: ignore[arg-type]
        assert time.monotonic() - began >= timeout
    assert os.listdir("/proc/self/fd") == before
    assert waiters("it") == 0


@of_a_machine
@pytest.mark.parametrize("options", [{}, {"shared": True}, {"slots": 2}])
@pytest.mark.parametrize("name", ["queue", "lock"])
def test_who_does_not_wait_bears_with_what_is_held_for_a_moment(
    monkeypatch: pytest.MonkeyPatch, name: str, options: dict[str, object]
) -> None:
    monkeypatch.setattr(lock_files, "GRACE", float(PATIENCE))
    with Lock("it"):
        pass
    # As one that passes through the queue does, or one that looks who has the lock.
    descriptor = os.open(directory("it") / name, os.O_RDWR)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    timer = threading.Timer(0.1, os.close, [descriptor])
    timer.start()
    with Lock("it", timeout=0, **options):  # type: ignore[arg-type]
        timer.join()


@pytest.mark.parametrize("options", ["{}", "{'slots': 2}", "{'timeout': 500}"])
def test_an_interrupt_ends_the_wait_and_leaves_the_queue(
    hold: Start, start: Start, options: str
) -> None:
    slots = {"slots": 2} if "slots" in options else {}
    holders = [hold("it", **slots) for _ in range(2 if slots else 1)]
    waiting = start(
        "import sys; from isoenv import Lock, locks\n"
        "try: Lock('it', **eval(sys.argv[1])).acquire()\n"
        "except KeyboardInterrupt: print('interrupted', len(locks()[0].waiters))",
        options,
    )
    eventually(lambda: waiters("it") == 1)
    waiting.send_signal(signal.SIGINT)
    assert line(waiting) == "interrupted 0"
    assert len(locks()[0].holders) == len(holders)


# -- the files -----------------------------------------------------------------------------------


@of_a_machine
@pytest.mark.parametrize("how", ["deleted", "replaced", "all deleted"])
def test_those_that_wait_for_a_file_that_is_taken_away_meet_at_the_new_one(
    hold: Start, start: Start, how: str
) -> None:
    first = hold("it")
    second, third = start(HOLD, "it", "{}"), start(HOLD, "it", "{}")
    eventually(lambda: waiters("it") == 2)
    for file in directory("it").iterdir():
        if how == "all deleted" or file.name == "lock":
            file.unlink()
    if how == "replaced":
        (directory("it") / "lock").write_text("somebody's\n")
    # Nobody can know any more that the first one has it.
    fourth = hold("it", timeout=PATIENCE) if how == "all deleted" else None
    end(first)
    if fourth:
        time.sleep(0.2)
        assert [len(locked.holders) for locked in locks()] == [1]
        end(fourth)
    one, other = sorted((second, third), key=lambda process: process.pid != holder())
    assert line(one) == "held"
    eventually(lambda: locks()[0].waiters == (other.pid,))
    end(one)
    assert line(other) == "held"


def holder() -> int | None:
    eventually(lambda: locks() and locks()[0].holders)
    return locks()[0].holders[0].pid


@of_a_machine
def test_nothing_is_ever_removed_and_no_record_is_left() -> None:
    for options in ({}, {"shared": True}, {"slots": 2}):
        with Lock("it", **options):  # type: ignore[arg-type]
            pass
    found = {file.name: file.stat() for file in directory("it").iterdir()}
    assert found.keys() == {"lock", "queue", "slot-0", "holder-0"}
    assert {status.st_size for status in found.values()} == {0}
    assert {status.st_mode & 0o777 for status in found.values()} == {0o600}
    assert directory("it").stat().st_mode & 0o777 == 0o700


@of_a_machine
def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    with Lock("it"):
        pass
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (directory("it") / "lock").unlink()
    (directory("it") / "lock").symlink_to(precious)
    with pytest.raises(IsoenvError, match=r"cannot use the lock .*/it/lock: too many levels of"):
        Lock("it").acquire()
    assert precious.read_text() == "kept"


@of_a_machine
def test_a_file_in_the_place_of_a_fifo_is_refused() -> None:
    with Lock("it", slots=2):
        pass
    (directory("it") / "slot-0").unlink()
    (directory("it") / "slot-0").write_text("")
    with pytest.raises(IsoenvError, match="it is no FIFO: `rm` removes it"):
        Lock("it", slots=2).acquire()
    assert is_free("it")


@of_a_machine
@pytest.mark.parametrize("options", [{}, {"shared": True}, {"slots": 2}])
def test_a_full_disk_takes_no_lock_away(options: dict[str, object]) -> None:
    with Lock("it", **options):  # type: ignore[arg-type]
        pass
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with Lock("it", **options):  # type: ignore[arg-type]
            assert not is_free("it")
            (found,) = locks()
            assert found.holders[0].pid == os.getpid()
            assert sys.executable in str(found.holders[0].command)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert is_free("it")


NAMES = [
    *(
        "it",
        "a/b",
        "../../up",
        ".",
        "..",
        ".hidden",
        "with space",
        "-x",
        "ends/",
        "%2f",
        "a%",
        "%%",
    ),
    *("Ünïcode 🚒", "\udcff\udcfe bytes", "new\nline", "nul\0", "x" * 500, "x" * 501, "é" * 200),
    *("It", "IT", "a" * 140, "a" * 141, "lock", "queue"),
]


def test_any_name_is_one_lock_and_no_other() -> None:
    assert len({Lock(name).directory for name in NAMES}) == len(NAMES)
    # On a file system that takes capitals for small letters, too.
    assert len({Lock(name).directory.lower() for name in NAMES}) == len(NAMES)
    with contextlib.ExitStack() as stack:
        for name in NAMES:
            stack.enter_context(Lock(name, timeout=PATIENCE))
        assert {locked.name for locked in locks()} == set(NAMES)
        for name in NAMES:
            assert not is_free(name)
    assert locks() == []
    root = Path(lock_scope.current().directory)
    assert len(list(root.iterdir())) == len(NAMES)


@of_a_machine
@pytest.mark.parametrize("name", ["", "\ud800"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError):
        Lock(name)


@of_a_machine
@pytest.mark.parametrize(
    "options",
    [{"slots": 0}, {"slots": 2, "shared": True}, {"timeout": -1}, {"timeout": float("nan")}],
)
def test_what_cannot_be_asked_for_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Lock("it", **options)  # type: ignore[arg-type]


# -- what is shown -------------------------------------------------------------------------------


def test_the_list_shows_holders_and_waiters_and_touches_nothing(hold: Start, start: Start) -> None:
    process = hold("it", session="s1")
    waiting = start(HOLD, "it", "{}")
    eventually(lambda: waiters("it") == 1)
    (found,) = isoenv.locks()
    assert (found.name, found.project, found.waiters) == ("it", None, (waiting.pid,))
    (holder,) = found.holders
    assert (holder.mode, holder.pid, holder.session) == ("exclusive", process.pid, "s1")
    assert abs(time.time() - (holder.since or 0)) < PATIENCE
    assert not holder.is_gone
    assert holder.command
    assert holder.command.startswith(sys.executable)


def test_the_list_tells_shared_holders_and_slots_apart(hold: Start) -> None:
    shared = [hold("it", shared=True, session=f"reader{number}") for number in range(2)]
    slotted = hold("it", slots=2)
    (found,) = locks()
    assert {(holder.mode, holder.pid, holder.session) for holder in found.holders} == {
        ("shared", shared[0].pid, "reader0"),
        ("shared", shared[1].pid, "reader1"),
        ("slot", slotted.pid, None),
    }


@of_a_machine
def test_a_record_that_a_killed_holder_left_names_nobody(hold: Start) -> None:
    process = hold("it")
    process.kill()
    process.wait()
    assert (directory("it") / "lock").stat().st_size > 0
    assert locks() == []
    assert (directory("it") / "lock").stat().st_size == 0


@of_a_machine
def test_a_recycled_pid_in_the_record_is_no_holder(hold: Start) -> None:
    process = hold("it")
    file = directory("it") / "lock"
    record = json.loads(file.read_text())
    # The process that was written down had this pid at another time.
    file.write_text(json.dumps({**record, "start": record["start"] - 1}) + "\n")
    (found,) = locks()
    assert found.holders[0].is_gone
    assert "gone, a child has the lock" in str(found.holders[0])
    process.kill()
    process.wait()
    file.write_text(json.dumps({**record, "pid": os.getpid()}) + "\n")
    assert locks() == []
    assert is_free("it")


@of_a_machine
@pytest.mark.parametrize(
    "text", ["", "{", "[]\n", "\0" * 5000, '{"pid": "x", "since": []}\n', "[" * 60000, "é\n" * 9]
)
def test_a_record_that_is_none_hides_no_holder(hold: Start, text: str) -> None:
    process = hold("it")
    (directory("it") / "lock").write_text(text)
    (found,) = locks()
    assert found.holders[0].pid == process.pid
    with pytest.raises(LockTimeout, match=f"held by pid {process.pid}: "):
        Lock("it", timeout=0).acquire()


@of_a_machine
def test_what_a_record_says_cannot_move_the_cursor(hold: Start) -> None:
    process = hold("it")
    file = directory("it") / "lock"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "command": "\x1b[2Jevil\nline \udcff"}) + "\n")
    with pytest.raises(LockTimeout, match=rf"held by pid {process.pid}: \?\[2Jevil\?line \?, "):
        Lock("it", timeout=0).acquire()


def test_a_holder_in_another_pid_namespace_is_seen_and_named(start: Start) -> None:
    code = HOLD.replace('print("held", flush=True)', 'print("held", os.getpid(), flush=True)')
    words = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c"]
    process = subprocess.Popen(
        [*words, f"import os{code}", "it", "{}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        if line(process) != "held 1":
            (pytest.fail if os.environ.get("CI") else pytest.skip)("no pid namespaces here")
        (found,) = locks()
        assert found.holders[0].command
        assert not is_free("it")
        inside = start(
            "import os, subprocess, sys; subprocess.run(sys.argv[1:])",
            *words,
            "from isoenv import locks; print([str(one.holders[0]) for one in locks()])",
        )
        shown = line(inside)
        assert "pid 1:" in shown
        assert "gone" not in shown
    finally:
        process.communicate()
    assert is_free("it")


@of_a_machine
def test_files_of_an_unknown_kind_are_passed_over() -> None:
    with Lock("it"):
        root = directory("it").parent
        (root / "stray").write_text("")
        (root.parent / "stray").write_text("")
        (root / "empty").mkdir()
        os.mkfifo(directory("it") / "slot-x")
        (directory("it") / "slot-7").write_text("")
        assert [locked.name for locked in locks()] == ["it"]


@of_a_machine
def test_the_kernels_word_is_enough_without_its_table(
    hold: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock_table, "now", lambda: lock_table.Table("", b""))
    process = hold("it")
    (found,) = locks()
    assert found.holders[0].pid == process.pid
    end(process)
    assert locks() == []


# -- where it counts -----------------------------------------------------------------------------


def test_a_lock_counts_in_the_checkouts_of_one_project(
    make_repo: Callable[[str], Path],
    worktree: Callable[[Path, str], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    repo, other = make_repo("shop/main"), make_repo("other/main")
    linked = worktree(repo, "linked")
    places = [repo, linked, other, repo.parent]
    directories = []
    for place in places:
        monkeypatch.chdir(place)
        directories.append(Lock("it").directory)
    assert directories[0] == directories[1]
    assert len(set(directories)) == 3
    monkeypatch.chdir(repo)
    with Lock("it"):
        assert locks()[0].project == "main"


@of_a_machine
def test_a_file_system_that_others_share_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = f"1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:9 / {tmp_path} rw - virtiofs host rw\n"
    monkeypatch.setattr(mounts, "table", table.encode)
    with pytest.raises(IsoenvError) as raised:
        lock_scope.machine(f"{tmp_path}/state")
    assert str(raised.value) == (
        f"cannot lock in {tmp_path}/state/locks/machine: {tmp_path} is virtiofs, where locks do "
        "not hold for all: `export ISOENV_STATE_DIR=/…` on a disk of this machine"
    )
    assert not (tmp_path / "state").exists()


@of_a_machine
def test_a_kernel_that_has_no_locks_for_a_file_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object, **_options: object) -> bool:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(lock_files.flock, "acquire", refuse)
    with pytest.raises(
        IsoenvError, match=r"this file system has no locks .no locks available.: `ex"
    ):
        Lock("it").acquire()
