"""What `prune` ends: processes without their master, services and containers without checkout."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isoenv import process
from isoenv.services import members, record

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from conftest import Serving

    Git = Callable[..., str]
    WaitFor = Callable[[Callable[[], object]], Any]
    Worktree = Callable[[Path, str], Path]

QUIET: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}

LEAVES = '[services.web]\nrun = ["sh", "-c", "sleep 1000 & wait"]\n'


@pytest.fixture
def feature(serving: Serving, worktree: Worktree, git: Git) -> Path:
    """A linked worktree that holds slot 1."""
    serving.configure(LEAVES)
    git(serving.root, "add", ".")
    git(serving.root, "commit", "--quiet", "--message=configured")
    assert serving.run("claim").returncode == 0
    feature = worktree(serving.root, "feature")
    assert serving.isoenv("claim", "1", cwd=feature).returncode == 0
    return feature


def slots(serving: Serving) -> list[int]:
    return [int(line.split()[0]) for line in serving.run("list").stdout.splitlines()[1:]]


def test_processes_that_outlived_their_master_are_ended(
    serving: Serving, wait_for: WaitFor
) -> None:
    serving.configure(LEAVES)
    assert serving.run("up").returncode == 0
    found = serving.record()
    os.kill(serving.pid(), signal.SIGKILL)
    wait_for(lambda: record.ended(serving.place(), found.text("id")))
    (left,) = members.find(serving.place(), found)
    done = serving.run("prune", "--dry-run")
    assert done.returncode == 0
    assert f"would end processes that outlived web of shop/0 (pid {left.pid})" in done.stderr
    assert process.identify(left.pid)
    done = serving.run("prune")
    assert done.returncode == 0
    assert "nothing is gone" not in done.stderr
    assert process.identify(left.pid) is None
    assert "nothing is gone" in serving.run("prune").stderr


def test_services_of_a_checkout_that_is_gone_are_ended_and_its_slot_freed(
    serving: Serving, feature: Path, git: Git
) -> None:
    assert serving.run("up").returncode == 0
    assert serving.isoenv("up", cwd=feature).returncode == 0
    pid = serving.pid(slot=1)
    shutil.rmtree(feature)
    git(serving.root, "worktree", "prune")
    done = serving.run("prune")
    assert done.returncode == 0, done.stderr
    assert "ended web of shop/1" in done.stderr
    assert "whose checkout is gone" in done.stderr
    assert process.identify(pid) is None
    assert slots(serving) == [0]
    assert serving.states() == {"web": "running"}
    assert not Path(serving.place(slot=1)).exists()


def test_a_stranger_on_a_port_of_a_checkout_that_is_gone_is_named_and_left_alone(
    serving: Serving, feature: Path, git: Git, listener: Callable[[str, int], socket.socket]
) -> None:
    listener("127.0.0.1", serving.port + 1000)
    git(serving.root, "worktree", "remove", "--force", str(feature))
    done = serving.run("prune")
    assert done.returncode == 1
    assert f"kept shop/1 feature ({feature}): port {serving.port + 1000} is held by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert slots(serving) == [0, 1]


LISTENS = """[services.web]
run = ["{python}", "-m", "http.server", "--bind", "127.0.0.1", "{{ports.web}}"]
health = "tcp:{{ports.web}}"
"""


def test_a_dry_run_counts_on_the_ports_that_it_would_free(
    serving: Serving, feature: Path, git: Git
) -> None:
    (feature / "isoenv.toml").write_text(
        f'project = "shop"\n[ports]\nweb = {serving.port}\n{LISTENS.format(python=sys.executable)}'
    )
    assert serving.isoenv("up", cwd=feature).returncode == 0
    git(serving.root, "worktree", "remove", "--force", str(feature))
    dry = serving.run("prune", "--dry-run", "--purge")
    assert process.identify(serving.pid(slot=1))
    done = serving.run("prune", "--purge")
    words = {"ended": "would end", "freed": "would free", "removed": "would remove"}
    shown = [line for line in done.stderr.splitlines() if line.split()[1] in words]
    assert f"isoenv: freed shop/1 feature ({feature})" in shown
    for word, would in words.items():
        shown = [line.replace(f"isoenv: {word}", f"isoenv: {would}") for line in shown]
    assert [line for line in dry.stderr.splitlines() if " would " in line] == shown
    assert "kept" not in dry.stderr + done.stderr
    assert (dry.returncode, done.returncode) == (0, 0)


def test_a_dry_run_keeps_what_a_stranger_holds_beside_what_it_would_end(
    serving: Serving, feature: Path, git: Git, listener: Callable[[str, int], socket.socket]
) -> None:
    assert serving.isoenv("up", cwd=feature).returncode == 0
    listener("127.0.0.1", serving.port + 1000)
    git(serving.root, "worktree", "remove", "--force", str(feature))
    done = serving.run("prune", "--dry-run")
    assert done.returncode == 1
    assert f"kept shop/1 feature ({feature}): port {serving.port + 1000} is held by" in done.stderr


def test_a_service_whose_slot_was_given_back_is_kept_and_told(
    serving: Serving, feature: Path
) -> None:
    assert serving.isoenv("up", cwd=feature).returncode == 0
    assert serving.isoenv("release", cwd=feature).returncode == 0
    done = serving.run("prune")
    assert done.returncode == 1
    assert "its slot was given back: `isoenv claim 1`, then `isoenv down`" in done.stderr
    assert process.identify(serving.pid(slot=1))


def test_without_an_engine_it_says_so_in_one_line(
    serving: Serving, feature: Path, git: Git, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    for name in ("docker", "podman"):
        client = tmp_path / "bin" / name
        client.write_text("#!/bin/sh\necho no engine >&2\nexit 1\n")
        client.chmod(0o755)
    git(serving.root, "worktree", "remove", "--force", str(feature))
    path = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    done = serving.run("prune", env=path)
    assert done.returncode == 0
    said = "isoenv: no docker or podman engine answers: compose projects were not looked for\n"
    assert done.stderr.count(said) == 1
    assert serving.run("prune", env=path).stderr == "isoenv: nothing is gone\n"


# Answers as docker does for one container of the project `theirs`, and notes what it was asked.
DOCKER = """#!/bin/sh
echo "$*" >>{calls}
case $1 in
  ps) [ "$2" = --all ] && echo 1234 || : ;;
  inspect) printf '1234\\ttheirs\\t{directory}\\t{ports}\\n' ;;
  network) [ "$2" = rm ] || echo theirs_default ;;
  rm) [ ! -e {calls}.refuse ] || {{ echo container is stuck >&2; exit 1; }} ;;
esac
"""


@pytest.fixture
def docker(tmp_path: Path, feature: Path, serving: Serving) -> dict[str, str]:
    """A stand-in for docker that has a container of `feature`, first on PATH; podman is away."""
    (tmp_path / "bin").mkdir()
    ports = json.dumps({"80/tcp": [{"HostPort": str(serving.port + 1000)}], "81/tcp": None})
    text = DOCKER.format(calls=tmp_path / "calls", directory=feature / "docker", ports=ports)
    for name, content in (("docker", text), ("podman", "#!/bin/sh\nexit 1\n")):
        (tmp_path / "bin" / name).write_text(content)
        (tmp_path / "bin" / name).chmod(0o755)
    return {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}


def test_docker_is_asked_to_remove_what_is_of_a_gone_checkout_and_no_volumes(
    serving: Serving, feature: Path, git: Git, docker: dict[str, str], tmp_path: Path
) -> None:
    git(serving.root, "worktree", "remove", "--force", str(feature))
    (tmp_path / "calls.refuse").touch()
    done = serving.run("prune", env=docker)
    assert done.returncode == 1
    assert "kept compose project theirs (docker, 1 containers)" in done.stderr
    assert "container is stuck" in done.stderr
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if call.startswith(("rm", "network", "volume"))] == [
        "rm --force 1234"
    ]


def test_a_dry_run_counts_on_the_ports_of_containers_that_it_would_remove(
    serving: Serving,
    feature: Path,
    git: Git,
    docker: dict[str, str],
    listener: Callable[[str, int], socket.socket],
) -> None:
    # As docker-proxy has it for the container.
    listener("127.0.0.1", serving.port + 1000)
    git(serving.root, "worktree", "remove", "--force", str(feature))
    done = serving.run("prune", "--dry-run", env=docker)
    assert done.returncode == 0, done.stderr
    assert f"would free shop/1 feature ({feature})" in done.stderr


def test_docker_is_not_asked_about_checkouts_that_are_there(
    serving: Serving, docker: dict[str, str], tmp_path: Path
) -> None:
    assert serving.run("prune", env=docker).returncode == 0
    assert not (tmp_path / "calls").exists()


def test_without_purge_volumes_stay(
    serving: Serving, feature: Path, git: Git, docker: dict[str, str], tmp_path: Path
) -> None:
    git(serving.root, "worktree", "remove", "--force", str(feature))
    done = serving.run("prune", env=docker)
    assert done.returncode == 0
    assert "ended compose project theirs" in done.stderr
    calls = (tmp_path / "calls").read_text()
    assert "network rm theirs_default\n" in calls
    assert "volume" not in calls


@pytest.fixture
def containers(tmp_path: Path) -> Iterator[Callable[[str, Path], str]]:
    """Make a container of a compose project in a real engine, with a network and a volume."""
    found = shutil.which("podman")
    if found is None or subprocess.run([found, "info"], check=False, **QUIET).returncode:
        pytest.skip("no podman answers here; a stand-in for docker is asked above")
    (tmp_path / "rootfs").mkdir()
    made: list[str] = []

    def containers(name: str, directory: Path) -> str:
        label = f"--label=com.docker.compose.project={name}"
        where = f"--label=com.docker.compose.project.working_dir={directory}"
        podman("network", "create", label, f"{name}_default")
        podman("volume", "create", label, f"{name}_data")
        words = ("create", label, where, f"--network={name}_default", "--rootfs")
        made.append(name)
        return podman(*words, str(tmp_path / "rootfs"), "/bin/true").strip()

    yield containers
    for name in made:
        label = f"label=com.docker.compose.project={name}"
        ids = podman("ps", "--all", "--quiet", "--filter", label).split()
        left = (["network", "rm", f"{name}_default"], ["volume", "rm", f"{name}_data"])
        for words in (["rm", "--force", *ids], *left):
            if words != ["rm", "--force"]:
                subprocess.run(["podman", *words], check=False, **QUIET)


def podman(*words: str) -> str:
    done = subprocess.run(["podman", *words], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_compose_projects_of_a_checkout_that_is_gone_are_removed(
    serving: Serving,
    feature: Path,
    git: Git,
    containers: Callable[[str, Path], str],
) -> None:
    port = serving.port
    here, theirs = f"isoenvtest{port}-0", f"isoenvtest{port}-1"
    kept = containers(here, serving.root)
    lost = containers(theirs, feature / "docker")
    done = serving.run("prune")
    assert "compose" not in done.stderr
    git(serving.root, "worktree", "remove", "--force", str(feature))
    done = serving.run("prune", "--dry-run", "--purge")
    assert f"would end compose project {theirs} (podman, 1 containers)" in done.stderr
    done = serving.run("prune", "--purge")
    assert done.returncode == 0, done.stderr
    assert f"ended compose project {theirs}" in done.stderr
    assert here not in done.stderr
    ids = podman("ps", "--all", "--quiet", "--no-trunc").split()
    assert kept in ids
    assert lost not in ids
    assert f"{theirs}_default" not in podman("network", "ls", "--quiet").split()
    assert f"{theirs}_data" not in podman("volume", "ls", "--quiet").split()
    assert f"{here}_data" in podman("volume", "ls", "--quiet").split()
