"""SkyPilot's API servers, with a stand-in that has SkyPilot's ports, files and traps."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from isoenv import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Install = Callable[..., Path]
    Worktree = Callable[[Path, str], Path]
    Sky = Any  # of conftest.py, which no test imports

PACKAGE = f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages/sky"


@dataclass(frozen=True)
class Ports:
    """The two ports of an instance."""

    slot: int

    @property
    def api(self) -> int:
        return 46580 + self.slot

    @property
    def queue(self) -> int:
        return 50011 + self.slot

    def are_free(self) -> bool:
        for port in (self.api, self.queue):
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("127.0.0.1", port))
                except OSError:
                    return False
        return True


@pytest.fixture
def pair() -> tuple[Ports, Ports]:
    """Two instances whose ports are free, others in each process of the tests."""
    begin = 1000 + os.getpid() % 400 * 20
    free = (Ports(slot) for slot in range(begin, begin + 20) if Ports(slot).are_free())
    return next(free), next(free)


@pytest.fixture
def one(pair: tuple[Ports, Ports]) -> Ports:
    """One instance whose ports are free."""
    return pair[0]


@pytest.fixture
def feature(tree: Path, worktree: Worktree, sky: Sky, one: Ports) -> Path:
    """A linked worktree of SkyPilot's source, which holds the instance."""
    root = worktree(tree, "feature")
    assert sky.run("claim", str(one.slot), cwd=root).returncode == 0
    return root


@pytest.fixture
def stranger(tmp_path: Path, install: Install) -> Iterator[Callable[[Ports], int]]:
    """Start a server that isoenv knows nothing of, in another home, and return its pid."""
    started: list[int] = []

    def stranger(ports: Ports) -> int:
        venv = install()
        environ = {
            "HOME": str(tmp_path / "another"),
            "PATH": os.environ["PATH"],
            "SKYPILOT_API_SERVER_LOCAL_PORT": str(ports.api),
        }
        subprocess.run([venv / "bin/sky", "api", "start"], env=environ, check=True)
        command = f"--port={ports.api}".encode()
        for directory in Path("/proc").glob("[0-9]*"):
            words = words_of(directory)
            if b"sky.server.server" in words and command in words:
                started.append(int(directory.name))
        return started[-1]

    yield stranger
    for pid in started:
        if process.identify(pid):
            os.killpg(pid, signal.SIGKILL)


def words_of(directory: Path) -> list[bytes]:
    """Return the command line of a process that may be gone."""
    try:
        return (directory / "cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def environment_of_server(sky: Sky, slot: int) -> dict[str, str]:
    """Return what the server has written into its log."""
    log = (sky.directory(slot) / "logs/api.log").read_text()
    lines = [line for line in log.splitlines() if line.startswith("environment ")]
    found: dict[str, str] = json.loads(lines[-1].removeprefix("environment "))
    return found


def code_of_server(ports: Ports) -> Path:
    """Return which file the server on a port runs."""
    with socket.create_connection(("127.0.0.1", ports.api)) as stream:
        stream.sendall(b"GET /file HTTP/1.0\r\n\r\n")
        answer = b""
        while block := stream.recv(4096):
            answer += block
    return Path(json.loads(answer.partition(b"\r\n\r\n")[2])["file"])


def test_two_servers_of_one_user_run_side_by_side(
    sky: Sky, install: Install, pair: tuple[Ports, Ports]
) -> None:
    install()
    for ports in pair:
        sky.start(ports.slot)
    for ports in pair:
        assert sky.state(ports.slot) == ("healthy", 0)
        asked = sky.client(ports.slot, "launch", "task.yaml")
        environ, server = asked["environment"], asked["server"]
        identity = environ["SKYPILOT_USER_ID"]
        own = sky.directory(ports.slot)
        assert environ["HOME"] == str(sky.home)
        assert server == {"user": identity, "home": str(own / "home")}
        assert (own / "home/.sky/user_hash").read_text() == identity
        requests = (own / ".sky/requests").read_text().splitlines()
        assert [json.loads(line)["user"] for line in requests] == [identity]
    first, second = (sky.directory(ports.slot) for ports in pair)
    assert (first / "user_id").read_text() != (second / "user_id").read_text()

    assert sky.api(pair[0].slot, "stop").returncode == 0
    assert "SkyPilot API server stopped." in (first / "logs/api.log").read_text()
    assert pair[0].are_free()
    assert sky.state(pair[0].slot) == ("stopped", 3)
    assert sky.state(pair[1].slot) == ("healthy", 0)
    assert sky.api(pair[1].slot, "stop").returncode == 0
    assert pair[1].are_free()
    kept = {path.name: path.read_text() for path in (sky.home / ".sky").iterdir()}
    assert kept == {"user_hash": "deadbeef"}


def test_a_server_is_told_what_is_its_own_and_nothing_of_clients(
    sky: Sky, install: Install, one: Ports
) -> None:
    install()
    ties = {"SKYPILOT_CONFIG": "/x", "SKYPILOT_DB_CONNECTION_URI": "postgresql://everybody/sky"}
    theirs = {"SKYPILOT_USER_ID": "cafecafe", "SKYPILOT_DEBUG": "1"}
    sky.start(one.slot, env={**ties, **theirs})
    own = sky.directory(one.slot)
    environ = environment_of_server(sky, one.slot)
    assert environ["HOME"] == f"{own}/home"
    assert environ["TMPDIR"] == str(own / "tmp")
    assert environ["SKY_RUNTIME_DIR"] == environ["PWD"] == str(own)
    assert environ["SKYPILOT_API_SERVER_LOCAL_PORT"] == str(one.api)
    assert environ["SKYPILOT_API_SERVER_ENDPOINT"] == f"http://127.0.0.1:{one.api}"
    assert environ["SKYPILOT_DEBUG"] == "1"
    missing = {*ties, "SKYPILOT_USER_ID", "SKYPILOT_DISABLE_LOCAL_API_SERVER"}
    assert missing & environ.keys() == set()
    assert {path.name for path in own.iterdir()} == {
        *(".isoenv-instance", ".sky", "home", "logs", "tmp", "user_id")
    }
    leader = sky.leader(one.slot)
    assert os.getsid(leader) == os.getpgid(leader) == leader
    assert words_of(Path(f"/proc/{leader}"))[1:5] == [
        *(b"-m", b"sky.server.server", b"--host=127.0.0.1", f"--port={one.api}".encode())
    ]


def test_the_servers_home_shows_all_of_the_users_but_sky(
    sky: Sky, install: Install, one: Ports
) -> None:
    install()
    home = sky.home
    awkward = os.fsdecode(b"caf\xe9 & $HOME")
    for name in (".aws", "sky_logs", ".sky-dev-7"):
        (home / name).mkdir()
    for name in (".netrc", awkward):
        (home / name).write_text("secret")
    (home / "dangling").symlink_to(home / "nowhere")
    sky.start(one.slot)
    own = sky.directory(one.slot) / "home"
    links = {path.name: os.readlink(path) for path in own.iterdir() if path.is_symlink()}
    assert links == {
        name: str(home / name)
        for name in os.listdir(home)
        if name not in (".sky", "sky_logs") and not name.startswith(".sky-dev-")
    }
    assert {".aws", ".netrc", awkward, "dangling"} <= links.keys()
    assert not (own / ".sky").is_symlink()

    # A tool that replaces a file replaces the link; what is gone goes, what is new comes.
    (own / ".netrc").unlink()
    (own / ".netrc").write_text("the server's own")
    (home / awkward).unlink()
    (home / ".kube").mkdir()
    assert sky.api(one.slot, "restart").returncode == 0
    assert (own / ".netrc").read_text() == "the server's own"
    assert (home / ".netrc").read_text() == "secret"
    assert not os.path.lexists(own / awkward)
    assert (own / ".kube").samefile(home / ".kube")


def test_what_a_killed_master_leaves_is_cleaned_up_by_stop(
    sky: Sky, install: Install, one: Ports, wait_for: Callable[..., object]
) -> None:
    install()
    sky.start(one.slot)
    leader = sky.leader(one.slot)
    assert len(sky.pids(one.slot)) == 4
    os.kill(leader, signal.SIGKILL)
    wait_for(lambda: process.identify(leader) is None)
    left = sky.pids(one.slot)
    assert len(left) == 3
    assert not one.are_free()

    status = sky.status(one.slot)
    assert (status["state"], status["exit_status"], status["code"]) == ("crashed", 137, 3)
    assert sorted(status["leftovers"]) == sorted(left)
    done = sky.api(one.slot, "start")
    assert done.returncode == 1
    assert "has left processes behind" in done.stderr

    done = sky.api(one.slot, "stop")
    assert done.returncode == 0
    assert "3 had to be killed" in done.stderr
    assert [pid for pid in left if process.identify(pid)] == []
    assert one.are_free()
    sky.start(one.slot)
    assert sky.state(one.slot) == ("healthy", 0)


def test_a_server_that_its_own_command_cannot_stop_is_ended_all_the_same(
    sky: Sky, install: Install, one: Ports
) -> None:
    venv = install()
    sky.start(one.slot)
    found = sky.pids(one.slot)
    shutil.rmtree(venv / "bin")
    done = sky.api(one.slot, "stop")
    assert (done.returncode, done.stdout) == (0, "")
    assert [pid for pid in found if process.identify(pid)] == []
    assert one.are_free()


def test_a_server_whose_configuration_is_gone_is_stopped_by_its_own_port(
    sky: Sky, install: Install, one: Ports, feature: Path
) -> None:
    install()
    (feature / "isoenv.toml").write_text('extends = "sky"\n')
    assert sky.run("up", cwd=feature).returncode == 0
    (feature / "isoenv.toml").write_text('project = "skypilot"\n')
    done = sky.run("down", cwd=feature)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert one.are_free()
    # Without a port of its own that would have been the user's server.
    log = (sky.directory(one.slot) / "logs/api.log").read_text()
    assert "SkyPilot API server stopped." in log


def test_a_server_of_somebody_else_is_told_apart_and_left_alone(
    sky: Sky, one: Ports, stranger: Callable[[Ports], int]
) -> None:
    pid = stranger(one)
    done = sky.api(one.slot, "start")
    assert (done.returncode, done.stdout) == (6, "")
    expected = f"a SkyPilot API server that isoenv did not start answers on port {one.api}: "
    assert expected in done.stderr
    assert f"(pid {pid}): `isoenv exec {one.slot} sky api stop` ends it\n" in done.stderr
    assert not Path(f"{sky.place(one.slot)}/record").exists()
    assert sky.api(one.slot, "stop").returncode == 0
    assert process.identify(pid) is not None
    status = sky.status(one.slot)
    assert (status["state"], status["held_by"]["pid"]) == ("stopped", pid)
    # The remedy that was named.
    assert sky.run("exec", str(one.slot), "sky", "api", "stop").returncode == 0
    sky.start(one.slot)


@pytest.mark.parametrize("which", ["api", "queue"])
def test_nothing_is_started_while_one_of_the_ports_is_held(
    which: str,
    sky: Sky,
    install: Install,
    one: Ports,
    listener: Callable[[str, int], socket.socket],
) -> None:
    install()
    listener("127.0.0.1", getattr(one, which))
    done = sky.api(one.slot, "start")
    assert (done.returncode, done.stdout) == (6, "")
    assert f"port {getattr(one, which)} of api of skypilot/{one.slot} is held by " in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr
    assert not Path(f"{sky.place(one.slot)}/record").exists()


def test_the_quick_status_knows_both_ports(
    sky: Sky, install: Install, one: Ports, listener: Callable[[str, int], socket.socket]
) -> None:
    def said(operand: str) -> list[str]:
        table: str = sky.run("api", operand, "status").stdout
        columns = [re.split("  +", line) for line in table.splitlines()]
        # All but how long that is ago.
        return [word for words in columns for word in (*words[:3], *words[4:])]

    install()
    sky.start(one.slot)
    both = f"{one.api} {one.queue}"
    for _ in ("running", "stopped"):
        # With the project in front it is computed.
        assert said(str(one.slot)) == said(f"skypilot:{one.slot}")
        assert both in said(str(one.slot))
        assert sky.api(one.slot, "stop").returncode == 0
    listener("127.0.0.1", one.queue)
    assert f"port {one.queue} is held by" in " ".join(said(str(one.slot)))


def test_no_command_starts_a_server_on_the_side(sky: Sky, install: Install, one: Ports) -> None:
    install()
    for verb in (["status"], ["api", "start"]):
        done = sky.run("exec", str(one.slot), "sky", *verb)
        assert done.returncode == 1
        assert "disabled" in done.stderr
    assert one.are_free()


@pytest.mark.parametrize("version", ["0.13.0", "0.12.3.post1"])
def test_an_older_skypilot_is_refused_by_its_version(
    version: str, sky: Sky, install: Install, one: Ports
) -> None:
    venv = install(version)
    done = sky.api(one.slot, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"isoenv: {venv}/{PACKAGE} is SkyPilot {version}, which has one API server for all "
        "instances: `pip install --upgrade 'skypilot>=0.14'`"
    )
    assert not (sky.directory(one.slot) / "home").exists()


@pytest.mark.parametrize(
    ("printed", "complaint"),
    [
        ("skypilot, version 0.13.0", "is SkyPilot 0.13.0, which has one API server"),
        ("", "is a SkyPilot of unknown version, which has one API server"),
    ],
)
def test_a_command_that_is_no_script_of_pythons_is_asked_for_its_version(
    printed: str, complaint: str, sky: Sky, install: Install, one: Ports
) -> None:
    command = install() / "bin/sky"
    command.rename(command.with_name("real"))
    command.write_text(f"#!/bin/sh\n[ \"$1\" != --version ] || exec echo '{printed}'\n")
    command.chmod(0o755)
    done = sky.api(one.slot, "start")
    assert done.returncode == 1
    assert f"{command} {complaint}" in done.stderr

    command.write_text('#!/bin/sh\nexec "$(dirname "$0")/real" "$@"\n')
    sky.start(one.slot)
    assert sky.state(one.slot) == ("healthy", 0)


@pytest.mark.parametrize("form", ["env", "long", "link"])
def test_the_python_of_skypilot_is_found_in_any_form_of_its_command(
    form: str, sky: Sky, install: Install, one: Ports, tmp_path: Path
) -> None:
    venv = install("0.13.0")
    command = venv / "bin/sky"
    if form == "env":
        command.write_text("#!/usr/bin/env python3\n")
    elif form == "long":
        lines = ["#!/bin/sh", f'\'\'\'exec\' "{venv}/bin/python3" "$0" "$@"', "' '''"]
        command.write_text("\n".join(lines))
    else:
        (tmp_path / "local").mkdir()
        command.rename(tmp_path / "local/sky")
        command.symlink_to(tmp_path / "local/sky")
    done = sky.api(one.slot, "start")
    assert done.returncode == 1
    # The package, which only its Python knows.
    assert f"{venv}/{PACKAGE} is SkyPilot 0.13.0" in done.stderr


def test_without_skypilot_the_remedy_is_said(sky: Sky, one: Ports) -> None:
    done = sky.api(one.slot, "start", env={"PATH": "/usr/bin:/bin"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        f"isoenv: there is no `sky` on PATH for api of skypilot/{one.slot}: "
        "`pip install 'skypilot>=0.14'`"
    )


def test_the_users_own_server_is_not_isoenvs(sky: Sky, install: Install, tree: Path) -> None:
    install()
    for operands, cwd in ((["api", "0"], sky.outside), (["api"], tree)):
        for action in ("start", "stop", "status"):
            done = sky.run(*operands, action, cwd=cwd)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == (
                "isoenv: skypilot/0 is your own ~/.sky and port 46580, which isoenv leaves alone: "
                "`sky api start`, `sky api stop`, `sky api info`\n"
            )
        if cwd == sky.outside:
            assert json.loads(sky.run("list", "--all", "--json").stdout)["instances"] == []
    assert [path.name for path in sky.home.iterdir()] == [".sky"]


def test_an_instance_has_a_configuration_of_its_own_where_it_has_the_file(
    sky: Sky, install: Install, one: Ports, feature: Path
) -> None:
    install()
    sky.start(one.slot)
    theirs = sky.home / "theirs.yaml"
    theirs.touch()
    own = sky.directory(one.slot) / "config.yaml"

    def configured(**env: str) -> str | None:
        done = sky.run("exec", ".", "sky", "status", cwd=feature, env=env)
        assert done.returncode == 0, done.stderr
        found: str | None = json.loads(done.stdout)["environment"].get("SKYPILOT_GLOBAL_CONFIG")
        return found

    for _ in range(2):
        assert configured(SKYPILOT_GLOBAL_CONFIG=str(theirs)) == str(theirs)
    own.touch()
    for _ in range(2):
        assert configured(SKYPILOT_GLOBAL_CONFIG=str(theirs)) == str(own)
    own.unlink()
    assert configured() is None


def test_an_identity_is_the_instances_own_and_stays(sky: Sky, tmp_path: Path) -> None:
    def identity(slot: int, **env: str) -> str:
        done = sky.run("exec", f"skypilot:{slot}", "printenv", "SKYPILOT_USER_ID", env=env)
        assert done.returncode == 0, done.stderr
        found: str = done.stdout.removesuffix("\n")
        return found

    for slot in (1001, 1002):
        # The command alone makes the number SkyPilot's.
        assert sky.run("exec", str(slot), "sky").returncode == 127
    first, second = identity(1001), identity(1002)
    assert len(first) == len(second) == 8
    assert int(first, 16) != int(second, 16)
    kept = sky.directory(1001) / "user_id"
    assert kept.read_text() == f"{first}\n"

    # Written down, it outlives what it was made of; what is no identity is not taken for one.
    kept.write_text("0ld-name\n")
    assert identity(1001) == "0ld-name"
    kept.write_text("../etc\n")
    assert identity(1001) == first
    (tmp_path / "another").mkdir()
    state = str(sky.home / ".config"), str(tmp_path / "another")
    assert identity(1001, XDG_CONFIG_HOME=state[0], HOME=state[1]) not in (first, second, "")


def test_home_all_gives_clients_the_home_of_their_server(
    sky: Sky, install: Install, one: Ports
) -> None:
    install()
    config = sky.home / ".config/isoenv/config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[skypilot]\nhome = "all"\n')
    sky.start(one.slot)
    asked = sky.client(one.slot, "status", "it's")
    own = sky.directory(one.slot) / "home"
    assert asked["environment"]["HOME"] == asked["server"]["home"] == str(own)
    assert asked["arguments"] == ["status", "it's"]
    # Only SkyPilot's: a shell's home stays the user's.
    shell = sky.run("exec", f"skypilot:{one.slot}", "printenv", "HOME")
    assert shell.stdout == f"{sky.home}\n"
    assert sky.api(one.slot, "restart").returncode == 0

    config.write_text('[skypilot]\nhome = "server"\n')
    assert sky.client(one.slot, "status")["environment"]["HOME"] == str(sky.home)
    assert sky.api(one.slot, "restart").returncode == 0
    assert not (sky.directory(one.slot) / "bin/sky").exists()

    config.write_text('[skypilot]\nhome = "mine"\n')
    done = sky.run("exec", str(one.slot), "sky", "status")
    assert done.returncode == 1
    assert f'{config}:2: skypilot.home: expected "server" or "all", got "mine"' in done.stderr


def test_the_code_of_a_checkout_is_run_once_it_is_allowed(
    sky: Sky, install: Install, one: Ports, feature: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = install()
    sky.start(one.slot, cwd=feature)
    assert code_of_server(one) == venv / PACKAGE / "server/server.py"
    environ = environment_of_server(sky, one.slot)
    assert environ["PWD"] == str(sky.directory(one.slot))
    assert {"SKYPILOT_DEV", "SKYPILOT_DEBUG"} & environ.keys() == set()
    assert sky.run("api", "stop", cwd=feature).returncode == 0

    # Nothing on PATH but in the checkout.
    (feature / ".venv").symlink_to(venv)
    monkeypatch.setenv("PATH", os.environ["PATH"].removeprefix(f"{venv}/bin:"))
    done = sky.run("api", "start", cwd=feature)
    assert done.returncode == 1
    assert done.stderr.endswith(f": `isoenv allow` takes {feature}/.venv/bin/sky\n")

    # In the main checkout, which is left as it is, for all of the repository.
    main = feature.parent / "skypilot"
    done = sky.run("allow", cwd=main)
    assert (done.returncode, done.stderr) == (0, f"isoenv: allowed {main}/sky\n")
    assert sky.run("api", "start", cwd=feature).returncode == 0
    assert code_of_server(one) == feature / "sky/server/server.py"
    environ = environment_of_server(sky, one.slot)
    assert (environ["SKYPILOT_DEV"], environ["SKYPILOT_DEBUG"]) == ("1", "false")
    assert environ["PATH"].split(":")[0] == f"{feature}/.venv/bin"
    assert sky.run("enable", "SKYPILOT_DEBUG", cwd=feature).returncode == 0
    assert sky.run("api", "restart", cwd=feature).returncode == 0
    assert environment_of_server(sky, one.slot)["SKYPILOT_DEBUG"] == "true"

    assert sky.run("exec", ".", "printenv", "SKYPILOT_DEV", cwd=feature).stdout == "1\n"
    assert sky.run("deny", cwd=main).returncode == 0
    assert sky.run("exec", ".", "printenv", "SKYPILOT_DEV", cwd=feature).stdout == ""


def test_a_file_that_starts_from_the_preset_allows_the_code_too(sky: Sky, feature: Path) -> None:
    (feature / "isoenv.toml").write_text('extends = "sky"\n\n[env]\nSKYPILOT_DEV = "0"\n')
    command = ("exec", ".", "printenv", "SKYPILOT_DEV", "SKYPILOT_DEBUG", "PATH")
    assert sky.run(*command, cwd=feature, trusted=False).returncode == 4
    dev, debug, path = sky.run(*command, cwd=feature).stdout.splitlines()
    assert (dev, debug) == ("0", "false")
    assert path.split(":")[0] == f"{feature}/.venv/bin"


def test_servers_of_the_seeds_fork_run_by_their_instance_id(
    sky: Sky, install: Install, pair: tuple[Ports, Ports], feature: Path
) -> None:
    install("0.13.0")
    (feature / "sky/skylet/constants.py").write_text("LOCAL_PORT = None\n")
    with (feature / "sky/utils/common_utils.py").open("a") as source:
        source.write("\n\nINSTANCE = os.environ.get('SKYPILOT_INSTANCE_ID')\n")
    assert sky.run("allow", cwd=feature).returncode == 0
    first, second = (ports.slot for ports in pair)
    own = sky.directory(first)
    (own / "user_id").unlink(missing_ok=True)
    own.mkdir(exist_ok=True)
    (own / "user_hash").write_text("f0f0f0f0")

    for slot in (first, second):
        sky.start(slot, cwd=feature)
        assert sky.state(slot) == ("healthy", 0)
        environ = environment_of_server(sky, slot)
        assert environ["SKYPILOT_INSTANCE_ID"] == str(slot)
        assert environ["HOME"] == str(sky.home)
        assert environ["TMPDIR"] == str(sky.directory(slot) / "tmp")
        assert "SKY_RUNTIME_DIR" not in environ
        # The identity that its clusters have.
        asked = sky.run("exec", str(slot), "printenv", "SKYPILOT_USER_ID", cwd=feature)
        assert asked.stdout.strip() == (sky.directory(slot) / "user_hash").read_text()
    assert (own / "user_hash").read_text() == "f0f0f0f0"

    # Its `sky api stop` would end the first server that it finds.
    assert sky.api(second, "stop", cwd=feature).returncode == 0
    assert sky.state(first) == ("healthy", 0)
    assert sky.api(first, "stop", cwd=feature).returncode == 0
    assert "server stopped" not in (own / "logs/api.log").read_text()


def test_a_source_that_is_older_is_refused_whatever_version_it_names(
    sky: Sky, install: Install, feature: Path
) -> None:
    install()
    (feature / "sky/skylet/constants.py").write_text("LOCAL_PORT = None\n")
    assert sky.run("allow", cwd=feature).returncode == 0
    done = sky.run("api", "start", cwd=feature)
    assert done.returncode == 1
    assert f"{feature}/sky is SkyPilot 1.0.0-dev0, which has one API server for" in done.stderr


def test_a_home_that_cannot_be_made_is_one_line(sky: Sky, install: Install, one: Ports) -> None:
    install()
    own = sky.directory(one.slot)
    own.mkdir()
    (own / "home").write_text("in the way")
    done = sky.api(one.slot, "start")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith(f"isoenv: {own}/home is no directory: ")
    assert one.are_free()
