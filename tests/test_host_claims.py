"""Two users of one host never get one port, and none can make another one fail or wait."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import context, host_directory, leasing, paths
from isoenv.errors import IsoenvError, RegistryError
from isoenv.host_claims import HostClaims
from isoenv.models import Checkout, Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.models import Lease

    Run = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = sysconfig.get_path("purelib")

# Users that every system has, with nothing to lose.
NEIGHBOURS = ("nobody", "games")
BASE = 21000
CONFIG = 'project = "shop"\n[ports]\nweb = {base}\n'
BLOCKS = 'project = "shop"\n[instance]\nports = "block"\n[ports]\nweb = 3000\napi = 3001\n'

each_config = pytest.mark.parametrize(
    "config", [CONFIG.format(base=BASE), BLOCKS], ids=["offset", "block"]
)

# Holds a claim in a transaction that goes on until it is killed.
STOPPED = """
import os, sys, time
from isoenv.registry import Registry
with Registry(os.environ["ISOENV_STATE_DIR"]) as registry, registry.transaction():
    print(registry.host.claim(int(sys.argv[1])), flush=True)
    time.sleep(600)
"""

# Leases the directories in its arguments by forks that have all imported; most are killed at a
# random moment of their work.
SWARM = """
import os, random, signal, sys, time
import sqlite3, pwd, urllib.parse, isoenv.cli.port, isoenv.ports, rich.console, git
from isoenv.__main__ import main
random.seed(int(sys.argv[1]))
longest = None
for directory in sys.argv[2:]:
    since = time.monotonic()
    if (pid := os.fork()) == 0:
        os.chdir(directory)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.argv = ["isoenv", "port", "web"]
        try:
            main()
        finally:
            os._exit(0)
    if longest is not None:
        time.sleep(random.uniform(0, longest))
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    longest = longest or time.monotonic() - since
"""

# Claims a few ports over and over, as several users with several registries each, whose processes
# are killed now and then. Who has a port makes a file by its name, which must not be there.
# All that is imported late is imported first: another user may not be let into the library.
CROWD = """
import os, random, signal, sys, sqlite3, pwd, threading, urllib.parse
from isoenv import liveness, lock_holders, mounts, process, resting
from isoenv.registry import Registry
seed, host, witnesses, *states = sys.argv[1:]

def run(state, number):
    owner = os.stat(state)
    os.setgroups([]), os.setgid(owner.st_gid), os.setuid(owner.st_uid)
    random.seed(seed + state + str(number))
    with Registry(state) as registry:
        for _ in range(100):
            port = 31000 + random.randrange(4)
            with registry.transaction():
                if registry.host.claim(port) is None:
                    witness = f"{witnesses}/{port}"
                    os.close(os.open(witness, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
                    chance = random.random()
                    os.unlink(witness)
                    if chance < 0.02:
                        os.kill(os.getpid(), signal.SIGKILL)
                assert registry.host.take_notes() == []

running = {}
def start(state, number):
    pid = os.fork()
    if pid == 0:
        try:
            run(state, number)
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
    running[pid] = state, number

for state in states:
    start(state, 0), start(state, 1)
while running:
    pid, status = os.wait()
    state, number = running.pop(pid)
    if os.WIFSIGNALED(status) and number < 20:
        start(state, number + 2)
"""


def fail_or_skip(reason: str) -> None:
    (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)


@dataclass(frozen=True)
class Person:
    """A real user of this system, with a home, a registry and checkouts of his own."""

    name: str
    home: Path
    host: Path
    python: str

    @property
    def uid(self) -> int:
        return pwd.getpwnam(self.name).pw_uid

    @property
    def state(self) -> Path:
        return self.home / "state"

    def start(
        self, argv: list[str], cwd: Path | None = None, state: Path | None = None
    ) -> subprocess.Popen[str]:
        """Start a command as this user; ``runuser`` becomes that command."""
        environ = {
            "PATH": os.environ["PATH"],
            "LC_ALL": "C.UTF-8",
            "HOME": str(self.home),
            "ISOENV_STATE_DIR": str(state or self.state),
            "ISOENV_HOST_DIR": str(self.host),
            "PYTHONPATH": f"{ROOT}:{PACKAGES}",
        }
        return subprocess.Popen(
            ["runuser", "-u", self.name, "--", *argv],
            cwd=cwd or self.home,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, argv: list[str], **options: Path) -> tuple[str, str]:
        """Run a command that has to succeed; return what it printed, and what it said."""
        process = self.start(argv, **options)
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        return stdout, stderr

    def isoenv(self, *args: str, cwd: Path, **options: Path) -> tuple[str, str]:
        return self.run([self.python, "-m", "isoenv", *args], cwd=cwd, **options)

    def checkout(self, name: str, config: str = CONFIG.format(base=BASE)) -> Path:
        """Make a plain directory that holds no lease yet, and allow its configuration."""
        directory = self.home / name
        directory.mkdir()
        (directory / "isoenv.toml").write_text(config)
        shutil.chown(directory, self.name)
        self.isoenv("allow", cwd=directory)
        return directory

    def settle_main(self, config: str = CONFIG.format(base=BASE)) -> None:
        """Take slot 0, which is nobody else's business."""
        self.isoenv("port", "web", cwd=self.checkout("main", config))


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory that all users can go through: that of pytest is closed to them."""
    if os.geteuid() != 0:
        fail_or_skip("only root can act as several users")
    directory = Path(tempfile.mkdtemp(prefix="isoenv-users-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def host(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of claims: root's, sticky and for all."""
    directory = shared / "claims"
    directory.mkdir()
    directory.chmod(0o1777)
    monkeypatch.setenv("ISOENV_HOST_DIR", str(directory))
    return directory


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that every user may run, with what isoenv needs."""
    code = "import sys; assert sys.version_info >= (3, 11); import isoenv.registry, click, psutil"
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}:{PACKAGES}"}
    if os.geteuid() != 0:
        fail_or_skip("only root can act as several users")
    for found in (sys.executable, "/usr/bin/python3"):
        argv = ["runuser", "-u", NEIGHBOURS[0], "--", found, "-c", code]
        done = subprocess.run(argv, env=environ, cwd="/", capture_output=True, check=False)
        if done.returncode == 0:
            return found
    fail_or_skip("no Python that other users may run")
    return ""


@pytest.fixture
def people(shared: Path, host: Path, python: str) -> list[Person]:
    """Two users of this host."""
    for name in NEIGHBOURS:
        (shared / name).mkdir(mode=0o700)
        shutil.chown(shared / name, name)
    return [Person(name, shared / name, host, python) for name in NEIGHBOURS]


@pytest.fixture
def registry(tmp_path: Path, host: Path) -> Iterator[Registry]:
    """The registry of root, who leases beside the others."""
    assert host
    with Registry(str(tmp_path / "state")) as opened:
        yield opened


@pytest.fixture
def other(tmp_path: Path, host: Path) -> Iterator[Registry]:
    """Another registry of the same user."""
    assert host
    with Registry(str(tmp_path / "other")) as opened:
        yield opened


def claim(registry: Registry, *ports: int) -> list[str | None]:
    """Claim ports that no lease needs, and give them back; return who has them."""
    with registry.transaction():
        return [registry.host.claim(port) for port in ports]


def reserve(registry: Registry, port: int, slot: int = 1) -> Lease:
    """Lease a slot with one port, claimed and recorded."""
    with registry.transaction():
        lease = registry.insert(Project("shop", "shop"), slot, f"shop-{slot}")
        assert registry.host.claim(port) is None
        registry.reserve(lease, {"web": (port, False)})
    return lease


def ports_in(host: Path) -> set[int]:
    return {int(name.removeprefix("isoenv.")) for name in os.listdir(host)}


def owners(host: Path) -> dict[int, str]:
    """Return the owner of each claim; drafts would be no numbers."""
    return {int(file.name.removeprefix("isoenv.")): file.owner() for file in host.iterdir()}


def give(path: Path, name: str) -> None:
    """Give a file, or a link itself, to a user."""
    user = pwd.getpwnam(name)
    os.lchown(path, user.pw_uid, user.pw_gid)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill what a Person has started; ``runuser`` waits for it, as its only child."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    process.communicate()


# -- two users ----------------------------------------------------------------------------------


def test_a_port_that_another_user_has_leased_is_skipped_and_said(people: list[Person]) -> None:
    first, second = people
    for person in people:
        person.settle_main()
    assert first.isoenv("port", "web", cwd=first.checkout("tree"))[0] == f"{BASE + 1000}\n"
    port, said = second.isoenv("port", "web", cwd=second.checkout("tree"))
    assert port == f"{BASE + 2000}\n"
    line = f"slot 1 skipped: port {BASE + 1000} (web) is claimed by user {first.name}"
    assert [line] == [each.removeprefix("isoenv: ") for each in said.splitlines()]
    assert owners(first.host) == {BASE + 1000: first.name, BASE + 2000: second.name}


@each_config
def test_two_users_who_lease_ten_each_at_once_get_twenty_different_ports(
    people: list[Person], config: str
) -> None:
    trees = []
    for person in people:
        person.settle_main(config)
        trees += [(person, person.checkout(f"tree{number}", config)) for number in range(10)]
    mixed = trees[::2] + trees[1::2]
    running = [
        (person, tree, person.start([person.python, "-m", "isoenv", "port", "web"], cwd=tree))
        for person, tree in mixed
    ]
    held: dict[int, str] = {}
    for person, _tree, process in running:
        stdout, stderr = process.communicate()
        assert process.returncode == 0, stderr
        assert int(stdout) not in held
        held[int(stdout)] = person.name
    claimed = owners(people[0].host)
    if config == BLOCKS:
        held = {port - port % 10 + n: name for port, name in held.items() for n in range(10)}
    assert claimed == held
    # Nothing is moved or made again once it is there.
    for person, tree, _process in running[::7]:
        assert person.isoenv("port", "web", cwd=tree)[1] == ""
    assert owners(people[0].host) == claimed


def test_a_number_that_is_asked_for_is_obeyed_and_the_clash_said_once(
    people: list[Person],
) -> None:
    first, second = people
    first.settle_main()
    first.isoenv("port", "web", cwd=first.checkout("tree"))
    tree = second.checkout("tree")
    _, said = second.isoenv("exec", "1", "--", "true", cwd=tree)
    assert f"port {BASE + 1000} (web) of shop:1 is also claimed by user {first.name}\n" in said
    assert second.isoenv("exec", "1", "--", "true", cwd=tree)[1] == ""
    assert second.isoenv("port", "web", "1", cwd=tree) == (f"{BASE + 1000}\n", "")
    assert owners(first.host) == {BASE + 1000: first.name}


def test_what_is_released_is_free_for_the_other_user(people: list[Person]) -> None:
    first, second = people
    for person in people:
        person.settle_main()
    tree = first.checkout("tree")
    first.isoenv("port", "web", cwd=tree)
    first.isoenv("release", cwd=tree)
    assert owners(first.host) == {}
    port, said = second.isoenv("port", "web", cwd=second.checkout("tree"))
    assert (port, said) == (f"{BASE + 1000}\n", "")


@each_config
def test_after_a_reboot_claims_are_made_again_by_the_next_call(
    people: list[Person], config: str
) -> None:
    first, second = people
    first.settle_main(config)
    tree = first.checkout("tree", config)
    port, _ = first.isoenv("port", "web", cwd=tree)
    claimed = owners(first.host)
    assert int(port) in claimed
    for file in first.host.iterdir():
        file.unlink()
    assert first.isoenv("port", "web", cwd=tree) == (port, "")
    assert owners(first.host) == claimed
    second.settle_main(config)
    assert second.isoenv("port", "web", cwd=second.checkout("tree", config))[0] != port


def test_a_checkout_that_remembers_a_slot_does_not_get_the_port_of_another_user(
    people: list[Person],
) -> None:
    first, second = people
    for person in people:
        person.settle_main()
    tree = first.checkout("tree")
    first.isoenv("port", "web", cwd=tree)
    # With the registry, all that it is rebuilt from and the claims are lost, but not the
    # checkout's own token.
    for file in (*first.state.glob("registry.*"), *first.host.iterdir()):
        file.unlink()
    shutil.rmtree(first.state / "t", ignore_errors=True)
    second.isoenv("port", "web", cwd=second.checkout("tree"))
    first.isoenv("port", "web", cwd=first.home / "main")
    assert first.isoenv("port", "web", cwd=tree)[0] == f"{BASE + 2000}\n"


def test_who_comes_back_after_another_user_keeps_his_port_and_is_told_once(
    people: list[Person],
) -> None:
    first, second = people
    for person in people:
        person.settle_main()
    tree = first.checkout("tree")
    first.isoenv("port", "web", cwd=tree)
    (first.host / f"isoenv.{BASE + 1000}").unlink()
    second.isoenv("port", "web", cwd=(theirs := second.checkout("tree")))
    port, said = first.isoenv("port", "web", cwd=tree)
    assert port == f"{BASE + 1000}\n"
    line = f"isoenv: port {BASE + 1000} (web) of shop:1 is also claimed by user {second.name}\n"
    assert said == line
    assert first.isoenv("port", "web", cwd=tree) == (port, "")
    # It is his again as soon as the other one has given it back.
    second.isoenv("release", cwd=theirs)
    assert first.isoenv("port", "web", cwd=tree) == (port, "")
    assert owners(first.host) == {BASE + 1000: first.name}


def test_a_claim_of_a_killed_process_is_given_back_by_the_next_lease_of_its_user(
    people: list[Person],
) -> None:
    first, second = people
    first.settle_main()
    killed = first.start([first.python, "-c", STOPPED, "31000"])
    assert killed.stdout
    assert killed.stdout.readline() == "None\n"
    code = STOPPED.replace("time.sleep(600)", "")
    assert second.run([second.python, "-c", code, "31000"])[0] == f"claimed by user {first.name}\n"
    kill(killed)
    assert 31000 in ports_in_claims(first.host)
    first.isoenv("port", "web", cwd=first.checkout("tree"))
    assert second.run([second.python, "-c", code, "31000"])[0] == "None\n"


def ports_in_claims(host: Path) -> set[int]:
    """Return the claimed ports; a killed process leaves its draft as well."""
    return {
        int(file.name.removeprefix("isoenv."))
        for file in host.iterdir()
        if not file.name.startswith(host_directory.DRAFT)
    }


def test_processes_killed_at_any_moment_leave_no_claim_behind_and_lose_none(
    people: list[Person],
) -> None:
    first = people[0]
    first.settle_main()
    config = CONFIG.format(base=BASE).replace("[ports]", "[instance]\nstride = 10\n[ports]")
    trees = [first.checkout(f"tree{number}", config) for number in range(20)]
    seed = str(int.from_bytes(os.urandom(4), "big"))
    first.run([first.python, "-c", SWARM, seed, *map(str, trees)])
    with Registry(str(first.state)) as registry:
        survived = {lease.root: lease.ports["web"] for lease in registry.leases() if lease.slot}
    left = ports_in_claims(first.host) - set(survived.values())
    print(f"seed {seed}: {len(survived)} leased, {len(left)} claims left")  # noqa: T201  # how often it hit
    assert survived
    assert set(survived.values()) <= ports_in_claims(first.host)
    given = [int(first.isoenv("port", "web", cwd=tree)[0]) for tree in trees]
    assert len(set(given)) == 20
    for tree, port in zip(trees, given, strict=True):
        assert survived.get(str(tree), port) == port
    assert ports_in_claims(first.host) == set(given)


def test_another_user_can_neither_lock_nor_remove_a_claim(people: list[Person]) -> None:
    first, second = people
    first.settle_main()
    first.isoenv("port", "web", cwd=first.checkout("tree"))
    file = first.host / f"isoenv.{BASE + 1000}"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    code = (
        "import os, sys\n"
        "for attempt in (os.unlink, lambda name: os.open(name, os.O_RDONLY),\n"
        "                lambda name: os.rename(name, name + '0')):\n"
        "    try:\n"
        "        attempt(sys.argv[1])\n"
        "    except PermissionError:\n"
        "        print('refused')\n"
    )
    assert second.run([second.python, "-c", code, str(file)])[0] == "refused\n" * 3


def test_a_user_who_locks_the_directory_for_ever_stops_nobody(people: list[Person]) -> None:
    first, second = people
    first.settle_main()
    tree = first.checkout("tree")
    code = (
        "import fcntl, os, sys, time\n"
        "fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX)\n"
        "print('held', flush=True); time.sleep(600)"
    )
    holder = second.start([second.python, "-c", code, str(first.host)])
    assert holder.stdout
    assert holder.stdout.readline() == "held\n"
    assert first.isoenv("port", "web", cwd=tree) == (f"{BASE + 1000}\n", "")
    kill(holder)


def doctor(person: Person, cwd: Path, *args: str) -> tuple[int, dict[str, str]]:
    """Return the exit code and the messages, by kind, of what a user's doctor finds."""
    process = person.start([person.python, "-m", "isoenv", "doctor", "--json", *args], cwd=cwd)
    stdout, stderr = process.communicate()
    assert stderr == ""
    rows = json.loads(stdout)["doctor"]
    return process.returncode, {
        row["kind"]: row["message"] for row in rows if row["kind"] != "ephemeral"
    }


def test_in_the_directory_that_is_the_default_two_users_never_get_one_port(
    people: list[Person],
) -> None:
    trees = [person.checkout(name) for name in ("main", "tree") for person in people]
    calls = []
    for person, tree in zip(people * 2, trees, strict=True):
        environ = f"HOME={person.home} ISOENV_STATE_DIR={person.state} PYTHONPATH={ROOT}:{PACKAGES}"
        run = f"runuser -u {person.name} -- env {environ} {person.python} -m isoenv port web"
        calls.append(f"(cd {tree} && {run})")
    script = "mount -t tmpfs -o mode=1777 tmpfs /run/lock && " + " && ".join(
        [*calls, "stat -c '%n %U' /run/lock/*"]
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script],
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *ports, first, second = done.stdout.splitlines()
    assert [int(port) - BASE for port in ports] == [0, 0, 1000, 2000]
    assert first == f"/run/lock/isoenv.{BASE + 1000} {people[0].name}"
    assert second == f"/run/lock/isoenv.{BASE + 2000} {people[1].name}"


def test_a_listener_of_another_user_is_passed_over_and_found_by_doctor(
    people: list[Person], free_port: Callable[[], int]
) -> None:
    victim, other = people
    base = free_port()
    config = CONFIG.format(base=base)
    victim.settle_main(config)
    code = (
        "import socket, sys\n"
        "held = [socket.create_server(('127.0.0.1', int(port))) for port in sys.argv[1:]]\n"
        "print('listening', flush=True); import time; time.sleep(600)\n"
    )
    argv = [other.python, "-c", code]
    servers = [other.start([*argv, str(base + 1000)])]
    assert servers[0].stdout
    assert servers[0].stdout.readline() == "listening\n"
    tree = victim.checkout("tree", config)
    port, said = victim.isoenv("port", "web", cwd=tree)
    assert int(port) == base + 2000
    assert f"port {base + 1000} (web) is held by another user's process" in said
    assert doctor(victim, tree) == (0, {})
    servers.append(other.start([*argv, str(base + 2000)]))
    assert servers[1].stdout
    assert servers[1].stdout.readline() == "listening\n"
    message = f"port {base + 2000} (web) of shop/2 tree is held by another user's process"
    assert doctor(victim, tree) == (1, {"stranger": message})
    for server in servers:
        kill(server)


def test_doctor_finds_a_port_that_another_user_has_too(people: list[Person]) -> None:
    first, second = people
    first.settle_main()
    first.isoenv("port", "web", cwd=first.checkout("tree"))
    tree = second.checkout("tree")
    second.isoenv("exec", "1", "--", "true", cwd=tree)
    message = f"port {BASE + 1000} (web) of shop/1 shop-1 is claimed by user {first.name} too"
    assert doctor(second, tree) == (1, {"claimed-elsewhere": message})
    assert doctor(first, first.home / "tree") == (0, {})


def test_a_state_directory_of_another_user_is_said_and_not_used(people: list[Person]) -> None:
    first, second = people
    first.settle_main()
    tree = second.checkout("tree")
    assert stat.S_IMODE(first.state.stat().st_mode) == 0o700
    for mode, said in (
        (0o700, f"wrong: cannot use {first.state}: permission denied"),
        (0o755, f"wrong: {first.state} belongs to user {first.name}, and this is {second.name}"),
    ):
        first.home.chmod(mode)
        process = second.start([second.python, "-m", "isoenv", "doctor"], tree, first.state)
        stdout, stderr = process.communicate()
        assert (process.returncode, stderr) == (1, "")
        assert said in stdout


def test_what_root_has_left_in_the_state_directory_of_a_user_is_said(
    people: list[Person],
) -> None:
    victim, _ = people
    victim.settle_main()
    give(victim.state / "registry.db", "root")
    found = doctor(victim, victim.home)[1]
    assert f"{victim.state}/registry.db belongs to user root, and this" in found["state-owner"]


# -- hostile files ------------------------------------------------------------------------------


def link_to_shadow(path: Path) -> None:
    path.symlink_to("/etc/shadow")


def link_to_a_claim(path: Path) -> None:
    claimed = path.with_name("isoenv.999")
    claimed.write_bytes(b"isoenv 1\0/\x001\0")
    path.symlink_to(claimed)


def link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def pipe(path: Path) -> None:
    os.mkfifo(path)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def unreadable(path: Path) -> None:
    path.touch(mode=0)


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(4096))


def in_the_name_of_another(path: Path) -> None:
    state = os.fsencode(os.environ["ISOENV_STATE_DIR"])
    path.write_bytes(b"isoenv 1\0%s\x001\0" % state)


@pytest.mark.parametrize(
    "make",
    [
        *(link_to_shadow, link_to_a_claim, link_to_itself, directory, pipe, listening, huge),
        *(unreadable, garbage, in_the_name_of_another),
    ],
)
def test_whatever_another_user_puts_there_is_his_claim_and_is_never_opened(
    people: list[Person], registry: Registry, host: Path, make: Callable[[Path], None]
) -> None:
    victim, hostile = people
    path = host / f"isoenv.{BASE + 1000}"
    make(path)
    give(path, hostile.name)
    before = os.lstat(path)
    assert claim(registry, BASE + 1000) == [f"claimed by user {hostile.name}"]
    victim.settle_main()
    port, said = victim.isoenv("port", "web", cwd=victim.checkout("tree"))
    assert port == f"{BASE + 2000}\n"
    assert f"is claimed by user {hostile.name}\n" in said
    after = os.lstat(path)
    assert (after.st_atime_ns, after.st_ctime_ns) == (before.st_atime_ns, before.st_ctime_ns)


def test_doctor_neither_follows_nor_waits_for_what_another_user_puts_there(
    people: list[Person],
) -> None:
    victim, hostile = people
    victim.settle_main()
    tree = victim.checkout("tree")
    victim.isoenv("port", "web", cwd=tree)
    kinds = (link_to_shadow, link_to_itself, directory, pipe, listening, huge, unreadable, garbage)
    paths_ = [victim.host / f"isoenv.{31000 + number}" for number in range(len(kinds))]
    for make, path in zip(kinds, paths_, strict=True):
        make(path)
        give(path, hostile.name)
    before = [os.lstat(path) for path in paths_]
    assert doctor(victim, tree, "--fix") == (0, {})
    for path, known in zip(paths_, before, strict=True):
        after = os.lstat(path)
        assert (after.st_atime_ns, after.st_ctime_ns) == (known.st_atime_ns, known.st_ctime_ns)


@pytest.mark.parametrize("make", [garbage, huge, unreadable, link_to_shadow, pipe])
def test_rubbish_of_ones_own_keeps_nobody_from_a_lease(
    registry: Registry, host: Path, make: Callable[[Path], None]
) -> None:
    make(host / "isoenv.31000")
    [reason] = claim(registry, 31000)
    assert reason in (None, "claimed by yourself")
    assert Path("/etc/shadow").exists()


def test_names_that_are_no_claims_are_left_alone(registry: Registry, host: Path) -> None:
    names = [
        *("isoenv.", "isoenv.web", "isoenv.-1", "isoenv.1e3", "isoenv.²", "isoenv.100000"),
        *("isoenv." + "9" * 240, "31000", "isoenv.31000.1", "isoenv.new", "\udcff", "new\nline"),
    ]
    for name in names:
        Path(host / name).touch()
    assert claim(registry, 31000) == [None]
    assert set(os.listdir(host)) == set(names)


def test_who_claims_every_port_keeps_nobody_from_a_lease(people: list[Person]) -> None:
    victim, hostile = people
    victim.settle_main(BLOCKS)
    code = (
        "import os, sys\n"
        "os.chdir(sys.argv[1])\n"
        "for port in range(1, 65536):\n"
        "    if port % 1000 == 1: open(f'isoenv.{port}', 'x').close(); first = port\n"
        "    else: os.link(f'isoenv.{first}', f'isoenv.{port}')\n"
    )
    hostile.run([hostile.python, "-c", code, str(hostile.host)])
    port, said = victim.isoenv("port", "web", cwd=victim.checkout("tree", BLOCKS))
    assert 20000 <= int(port) < 32760
    assert (
        f"isoenv: the claims of user {hostile.name} do not count, they are more than 8192: "
        f"`sudo find {hostile.host} -name 'isoenv.*' -user {hostile.name} -delete`\n"
    ) in said
    assert victim.isoenv("port", "web", cwd=victim.home / "tree") == (port, "")


def test_a_flooded_directory_is_looked_through_only_so_far(
    registry: Registry, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(host_directory, "ENTRIES", 20)
    for number in range(200):
        (host / f"isoenv.{number + 1}").touch()
    folder = os.open(host, os.O_RDONLY)
    looked += [entry.name for entry in host_directory.entries(folder)]
    os.close(folder)
    assert len(looked) == 20
    assert claim(registry, 31000) == [None]


def test_a_hard_link_to_a_file_of_the_victims_harms_neither(
    people: list[Person],
) -> None:
    """Where fs.protected_hardlinks is off, anybody can give anybody's file the name of a claim."""
    victim, _hostile = people
    victim.settle_main()
    precious = victim.home / "precious"
    precious.write_text("all my work\n")
    give(precious, victim.name)
    os.link(precious, victim.host / f"isoenv.{BASE + 1000}")
    tree = victim.checkout("tree")
    assert victim.isoenv("port", "web", cwd=tree) == (f"{BASE + 1000}\n", "")
    assert precious.read_text() == "all my work\n"
    os.link(precious, victim.host / "isoenv.31000")
    assert doctor(victim, tree) == (0, {})
    assert precious.read_text() == "all my work\n"


# -- several registries of one user -------------------------------------------------------------


def test_two_registries_of_one_user_see_each_others_claims(
    registry: Registry, other: Registry, host: Path
) -> None:
    reserve(other, 31000)
    assert claim(registry, 31000, 31001) == [f"claimed by your registry in {other.state}", None]
    assert ports_in(host) == {31000}


def test_a_claim_whose_registry_is_gone_is_taken_over(
    registry: Registry, tmp_path: Path, host: Path
) -> None:
    with Registry(str(tmp_path / "deep/gone")) as gone:
        reserve(gone, 31000)
        reserve(gone, 31001, slot=2)
    shutil.rmtree(tmp_path / "deep")
    reserve(registry, 31000)
    # The other one was in nobody's way, and is removed all the same.
    assert ports_in(host) == {31000}
    assert registry.host.is_whole([(31000, False)])


def test_a_claim_whose_lease_is_gone_is_taken_over(
    registry: Registry, other: Registry, host: Path
) -> None:
    lease = reserve(other, 31000)
    other.connection.execute("DELETE FROM lease WHERE id = ?", (lease.id,))
    assert claim(registry, 31000) == [None]
    assert ports_in(host) == set()


def test_a_claim_whose_git_dir_is_gone_is_taken_over(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    lease = reserve(other, 31000)
    place = tmp_path / "tree"
    place.mkdir()
    status = os.stat(place)
    other.connection.execute(
        "UPDATE lease SET git_dir = ?, device = ?, inode = ? WHERE id = ?",
        (os.fsencode(place), str(status.st_dev), str(status.st_ino), lease.id),
    )
    assert claim(registry, 31000) == [f"claimed by your registry in {other.state}"]
    place.rmdir()
    assert claim(registry, 31000) == [None]


def test_a_claim_whose_checkout_was_made_again_is_taken_over(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    lease = reserve(other, 31000)
    with other.transaction():
        other.settle(lease, Checkout(str(tree)), str(tree), "ab" * 16)
    assert claim(registry, 31000) == [f"claimed by your registry in {other.state}"]
    # Another checkout has been entered there, whose inode may be the same.
    with other.transaction():
        other.disown(str(tree), "cd" * 16)
    assert claim(registry, 31000) == [None]


def test_a_block_of_another_registry_is_claimed_whole(registry: Registry, other: Registry) -> None:
    lease = reserve(other, 31000)
    with other.transaction():
        assert [other.host.claim(port) for port in range(31000, 31010)] == [None] * 10
        other.add_block(lease, 0, 31000)
    assert claim(registry, 31009) == [f"claimed by your registry in {other.state}"]


def test_a_registry_on_a_disk_that_is_not_there_keeps_its_claims(
    registry: Registry, tmp_path: Path, host: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "size=4m"), Registry(str(disk / "state")) as away:
        reserve(away, 31000)
    assert claim(registry, 31000) == [f"claimed by your registry in {disk}/state"]
    assert ports_in(host) == {31000}


def test_a_registry_that_cannot_be_read_keeps_its_claims(
    registry: Registry, other: Registry
) -> None:
    reserve(other, 31000)
    other.connection.close()
    for file in Path(other.state).iterdir():
        file.write_bytes(b"no database at all" * 100)
    assert claim(registry, 31000) == [f"claimed by your registry in {other.state}"]


def test_a_claim_in_a_running_transaction_is_judged_by_nobody(
    registry: Registry, other: Registry, host: Path
) -> None:
    with registry.transaction():
        assert registry.host.claim(31000) is None
        # It is in no registry yet, and what is in none would be taken over.
        assert claim(other, 31000) == [f"claimed by your registry in {registry.state}"]
    assert ports_in(host) == set()
    assert claim(other, 31000) == [None]


def test_a_claim_left_behind_is_adopted_or_taken_over_but_not_both(
    registry: Registry, other: Registry, tmp_path: Path
) -> None:
    leave_behind(tmp_path / "state", 31000)
    with registry.transaction():
        assert registry.host.claim(31000) is None
        assert claim(other, 31000) == [f"claimed by your registry in {registry.state}"]
    leave_behind(tmp_path / "state", 31000)
    with other.transaction():
        assert other.host.claim(31000) is None
        assert claim(registry, 31000) == [f"claimed by your registry in {other.state}"]


def leave_behind(state: Path, port: int) -> None:
    """Let a process be killed that has claimed a port."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "ISOENV_STATE_DIR": str(state)}
    argv = [sys.executable, "-c", STOPPED, str(port)]
    with subprocess.Popen(argv, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "None\n"
        process.kill()


def test_a_registry_reached_by_another_path_is_the_same(registry: Registry, tmp_path: Path) -> None:
    reserve(registry, 31000)
    (tmp_path / "link").symlink_to(tmp_path / "state")
    with Registry(str(tmp_path / "link")) as again:
        assert claim(again, 31000) == [None]
    assert registry.host.is_whole([(31000, False)])


def test_users_and_registries_that_claim_at_once_never_have_one_port_twice(
    shared: Path, host: Path
) -> None:
    states = []
    for name in ("root", *NEIGHBOURS):
        for number in range(2):
            states.append(shared / f"{name}-{number}")
            states[-1].mkdir(mode=0o700)
            shutil.chown(states[-1], name, pwd.getpwnam(name).pw_gid)
    witnesses = shared / "witnesses"
    witnesses.mkdir()
    witnesses.chmod(0o777)
    seed = os.urandom(4).hex()
    print("seed", seed)  # noqa: T201  # to do it again
    done = subprocess.run(
        [sys.executable, "-c", CROWD, seed, str(host), str(witnesses), *map(str, states)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# -- with the registry --------------------------------------------------------------------------


def test_a_transaction_that_fails_leaves_no_claim(registry: Registry, host: Path) -> None:
    reserve(registry, 31000)

    def fail() -> None:
        with registry.transaction():
            assert registry.host.claim(31001) is None
            assert registry.host.claim(31000) is None
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ports_in(host) == {31000}


def test_a_commit_that_fails_leaves_no_claim(registry: Registry, host: Path) -> None:
    def fail() -> None:
        with registry.transaction():
            registry.connection.execute("PRAGMA defer_foreign_keys = ON")
            registry.connection.execute("INSERT INTO reservation VALUES (99, 'web', 31000, 0)")
            assert registry.host.claim(31000) is None

    with pytest.raises(RegistryError):
        fail()
    assert ports_in(host) == set()


def test_a_claim_is_there_before_its_lease_is(registry: Registry, host: Path) -> None:
    with registry.transaction():
        registry.host.claim(31000)
        assert ports_in_claims(host) == {31000}
        assert registry.leases() == []


def test_the_port_of_a_lease_that_moves_is_given_back(
    registry: Registry, host: Path, tmp_path: Path
) -> None:
    for name in ("main", "tree"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "isoenv.toml").write_text(CONFIG.format(base=BASE))
    places = {
        name: context.find(context.Caller(str(tmp_path / name), os.environ)).claim
        for name in ("main", "tree")
    }
    assert leasing.hold(registry, places["main"]).slot == 0
    assert ports_in(host) == set(), "the bases of slot 0 are nobody's"
    leasing.hold(registry, places["tree"])
    assert ports_in(host) == {BASE + 1000}
    leasing.take(registry, places["tree"], 5, None)
    assert ports_in(host) == {BASE + 5000}
    (tmp_path / "tree" / "isoenv.toml").write_text(CONFIG.format(base=BASE + 1) + "api = 22000\n")
    changed = context.find(context.Caller(str(tmp_path / "tree"), os.environ)).claim
    leasing.hold(registry, changed)
    assert ports_in(host) == {BASE + 5001, 27000}


def test_a_lease_that_is_settled_costs_no_look_at_the_claims_of_others(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "isoenv.toml").write_text(CONFIG.format(base=BASE))
    place = context.find(context.Caller(str(tmp_path), os.environ)).claim
    lease = leasing.hold(registry, place, 3)

    def refuse(*_arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr(host_directory, "entries", refuse)
    monkeypatch.setattr(HostClaims, "claim", refuse)
    assert leasing.hold(registry, place) == lease
    assert leasing.hold_number(registry, place, 3) == lease


# -- the directory ------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(directory: Path, options: str) -> Iterator[None]:
    argv = ["mount", "-t", "tmpfs", "-o", f"mode=1777,{options}", "tmpfs", str(directory)]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        fail_or_skip("this root may not mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def lease_in(tmp_path: Path, name: str) -> tuple[int, list[str]]:
    """Lease in a directory of a project of its own; return its slot, and what was said."""
    place = tmp_path / name
    place.mkdir()
    (place / "isoenv.toml").write_text(CONFIG.format(base=BASE))
    said: list[str] = []
    caller = context.Caller(str(place), os.environ, said.append)
    with Registry(paths.state_dir(os.environ)) as registry:
        return leasing.hold(registry, context.find(caller).claim).slot, said


def assert_unused(tmp_path: Path, directory: Path, problem: str) -> None:
    """Check that leases are given without the directory, and that it is said once."""
    assert lease_in(tmp_path, "main") == (0, [])
    line = (
        f"other users cannot see which ports are leased: {problem}: "
        f"`sudo install -d -o root -m 1777 {directory}`, or set ISOENV_HOST_DIR"
    )
    assert lease_in(tmp_path, "one") == (1, [line])
    assert lease_in(tmp_path, "two") == (2, [])


def test_a_missing_directory_is_made_for_all_users(
    people: list[Person], host: Path, tmp_path: Path
) -> None:
    host.rmdir()
    lease_in(tmp_path, "main")
    assert lease_in(tmp_path, "one") == (1, [])
    assert stat.S_IMODE(host.stat().st_mode) == 0o1777
    people[0].settle_main()
    people[0].isoenv("port", "web", cwd=people[0].checkout("tree"))
    assert owners(host) == {BASE + 1000: "root", BASE + 2000: people[0].name}


def test_a_missing_directory_that_a_user_makes_is_his_own(people: list[Person]) -> None:
    first, second = people
    first.host.parent.chmod(0o777)
    first.host.rmdir()
    for person in people:
        person.settle_main()
    assert first.isoenv("port", "web", cwd=first.checkout("tree"))[1] == ""
    assert stat.S_IMODE(first.host.stat().st_mode) == 0o700
    _, said = second.isoenv("port", "web", cwd=second.checkout("tree"))
    assert "permission denied" in said
    assert "`sudo install -d -o root -m 1777 " in said


def test_a_directory_that_cannot_be_made_is_said_once(
    tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = shared / "no/such"
    monkeypatch.setenv("ISOENV_HOST_DIR", str(directory))
    problem = f"cannot open {directory}: no such file or directory"
    assert_unused(tmp_path, directory, problem)


def test_a_directory_that_others_could_tamper_with_is_not_used(tmp_path: Path, host: Path) -> None:
    host.chmod(0o777)
    assert_unused(tmp_path, host, f"{host} is writable by others and not sticky")
    assert list(host.iterdir()) == []


def test_a_directory_of_another_user_is_not_used(tmp_path: Path, host: Path) -> None:
    give(host, "games")
    assert_unused(tmp_path, host, f"{host} belongs to user games")
    assert list(host.iterdir()) == []


def test_a_link_to_a_directory_is_not_followed(
    tmp_path: Path, host: Path, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = shared / "link"
    link.symlink_to(host)
    monkeypatch.setenv("ISOENV_HOST_DIR", str(link))
    assert_unused(tmp_path, link, f"cannot open {link}: not a directory")
    assert list(host.iterdir()) == []


def test_a_full_disk_is_said_and_the_claims_of_others_still_count(
    tmp_path: Path, host: Path
) -> None:
    with mounted(host, "nr_inodes=3"):
        theirs = host / f"isoenv.{BASE + 1000}"
        theirs.touch()
        give(theirs, "games")
        (host / f"isoenv.{BASE + 2000}").hardlink_to(theirs)
        lease_in(tmp_path, "main")
        slot, said = lease_in(tmp_path, "one")
        assert slot == 3
        problem = f"cannot write to {host}: no space left on device: `"
        assert any(problem in line for line in said)
        assert sum(line.endswith("is claimed by user games") for line in said) == 2
        assert lease_in(tmp_path, "two")[0] == 4
        assert ports_in(host) == {BASE + 1000, BASE + 2000}


def test_a_disk_without_room_for_a_byte_leaves_no_half_claim(tmp_path: Path, host: Path) -> None:
    with mounted(host, "size=4k"):
        (host / "filler").write_bytes(b"x" * 4096)
        assert_unused(tmp_path, host, f"cannot write to {host}: no space left on device")
        assert [path.name for path in host.iterdir()] == ["filler"]
    # With room again the next call makes up for it.
    with Registry(paths.state_dir(os.environ)) as registry:
        caller = context.Caller(str(tmp_path / "one"), os.environ)
        leasing.hold(registry, context.find(caller).claim)
    assert ports_in(host) == {BASE + 1000}


def test_a_read_only_directory_is_said_once(tmp_path: Path, host: Path) -> None:
    with mounted(host, "ro"):
        assert_unused(tmp_path, host, f"cannot write to {host}: read-only file system")


def test_a_directory_closed_to_a_user_is_said_once(people: list[Person]) -> None:
    first, _ = people
    first.host.chmod(0o755)
    first.settle_main()
    tree = first.checkout("tree")
    _, said = first.isoenv("port", "web", cwd=tree)
    assert f"cannot write to {first.host}: permission denied: `" in said
    assert first.isoenv("port", "web", cwd=tree)[1] == ""


def test_another_reason_is_said_again(tmp_path: Path, host: Path) -> None:
    lease_in(tmp_path, "main")
    host.chmod(0o777)
    assert len(lease_in(tmp_path, "one")[1]) == 1
    give(host, "games")
    assert len(lease_in(tmp_path, "two")[1]) == 1
    assert lease_in(tmp_path, "three")[1] == []


def test_a_draft_is_removed_when_it_is_old(registry: Registry, host: Path) -> None:
    fresh, old, theirs = (host / f"isoenv.new.{name}" for name in ("fresh", "old", "theirs"))
    for file in (fresh, old, theirs):
        file.touch()
    give(theirs, "games")
    for file in (old, theirs):
        os.utime(file, (0, 0))
    claim(registry, 31000)
    assert sorted(host.iterdir()) == [fresh, theirs]


def test_the_default_is_a_directory_of_root_that_all_may_write_to() -> None:
    directory = paths.host_dir({})
    assert directory in ("/run/lock", "/tmp")  # noqa: S108  # by name alone
    status = os.lstat(directory)
    assert (status.st_uid, stat.S_IMODE(status.st_mode)) == (0, 0o1777)


def test_a_relative_directory_is_refused() -> None:
    with pytest.raises(IsoenvError, match="ISOENV_HOST_DIR=claims is relative"):
        paths.host_dir({"ISOENV_HOST_DIR": "claims"})
    assert paths.host_dir({"ISOENV_HOST_DIR": "/srv/claims/"}) == "/srv/claims"
