"""What every store does: sessions, metrics and messages, each call wholly or not at all."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from isoenv import process
from isoenv.coordination import addresses, reaping
from isoenv.coordination.records import Place, Record, Sum, new_id
from isoenv.errors import IsoenvError
from isoenv.models import Project

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.coordination.store import Store

SHOP = Project("/srv/sh\udcffop/.git", "shop")


def never(_record: Record) -> bool:
    return False


@pytest.fixture
def add(store: Store) -> Callable[..., Record]:
    """Add a session of this process."""

    def add(name: str | None = None, slot: int | None = None, **labels: str) -> Record:
        place = None if slot is None else Place(SHOP, slot, f"shop-{slot}")
        me = process.myself()
        record = Record(new_id(me.pid), name, me, place, labels=labels)
        return store.start(record, never, new=False)

    return add


def texts(store: Store, record: Record, reader: str = "1", limit: int = 100) -> list[str]:
    return [message.text for message in store.take(addresses.all_of(record), reader, limit)]


# -- sessions ---------------------------------------------------------------------------------


def test_a_session_is_found_as_it_was_added(store: Store, add: Callable[..., Record]) -> None:
    record = add("bot é🚒", 2, key="\udcff\n=", other="")
    assert store.sessions() == [record]
    assert store.find(record.id) == store.find("bot é🚒") == record
    assert store.find("nobody") is None
    assert store.find("\udcff") is None
    assert store.brief("bot é🚒") == (record.id, SHOP.key)


def test_a_name_is_one_sessions_at_a_time(store: Store, add: Callable[..., Record]) -> None:
    first = add("bot")
    with pytest.raises(IsoenvError, match=first.id):
        add("bot")
    me = process.myself()
    for expected in ("bot-2", "bot-3"):
        record = Record(new_id(me.pid), "bot", me)
        assert store.start(record, never, new=True).name == expected
    taker = Record(new_id(me.pid), "bot", me)
    assert store.start(taker, lambda holder: holder[0] == first.id, new=False).name == "bot"
    assert store.find(first.id) is None


def test_nameless_sessions_are_many_and_found_by_their_process(
    store: Store, add: Callable[..., Record]
) -> None:
    add("named")
    me = process.myself()
    assert store.nameless(me) is None
    assert store.brief_nameless(me.pid, me.start) is None
    found = {add().id, add().id}
    assert len(found) == 2
    nameless = store.nameless(me)
    assert nameless is not None
    assert nameless.id in found
    assert store.nameless(replace(me, start=me.start - 1)) is None
    assert store.nameless(replace(me, boot="another")) is None
    brief = store.brief_nameless(me.pid, me.start)
    assert brief is not None
    assert brief[0] in found


def test_what_changes_says_whether_the_session_is_there(
    store: Store, add: Callable[..., Record]
) -> None:
    record = add("bot")
    assert store.beat(record.id)
    assert store.set_state(record.id, "IDLE")
    assert store.set_metric(record.id, "agents", 2) == 2
    assert store.agent_started(record.id, "a", "Explore")
    found = store.find("bot")
    assert found is not None
    assert found.state == "IDLE"
    assert found.beat > record.beat
    store.remove([record.id])
    assert not store.beat(record.id)
    assert not store.set_state(record.id, "IDLE")
    assert store.set_metric(record.id, "agents", 2) is None
    assert store.add_metric(record.id, "agents", 2) is None
    assert not store.agent_started(record.id, "a", "Explore")
    with pytest.raises(IsoenvError):
        store.waiter(record.id)


def test_all_of_a_session_goes_with_it(store: Store, add: Callable[..., Record]) -> None:
    record, other = add("bot", 1), add()
    store.add_metric(record.id, "agents", 2)
    store.agent_started(record.id, "a", "Explore")
    store.send(other, addresses.of_session(record.id), b"gone", 60)
    store.send(other, addresses.of_name("bot"), b"stays", 60)
    store.remove([record.id])
    assert store.sums() == []
    assert store.total("agents") == 0
    assert [message.text for message in store.peek(addresses.all_of(record))] == ["stays"]
    assert store.count() == 1


def test_the_longest_unchecked_come_first(store: Store, add: Callable[..., Record]) -> None:
    ids = [add().id for _ in range(5)]
    assert [pulse[0] for pulse in store.pulses(2)] == ids[:2]
    store.check_off(ids[:2])
    assert [pulse[0] for pulse in store.pulses(2)] == ids[2:4]
    store.check_off(ids[2:4])
    order = [pulse[0] for pulse in store.pulses(5)]
    assert set(store.pulses()) == set(store.pulses(5))
    assert (order[0], set(order[1:3]), set(order[3:])) == (ids[4], set(ids[:2]), set(ids[2:4]))
    last = store.find(ids[4])
    assert last is not None
    assert store.pulses(1) == [reaping.pulse_of(last)]


# -- metrics ----------------------------------------------------------------------------------


def test_sums_are_over_sessions_projects_and_instances(
    store: Store, add: Callable[..., Record]
) -> None:
    one, two, three, alone = add("one", 1), add("two", 1), add("three", 2), add("alone")
    for record, agents in ((one, 25), (two, 35), (three, 25), (alone, 60)):
        assert store.add_metric(record.id, "agents", agents) == agents
    store.set_metric(one.id, "confidence", 99)
    store.set_metric(three.id, "confidence", 98.5)
    assert store.sums() == [Sum("agents", 145, 4, 2), Sum("confidence", 197.5, 2, 2)]
    assert store.sums()[1].average == 98.75
    assert store.sums(SHOP.key) == [Sum("agents", 85, 3, 2), Sum("confidence", 197.5, 2, 2)]
    assert store.sums(SHOP.key, 1) == [Sum("agents", 60, 2, 1), Sum("confidence", 99, 1, 1)]
    assert store.sums("other") == []
    assert (store.total("agents"), store.total("agents", SHOP.key)) == (145, 85)
    assert store.total("nothing") == 0
    assert (store.count(), store.count(SHOP.key), store.count("other")) == (4, 3, 0)


def test_subagents_count_once_each_until_they_end(store: Store, add: Callable[..., Record]) -> None:
    one, two = add("one", 1), add("two")
    store.set_metric(one.id, "agents", 2)
    for agent in ("a", "b", "a"):
        store.agent_started(one.id, agent, "Explore")
    store.agent_started(two.id, "a", "Plan")
    assert store.agents(one.id) == {"a": "Explore", "b": "Explore"}
    assert store.metrics(one.id) == {"agents": 4}
    assert store.metrics(two.id) == {"agents": 1}
    assert store.sums() == [Sum("agents", 5, 2, 1)]
    assert (store.total("agents"), store.total("agents", SHOP.key)) == (5, 4)
    for _ in range(2):
        store.agent_ended(one.id, "a")
    store.agent_ended(one.id, "unknown")
    assert store.metrics(one.id) == {"agents": 3}


# -- messages ---------------------------------------------------------------------------------


def test_a_message_is_handed_out_once(store: Store, add: Callable[..., Record]) -> None:
    sender, bot = add(), add("bot")
    began = time.time()
    assert store.send(sender, addresses.of_name("bot"), b"to the name", 60) == 1
    assert store.send(sender, addresses.of_session(bot.id), b"to the id", 60) == 1
    peeked = store.peek(addresses.all_of(bot))
    found = store.take(addresses.all_of(bot), "1", 100)
    assert found == peeked
    assert [message.text for message in found] == ["to the name", "to the id"]
    assert found[0].sender == found[0].sender_id == sender.id
    assert began <= found[0].sent_at <= time.time()
    for reader in ("1", "2"):
        assert texts(store, bot, reader) == []
    assert store.peek(addresses.all_of(bot)) == []
    store.acknowledge("1")
    store.give_back(["1"])
    assert texts(store, bot) == []


def test_what_was_taken_and_not_acknowledged_can_be_given_back(
    store: Store, add: Callable[..., Record]
) -> None:
    sender, bot = add("sender"), add("bot")
    for number in range(5):
        store.send(sender, addresses.of_name("bot"), b"%d" % number, 60)
    assert texts(store, bot, "1", 2) == ["0", "1"]
    assert texts(store, bot, "2", 1) == ["2"]
    assert set(store.readers(addresses.all_of(bot))) == {"1", "2"}
    store.give_back(["1"])
    assert set(store.readers(addresses.all_of(bot))) == {"2"}
    assert texts(store, bot, "3", 3) == ["0", "1", "3"]
    store.acknowledge("3")
    store.acknowledge("2")
    assert texts(store, bot, "1") == ["4"]


def test_a_name_that_comes_later_finds_its_messages(
    store: Store, add: Callable[..., Record]
) -> None:
    sender = add()
    assert store.send(sender, addresses.of_name("later"), b"wait", 60) == 0
    assert texts(store, add("later")) == ["wait"]


def test_everyone_is_all_but_the_sender_once_each(store: Store, add: Callable[..., Record]) -> None:
    sender, named, nameless = add("sender", 1), add("bot", 2), add()
    assert store.send(sender, addresses.TO_EVERYONE, b"all", 60) == 2
    late = add("late")
    assert texts(store, named) == texts(store, nameless) == ["all"]
    assert texts(store, sender) == texts(store, late) == []


def test_an_instance_is_all_its_sessions_or_the_next(
    store: Store, add: Callable[..., Record]
) -> None:
    sender, one, two, other = add("sender", 1), add("one", 1), add("two", 1), add("other", 2)
    assert store.send(sender, addresses.of_instance(SHOP.key, 1), b"both", 60) == 2
    assert texts(store, one) == texts(store, two) == ["both"]
    assert texts(store, sender) == texts(store, other) == []
    assert store.send(sender, addresses.of_instance(SHOP.key, 3), b"later", 60) == 0
    assert texts(store, add("third", 3)) == ["later"]
    assert texts(store, add("fourth", 3)) == []


def test_a_message_is_gone_when_its_time_is_over(store: Store, add: Callable[..., Record]) -> None:
    sender, bot = add(), add("bot")
    store.send(sender, addresses.of_name("bot"), b"short", 0.01)
    store.send(sender, addresses.of_name("bot"), b"long", 60)
    time.sleep(0.02)
    assert [message.text for message in store.peek(addresses.all_of(bot))] == ["long"]
    assert texts(store, bot) == ["long"]
    store.send(sender, addresses.of_name("bot"), b"short", 0.01)
    time.sleep(0.02)
    store.forget_expired()
    assert texts(store, bot) == []


@pytest.mark.parametrize("text", ["", "a\0b\r\n\x1b[2J", "é🚒", "\udcff", chr(0xD83D), "x" * 2**20])
def test_any_text_comes_as_it_went(store: Store, add: Callable[..., Record], text: str) -> None:
    sender, bot = add(), add("bot")
    store.send(sender, addresses.of_name("bot"), text.encode("utf-8", "surrogatepass"), 60)
    assert texts(store, bot) == [text]


def test_a_waiter_is_woken_by_what_comes_and_by_nothing_else(
    store: Store, add: Callable[..., Record]
) -> None:
    sender, bot, other = add("sender"), add("bot", 1), add("other")
    for address in (
        addresses.of_name("bot"),
        addresses.of_session(bot.id),
        addresses.of_instance(SHOP.key, 1),
        addresses.TO_EVERYONE,
    ):
        waiter = store.waiter(bot.id)
        store.send(sender, address, b"now", 60)
        assert waiter.wait(120)
        waiter.close()
    waiter = store.waiter(bot.id)
    store.send(sender, addresses.of_session(other.id), b"not for it", 60)
    assert not waiter.wait(0.01)
    texts(store, bot, "killed")
    store.give_back(["killed"])
    assert waiter.wait(120)
    assert not waiter.wait(0.01)
    store.remove([bot.id])
    assert waiter.wait(120)
    waiter.close()


def test_who_was_killed_while_it_waited_holds_nobody_up(
    store: Store, add: Callable[..., Record], python: Callable[..., subprocess.Popen[str]]
) -> None:
    bot = add("bot")
    code = """
import os, sys
from isoenv.coordination.store import open_store
waiter = open_store(os.environ["ISOENV_STATE_DIR"]).waiter(sys.argv[1])
print("waiting", flush=True)
waiter.wait(None)
"""
    waiting = python(code, bot.id)
    assert waiting.stdout is not None
    waiting.stdout.readline()
    waiting.kill()
    waiting.wait()
    assert store.send(add(), addresses.of_name("bot"), b"text", 60) == 1
    assert texts(store, bot) == ["text"]


# -- liveness ---------------------------------------------------------------------------------


def test_only_sessions_that_are_proven_dead_are_removed(store: Store) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    me, theirs = process.myself(), process.identify(child.pid)
    assert theirs is not None
    hour = 3600 * 10**9
    now, wall = time.monotonic_ns(), time.time()
    alive = {
        "of this process": Record("1", None, me),
        "of the child": Record("2", None, theirs),
        "silent for long, and seen": Record("3", None, me, beat=now - 9 * hour, beaten_at=0),
        "in another namespace": Record("4", None, replace(me, namespace=1)),
        "there, when clocks are set": Record(
            "5", None, replace(me, namespace=1), beaten_at=wall - 9e9
        ),
        "on another host": Record("6", None, replace(me, host="far", boot="its own"), beat=1),
    }
    dead = {
        "with another start": Record("11", None, replace(me, start=me.start - 1)),
        "before a reboot": Record("12", None, replace(me, boot="before")),
        "silent and not seen": Record(
            "13", None, replace(me, namespace=1), beat=now - 2 * hour, beaten_at=wall
        ),
        "silent and far": Record(
            "14", None, replace(me, host="far", boot="its own"), beaten_at=wall - 7200
        ),
    }
    for record in (*alive.values(), *dead.values()):
        store.start(record, never, new=False)
    assert set(reaping.reap(store)) == {record.id for record in dead.values()}
    child.kill()
    child.communicate()
    assert reaping.reap(store) == ["2"]
    assert store.count() == len(alive) - 1


def test_many_are_told_apart_as_one_is(store: Store) -> None:
    me = process.myself()
    nobody = replace(me, pid=1 << 22)
    cases = {
        "alive": me,
        "of another start": replace(me, start=me.start - 1),
        "absent": nobody,
        "absent, elsewhere": replace(nobody, host="far", boot="its own"),
        "absent, in another namespace": replace(nobody, namespace=1),
        "absent, before a reboot": replace(nobody, boot="before"),
    }
    for number in range(20):
        for case, it in cases.items():
            store.start(Record(f"{number} {case}", None, it), never, new=False)
    dead = {"of another start", "absent", "absent, before a reboot"}
    assert set(reaping.reap(store)) == {f"{n} {case}" for n in range(20) for case in dead}


def test_a_bounded_look_goes_round(store: Store) -> None:
    me = process.myself()
    for number in range(10):
        start = me.start - (number in (7, 9))
        store.start(Record(str(number), None, replace(me, start=start)), never, new=False)
    found = [reaping.reap(store, 4) for _ in range(3)]
    assert found == [[], ["7"], ["9"]]
