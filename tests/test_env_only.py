"""What needs no command: Redis and S3 through [env] alone, as README.md shows it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from conftest import run

from isoenv import presets
from isoenv.config import Layer, parse
from isoenv.models import Instance, Project
from isoenv.resolver import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

README = Path(__file__).resolve().parents[1] / "README.md"
PATIENCE = 60


def example() -> str:
    """Return the example of README.md."""
    _, _, section = README.read_text(encoding="utf-8").partition("### Redis, S3 and MinIO\n")
    found = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_readmes_example_gives_each_instance_its_own() -> None:
    config = parse([Layer("README.md", example())], presets.text)
    seen: list[dict[str, str]] = []
    for slot in (0, 1, 2):
        ports = {name: port.base + 1000 * slot for name, port in config.ports.items()}
        instance = Instance(Project("shop", "shop"), slot, f"shop-{slot}", "/", "/", ports)
        variables = resolve(config, instance, "/home").variables
        seen.append({name: str(variables[name]) for name in config.env})
    for name in config.env:
        assert len({one[name] for one in seen}) == (1 if name == "REDIS_SERVER" else 3), name


@pytest.fixture
def redis(free_port: Callable[[], int], tmp_path: Path) -> Iterator[int]:
    """The port of a Redis of the test's own."""
    if shutil.which("redis-server") is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("redis-server is not installed")
    port = free_port()
    argv = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    with (tmp_path / "redis.log").open("wb") as log:
        server = subprocess.Popen(argv, cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=log)
    try:
        deadline = time.monotonic() + PATIENCE
        while run(["redis-cli", "-p", str(port), "ping"]).stdout != "PONG\n":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        yield port
    finally:
        server.terminate()
        server.wait(PATIENCE)


def test_what_one_instance_writes_to_redis_no_other_reads(
    repo: Path, isoenv: Isoenv, redis: int
) -> None:
    text = example().replace("127.0.0.1:6379", f"127.0.0.1:{redis}")
    assert str(redis) in text
    (repo / "isoenv.toml").write_text(f'project = "shop"\n{text}')

    def cli(slot: int, *words: str) -> str:
        command = 'redis-cli -u "$REDIS_URL" ' + " ".join(words)
        done = isoenv("exec", str(slot), "sh", "-c", command, cwd=repo)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert cli(1, "set", "colour", "red") == "OK"
    assert cli(2, "get", "colour") == ""
    assert cli(1, "get", "colour") == "red"
    # One database for all, and a prefix: what Redis itself keeps apart by nothing.
    assert cli(1, "-n", "0", "set", '"${REDIS_PREFIX}colour"', "blue") == "OK"
    assert cli(2, "-n", "0", "get", '"${REDIS_PREFIX}colour"') == ""
