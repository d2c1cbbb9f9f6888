"""Which slot and ports a checkout gets, and that it keeps them whatever happens to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import context, leasing, ports, tokens
from isoenv.errors import IsoenvError, UsageError
from isoenv.registry import Registry

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from isoenv.models import Lease

    Git = Callable[..., str]
    MakeRepo = Callable[[str], Path]
    AddWorktree = Callable[[Path, str], Path]
    Run = Callable[..., subprocess.CompletedProcess[str]]
    Listen = Callable[[str, int], socket.socket]

LOOPBACK = ("::1", "127.0.0.1", "127.0.0.2", "0.0.0.0", "::")  # noqa: S104  # listened on for a moment
each_address = pytest.mark.parametrize("address", LOOPBACK)


class Leases:
    """Leases taken in this process, in a registry of the test's own; what was said is kept."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.said: list[str] = []

    def claim(self, directory: Path) -> leasing.Claim:
        caller = context.Caller(str(directory), os.environ, self.said.append)
        return context.find(caller).claim

    def hold(self, directory: Path, slot: int | None = None) -> Lease:
        return leasing.hold(self.registry, self.claim(directory), slot)

    def hold_number(self, directory: Path, slot: int) -> Lease:
        return leasing.hold_number(self.registry, self.claim(directory), slot)

    def take(self, directory: Path, slot: int | None = None, name: str | None = None) -> Lease:
        return leasing.take(self.registry, self.claim(directory), slot, name)

    def find(self, directory: Path) -> Lease | None:
        return leasing.find(self.registry, self.claim(directory))

    def release(self, directory: Path) -> None:
        lease = self.find(directory)
        assert lease is not None
        leasing.give_back(self.registry, lease)

    def at(self, directory: Path) -> tuple[int, str]:
        lease = self.hold(directory)
        return lease.slot, lease.name


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def leases(state: Path) -> Iterator[Leases]:
    with Registry(str(state)) as registry:
        yield Leases(registry)


def configure(directory: Path, *lines: str) -> Path:
    """Write an isoenv.toml and return its directory."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "isoenv.toml").write_text("".join(f"{line}\n" for line in lines))
    return directory


def named(project: str, **ports: int) -> list[str]:
    """Return the lines of a named project with these base ports."""
    return [f'project = "{project}"', "[ports]", *(f"{n} = {port}" for n, port in ports.items())]


def in_blocks(first: int, last: int, *ports: str) -> list[str]:
    """Return the lines of a project in blocks; its bases do not matter."""
    bases = [f"{name} = {3000 + number}" for number, name in enumerate(ports)]
    return ["[instance]", 'ports = "block"', f"range = [{first}, {last}]", "[ports]", *bases]


def cksum(name: bytes) -> int:
    """Return what the program prints first."""
    done = subprocess.run(["cksum"], input=name, capture_output=True, check=True)
    return int(done.stdout.split()[0])


def seed_slot(name: str) -> int:
    return cksum(os.fsencode(name)) % 9 + 1


def names_of_slot(slot: int, count: int) -> list[str]:
    """Return names that the hash gives the same slot."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        name = f"tree{number}"
        if seed_slot(name) == slot:
            found.append(name)
        number += 1
    return found


# -- which slot ---------------------------------------------------------------------------------


def test_the_main_checkout_is_slot_0_and_linked_worktrees_count_from_1(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    linked = [worktree(repo, name) for name in ("one", "two")]
    assert leases.at(linked[0]) == (1, "one")
    assert leases.at(repo)[0] == 0
    assert leases.at(linked[1]) == (2, "two")
    assert leases.said == []


@pytest.mark.parametrize("name", ["feature-auth", "fix login", "é🚒", "new\nline", "x" * 200])
def test_the_hash_is_that_of_the_real_cksum(
    leases: Leases, tmp_path: Path, name: str, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    configure(make_repo("repo"), "[instance]", 'prefer = "cksum"')
    linked = worktree(tmp_path / "repo", name)
    shutil.copy(tmp_path / "repo" / "isoenv.toml", linked)
    assert leases.hold(linked).slot == seed_slot(name)


def test_a_name_that_is_no_utf_8_is_hashed_as_it_is(
    leases: Leases, tmp_path: Path, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    name = os.fsdecode(b"caf\xe9 \xff")
    linked = worktree(make_repo("repo"), name)
    configure(linked, "[instance]", 'prefer = "cksum"')
    assert leases.hold(linked).slot == cksum(b"caf\xe9 \xff") % 9 + 1
    assert leases.hold(tmp_path / "repo").slot == 0


def test_names_that_collide_get_the_next_free_slots_upwards_and_around(
    leases: Leases, tmp_path: Path, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    # The last slot of a port of 46000 with a stride of 2000 is 9.
    lines = ["[instance]", 'prefer = "cksum"', "stride = 2000", "[ports]", "web = 46000"]
    trees = [worktree(repo, name) for name in names_of_slot(8, 4)]
    for tree in trees:
        configure(tree, *lines)
    assert [leases.hold(tree).slot for tree in trees] == [8, 9, 1, 2]
    assert [leases.hold(tree).slot for tree in trees] == [8, 9, 1, 2]
    assert tmp_path in repo.parents


def test_the_slot_of_the_hash_is_free_again_for_who_has_given_it_back(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    first, second = (worktree(repo, name) for name in names_of_slot(4, 2))
    for tree in (first, second):
        configure(tree, "[instance]", 'prefer = "cksum"')
    leases.hold(first)
    leases.release(first)
    assert leases.hold(second).slot == 5
    assert leases.hold(first).slot == 4


def test_when_no_slot_is_left_the_count_is_said(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    trees = [worktree(repo, f"tree{number}") for number in range(3)]
    for tree in trees:
        configure(tree, "[instance]", "stride = 10000", "[ports]", "web = 45000")
    assert [leases.hold(tree).slot for tree in trees[:2]] == [1, 2]
    with pytest.raises(IsoenvError, match="no slot left: all 2 are held") as caught:
        leases.hold(trees[2])
    assert caught.value.exit_code == 1
    assert leases.find(trees[2]) is None


# -- ports --------------------------------------------------------------------------------------


@each_address
def test_a_slot_whose_port_a_stranger_holds_is_skipped_and_said(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    free_port: Callable[[], int],
    listener: Listen,
    address: str,
) -> None:
    base = free_port()
    linked = configure(worktree(make_repo("repo"), "one"), *named("shop", web=base))
    listener(address, base + 1000)
    done = isoenv("exec", ".", "printenv", "ISOENV_INSTANCE", "WEB_PORT", cwd=linked)
    assert done.stdout == f"2\n{base + 2000}\n"
    assert done.stderr.count("\n") == 1
    assert f"slot 1 skipped: port {base + 1000} (web) is held by" in done.stderr
    assert f"(pid {os.getpid()})" in done.stderr


@each_address
def test_a_block_in_which_a_stranger_holds_a_port_is_skipped_and_said(  # noqa: PLR0913, PLR0917  # fixtures
    leases: Leases,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    free_port: Callable[[], int],
    listener: Listen,
    address: str,
) -> None:
    repo = make_repo("repo")
    # Two blocks: one of them is out of the question, whichever the hash would have taken.
    first = next(
        start
        for start in (61000 + (free_port() % 1000 - 700) % 200 * 20 for _ in range(200))
        if not any(map(ports.is_held, range(start, start + 20)))
    )
    taken = listener(address, first + 7)
    tree = configure(worktree(repo, "one"), *in_blocks(first, first + 19, "web", "api"))
    assert leases.hold(tree).ports == {"web": first + 10, "api": first + 11}
    leases.release(tree)
    taken.close()
    listener(address, first + 19)
    assert leases.hold(tree).ports == {"web": first, "api": first + 1}
    assert leases.said
    assert all(f"(pid {os.getpid()})" in line for line in leases.said)


def test_a_port_reserved_by_one_project_is_skipped_by_another(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    shop = configure(worktree(make_repo("a/repo"), "one"), *named("shop", web=base))
    blog = configure(worktree(make_repo("b/repo"), "one"), *named("blog", api=base))
    assert leases.hold(shop).ports == {"web": base + 1000}
    assert leases.hold(blog).ports == {"api": base + 2000}
    assert leases.said == [f"slot 1 skipped: port {base + 1000} (api) is reserved by shop:1"]


def test_a_port_in_a_block_of_one_project_is_skipped_by_another(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    start = (base + 1000) // 10 * 10
    shop = configure(worktree(make_repo("a/repo"), "one"), *in_blocks(start, start + 10, "web"))
    # A port of the block that nothing uses yet: a service that comes later will.
    blog = configure(worktree(make_repo("b/repo"), "one"), *named("blog", api=base))
    assert leases.hold(shop).ports == {"web": start}
    assert leases.hold(blog).slot == 2
    late = configure(worktree(make_repo("c/repo"), "one"), *in_blocks(start, start + 10, "web"))
    with pytest.raises(IsoenvError, match="no block of 10 ports left"):
        leases.hold(late)


def test_the_bases_of_slot_0_are_shared_and_nobody_probes_them(
    leases: Leases, make_repo: MakeRepo, free_port: Callable[[], int], listener: Listen
) -> None:
    base = free_port()
    listener("127.0.0.1", base)
    shop = configure(make_repo("shop"), *named("shop", web=base))
    blog = configure(make_repo("blog"), *named("blog", web=base))
    for repo in (shop, blog):
        lease = leases.hold(repo)
        assert (lease.slot, lease.ports) == (0, {"web": base})
    assert leases.said == []


def test_the_bases_of_slot_0_are_nobody_elses_offset_ports(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    shop = configure(make_repo("shop"), *named("shop", web=base + 1000))
    blog = configure(worktree(make_repo("blog"), "one"), *named("blog", web=base))
    leases.hold(shop)
    assert leases.hold(blog).slot == 2
    assert leases.said == [f"slot 1 skipped: port {base + 1000} (web) is reserved by shop:0"]


def test_the_bases_of_slot_0_are_kept_for_a_main_checkout_that_is_still_to_come(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    lines = named("shop", web=base, api=base + 2000)
    repo = configure(make_repo("repo"), *lines)
    trees = [configure(worktree(repo, name), *lines) for name in ("one", "two")]
    # `web` of slot 2 is `api` of slot 0, and `web` of slot 3 is `api` of slot 1.
    assert [leases.hold(tree).slot for tree in trees] == [1, 4]
    assert len(leases.said) == 2
    assert leases.hold(repo).slot == 0


def test_a_number_that_is_asked_for_is_obeyed_and_a_clash_is_said(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    free_port: Callable[[], int],
    listener: Listen,
    leases: Leases,
) -> None:
    base = free_port()
    shop = configure(worktree(make_repo("a/repo"), "one"), *named("shop", web=base, api=base + 1))
    blog = configure(make_repo("blog"), *named("blog", web=base, api=base + 1))
    assert leases.hold(shop, 3).slot == 3
    listener("::1", base + 4000)
    for slot, reason in ((3, "also reserved by shop:3"), (4, "held by ")):
        done = isoenv("exec", str(slot), "printenv", "WEB_PORT", cwd=blog)
        assert done.stdout == f"{base + 1000 * slot}\n"
        first = f"isoenv: port {base + 1000 * slot} (web) of blog:{slot} is {reason}"
        assert done.stderr.startswith(first)
        # Said when it is leased, not at each use.
        assert isoenv("exec", str(slot), "printenv", "WEB_PORT", cwd=blog).stderr == ""
    # What was shared stays so: a third project gets neither.
    wiki = configure(worktree(make_repo("c/repo"), "one"), *named("wiki", web=base + 2000))
    assert leases.hold(wiki).slot == 3


def test_a_slot_that_a_variable_asks_for_is_leased_to_the_checkout(
    isoenv: Run, leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    linked = worktree(make_repo("repo"), "one")
    done = isoenv(
        *("exec", ".", "printenv", "ISOENV_INSTANCE"), cwd=linked, env={"ISOENV_INSTANCE": "7"}
    )
    assert (done.stdout, done.stderr) == ("7\n", "")
    assert leases.at(linked) == (7, "one")


def test_a_clash_of_a_slot_that_a_variable_asks_for_is_said(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    leases: Leases,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    free_port: Callable[[], int],
    listener: Listen,
) -> None:
    base = free_port()
    linked = configure(worktree(make_repo("repo"), "one"), *named("shop", web=base))
    listener("127.0.0.1", base + 2000)
    done = isoenv("exec", ".", "true", cwd=linked, env={"ISOENV_INSTANCE": "2"})
    assert done.returncode == 0
    assert done.stderr.startswith(f"isoenv: port {base + 2000} (web) of shop:2 is held by ")
    assert done.stderr.count("\n") == 1
    assert leases.at(linked) == (2, "one")


def test_a_slot_without_ports_is_refused_however_it_is_asked_for(
    leases: Leases, make_repo: MakeRepo
) -> None:
    repo = configure(make_repo("repo"), *named("shop", web=10000))
    for ask in (leases.hold, leases.take, leases.hold_number):
        with pytest.raises(UsageError, match="slot 56 has no port for web: 66000 is above 65535"):
            ask(repo, 56)
    bare = make_repo("bare")
    with pytest.raises(UsageError, match="there is no slot 10000: the last one is 9999"):
        leases.hold_number(bare, 10000)
    assert leases.registry.leases() == []
    assert not (repo / ".git" / "isoenv").exists()


def test_a_port_added_or_removed_moves_nobody(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    repo = make_repo("repo")
    trees = [worktree(repo, name) for name in ("one", "two")]
    for lines in (
        named("shop", web=base),
        named("shop", api=base + 1, web=base),
        named("shop", api=base + 1),
        named("shop", web=base, api=base + 1, late=base + 2),
    ):
        wanted = {line.split(" = ")[0]: int(line.split(" = ")[1]) for line in lines[2:]}
        for slot, tree in enumerate(trees, start=1):
            configure(tree, *lines)
            lease = leases.hold(tree)
            assert lease.slot == slot
            assert lease.ports == {name: port + 1000 * slot for name, port in wanted.items()}
    assert leases.said == []


def test_a_port_added_to_live_leases_is_shared_where_it_is_taken_and_said(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    shop = configure(worktree(make_repo("a/repo"), "one"), *named("shop", web=base))
    blog = configure(worktree(make_repo("b/repo"), "one"), *named("blog", web=base + 1))
    leases.hold(shop)
    leases.hold(blog)
    configure(blog, *named("blog", web=base + 1, api=base, high=65000))
    lease = leases.hold(blog)
    assert lease.slot == 1
    assert lease.ports == {"web": base + 1001, "api": base + 1000, "high": 66000}
    assert leases.said == [
        f"port {base + 1000} (api) of blog:1 is also reserved by shop:1",
        "port 66000 (high) of blog:1 is above 65535: no server can have it",
    ]


def test_a_service_added_to_blocks_later_moves_no_other(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    trees = [worktree(repo, name) for name in ("one", "two")]
    first = {}
    for tree in trees:
        configure(tree, *in_blocks(20000, 32759, "web", "api"))
        first[tree] = leases.hold(tree).ports
        assert first[tree]["api"] == first[tree]["web"] + 1
    for tree in trees:
        configure(tree, *in_blocks(20000, 32759, "admin", "web", "api"))
        later = leases.hold(tree).ports
        assert later == {**first[tree], "admin": first[tree]["web"] + 2}
        # The eleventh and the twelfth need a second block; the first stays.
        many = [f"port{number}" for number in range(9)]
        configure(tree, *in_blocks(20000, 32759, *many, "web"))
        grown = leases.hold(tree).ports
        assert grown["web"] == first[tree]["web"]
        assert grown["port7"] // 10 != first[tree]["web"] // 10 == grown["port6"] // 10
        configure(tree, *in_blocks(20000, 32759, "api", "admin", "web"))
        assert leases.hold(tree).ports == later
    held = [port for lease in leases.registry.leases() for port in lease.ports.values()]
    assert len(held) == len(set(held)) == 6


def test_a_service_for_which_no_block_is_left_is_said_and_moves_nobody(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    first = next(
        start
        for start in range(62000, 64000, 10)
        if not any(map(ports.is_held, range(start, start + 20)))
    )
    trees = [worktree(repo, name) for name in ("one", "two")]
    lines = in_blocks(first, first + 19, "web")
    before = [leases.hold(configure(tree, *lines)) for tree in trees]
    many = [f"port{number}" for number in range(10)]
    for tree in trees:
        configure(tree, *in_blocks(first, first + 19, "web", *many))
        with pytest.raises(IsoenvError, match="no block of 10 ports left in `range`"):
            leases.hold(tree)
        assert leases.find(tree) in before
    assert [leases.hold(configure(tree, *lines)) for tree in trees] == before


# -- identity -----------------------------------------------------------------------------------


def test_a_worktree_moved_by_git_keeps_its_lease(
    leases: Leases, git: Git, repo: Path, worktree: AddWorktree
) -> None:
    before = leases.hold(worktree(repo, "one"))
    leases.hold(worktree(repo, "two"))
    git(repo, "worktree", "move", str(repo.parent / "one"), str(repo.parent / "moved"))
    after = leases.hold(repo.parent / "moved")
    assert (after.id, after.slot, after.name) == (before.id, before.slot, "one")
    assert after.root == str(repo.parent / "moved")


@pytest.mark.parametrize("repaired", [True, False])
def test_a_worktree_moved_by_hand_keeps_its_lease(
    leases: Leases,
    git: Git,
    repo: Path,
    worktree: AddWorktree,
    repaired: bool,  # noqa: FBT001  # a parameter of the test
) -> None:
    before = leases.hold(worktree(repo, "one"))
    moved = repo.parent / "moved"
    (repo.parent / "one").rename(moved)
    if repaired:
        git(repo, "worktree", "repair", str(moved))
    after = leases.hold(moved)
    assert (after.id, after.root) == (before.id, str(moved))


def test_a_renamed_repository_keeps_its_leases_and_those_of_its_worktrees(
    leases: Leases, git: Git, make_repo: MakeRepo, worktree: AddWorktree, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    trees = [repo, worktree(repo, "one"), worktree(repo, "repo/.claude/worktrees/two")]
    before = [leases.hold(tree) for tree in trees]
    renamed = tmp_path / "renamed"
    repo.rename(renamed)
    inner = renamed / ".claude" / "worktrees" / "two"
    git(renamed, "worktree", "repair", str(tmp_path / "one"), str(inner))
    # The linked one first: the project moves with whoever is seen first.
    after = [leases.hold(tree) for tree in (inner, tmp_path / "one", renamed)][::-1]
    assert [lease.id for lease in after] == [lease.id for lease in before]
    assert [lease.slot for lease in after] == [0, 1, 2]
    assert {lease.project.key for lease in after} == {str(renamed / ".git")}
    assert {lease.project.name for lease in after} == {"renamed"}
    assert leases.hold(worktree(renamed, "three")).slot == 3


def test_two_repositories_that_change_places_keep_their_leases(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, tmp_path: Path
) -> None:
    one, two = make_repo("one"), make_repo("two")
    ids = [leases.hold(repo).id for repo in (one, two)]
    linked = leases.hold(worktree(two, "tree"))
    one.rename(tmp_path / "away")
    two.rename(one)
    (tmp_path / "away").rename(two)
    assert [leases.hold(repo).id for repo in (two, one)] == ids
    found = leases.registry.with_slot(leases.claim(one).project, 1)
    assert found is not None
    assert found.id == linked.id


def test_a_copied_repository_gets_a_lease_of_its_own(
    leases: Leases, make_repo: MakeRepo, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    before = leases.hold(repo)
    subprocess.run(["cp", "-a", str(repo), str(tmp_path / "copy")], check=True)
    copy = leases.hold(tmp_path / "copy")
    assert (copy.slot, copy.name, copy.project.name) == (0, "copy", "copy")
    assert copy.token != before.token
    assert leases.hold(repo) == before
    assert leases.hold(tmp_path / "copy") == copy


def test_a_copy_in_a_named_project_gets_the_next_slot(
    leases: Leases, make_repo: MakeRepo, tmp_path: Path, free_port: Callable[[], int]
) -> None:
    repo = configure(make_repo("repo"), *named("shop", web=free_port()))
    before = leases.hold(repo)
    for slot, name in ((1, "copy"), (2, "again")):
        subprocess.run(["cp", "-a", str(repo), str(tmp_path / name)], check=True)
        assert leases.at(tmp_path / name) == (slot, name)
    assert leases.hold(repo) == before
    assert leases.at(tmp_path / "copy") == (1, "copy")


def test_what_is_copied_and_then_removed_has_moved(
    leases: Leases, make_repo: MakeRepo, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    before = leases.hold(repo)
    # As `mv` does from one file system to another.
    subprocess.run(["cp", "-a", str(repo), str(tmp_path / "moved")], check=True)
    shutil.rmtree(repo)
    after = leases.hold(tmp_path / "moved")
    assert (after.id, after.token) == (before.id, before.token)


def test_what_is_brought_back_from_a_backup_keeps_its_lease(
    leases: Leases, make_repo: MakeRepo, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    before = leases.hold(repo)
    subprocess.run(["cp", "-a", str(repo), str(tmp_path / "backup")], check=True)
    shutil.rmtree(repo)
    subprocess.run(["cp", "-a", str(tmp_path / "backup"), str(repo)], check=True)
    assert leases.hold(repo).id == before.id


def test_another_device_number_after_a_reboot_changes_nothing(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    trees = [repo, worktree(repo, "one")]
    before = [leases.hold(tree) for tree in trees]
    with leases.registry.transaction():
        leases.registry.connection.execute("UPDATE lease SET device = '1'")
    assert [leases.hold(tree) for tree in trees] == before


def test_clones_of_a_named_project_share_its_slots(
    leases: Leases, git: Git, make_repo: MakeRepo, worktree: AddWorktree, tmp_path: Path
) -> None:
    repo = configure(make_repo("repo"), 'project = "shop"')
    git(tmp_path, "clone", "--quiet", str(repo), "clone")
    clone = configure(tmp_path / "clone", 'project = "shop"')
    linked = configure(worktree(clone, "linked"), 'project = "shop"')
    assert [leases.at(tree) for tree in (repo, clone, linked)] == [
        (0, "repo"),
        (1, "clone"),
        (2, "linked"),
    ]


def test_clones_of_a_project_without_a_name_are_projects_of_their_own(
    leases: Leases, git: Git, make_repo: MakeRepo, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    git(tmp_path, "clone", "--quiet", str(repo), "clone")
    assert leases.at(repo) == (0, "repo")
    assert leases.at(tmp_path / "clone") == (0, "clone")


def test_checkouts_of_the_same_directory_name_get_names_of_their_own(
    leases: Leases, make_repo: MakeRepo
) -> None:
    repos = [configure(make_repo(f"{parent}/repo"), 'project = "shop"') for parent in "abc"]
    assert [leases.at(repo) for repo in repos] == [(0, "repo"), (1, "repo-2"), (2, "repo-3")]


def test_a_worktree_made_again_at_the_same_path_inherits_nothing(
    leases: Leases, git: Git, repo: Path, worktree: AddWorktree
) -> None:
    path = worktree(repo, "one")
    # File systems give the same inode again: once is not enough to see it.
    for slot in range(1, 6):
        lease = leases.hold(path)
        assert (lease.slot, lease.name) == (slot, "one")
        with leases.registry.transaction():
            leases.registry.set_flag(lease, "LIVE", value=True)
        git(repo, "worktree", "remove", str(path))
        git(repo, "worktree", "add", "--quiet", "--detach", str(path))
        assert leases.find(path) is None
    final = leases.hold(path)
    assert leases.registry.flags(final) == {}
    names = leases.registry.slots(leases.claim(path).project)
    assert names == {1: "one@1", 2: "one@2", 3: "one@3", 4: "one@4", 5: "one@5", 6: "one"}


def test_the_name_of_a_gone_checkout_is_free_even_when_its_former_one_was_taken(
    leases: Leases, git: Git, repo: Path, worktree: AddWorktree
) -> None:
    leases.hold(worktree(repo, "one@2"))
    leases.hold(worktree(repo, "one"))
    git(repo, "worktree", "remove", str(repo.parent / "one"))
    assert leases.at(worktree(repo, "one")) == (3, "one")


def test_a_repository_made_again_takes_slot_0_from_the_one_that_is_gone(
    leases: Leases, make_repo: MakeRepo, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    before = leases.hold(repo)
    for _ in range(3):
        shutil.rmtree(repo)
        make_repo("repo")
        assert leases.at(repo) == (0, "repo")
    assert leases.said == [f"slot 0 was held by {tmp_path}/repo, which is gone"] * 3
    assert leases.hold(repo).id != before.id


def test_a_main_checkout_that_is_gone_leaves_slot_0_to_the_next(
    leases: Leases, make_repo: MakeRepo
) -> None:
    first, second, third = (
        configure(make_repo(name), 'project = "shop"') for name in ("first", "second", "third")
    )
    assert [leases.hold(repo).slot for repo in (first, second)] == [0, 1]
    shutil.rmtree(first)
    assert [leases.hold(repo).slot for repo in (second, third)] == [1, 0]


def test_a_submodule_is_a_checkout_and_a_project_of_its_own(
    leases: Leases, git: Git, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    library, repo = make_repo("library"), make_repo("repo")
    allow = ("-c", "protocol.file.allow=always")
    git(repo, *allow, "submodule", "--quiet", "add", str(library), "lib")
    git(repo, "commit", "--quiet", "-m", "lib")
    linked = worktree(repo, "linked")
    git(linked, *allow, "submodule", "--quiet", "update", "--init")
    assert leases.at(linked) == (1, "linked")
    assert leases.hold(linked / "lib").slot == 1
    assert leases.hold(repo / "lib").slot == 0
    assert leases.hold(repo).slot == 0
    projects = {leases.hold(tree).project for tree in (linked / "lib", repo / "lib")}
    assert len(projects) == 1
    assert projects != {leases.hold(repo).project}


def test_a_bare_repository_has_worktrees_and_nobody_is_slot_0(
    leases: Leases, git: Git, make_repo: MakeRepo, tmp_path: Path
) -> None:
    git(tmp_path, "clone", "--quiet", "--bare", str(make_repo("repo")), "bare/.bare")
    for name in ("main", "one"):
        git(tmp_path / "bare/.bare", "worktree", "add", "--quiet", "--detach", f"../{name}")
    assert leases.at(tmp_path / "bare" / "main") == (1, "main")
    assert leases.at(tmp_path / "bare" / "one") == (2, "one")


def test_plain_directories_are_checkouts_of_the_project_they_name(
    leases: Leases, tmp_path: Path
) -> None:
    one, two = (configure(tmp_path / name, 'project = "shop"') for name in ("one", "two"))
    assert (leases.at(one), leases.at(two)) == ((0, "one"), (1, "two"))
    assert leases.at(configure(tmp_path / "three")) == (0, "three")
    two.rename(tmp_path / "moved")
    assert leases.at(tmp_path / "moved") == (1, "two")
    subprocess.run(["cp", "-a", str(one), str(tmp_path / "copy")], check=True)
    assert leases.at(tmp_path / "copy") == (2, "copy")
    assert leases.at(one) == (0, "one")


def test_two_files_in_one_repository_are_two_projects(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, tmp_path: Path
) -> None:
    repo = make_repo("repo")
    linked = worktree(repo, "linked")
    for tree in (repo, linked):
        configure(tree / "services" / "shop")
        configure(tree / "services" / "web")
    keys = [leases.hold(repo / "services" / name).project.key for name in ("shop", "web")]
    assert keys == [f"{repo}/.git//services/shop", f"{repo}/.git//services/web"]
    assert leases.hold(repo).project.key == f"{repo}/.git"
    for name in ("shop", "web"):
        assert leases.at(linked / "services" / name) == (1, "linked")
        assert leases.at(repo / "services" / name) == (0, "repo")
    # They move with the repository, each as itself.
    ids = [leases.hold(repo / "services" / name).id for name in ("web", "shop")]
    assert ids[0] != ids[1]
    repo.rename(tmp_path / "renamed")
    moved = [leases.hold(tmp_path / "renamed" / "services" / name) for name in ("web", "shop")]
    assert [lease.id for lease in moved] == ids


def test_a_worktree_copied_with_its_git_file_is_refused(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    worktree(repo, "one")
    copy = repo.parent / "copy"
    subprocess.run(["cp", "-a", str(repo.parent / "one"), str(copy)], check=True)
    with pytest.raises(IsoenvError, match="belongs to"):
        leases.hold(copy)
    before = leases.hold(repo.parent / "one")
    for ask in (leases.hold, leases.take, leases.find):
        with pytest.raises(IsoenvError, match="belongs to") as caught:
            ask(copy)
        assert str(repo.parent / "one") in str(caught.value)
    assert leases.hold(repo.parent / "one") == before


def test_a_directory_that_points_into_another_repository_is_refused(
    leases: Leases, repo: Path, tmp_path: Path
) -> None:
    before = leases.hold(repo)
    (tmp_path / "forged").mkdir()
    (tmp_path / "forged" / ".git").write_text(f"gitdir: {repo}/.git\n")
    with pytest.raises(IsoenvError, match="belongs to"):
        leases.hold(tmp_path / "forged")
    assert leases.hold(repo) == before


def test_a_git_dir_kept_apart_is_a_checkout(leases: Leases, git: Git, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--separate-git-dir", "store", "tree")
    assert leases.at(tmp_path / "tree") == (0, "tree")


# -- claiming, releasing, names -----------------------------------------------------------------


def test_claim_moves_a_checkout_and_frees_its_former_slot(  # noqa: PLR0913, PLR0917  # fixtures
    isoenv: Run,
    leases: Leases,
    make_repo: MakeRepo,
    worktree: AddWorktree,
    free_port: Callable[[], int],
    git: Git,
) -> None:
    base = free_port()
    repo = configure(make_repo("repo"), *named("shop", web=base))
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "-m", "isoenv")
    one, two = worktree(repo, "one"), worktree(repo, "two")
    lease = leases.hold(one)
    with leases.registry.transaction():
        leases.registry.set_flag(lease, "LIVE", value=True)
    done = isoenv("claim", "5", cwd=one)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"isoenv: {one} holds shop/5 one\n"
    moved = leases.hold(one)
    assert (moved.slot, moved.name, moved.ports) == (5, "one", {"web": base + 5000})
    assert leases.registry.flags(moved) == {"LIVE": True}
    assert leases.registry.reserved_by(base + 1000) is None
    assert leases.at(two) == (2, "two")
    assert isoenv("exec", ".", "printenv", "WEB_PORT", cwd=one).stdout == f"{base + 5000}\n"


def test_claim_of_a_held_slot_is_refused_with_its_path(
    isoenv: Run, leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    one, two, three = (worktree(repo, name) for name in ("one", "two", "three"))
    before = [leases.hold(tree) for tree in (one, two)]
    tokens = [Path(leases.claim(tree).checkout.token_file).read_bytes() for tree in (one, two)]  # type: ignore[union-attr]
    for tree in (two, three):
        done = isoenv("claim", "1", cwd=tree)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"isoenv: slot 1 of repo is held by {one}: `isoenv release 1` gives it back\n"
        )
    assert [leases.find(tree) for tree in (one, two, three)] == [*before, None]
    assert not (repo / ".git" / "worktrees" / "three" / "isoenv").exists()
    assert tokens == [
        Path(leases.claim(tree).checkout.token_file).read_bytes()  # type: ignore[union-attr]
        for tree in (one, two)
    ]
    # The remedy works.
    assert isoenv("release", "1", cwd=two).returncode == 0
    assert isoenv("claim", "1", cwd=two).returncode == 0
    assert leases.at(two) == (1, "two")
    assert leases.at(one) == (3, "one")


def test_claim_takes_a_slot_from_a_bare_number(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    one, two = worktree(repo, "one"), worktree(repo, "two")
    assert leases.hold_number(repo, 5).token is None
    assert leases.take(one, 5).slot == 5
    leases.hold(two)
    leases.hold_number(repo, 6)
    assert leases.take(two, 6).slot == 6
    assert leases.registry.slots(leases.claim(repo).project) == {5: "one", 6: "two"}


def test_the_main_checkout_takes_slot_0_from_a_bare_number(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    assert leases.hold_number(worktree(repo, "one"), 0).token is None
    lease = leases.hold(repo)
    assert lease.slot == 0
    assert lease.token is not None
    assert leases.hold_number(repo, 0) == lease


def test_a_claim_that_changes_nothing_changes_nothing(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    one = worktree(repo, "one")
    lease = leases.take(one)
    assert (lease.slot, lease.name) == (1, "one")
    assert leases.take(one, 1, "one") == leases.take(one) == leases.hold(one) == lease


def test_a_claimed_name_is_kept_and_given_once(
    isoenv: Run, leases: Leases, make_repo: MakeRepo, worktree: AddWorktree
) -> None:
    repo = make_repo("repo")
    one, two = worktree(repo, "one"), worktree(repo, "two")
    assert isoenv("claim", "--name", "review", cwd=one).returncode == 0
    assert leases.at(one) == (1, "review")
    done = isoenv("claim", "--name", "review", cwd=two)
    assert done.returncode == 1
    assert done.stderr == (
        "isoenv: the name review is taken by slot 1 of repo: `isoenv list` shows them\n"
    )
    assert leases.find(two) is None
    assert isoenv("claim", "4", "--name", "one", cwd=two).returncode == 0
    assert leases.at(two) == (4, "one")
    for name in ("7", "a/b", "a:b", "start", "api", ".", "", "-x", "two\nlines"):
        done = isoenv("claim", f"--name={name}", cwd=one)
        assert done.returncode == 2, name
    assert leases.at(one) == (1, "review")


def test_a_released_checkout_forgets_its_slot(
    isoenv: Run, leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, state: Path
) -> None:
    repo = make_repo("repo")
    one = worktree(repo, "one")
    leases.take(one, 5, "review")
    done = isoenv("release", cwd=one)
    assert (
        done.stderr == f"isoenv: repo/5 review is free: the next command in {one} takes one again\n"
    )
    assert leases.find(one) is None
    assert leases.at(one) == (1, "one")
    again = isoenv("release", "5", cwd=repo)
    assert again.returncode == 5
    assert again.stderr == "isoenv: nobody holds slot 5 of repo: `isoenv list`\n"
    assert state.is_dir()


def test_a_gone_checkout_is_released_by_number(
    leases: Leases, git: Git, repo: Path, worktree: AddWorktree
) -> None:
    lease = leases.hold(worktree(repo, "one"))
    git(repo, "worktree", "remove", str(repo.parent / "one"))
    leasing.give_back(leases.registry, lease)
    assert leases.registry.leases() == []


def test_releasing_twice_frees_nobody_elses_slot(
    leases: Leases, repo: Path, worktree: AddWorktree
) -> None:
    one, two = worktree(repo, "one"), worktree(repo, "two")
    lease = leases.hold(one)
    leasing.give_back(leases.registry, lease)
    other = leases.hold(two)
    leasing.give_back(leases.registry, lease)
    assert (other.slot, leases.find(two)) == (2, other)


# -- a registry that is lost --------------------------------------------------------------------


def test_a_checkout_remembers_its_slot_and_name_without_the_registry(
    leases: Leases, repo: Path, worktree: AddWorktree, tmp_path: Path
) -> None:
    one, two = worktree(repo, "one"), worktree(repo, "two")
    leases.take(repo, 3, "trunk")
    leases.take(two, 7, "review")
    leases.hold(one)
    with Registry(str(tmp_path / "new")) as registry:
        again = Leases(registry)
        assert again.at(two) == (7, "review")
        assert again.at(repo) == (3, "trunk")
        assert again.at(one) == (1, "one")
        assert again.said == []


def test_a_remembered_slot_is_not_had_where_somebody_else_has_it_now(
    leases: Leases, make_repo: MakeRepo, worktree: AddWorktree, free_port: Callable[[], int]
) -> None:
    base = free_port()
    repo = make_repo("repo")
    one, two = (
        configure(worktree(repo, name), *named("shop", web=base)) for name in ("one", "two")
    )
    blog = configure(worktree(make_repo("blog"), "three"), *named("blog", web=base))
    for tree, slot in ((one, 1), (two, 2)):
        place = leases.claim(tree).checkout
        assert place is not None
        # As a process leaves it that is killed before its lease is committed.
        token = tokens.Token(os.urandom(16).hex(), {"shop": (slot, tree.name)})
        tokens.mint(place)
        tokens.write_token(place, token)
    assert leases.hold(blog).slot == 1
    assert leases.hold(configure(worktree(repo, "four"), *named("shop", web=base))).slot == 2
    assert leases.hold(one).slot == 3
    assert leases.hold(two).slot == 4
