"""Leases of users under random operations and kill -9, against a model of what they promise.

A short run is a test. ``tests/soak.py`` is the long one: `make soak`.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import signal
import socket
import stat
import sys
import tempfile
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

import isoenv
from isoenv import context, identity, leasing, pruning
from isoenv.errors import IsoenvError
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from isoenv.models import Lease

# Two registries of one user, and that of another user where root runs the model.
USERS = ("ann", "bob", "eve")
# At most so many checkouts of a user, so that they meet.
MOST = 9
# Calls of functions after which a child is killed; what it does takes fewer than that.
LATEST = 4000

# Into each other's way: each slot of the one lies in a block that the other may choose.
OFFSET = 'project = "shop"\n[instance]\nstride = 20\n[ports]\nweb = {base}\napi = {next}\n'
BLOCK = (
    'project = "blog"\n[instance]\nports = "block"\nrange = [{base}, {last}]\n[ports]\nweb = 3000\n'
)

# What has happened in all machines of this process, for who runs them for long.
tally: Counter[str] = Counter()


@dataclass(eq=False)
class Tree:
    """A checkout."""

    user: str
    project: str
    path: str
    # A linked worktree has its git dir in that of another one.
    git_dir: str | None = None


class Key(NamedTuple):
    user: str
    project: str
    slot: int


@dataclass(eq=False)
class Held:
    """What was returned for a checkout. ``path`` is where the registry knows it to be.

    ``told`` says that a clash was said with it: an explicit number is obeyed, and who comes back
    keeps a port that another registry has taken from a checkout that was not where it had been.
    """

    tree: Tree
    name: str
    ports: dict[str, int]
    path: str
    token: str | None
    told: bool = False
    gone: bool = False


def uids() -> dict[str, int]:
    """Return the users that are others than who runs the model."""
    if os.geteuid():
        return {}
    # They import what isoenv imports late.
    places = isoenv.__path__[0], sys.prefix, sys.base_prefix, tempfile.gettempdir()
    for path in (f"{place}/" for place in places):
        while (path := os.path.dirname(path)) != "/":
            if not os.stat(path).st_mode & stat.S_IXOTH:
                return {}
    return {"eve": pwd.getpwnam("nobody").pw_uid}


def free_base() -> int:
    """Return a port that nobody holds; above it are 700 that no other test has."""
    while True:
        port = random.randrange(10, 20) * 1000  # noqa: S311  # no secret
        try:
            socket.create_server(("::", port), family=socket.AF_INET6).close()
        except OSError:
            continue
        return port


class Leases(RuleBasedStateMachine):
    """Users with a registry each on one host; two projects, in offsets and in blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.top = tempfile.mkdtemp(prefix="isoenv-model-")
        os.environ["ISOENV_HOST_DIR"] = f"{self.top}/host"
        os.environ["XDG_CONFIG_HOME"] = f"{self.top}/config"
        os.chmod(self.top, 0o711)  # noqa: S103  # each user has directories of their own in it
        self.uids = uids()
        for name, mode in (("host", 0o1777), *((user, 0o755) for user in USERS)):
            os.mkdir(f"{self.top}/{name}")
            os.chmod(f"{self.top}/{name}", mode)
        for user, uid in self.uids.items():
            os.chown(f"{self.top}/{user}", uid, -1)
        base = free_base()
        self.configs = {
            "shop": OFFSET.format(base=base, next=base + 1),
            "blog": BLOCK.format(base=base + 20, last=base + 699),
        }
        self.numbers = count()
        self.trees: list[Tree] = []
        self.held: dict[Key, Held] = {}
        # Slots that were given back, and the token of who did it.
        self.resting: dict[Key, str | None] = {}
        self.said: list[str] = []
        # Whose registries were opened since they were looked at last.
        self.touched: set[str] = set()

    def teardown(self) -> None:
        shutil.rmtree(self.top)

    # -- the real thing --------------------------------------------------------------------

    @contextmanager
    def acting(self, user: str) -> Iterator[None]:
        """Give a context in which this process is a user's."""
        own = os.geteuid()
        os.seteuid(self.uids.get(user, own))
        try:
            yield
        finally:
            os.seteuid(own)

    @contextmanager
    def open(self, user: str) -> Iterator[Registry]:
        """Open a user's registry, as each command does."""
        with self.acting(user), Registry(self.state(user)) as registry:
            tally["rebuilt"] += any("is rebuilt" in note for note in registry.take_notes())
            yield registry

    def state(self, user: str) -> str:
        return f"{self.top}/{user}/state"

    def claim(self, tree: Tree) -> leasing.Claim:
        caller = context.Caller(tree.path, os.environ, self.said.append)
        return context.find(caller).claim

    def write(self, directory: str, project: str) -> None:
        with open(f"{directory}/isoenv.toml", "w", encoding="ascii") as file:
            file.write(self.configs[project])

    def new_path(self, user: str) -> str:
        return f"{self.top}/{user}/{user}{next(self.numbers)}"

    def make_repository(self, path: str, project: str) -> None:
        """Make what isoenv looks at of a repository."""
        for name in ("objects", "refs"):
            os.makedirs(f"{path}/.git/{name}")
        for name in ("HEAD", "config"):
            os.close(os.open(f"{path}/.git/{name}", os.O_CREAT | os.O_WRONLY))
        self.write(path, project)

    def make_worktree(self, main: str, path: str, project: str) -> str:
        """Make what `git worktree add` does of a linked work tree; return its git dir."""
        git_dir = f"{main}/.git/worktrees/{os.path.basename(path)}"
        os.makedirs(git_dir)
        os.mkdir(path)
        for file, text in (
            (f"{git_dir}/HEAD", "0\n"),
            (f"{git_dir}/commondir", "../..\n"),
            (f"{git_dir}/gitdir", f"{path}/.git\n"),
            (f"{path}/.git", f"gitdir: {git_dir}\n"),
        ):
            with open(file, "w", encoding="ascii") as opened:
                opened.write(text)
        self.write(path, project)
        return git_dir

    def run(self, user: str, action: Callable[[Registry], object], kill_at: int | None) -> bool:
        """Do something, in a child that is killed in the middle; return whether it was."""
        tally["operations"] += 1
        self.touched.add(user)
        if kill_at is None:
            with self.open(user) as registry:
                action(registry)
            return False
        if (pid := os.fork()) == 0:
            self.die_at(user, action, kill_at)
        _, status = os.waitpid(pid, 0)
        was_killed = os.WIFSIGNALED(status)
        assert was_killed or os.WEXITSTATUS(status) == 0
        tally["killed"] += was_killed
        with self.open(user) as registry:
            rows = registry.connection.execute("PRAGMA integrity_check").fetchall()
            assert rows == [("ok",)]
            assert not registry.connection.execute("PRAGMA foreign_key_check").fetchall()
        return was_killed

    def die_at(self, user: str, action: Callable[[Registry], object], kill_at: int) -> None:
        """Do something, and die by SIGKILL in the middle of it."""
        calls = count()

        def profile(_frame: FrameType, _event: str, _argument: object) -> None:
            if next(calls) == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.setprofile(profile)
            with self.open(user) as registry:
                action(registry)
            sys.setprofile(None)
            os._exit(0)
        except IsoenvError:
            os._exit(0)
        finally:
            os._exit(1)

    # -- the model -------------------------------------------------------------------------

    def own(self, tree: Tree) -> Key | None:
        """Return what a checkout holds."""
        return next((key for key, held in self.held.items() if held.tree is tree), None)

    def is_away(self, held: Held) -> bool:
        """Whether the registry may take a checkout for gone: it is, or has moved unseen."""
        return held.gone or (held.tree.git_dir is None and held.tree.path != held.path)

    def returned(self, tree: Tree, lease: Lease, *, asked: bool) -> None:
        """Take note of what a checkout was given, which must be what it had."""
        key = Key(tree.user, tree.project, lease.slot)
        assert lease.root
        before = self.pass_on(tree, lease)
        # What was said to who had it before is not said again.
        told = any("also" in line for line in self.said) or (before is not None and before.told)
        former = self.own(tree)
        at_key = self.held.get(key)
        if former == key and at_key:
            if not asked:
                assert at_key.ports == dict(lease.ports), "a lease has changed its ports"
            assert asked or at_key.name == lease.name, "a lease has changed its name"
            at_key.path, at_key.told = lease.root, at_key.told or told
            at_key.ports, at_key.name, at_key.token = dict(lease.ports), lease.name, lease.token
            return
        if former and not asked:
            assert self.is_away(self.held[former]), f"{former} was lost"
        if at_key and at_key.tree is not tree:
            assert self.is_away(at_key), f"{key} was given twice"
        elif not asked and former is None and key.slot:
            assert not told or before, f"{key} was chosen although it clashes"
            rests_for = self.resting.get(key, lease.token)
            assert rests_for == lease.token, f"{key} did not rest"
        if former:
            del self.held[former]
            self.resting[former] = lease.token
        self.resting.pop(key, None)
        self.held[key] = Held(tree, lease.name, dict(lease.ports), lease.root, lease.token, told)

    def pass_on(self, tree: Tree, lease: Lease) -> Held | None:
        """Forget who had a lease before: a copy is the checkout itself where that has gone away.

        Return what they had of its slot: another registry may have the ports since they went away.
        """
        before = None
        for key, held in list(self.held.items()):
            is_same = key[:2] == (tree.user, tree.project) and held.token == lease.token
            if is_same and held.tree is not tree:
                assert self.is_away(held), f"{key} was passed on"
                del self.held[key]
                if key.slot == lease.slot:
                    before = held
                else:
                    self.resting[key] = held.token
        return before

    def look_again(self, tree: Tree, *, asked: bool = False) -> None:
        """Find out what a killed process has done for a checkout: all of it, or nothing."""
        with self.open(tree.user) as registry:
            lease = leasing.find(registry, self.claim(tree))
            shared = lease is not None and any(also for _, also in registry.reservations(lease))
        former = self.own(tree)
        if lease is None:
            if former:
                self.resting[former] = self.held.pop(former).token
            return
        # Returned to nobody yet: the next one to ask gets it.
        self.said = ["also"] if shared else []
        self.returned(tree, lease, asked=asked)

    # -- what happens ----------------------------------------------------------------------

    numbers_of_trees = st.integers(0, 2 * MOST - 1)
    moments = st.none() | st.none() | st.none() | st.integers(0, LATEST)

    def pick(self, number: int) -> Tree | None:
        return self.trees[number % len(self.trees)] if self.trees else None

    @rule(
        user=st.sampled_from(USERS),
        project=st.sampled_from(("shop", "blog")),
        kind=st.integers(0, 2),
        is_entered=st.integers(0, 4),
    )
    def make(self, user: str, project: str, kind: int, is_entered: int) -> None:
        """Make a plain directory, a repository or a work tree of one, and mostly enter it."""
        mine = [tree for tree in self.trees if tree.user == user]
        if len(mine) >= MOST:
            return
        path = self.new_path(user)
        mains = [t for t in mine if os.path.isdir(f"{t.path}/.git") and t.project == project]
        tree = Tree(user, project, path)
        with self.acting(user):
            if kind == 0:
                os.mkdir(path)
                self.write(path, project)
            elif kind == 1 or not mains:
                self.make_repository(path, project)
            else:
                tree.git_dir = self.make_worktree(mains[0].path, path, project)
        self.trees.append(tree)
        if is_entered:
            self.lease(self.trees.index(tree), None)

    @rule(number=numbers_of_trees, kill_at=moments)
    def lease(self, number: int, kill_at: int | None) -> None:
        """Enter a checkout."""
        if (tree := self.pick(number)) is None:
            return
        self.said = []
        found: list[Lease] = []
        claim = self.claim(tree)
        self.run(tree.user, lambda registry: found.append(leasing.hold(registry, claim)), kill_at)
        if found:
            self.returned(tree, found[0], asked=False)
        else:
            self.look_again(tree)

    @rule(number=numbers_of_trees, slot=st.integers(0, 7), kill_at=moments)
    def take(self, number: int, slot: int, kill_at: int | None) -> None:
        """Claim a number."""
        if (tree := self.pick(number)) is None:
            return
        self.said = []
        found: list[Lease] = []
        claim = self.claim(tree)
        key = Key(tree.user, tree.project, slot)
        try:
            self.run(
                tree.user,
                lambda registry: found.append(leasing.take(registry, claim, slot, None)),
                kill_at,
            )
        except IsoenvError:
            assert key in self.held, "a slot that nobody holds was refused"
            return
        if found:
            self.returned(tree, found[0], asked=True)
        else:
            self.look_again(tree, asked=True)

    @rule(number=numbers_of_trees, kill_at=moments)
    def release(self, number: int, kill_at: int | None) -> None:
        """Give a slot back."""
        tree = self.pick(number)
        key = self.own(tree) if tree else None
        if tree is None or key is None:
            return
        claim = self.claim(tree)
        if self.is_away(self.held[key]):
            return

        def give_back(registry: Registry) -> None:
            lease = leasing.find(registry, claim)
            assert lease is not None
            assert lease.slot == key.slot
            leasing.give_back(registry, lease)

        self.run(tree.user, give_back, kill_at)
        if kill_at is None:
            self.resting[key] = self.held.pop(key).token
        else:
            self.look_again(tree)

    @rule(number=numbers_of_trees, is_entered=st.integers(0, 4))
    def move(self, number: int, is_entered: int) -> None:
        """Rename a checkout, and mostly enter it at its new place."""
        tree = self.pick(number)
        if tree is None or self.has_worktrees(tree):
            return
        tally["operations"] += 1
        path = self.new_path(tree.user)
        with self.acting(tree.user):
            os.rename(tree.path, path)
            if tree.git_dir:
                with open(f"{tree.git_dir}/gitdir", "w", encoding="ascii") as file:
                    file.write(f"{path}/.git\n")
        tree.path = path
        if is_entered:
            self.lease(self.trees.index(tree), None)

    @rule(number=numbers_of_trees)
    def copy(self, number: int) -> None:
        """Copy a checkout, with its token."""
        tree = self.pick(number)
        if tree is None or tree.git_dir or self.has_worktrees(tree):
            return
        if sum(each.user == tree.user for each in self.trees) >= MOST:
            return
        tally["operations"] += 1
        path = self.new_path(tree.user)
        with self.acting(tree.user):
            shutil.copytree(tree.path, path)
        self.trees.append(Tree(tree.user, tree.project, path))

    @rule(number=numbers_of_trees, again=st.booleans())
    def remove(self, number: int, *, again: bool) -> None:
        """Remove a checkout; perhaps make another one at the same path."""
        tree = self.pick(number)
        if tree is None or self.has_worktrees(tree):
            return
        tally["operations"] += 1
        shutil.rmtree(tree.path)
        if tree.git_dir:
            shutil.rmtree(tree.git_dir)
        self.trees.remove(tree)
        if key := self.own(tree):
            self.held[key].gone = True
        if not again:
            return
        made = Tree(tree.user, tree.project, tree.path)
        with self.acting(tree.user):
            if tree.git_dir:
                main = tree.git_dir.partition("/.git/")[0]
                made.git_dir = self.make_worktree(main, tree.path, tree.project)
            else:
                self.make_repository(tree.path, tree.project)
        self.trees.append(made)
        self.lease(self.trees.index(made), None)

    @rule(user=st.sampled_from(USERS), kill_at=moments)
    def prune(self, user: str, kill_at: int | None) -> None:
        """Give back what is gone, and nothing else."""

        def prune(registry: Registry) -> None:
            for item in pruning.plan(registry, purge=True, max_age=None):
                if not item.kept_because:
                    item.remove()

        was_killed = self.run(user, prune, kill_at)
        with self.open(user) as registry:
            left = {Key(user, lease.project.key, lease.slot) for lease in registry.leases()}
            assert was_killed or not any(map(identity.is_gone, registry.leases()))
        for key in [key for key in self.held if key.user == user]:
            if key not in left:
                held = self.held.pop(key)
                assert self.is_away(held), f"{key} was pruned"
                self.resting[key] = held.token

    @rule(user=st.sampled_from(USERS), how=st.sampled_from(("garbage", "missing", "empty")))
    def lose(self, user: str, how: str) -> None:
        """Damage a registry, or lose it."""
        tally["operations"] += 1
        file = f"{self.state(user)}/registry.db"
        if not os.path.exists(file):
            return
        tally["lost"] += 1
        self.touched.add(user)
        if how == "missing":
            os.unlink(file)
        else:
            with open(file, "wb") as opened:
                opened.write(b"garbage" * 500 if how == "garbage" else b"")

    def has_worktrees(self, tree: Tree) -> bool:
        return any(each.git_dir and each.git_dir.startswith(f"{tree.path}/") for each in self.trees)

    # -- what always holds -----------------------------------------------------------------

    @invariant()
    def no_port_has_two_leases(self) -> None:
        """No port is leased twice, but where the clash was said to who asked for it or is back."""
        owners: dict[int, list[Key]] = {}
        for key, held in self.held.items():
            if key.slot and not held.told and not self.is_away(held):
                for port in held.ports.values():
                    owners.setdefault(port, []).append(key)
        assert not {port: keys for port, keys in owners.items() if len(keys) > 1}

    @invariant()
    def no_lease_is_lost(self) -> None:
        """What was returned is in the registry, with the ports that were returned."""
        for user in self.touched:
            with self.open(user) as registry:
                leases = {
                    Key(user, lease.project.key, lease.slot): lease for lease in registry.leases()
                }
            for key, held in self.held.items():
                if key.user == user and not self.is_away(held):
                    assert key in leases, f"{key} is lost"
                    found = leases[key]
                    now = found.root, dict(found.ports)
                    assert now == (held.path, held.ports), f"{key} has changed"
        self.touched.clear()


# A failure is shown as it was found: shrinking one takes minutes.
LASTING = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
    print_blob=True,
    phases=(Phase.generate,),
)


class TestLeases(Leases.TestCase):  # type: ignore[name-defined,misc]  # made by hypothesis
    # The same operations in each run; `make soak` has others each time.
    settings = settings(LASTING, derandomize=True, max_examples=10, stateful_step_count=50)
