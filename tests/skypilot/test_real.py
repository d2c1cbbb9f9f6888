"""Two servers of the real SkyPilot, side by side: `make test-skypilot` installs and runs it."""

from __future__ import annotations

import os
import signal
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from isoenv import process

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Sky = Any  # of conftest.py, which no test imports

pytestmark = pytest.mark.skypilot

# Before the fixture that takes such variables away.
BIN = os.environ.get("ISOENV_TEST_SKY")
SLOTS = (41, 42)


@pytest.fixture(autouse=True)
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the real SkyPilot first on PATH, quiet and small."""
    if BIN is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("ISOENV_TEST_SKY names no directory with `sky`: `make test-skypilot`")
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setenv("SKYPILOT_DISABLE_USAGE_COLLECTION", "1")
    monkeypatch.setenv("SKYPILOT_POD_MEMORY_GB_LIMIT", "1")


def rows(database: Path, query: str) -> set[str]:
    """Return the first column of a query."""
    with closing(sqlite3.connect(database)) as connection:
        return {row[0] for row in connection.execute(query)}


def test_two_real_servers_run_side_by_side(sky: Sky) -> None:
    for slot in SLOTS:
        sky.start(slot)
    assert [sky.state(slot) for slot in SLOTS] == [("healthy", 0)] * 2

    databases = [sky.directory(slot) / ".sky/state.db" for slot in SLOTS]
    assert len({database.stat().st_ino for database in databases}) == 2
    identities = []
    for slot, database in zip(SLOTS, databases, strict=True):
        assert sky.run("exec", str(slot), "sky", "status").returncode == 0
        info = sky.run("exec", str(slot), "sky", "api", "info").stdout
        identity = (sky.directory(slot) / "user_id").read_text().strip()
        identities.append(identity)
        assert f"http://127.0.0.1:{46580 + slot}\n" in info
        assert f"({identity})" in info
        own = rows(database, "SELECT id FROM users")
        assert {each for each in own if not each.startswith("skypilot-")} == {identity}
        requests = sky.directory(slot) / ".sky/api_server/requests.db"
        asked = rows(requests, "SELECT user_id FROM requests WHERE name = 'sky.status'")
        assert asked == {identity}
    assert identities[0] != identities[1]

    assert sky.api(SLOTS[0], "stop").returncode == 0
    assert [sky.state(slot) for slot in SLOTS] == [("stopped", 3), ("healthy", 0)]
    done = sky.run("exec", str(SLOTS[0]), "sky", "status")
    assert done.returncode == 1
    assert "SKYPILOT_DISABLE_LOCAL_API_SERVER" in done.stderr
    assert sky.api(SLOTS[1], "stop").returncode == 0
    assert (sky.home / ".sky/user_hash").read_text() == "deadbeef"


def test_what_a_real_master_leaves_when_killed_is_cleaned_up(
    sky: Sky, wait_for: Callable[..., object]
) -> None:
    slot = SLOTS[0]
    sky.start(slot)
    leader = sky.leader(slot)
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: process.identify(leader) is None)
    left = sky.pids(slot)
    assert left
    assert sky.state(slot) == ("crashed", 3)
    done = sky.api(slot, "start")
    assert done.returncode == 1
    assert "has left processes behind" in done.stderr

    assert sky.api(slot, "stop").returncode == 0
    assert [pid for pid in left if process.identify(pid)] == []
    sky.start(slot)
    assert sky.state(slot) == ("healthy", 0)
    assert sky.api(slot, "stop").returncode == 0
    assert (sky.home / ".sky/user_hash").read_text() == "deadbeef"
