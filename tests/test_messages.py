"""Messages: to whom, in which order, once each, and at once to those who wait."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from isoenv import Session
from isoenv.coordination import mailbox
from isoenv.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Isoenv = Callable[..., subprocess.CompletedProcess[str]]
    Python = Callable[..., subprocess.Popen[str]]

# Sends its own name and a number, so many times, to one name.
SENDER = """
import sys
from isoenv import Session
with Session(sys.argv[1]) as me:
    for number in range(int(sys.argv[2])):
        me.send("inbox", f"{sys.argv[1]} {number}")
"""
# Reads as one of several; prints a line for what it has done, and acknowledges after that.
READER = """
import os, sys
from isoenv.coordination import registering
from isoenv.coordination.session import Handle
from isoenv.coordination.store import open_store
store = open_store(os.environ["ISOENV_STATE_DIR"])
me = Handle(store, registering.named(store, "inbox"))
print("ready", flush=True)
while True:
    batch = [message.text for message in me.receive(wait=600, limit=20)]
    for text in batch:
        if text != "end":
            sys.stdout.write(text + "\\n")
            sys.stdout.flush()
    if "end" in batch:
        # One for each reader: what was taken of the others' is theirs.
        for _ in range(batch.count("end") - 1):
            me.send("inbox", "end")
        me.acknowledge()
        sys.exit()
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no checkout, so that no project is found."""
    monkeypatch.chdir(tmp_path)


def wait_for_waiter(state: Path) -> None:
    deadline = time.monotonic() + 60
    while not list(state.glob("wake/*")):
        assert time.monotonic() < deadline
        time.sleep(0.005)


# -- the class --------------------------------------------------------------------------------


def test_messages_go_to_names_ids_and_everyone() -> None:
    with Session("one") as one, Session("two") as two, Session() as three:
        assert one.send("two", "to the name") == 1
        assert one.send(two.id, "to the id") == 1
        assert one.send("everyone", "to all") == 2
        assert one.send("later", "to nobody yet") == 0
        assert [message.text for message in two.peek()] == ["to the name", "to the id", "to all"]
        (message,) = three.receive()
        assert (message.sender, message.sender_id, message.text) == ("one", one.id, "to all")
        assert one.receive() == []
        with Session("later") as later:
            assert [message.text for message in later.receive()] == ["to nobody yet"]


def test_messages_go_to_instances(
    isoenv: Isoenv, make_repo: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, slot in (("shop", "1"), ("mill", "2")):
        repo = make_repo(name)
        (repo / "isoenv.toml").write_text(f'project = "{name}"\n')
        assert isoenv("claim", slot, "--name", f"{name}-main", cwd=repo).returncode == 0
    monkeypatch.chdir(repo.parent / "shop")
    shop = Session("shop-bot")
    monkeypatch.chdir(repo.parent / "mill")
    mill = Session("mill-bot")
    for to in ("mill:2", "mill:mill-main"):
        assert shop.send(to, to) == 1
    for to in ("1", "shop:1", "."):
        # Its own instance: itself is not meant.
        assert shop.send(to, to) == 0
    assert mill.send("shop:1", "hello") == 1
    assert [message.text for message in mill.receive()] == ["mill:2", "mill:mill-main"]
    assert [message.text for message in shop.receive()] == ["hello"]
    with pytest.raises(NotFoundError, match="mill:other"):
        shop.send("mill:other", "")
    monkeypatch.chdir(repo.parent)
    with Session() as outside, pytest.raises(NotFoundError, match="project:2"):
        outside.send("2", "")
    mill.end()
    shop.end()


def test_a_message_that_cannot_be_sent_is_refused() -> None:
    with Session() as me:
        for to in ("", "a\nb", "a/b"):
            with pytest.raises(UsageError):
                me.send(to, "text")
        with pytest.raises(NotFoundError, match="20200101_000000_1_00000000"):
            me.send("20200101_000000_1_00000000", "text")
        for ttl in (0, -1, math.inf, math.nan):
            with pytest.raises(UsageError, match="time to live"):
                me.send("bot", "text", ttl=ttl)
        with pytest.raises(UsageError, match=r"1048577 bytes, 1048576 are the most"):
            me.send("bot", "é" * 2**19 + "x")
        assert me.send("bot", "é" * 2**19) == 0


def test_what_was_received_is_acknowledged_by_the_next_look_or_the_end() -> None:
    with Session("sender") as sender:
        for number in range(5):
            sender.send("bot", str(number))
        with Session("bot") as bot:
            assert [message.text for message in bot.receive(limit=1)] == ["0"]
            assert [message.text for message in bot.receive(limit=1)] == ["1"]
        with pytest.raises(ZeroDivisionError), Session("bot") as bot:
            assert [1 // (message.text != "3") for _ in "23" for message in bot.receive(limit=1)]
        # The first was acknowledged by the second look.
        with Session("bot") as bot:
            assert [message.text for message in bot.receive(limit=1)] == ["3"]
            bot.acknowledge()
            assert [message.text for message in bot.receive()] == ["4"]


def test_a_killed_readers_messages_are_handed_out_again(python: Python) -> None:
    with Session("inbox") as me, Session("sender") as sender:
        reader = python(READER.replace("sys.stdout.flush()", "sys.stdout.flush(); input()"))
        assert reader.stdout is not None
        reader.stdout.readline()
        for number in range(3):
            sender.send("inbox", str(number))
        assert reader.stdout.readline() == "0\n"
        held = [message.text for message in me.receive()]
        reader.kill()
        # Without a further message: the death of the reader is what is waited for.
        while len(held) < 3:
            found = me.receive(wait=120)
            assert found
            held += [message.text for message in found]
        assert held[-1 if held[0] != "0" else 0] == "0"
        assert sorted(held) == ["0", "1", "2"]


def test_a_readers_messages_are_its_own_while_it_lives(python: Python) -> None:
    with Session("inbox") as me, Session("sender") as sender:
        reader = python(READER.replace("sys.stdout.flush()", "sys.stdout.flush(); input()"))
        assert reader.stdout is not None
        reader.stdout.readline()
        sender.send("inbox", "theirs")
        assert reader.stdout.readline() == "theirs\n"
        assert me.receive(wait=1.5) == []


def test_a_wait_ends_when_its_time_is_up_or_a_message_comes(python: Python) -> None:
    with Session("bot") as me:
        began = time.monotonic()
        assert me.receive(wait=0.05) == []
        assert time.monotonic() - began >= 0.05
        python(SENDER.replace("inbox", "bot"), "sender", 1)
        assert [message.text for message in me.receive(wait=math.inf)] == ["sender 0"]


def test_who_waits_does_nothing_meanwhile(isoenv: Isoenv, tmp_path: Path) -> None:
    assert isoenv("session", "start", "--name", "bot").returncode == 0
    trace = tmp_path / "trace"
    command = [sys.executable, "-m", "isoenv", "receive", "--session", "bot", "--wait", "600"]
    strace = ["strace", "-qq", "-f", "-o", str(trace), *command]
    with subprocess.Popen(strace, stdout=subprocess.PIPE, text=True) as waiting:
        wait_for_waiter(tmp_path / "state")
        last = ""
        while "epoll_wait" not in last:
            time.sleep(0.05)
            last = trace.read_text().splitlines()[-1]
        size = trace.stat().st_size
        time.sleep(1)
        assert trace.stat().st_size == size
        assert isoenv("send", "bot", "now").returncode == 0
        assert waiting.communicate()[0] == "now\n"
    assert list(tmp_path.glob("state/wake/*")) == []


def test_10000_messages_are_had_once_in_the_order_of_their_sender(python: Python) -> None:
    """At least once: nothing is lost, and twice comes only what a killed reader had in hand."""
    senders, each = 8, 1250
    outputs = []
    with Session("inbox") as inbox:
        readers = [python(READER) for _ in range(4)]
        for reader in readers:
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
        sending = [python(SENDER, f"sender{number}", each) for number in range(senders)]
        victim = readers[0]
        assert victim.stdout is not None
        outputs.append([victim.stdout.readline() for _ in range(50)])
        victim.kill()
        outputs[0] += victim.stdout.read().splitlines(keepends=True)
        for sender in sending:
            assert sender.wait() == 0
        with Session("last") as last:
            deadline = time.monotonic() + 120
            while inbox.peek():
                assert time.monotonic() < deadline
                time.sleep(0.05)
            for _ in readers[1:]:
                last.send("inbox", "end")
        outputs += [reader.communicate()[0].splitlines(keepends=True) for reader in readers[1:]]
        assert [message.text for message in inbox.receive()] == []
    assert all(line.endswith("\n") for output in outputs for line in output)
    expected = {f"sender{sender} {number}\n" for sender in range(senders) for number in range(each)}
    seen = [line for output in outputs for line in output]
    assert set(seen) == expected
    # What came twice is of the last batch that the killed one had taken, and nothing else is.
    twice = {line for line, count in Counter(seen).items() if count > 1}
    assert len(seen) - len(expected) == len(twice) <= 20
    assert twice <= set(outputs[0][-20:])
    for output in outputs[1:]:
        assert_in_order([line for line in output if line not in twice])
    assert_in_order(outputs[0])
    assert all(len(output) > 20 for output in outputs)


def assert_in_order(lines: list[str]) -> None:
    """A reader that was given a dead one's messages back has those late, and only those."""
    last: dict[str, int] = {}
    late = 0
    for line in lines:
        sender, number = line.split()
        late += int(number) <= last.get(sender, -1)
        last[sender] = max(last.get(sender, -1), int(number))
    assert late <= 20


# -- the commands -----------------------------------------------------------------------------


def test_send_and_receive_as_sessions(isoenv: Isoenv) -> None:
    with Session("bot"):
        done = isoenv("send", "bot", "data_ready", "--session", "bot")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        assert isoenv("send", "bot", "-", text="from\nstdin").returncode == 0
        assert isoenv("send", "bot", text="also").returncode == 0
        assert isoenv("send", "bot", "-x").returncode == 0
        own = {"ISOENV_SESSION": "bot"}
        done = isoenv("receive", "--peek", env=own)
        again = isoenv("receive", env=own)
        assert done.stdout == again.stdout == "data_ready\nfrom\nstdin\nalso\n-x\n"
        done = isoenv("receive", env=own)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_receive_prints_json(isoenv: Isoenv) -> None:
    with Session("bot") as me:
        me.send("bot", "a\x1b\n\udcff")
        found = json.loads(isoenv("receive", "--json", "--session", "bot").stdout)
        (message,) = found.pop("messages")
        assert found == {"version": 1}
        assert isinstance(message.pop("id"), int)
        assert 0 <= time.time() - message.pop("sent_at") < 600
        assert message == {"sender": "bot", "sender_id": me.id, "text": "a\x1b\n\udcff"}
        empty = isoenv("receive", "--json", "--session", "bot").stdout
        assert json.loads(empty) == {"version": 1, "messages": []}


@pytest.mark.parametrize("content", [b"\xff\x00\n\x80", b"", "é🚒".encode()])
def test_bytes_of_a_pipe_come_out_as_they_went_in(isoenv: Isoenv, content: bytes) -> None:
    with Session("bot"):
        isoenv("send", "bot", text=os.fsdecode(content))
        assert os.fsencode(isoenv("receive", "--session", "bot").stdout) == content + b"\n"


def test_outside_a_session_the_parent_has_a_nameless_one(isoenv: Isoenv) -> None:
    with Session("bot") as bot:
        assert isoenv("send", "bot", "hello").returncode == 0
        (message,) = bot.receive()
        assert message.sender == message.sender_id
        assert re.fullmatch(rf"\d{{8}}_\d{{6}}_{os.getpid()}_[0-9a-f]{{8}}", message.sender)
        bot.send(message.sender, "hello yourself")
        assert isoenv("receive").stdout == "hello yourself\n"
        done = isoenv("receive", env={"ISOENV_SESSION": "nobody"})
        assert (done.returncode, done.stdout) == (5, "")


def test_a_wait_without_a_message_ends_with_75(isoenv: Isoenv) -> None:
    for words in (["--wait", "0.05"], ["--follow", "--wait", "0.05"]):
        done = isoenv("receive", *words)
        assert (done.returncode, done.stdout) == (75, "")
        assert done.stderr == (
            "isoenv: no message in 0.05 s: `isoenv receive --wait 0.1` waits longer\n"
        )
    assert isoenv("receive", "--peek", "--follow").returncode == 2


def test_what_cannot_be_sent_is_one_line(isoenv: Isoenv) -> None:
    for words, status in (
        (["a/b", "text"], 2),
        (["20200101_000000_1_00000000", "text"], 5),
        (["nothing:2", "text"], 0),
        (["7", "text"], 5),
        (["bot", "text", "--ttl", "0"], 2),
    ):
        done = isoenv("send", *words)
        assert (done.returncode, done.stdout) == (status, ""), words
        assert re.fullmatch(r"isoenv: .*\n", done.stderr)
    done = isoenv("send", "bot", text="x" * (mailbox.LIMIT + 1))
    assert (done.returncode, done.stdout) == (2, "")
    assert "1048577 bytes" in done.stderr


def test_follow_prints_each_as_it_comes_until_ctrl_c(isoenv: Isoenv, tmp_path: Path) -> None:
    assert isoenv("session", "start", "--name", "bot").returncode == 0
    command = [sys.executable, "-m", "isoenv", "receive", "--session", "bot", "--follow"]
    for extra in ([], ["--json"]):
        with subprocess.Popen([*command, *extra], stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            for number in range(3):
                isoenv("send", "bot", f"message {number}")
                line = following.stdout.readline()
                if extra:
                    line = json.loads(line)["messages"][0]["text"] + "\n"
                assert line == f"message {number}\n"
            wait_for_waiter(tmp_path / "state")
            following.send_signal(signal.SIGINT)
            assert following.stdout.read() == ""
        assert following.returncode == 130
    assert isoenv("receive", "--session", "bot").stdout == ""


def test_a_reader_whose_output_is_closed_loses_nothing(isoenv: Isoenv) -> None:
    assert isoenv("session", "start", "--name", "bot").returncode == 0
    isoenv("send", "bot", "text")
    script = '"$@"; echo $? >&2'
    command = [sys.executable, "-m", "isoenv", "receive", "--session", "bot"]
    full = subprocess.run(
        ["bash", "-c", f"{{ {script}; }} > /dev/full", "bash", *command],
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"isoenv: cannot write to standard output: .*\n1\n", full.stderr)
    assert isoenv("receive", "--session", "bot").stdout == "text\n"
