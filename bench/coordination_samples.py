"""Take samples of isoenv's sessions beside the seed's files, in turn; run by isoenv's Python.

`coordination_samples.py DIRECTORY ROUNDS WRITERS MOST` prints {name: {"isoenv": [s], "files": …}}.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from dataclasses import replace
from time import perf_counter
from typing import TYPE_CHECKING

from isoenv import Session, process
from isoenv.coordination import reaping
from isoenv.coordination.records import Record, new_id
from isoenv.coordination.store import open_store

from seed_files import SeedFiles

if TYPE_CHECKING:
    from collections.abc import Callable

    Samples = dict[str, dict[str, list[float]]]

CALLS = 50
UPDATES = 100
DEAD = 1000
# Downwards from the largest pid that Linux gives, which nobody gets to.
NOBODY = 1 << 22


def main() -> None:
    """Measure all, and print it."""
    directory, rounds, writers, most = sys.argv[1], *map(int, sys.argv[2:])
    os.environ["ISOENV_STATE_DIR"] = f"{directory}/state"
    samples: Samples = {}
    _calls(directory, rounds, samples)
    for count in sorted({10, min(100, most), most}):
        _sums(f"{directory}/{count}", count, rounds, samples)
    _clean_ups(directory, max(1, rounds // 3), min(DEAD, most), samples)
    _writers(directory, max(1, rounds // 3), writers, samples)
    print(json.dumps(samples))


def _take(
    name: str, ours: Callable[[], object], theirs: Callable[[], object], calls: int, into: Samples
) -> None:
    for who, call in (("isoenv", ours), ("files", theirs)):
        began = perf_counter()
        for _ in range(calls):
            call()
        taken = (perf_counter() - began) / calls
        into.setdefault(name, {}).setdefault(who, []).append(taken)


def _calls(directory: str, rounds: int, samples: Samples) -> None:
    files = SeedFiles(f"{directory}/files")
    instance = files.new_id()
    with Session() as me:
        for _ in range(rounds):
            _take("id", lambda: new_id(me.record.process.pid), files.new_id, CALLS, samples)
            _take(
                "update",
                lambda: me.metrics.add("agents"),
                # As somebody who counts has to.
                lambda: files.update(instance, _or_zero(files, instance) + 1),
                CALLS,
                samples,
            )


def _or_zero(files: SeedFiles, instance: str) -> int:
    try:
        return files.count(instance)
    except FileNotFoundError:
        return 0


def _sums(directory: str, count: int, rounds: int, samples: Samples) -> None:
    files, store = SeedFiles(f"{directory}/files"), open_store(f"{directory}/state")
    me = process.myself()
    for number in range(count):
        record = Record(f"{new_id(me.pid)}-{number}", None, me)
        store.start(record, lambda _record: False, new=False)
        store.set_metric(record.id, "agents", 1)
        files.register(record.id)
        files.update(record.id, 1)

    def glance() -> None:
        reaping.reap(store, reaping.BOUND)
        store.total("agents")

    assert store.total("agents") == files.total() == count
    for _ in range(rounds):
        calls = max(1, 100 // count)
        _take(f"sum {count}", lambda: store.total("agents"), files.total, calls, samples)
        _take(f"look {count}", glance, lambda: None, calls, samples)
    store.close()


def _clean_ups(directory: str, rounds: int, count: int, samples: Samples) -> None:
    me = process.myself()
    for turn in range(rounds):
        place = f"{directory}/dead-{turn}"
        files, store = SeedFiles(f"{place}/files"), open_store(f"{place}/state")
        for number in range(count):
            gone = replace(me, pid=NOBODY - number)
            dead = Record(f"{new_id(gone.pid)}-{number}", None, gone)
            store.start(dead, lambda _record: False, new=False)
            store.set_metric(dead.id, "agents", 1)
            files.register(dead.id, beat=1)
            files.update(dead.id, 1)
        assert files.total() == count
        removed: list[int] = []
        _take(
            "dead",
            lambda: removed.append(len(reaping.reap(store))),  # noqa: B023  # called at once
            lambda: removed.append(files.clean_up()),  # noqa: B023  # likewise
            1,
            samples,
        )
        assert removed == [count, count]
        store.close()
        shutil.rmtree(place)


def _writers(directory: str, rounds: int, writers: int, samples: Samples) -> None:
    for turn in range(rounds):
        for who, count in (("isoenv", _count_in_store), ("files", _count_in_files)):
            taken = _together(writers, lambda: count(f"{directory}/w{turn}"))  # noqa: B023  # called at once
            samples.setdefault("writers", {}).setdefault(who, []).append(taken)


def _count_in_store(directory: str) -> Callable[[], object]:
    os.environ["ISOENV_STATE_DIR"] = directory
    me = Session()

    def run() -> None:
        for _ in range(UPDATES):
            me.metrics.add("agents")
        assert me.metrics.get("agents") == UPDATES

    return run


def _count_in_files(directory: str) -> Callable[[], object]:
    files = SeedFiles(f"{directory}/files")
    instance = files.new_id()
    files.register(instance)
    files.update(instance, 0)

    def run() -> None:
        for _ in range(UPDATES):
            files.update(instance, files.count(instance) + 1)
        assert files.count(instance) == UPDATES

    return run


def _together(count: int, prepare: Callable[[], Callable[[], object]]) -> float:
    """Let processes begin at once, each prepared, and return the seconds until the last is done."""
    ready, say_ready = os.pipe()
    go, say_go = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                os.close(say_go)
                run = prepare()
                os.write(say_ready, b"r")
                # Ends when the parent closes its end.
                os.read(go, 1)
                run()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    os.close(go)
    waiting = count
    while waiting:
        waiting -= len(os.read(ready, waiting))
    time.sleep(0.05)
    began = perf_counter()
    os.close(say_go)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    taken = perf_counter() - began
    os.close(ready)
    os.close(say_ready)
    assert not any(statuses)
    return taken


main()
