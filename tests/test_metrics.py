"""No update is lost, whoever is killed; totals are those of the living."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

import pytest

from isoenv import Session
from isoenv.errors import UsageError

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable
    from pathlib import Path

    from isoenv.coordination.store import Store

    Isoenv = Callable[..., subprocess.CompletedProcess[str]]
    Python = Callable[..., subprocess.Popen[str]]

# Counts 100 times in one shared session and in one of its own; says of each that it returned.
COUNTER = """
import os, sys
from isoenv import Session
from isoenv.coordination import registering
from isoenv.coordination.session import Handle
from isoenv.coordination.store import open_store
store = open_store(os.environ["ISOENV_STATE_DIR"])
shared, own = (Handle(store, registering.named(store, name)) for name in sys.argv[1:])
sys.stdin.readline()
for number in range(100):
    shared.metrics.add("count")
    os.write(1, b"s")
    own.metrics.add("count")
    os.write(1, b"o")
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In no checkout, so that no project is found."""
    monkeypatch.chdir(tmp_path)


def test_show_knows_the_nameless_session_that_set_has_made(
    isoenv: Isoenv, store: Store, tmp_path: Path
) -> None:
    assert store.sessions() == []
    assert isoenv("metrics", "show", cwd=tmp_path).returncode == 0
    assert store.sessions() == []
    assert isoenv("metrics", "set", "agents", "25", cwd=tmp_path).returncode == 0
    (row,) = json.loads(isoenv("metrics", "show", "--json", cwd=tmp_path).stdout)["metrics"]
    assert (row["value"], row["total"], row["sessions"]) == (25, 25, 1)


def test_every_update_of_32_processes_is_there_though_a_third_is_killed(python: Python) -> None:
    with Session("shared") as shared:
        own = [Session(f"own{number}") for number in range(32)]
        counting = [python(COUNTER, "shared", session.name) for session in own]
        for process in counting:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        returned = [""] * len(counting)
        for number in range(0, len(counting), 3):
            victim = counting[number]
            assert victim.stdout is not None
            # In the middle, at another place each.
            returned[number] = victim.stdout.read(1 + number)
            victim.kill()
        for number, process in enumerate(counting):
            assert process.stdout is not None
            returned[number] += process.stdout.read()
            process.wait()
        total = 0
        for number, session in enumerate(own):
            was_killed = number % 3 == 0
            least = returned[number].count("o")
            assert was_killed or least == 100
            # The last one of a killed process may be there though it did not return.
            assert session.metrics.get("count") - least in ((0, 1) if was_killed else (0,))
            total += returned[number].count("s")
        assert total < 3200
        assert 0 <= shared.metrics.get("count") - total <= 11
        for session in own:
            session.end()


def test_values_are_set_added_to_and_summed_up() -> None:
    with Session() as one, Session() as two:
        assert one.metrics.set("agents", 25) == 25
        assert one.metrics.add("agents", -5) == 20
        assert two.metrics.add("agents") == 1
        assert two.metrics.set("confidence é", 99.25) == 99.25
        two.agent_started("a")
        assert two.metrics.all() == {"agents": 2, "confidence é": 99.25}
        assert two.metrics.get("agents") == 2
        assert one.metrics.get("nothing") == 0
        assert one.metrics.total("agents") == 22
        assert {each.name: each.average for each in one.metrics.sums()} == {
            "agents": 11,
            "confidence é": 99.25,
        }
    for name, value in (("", 1), ("a\n", 1), ("x" * 201, 1), ("\udcff", 1)):
        with Session() as me, pytest.raises(UsageError):
            me.metrics.set(name, value)
    for value in (float("nan"), float("inf")):
        with Session() as me, pytest.raises(UsageError):
            me.metrics.add("agents", value)


def test_the_total_is_without_the_dead(python: Python) -> None:
    code = "from isoenv import Session; Session().metrics.set('agents', 7); print(); input()"
    dying = python(code)
    assert dying.stdout is not None
    dying.stdout.readline()
    with Session() as me:
        me.metrics.set("agents", 1)
        assert me.metrics.total("agents") == 8
        dying.kill()
        dying.wait()
        assert me.metrics.total("agents") == me.metrics.sums()[0].total == 1


def test_metrics_of_the_command_line(isoenv: Isoenv) -> None:
    with Session("one") as one, Session("two"):
        for words in (["add", "agents", "25"], ["add", "agents", "-5"], ["set", "ratio", "0.5"]):
            done = isoenv("metrics", *words, "--session", "one")
            assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
        isoenv("metrics", "add", "agents", "5", env={"ISOENV_SESSION": "two"})
        assert one.metrics.all() == {"agents": 20, "ratio": 0.5}
        printed = isoenv("metrics", "show", env={"ISOENV_SESSION": one.id}).stdout
        assert re.sub(" +", " ", printed) == (
            "METRIC VALUE TOTAL AVERAGE SESSIONS INSTANCES LIMIT LEFT\n"
            "agents 20 25 12.5 2 0 - -\n"
            "ratio 0.5 0.5 0.5 1 0 - -\n"
        )
        done = isoenv("metrics", "show", "--session", "two", "--json")
        assert json.loads(done.stdout) == {
            "version": 1,
            "metrics": [
                {
                    "name": "agents",
                    "value": 5,
                    "total": 25,
                    "average": 12.5,
                    "sessions": 2,
                    "instances": 0,
                    "limit": None,
                    "left": None,
                }
            ],
        }
        assert isoenv("metrics", "show", "--session", "three").returncode == 5
        assert isoenv("metrics", "set", "agents", "many").returncode == 2
        assert isoenv("metrics", "set", "agents", "nan").returncode == 2
    assert isoenv("metrics", "show").stderr == (
        "isoenv: no metrics: `isoenv metrics set NAME VALUE` sets one\n"
    )


def test_outside_a_session_the_parent_has_a_nameless_one(isoenv: Isoenv, store: Store) -> None:
    for _ in range(2):
        assert isoenv("metrics", "add", "agents", "2").returncode == 0
    (record,) = store.sessions()
    assert (record.name, record.process.pid) == (None, os.getpid())
    assert store.metrics(record.id) == {"agents": 4}
    # One of a parent that ends at once ends at once.
    done = isoenv("exec", "3", "sh", "-c", "isoenv-python metrics add agents 9; exit 0")
    assert done.returncode == 0, done.stderr
    found = json.loads(isoenv("metrics", "show", "--json").stdout)["metrics"]
    assert [(row["name"], row["total"]) for row in found] == [("agents", 4)]


def test_a_pool_is_shown_as_used_and_left(isoenv: Isoenv, repo: Path) -> None:
    (repo / "isoenv.toml").write_text('project = "shop"\n[limits]\nagents = 500\ngpus = 2\n')

    def shown(*, trusted: bool) -> dict[str, tuple[int, int | None, int | None]]:
        done = isoenv("metrics", "show", "--json", cwd=repo, trusted=trusted)
        found = json.loads(done.stdout)["metrics"]
        return {row["name"]: (row["total"], row["limit"], row["left"]) for row in found}

    with Session() as me:
        me.metrics.set("agents", 145)
        assert shown(trusted=False) == {"agents": (145, None, None)}
        assert shown(trusted=True) == {"agents": (145, 500, 355), "gpus": (0, 2, 2)}


def test_an_instance_can_be_asked_for_alone(isoenv: Isoenv, repo: Path) -> None:
    (repo / "isoenv.toml").write_text('project = "shop"\n')
    for slot, agents in (("1", "25"), ("2", "35")):
        words = ["sh", "-c", f"isoenv-python metrics add agents {agents}; isoenv-python metrics "]
        words[-1] += "show --json; isoenv-python metrics show --json --instance 1"
        done = isoenv("exec", "--session", f"bot{slot}", slot, *words, cwd=repo)
        assert (done.returncode, done.stderr) == (0, "")
        every, one = re.split(r"(?<=\n})\n", done.stdout.rstrip())
        assert json.loads(every)["metrics"][0]["total"] == int(agents)
        expected = [int(agents)] if slot == "1" else []
        assert [row["total"] for row in json.loads(one)["metrics"]] == expected
    done = isoenv("metrics", "show", "--instance", "nothing:x", cwd=repo)
    assert done.returncode == 5
