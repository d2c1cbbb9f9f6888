"""`isoenv doctor`: what it prints, what it puts right, and what it leaves alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE
from typing import TYPE_CHECKING

import pytest

from isoenv import context, ports
from isoenv.diagnosis import leases as diagnosed
from isoenv.models import Lease, Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def base(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def shop(make_repo: Callable[[str], Path], base: int, isoenv: Isoenv) -> Path:
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(f'project = "shop"\n[ports]\nweb = {base}\n')
    assert isoenv("claim", cwd=repo).returncode == 0
    return repo


@pytest.fixture
def lost(shop: Path, worktree: Worktree, isoenv: Isoenv, git: Callable[..., str]) -> Path:
    """A worktree that was removed with its lease still there."""
    tree = worktree(shop, "lost")
    shutil.copy(shop / "isoenv.toml", tree)
    assert isoenv("exec", ".", "true", cwd=tree).returncode == 0
    git(shop, "worktree", "remove", "--force", str(tree))
    return tree


def lines(done: CompletedProcess[str]) -> list[str]:
    return [line for line in done.stdout.splitlines() if "ephemeral" not in line]


def wrong(state: Path, lost: Path) -> tuple[str, ...]:
    """What is wrong with an open state directory and a worktree that was removed."""
    where = "where shells find code to run (mode 0755)"
    return (
        f"wrong: other users may look into {state}, {where}",
        f"wrong: shop/1 lost has lost its checkout {lost}",
        f"note: 1 ready environment of directories that are gone: {lost}",
    )


def snapshot(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not file.name.endswith(("-shm", "-wal"))
    }


def test_nothing_is_said_and_made_on_a_machine_without_isoenv(
    tmp_path: Path, isoenv: Isoenv
) -> None:
    done = isoenv("doctor", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nothing is wrong\n", "")
    done = isoenv("doctor", "--json", cwd=tmp_path)
    assert json.loads(done.stdout) == {"version": 1, "doctor": []}
    assert not (tmp_path / "state").exists()


def test_without_fix_nothing_is_changed(
    shop: Path, lost: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    state = tmp_path / "state"
    state.chmod(0o755)
    before = snapshot(state) | snapshot(shop)
    done = isoenv("doctor", cwd=shop)
    assert done.returncode == 1
    remedy = "`isoenv doctor --fix`"
    assert lines(done) == [f"{line}: {remedy}" for line in wrong(state, lost)]
    assert snapshot(state) | snapshot(shop) == before
    assert state.stat().st_mode & 0o777 == 0o755


def test_fix_puts_right_what_is_safe_and_says_so_line_by_line(
    shop: Path, lost: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    state = tmp_path / "state"
    state.chmod(0o755)
    (shop / "compose.yaml").write_text("services: {db: {container_name: db}}\n")
    before = snapshot(shop)
    done = isoenv("doctor", "--fix", cwd=shop)
    assert done.stderr == ""
    outcomes = (
        f"closed {state} to others (mode 0700)",
        "gave shop/1 lost back",
        "removed 1 ready environment",
    )
    messages = [line.partition(": ")[2] for line in wrong(state, lost)]
    assert [line for line in lines(done) if line.startswith("fixed: ")] == [
        f"fixed: {message}: {outcome}" for message, outcome in zip(messages, outcomes, strict=True)
    ]
    assert snapshot(shop) == before
    again = isoenv("doctor", "--fix", cwd=shop)
    assert not [line for line in lines(again) if line.startswith(("fixed", "wrong"))]
    assert (done.returncode, again.returncode) == (0, 0)
    listed = json.loads(isoenv("list", "--json", cwd=shop).stdout)["instances"]
    assert [row["slot"] for row in listed] == [0]


def test_json_has_the_evidence_and_what_was_done(shop: Path, lost: Path, isoenv: Isoenv) -> None:
    (shop / "compose.yaml").write_text("services:\n  db:\n    container_name: db\n")

    def rows(*args: str) -> dict[str, dict[str, object]]:
        found = json.loads(isoenv("doctor", "--json", *args, cwd=shop).stdout)
        assert found["version"] == 1
        return {row["kind"]: row for row in found["doctor"]}

    found = rows()
    name = found["fixed-name"]
    assert (name["file"], name["line"]) == (f"{shop}/compose.yaml", 3)
    # The worktree is gone, though its lease is there still: nobody shares the name.
    assert (name["harmless"], name["fixable"]) == (True, False)
    assert (found["gone"]["fixable"], found["gone"]["fixed"]) == (True, False)
    fixed = rows("--fix")
    assert (fixed["gone"]["fixed"], fixed["gone"]["outcome"]) == (True, "gave shop/1 lost back")
    assert (fixed["fixed-name"]["fixed"], fixed["fixed-name"]["outcome"]) == (False, None)
    assert "gone" not in rows()
    assert lost.name == "lost"


def test_what_cannot_be_put_right_stays_wrong(
    shop: Path, lost: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    mirrored = Path(f"{tmp_path}/state/t{lost}")
    assert mirrored.is_dir()
    with Registry(str(tmp_path / "state")) as registry:
        registry.connection.execute(
            "CREATE TRIGGER keep BEFORE DELETE ON lease BEGIN SELECT RAISE(ABORT, 'kept'); END"
        )
    done = isoenv("doctor", "--fix", cwd=shop)
    assert done.returncode == 1
    [line] = [line for line in lines(done) if line.startswith("wrong: ")]
    assert line.startswith(f"wrong: shop/1 lost has lost its checkout {lost}: ")
    assert "kept" in line


def test_a_lease_whose_port_is_in_use_is_not_given_back(
    shop: Path, lost: Path, base: int, isoenv: Isoenv, listener: Callable[[str, int], object]
) -> None:
    listener("127.0.0.1", base + 1000)
    done = isoenv("doctor", "--fix", cwd=shop)
    assert done.returncode == 1
    start = f"wrong: shop/1 lost has lost its checkout {lost}, and port {base + 1000} is held by "
    (line,) = [line for line in lines(done) if line.startswith(start)]
    assert line.endswith(f" (pid {os.getpid()}): `isoenv prune`")


def test_a_stranger_is_named_with_pid_command_directory_and_user(
    shop: Path, base: int, isoenv: Isoenv, tmp_path: Path
) -> None:
    argv = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(base)]
    environ = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(argv, cwd=tmp_path, env=environ, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(b"Serving HTTP")
        done = isoenv("doctor", "--json", cwd=shop)
        server.terminate()
    assert done.returncode == 1
    [row] = [row for row in json.loads(done.stdout)["doctor"] if row["kind"] == "stranger"]
    assert row["port"] == base
    assert (row["holder"]["pid"], row["holder"]["cwd"]) == (server.pid, str(tmp_path))
    assert f"-m http.server --bind 127.0.0.1 {base} (pid {server.pid})" in row["message"]
    assert f", in {tmp_path}, of user {row['holder']['user']}" in row["message"]


# Listens on two ports, on the second in a child of another name, as SkyPilot's server does.
SERVER = """
import socket, subprocess, sys
held = socket.create_server(("127.0.0.1", int(sys.argv[1])))
code = "import socket, sys; held = socket.create_server(('127.0.0.1', int(sys.argv[1])))"
code += "; print(flush=True); sys.stdin.read()"
subprocess.run([sys.executable, "-c", code, sys.argv[2]])
"""


@pytest.mark.parametrize(
    ("module", "project", "slot", "kind"),
    [
        ("server", "skypilot", 0, "own-server"),
        ("server", "skypilot", 3, "stranger"),
        ("server", "shop", 0, "stranger"),
        ("another", "skypilot", 0, "stranger"),
    ],
)
def test_the_users_own_skypilot_server_is_something_to_know(  # noqa: PLR0913, PLR0917  # fixtures
    module: str, project: str, slot: int, kind: str, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    package = tmp_path / "sky/server"
    package.mkdir(parents=True)
    (package / f"{module}.py").write_text(SERVER)
    wanted = {"api": free_port(), "queue": free_port()}
    lease = Lease(1, Project(project, project), slot, "sky", ports=wanted)
    argv = [sys.executable, "-m", f"sky.server.{module}", *map(str, wanted.values())]
    with (
        subprocess.Popen(argv, cwd=tmp_path, stdin=PIPE, stdout=PIPE) as server,
        Registry(str(tmp_path / "state")) as registry,
    ):
        assert server.stdin is not None
        assert server.stdout is not None
        assert server.stdout.readline() == b"\n"
        caller = context.Caller("/", os.environ)
        found = [each for each in diagnosed.findings(caller, registry, [lease]) if each.holder]
        server.stdin.close()
    assert [(each.kind, each.port) for each in found] == [(kind, port) for port in wanted.values()]
    assert all(each.harmless == (kind == "own-server") for each in found)


def test_a_stranger_that_the_kernel_hides_is_another_users() -> None:
    assert diagnosed.evidence(ports.Holder(80, "::")) == "another user's process"


def test_ports_in_the_ephemeral_range_come_with_the_line_that_protects_them(
    tmp_path: Path, isoenv: Isoenv
) -> None:
    bounds = ports.ephemeral_range()
    assert bounds
    low = bounds[1] - 10
    with Registry(str(tmp_path / "state")) as registry, registry.transaction():
        outside = (5, bounds[0] - 1)
        for slot, port in ((1, low), (2, low + 1), (3, low + 2), (4, low + 4), outside):
            lease = registry.insert(Project("shop", "shop"), slot, f"shop-{slot}")
            registry.reserve(lease, {"web": (port, False)})
    done = isoenv("doctor", "--json", cwd=tmp_path)
    [row] = json.loads(done.stdout)["doctor"]
    assert (done.returncode, row["kind"], row["harmless"]) == (0, "ephemeral", True)
    protected = ports.reserved_ports()
    assert row["message"].startswith(f"{4 - len(protected & set(range(low, low + 5)))} leased")
    if not protected:
        line = f"net.ipv4.ip_local_reserved_ports={low}-{low + 2},{low + 4}"
        assert row["remedy"] == f"`sudo sysctl -w {line}`"
    assert f"{bounds[0]}-{bounds[1]}" in row["message"]


def test_a_port_that_two_instances_have_is_wrong_unless_nobody_can_move(
    tmp_path: Path, isoenv: Isoenv
) -> None:
    with Registry(str(tmp_path / "state")) as registry, registry.transaction():
        for name, slot, port in (("a", 0, 4000), ("b", 0, 4000), ("a", 1, 5000), ("b", 0, 5000)):
            project = Project(f"{name}{port}", f"{name}{port}")
            lease = registry.insert(project, slot, f"{name}-{slot}")
            registry.reserve(lease, {"web": (port, True)})
    done = isoenv("doctor", "--json", cwd=tmp_path)
    found = [row for row in json.loads(done.stdout)["doctor"] if row["kind"] == "clash"]
    assert [(row["port"], row["harmless"]) for row in found] == [(4000, True), (5000, False)]
    said = "port 5000 is reserved by a5000/1 a-1 (web) and b5000/0 b-0 (web)"
    assert (done.returncode, found[1]["message"]) == (1, said)


def test_a_damaged_registry_is_said_and_not_touched(
    shop: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    file = tmp_path / "state/registry.db"
    file.write_bytes(b"garbage " * 1000)
    for args in ([], ["--fix"]):
        done = isoenv("doctor", *args, cwd=shop, trusted=False)
        assert (done.returncode, done.stderr) == (1, "")
        [line] = done.stdout.splitlines()
        assert line.startswith(f"wrong: the registry {file} is damaged: ")
        assert file.read_bytes() == b"garbage " * 1000


def test_a_process_belongs_where_it_works(tmp_path: Path) -> None:
    lease = Lease(1, Project("shop", "shop"), 1, "x", root=str(tmp_path / "tree"))

    def belongs(cwd: str) -> bool:
        return diagnosed.belongs(ports.Holder(80, "::", 2**22 + 1, cwd=cwd), lease)

    assert belongs(f"{tmp_path}/tree")
    assert belongs(f"{tmp_path}/tree/below")
    assert not belongs(f"{tmp_path}/tree2")
    assert not belongs(str(tmp_path))
