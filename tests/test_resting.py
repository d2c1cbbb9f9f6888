"""A slot that was given back rests for a day: nobody meets yesterday's neighbour in his ports."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from isoenv import context, leasing, pruning, resting
from isoenv.registry import Registry
from isoenv.resting import DAY, Moment

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from isoenv.models import Lease

    Run = Callable[..., subprocess.CompletedProcess[str]]

HOUR = 3600.0
YEAR = 365 * DAY


@dataclass
class Clock:
    """A clock that can be set, on a machine that can be started again."""

    monkeypatch: pytest.MonkeyPatch
    moment: Moment = field(default_factory=resting.now)

    def __post_init__(self) -> None:
        self.monkeypatch.setattr(resting, "now", lambda: self.moment)

    def wait(self, seconds: float) -> None:
        time, boot, uptime = self.moment
        self.moment = Moment(time + seconds, boot, uptime + seconds)

    def set_by(self, seconds: float) -> None:
        self.moment = self.moment._replace(time=self.moment.time + seconds)

    def reboot(self) -> None:
        self.moment = Moment(self.moment.time, f"{self.moment.boot}+", 5.0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(str(tmp_path / "state")) as opened:
        yield opened


@pytest.fixture
def trees(
    make_repo: Callable[[str], Path], worktree: Callable[[Path, str], Path]
) -> Callable[..., list[Path]]:
    """Make a repository with work trees of these names, all with the same configuration."""

    def trees(*names: str, config: str = 'project = "shop"\n') -> list[Path]:
        repo = make_repo("shop")
        found = [worktree(repo, name) for name in names]
        for tree in (repo, *found):
            (tree / "isoenv.toml").write_text(config)
        return found

    return trees


def claim(directory: Path) -> leasing.Claim:
    return context.find(context.Caller(str(directory), os.environ)).claim


def hold(registry: Registry, directory: Path) -> Lease:
    return leasing.hold(registry, claim(directory))


def release(registry: Registry, directory: Path) -> None:
    lease = leasing.find(registry, claim(directory))
    assert lease is not None
    leasing.give_back(registry, lease)


def test_a_slot_that_was_given_back_goes_to_nobody_else_for_a_day(
    registry: Registry, trees: Callable[..., list[Path]], clock: Clock
) -> None:
    one, two, three, four = trees("one", "two", "three", "four")
    assert hold(registry, one).slot == 1
    release(registry, one)
    assert hold(registry, two).slot == 2
    clock.wait(DAY - 1)
    assert hold(registry, three).slot == 3
    clock.wait(1)
    assert hold(registry, four).slot == 1


def test_who_has_given_it_back_gets_it_at_once(
    registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    one, two = trees("one", "two")
    for _ in range(3):
        assert hold(registry, one).slot == 1
        release(registry, one)
    assert hold(registry, two).slot == 2


def test_a_copy_is_not_who_has_given_it_back(
    registry: Registry, make_repo: Callable[[str], Path], tmp_path: Path
) -> None:
    first, second = make_repo("first"), make_repo("second")
    for repo in (first, second):
        (repo / "isoenv.toml").write_text('project = "shop"\n')
        hold(registry, repo)
    leasing.take(registry, claim(second), 5, None)
    # With the token of the one that slot 1 rests for.
    shutil.copytree(second, tmp_path / "copy")
    assert hold(registry, tmp_path / "copy").slot == 2
    release(registry, second)
    assert hold(registry, second).slot == 1


@pytest.fixture
def pruned(
    registry: Registry, make_repo: Callable[[str], Path], tmp_path: Path
) -> tuple[Path, Path]:
    """What had slot 1, was moved where nobody has entered it, and was pruned; and another one."""
    repos = [make_repo(name) for name in ("first", "second", "third")]
    for repo in repos:
        (repo / "isoenv.toml").write_text('project = "shop"\n')
    for repo in repos[:2]:
        hold(registry, repo)
    repos[1].rename(tmp_path / "moved")
    for item in pruning.plan(registry, purge=False, max_age=None):
        item.remove()
    return tmp_path / "moved", repos[2]


def test_who_remembers_a_slot_that_another_has_given_back_since_gets_another(
    registry: Registry, pruned: tuple[Path, Path]
) -> None:
    moved, other = pruned
    assert leasing.take(registry, claim(other), 1, None).slot == 1
    release(registry, other)
    assert hold(registry, moved).slot == 2


def test_who_comes_back_after_a_prune_gets_the_slot_that_he_remembers(
    registry: Registry, pruned: tuple[Path, Path]
) -> None:
    moved, other = pruned
    assert hold(registry, other).slot == 2
    assert hold(registry, moved).slot == 1


def test_a_number_that_is_asked_for_is_had_at_once(
    isoenv: Run, registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    one, two, three, four = trees("one", "two", "three", "four")
    for tree in (one, two, three):
        hold(registry, tree)
    for tree in (one, two, three):
        release(registry, tree)
    assert leasing.take(registry, claim(four), 1, None).slot == 1
    assert leasing.hold_number(registry, claim(four), 2).slot == 2
    done = isoenv("exec", ".", "printenv", "ISOENV_INSTANCE", cwd=two, env={"ISOENV_INSTANCE": "3"})
    assert (done.returncode, done.stdout) == (0, "3\n")


def test_a_slot_that_rests_is_handed_out_when_nothing_else_is_left(
    registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    config = 'project = "shop"\n[instance]\nstride = 10000\n[ports]\nweb = 45001\n'
    one, two, three = trees("one", "two", "three", config=config)
    assert [hold(registry, tree).slot for tree in (one, two)] == [1, 2]
    release(registry, one)
    assert hold(registry, three).slot == 1


def test_the_former_slot_of_who_claims_another_rests_too(
    registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    one, two = trees("one", "two")
    hold(registry, one)
    leasing.take(registry, claim(one), 5, None)
    assert hold(registry, two).slot == 2
    # Back in its place, it is awake.
    leasing.take(registry, claim(one), 1, None)
    with registry.transaction():
        assert registry.resting(claim(one).project, None) == {5}


def test_a_pruned_slot_rests_too(
    isoenv: Run, registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    one, two = trees("one", "two")
    assert hold(registry, one).slot == 1
    shutil.rmtree(one)
    shutil.rmtree(one.parent / "shop" / ".git" / "worktrees" / "one")
    done = isoenv("prune", cwd=two)
    assert (done.returncode, done.stderr.count("freed shop/1 one")) == (0, 1)
    assert hold(registry, two).slot == 2


def test_slot_0_is_the_main_checkouts_at_any_time(
    registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    (one,) = trees("one")
    repo = one.parent / "shop"
    hold(registry, repo)
    release(registry, repo)
    shutil.rmtree(repo / ".git" / "isoenv")
    assert hold(registry, repo).slot == 0


def test_a_slot_goes_on_resting_in_a_registry_that_is_rebuilt(
    registry: Registry, trees: Callable[..., list[Path]]
) -> None:
    one, two = trees("one", "two")
    hold(registry, one)
    release(registry, one)
    os.unlink(registry.file)
    assert hold(registry, two).slot == 2


@pytest.mark.parametrize("by", [-YEAR, -HOUR, HOUR, 2 * DAY, YEAR])
def test_a_clock_that_is_set_changes_nothing_before_the_next_boot(
    registry: Registry, trees: Callable[..., list[Path]], clock: Clock, by: float
) -> None:
    one, two, three = trees("one", "two", "three")
    hold(registry, one)
    release(registry, one)
    clock.set_by(by)
    clock.wait(DAY - 1)
    assert hold(registry, two).slot == 2
    clock.wait(1)
    assert hold(registry, three).slot == 1


def test_after_a_boot_the_time_of_day_counts(
    registry: Registry, trees: Callable[..., list[Path]], clock: Clock
) -> None:
    one, two, three = trees("one", "two", "three")
    hold(registry, one)
    release(registry, one)
    clock.reboot()
    clock.set_by(DAY - 1)
    assert hold(registry, two).slot == 2
    clock.wait(1)
    assert hold(registry, three).slot == 1


def test_a_clock_that_was_wrong_by_years_keeps_no_slot_for_years(
    registry: Registry, trees: Callable[..., list[Path]], clock: Clock
) -> None:
    one, two, three, four = trees("one", "two", "three", "four")
    hold(registry, one)
    release(registry, one)
    clock.reboot()
    clock.set_by(-20 * YEAR)
    # How long it has rested nobody knows: a day from now on.
    assert hold(registry, two).slot == 2
    clock.wait(DAY - 1)
    assert hold(registry, three).slot == 3
    clock.wait(1)
    assert hold(registry, four).slot == 1


def test_the_clock_of_this_machine_goes_on() -> None:
    before, after = resting.now(), resting.now()
    assert before.boot == after.boot
    assert before.uptime <= after.uptime
    assert not resting.is_over(before, after)
