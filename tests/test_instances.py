"""Which instance a command is about: argument, variables, lease, pin; by number and by name."""

from __future__ import annotations

import json
import os
import sys
from shlex import quote
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]
    Allow = Callable[[Path], None]

NESTED = f"{quote(sys.executable)} -m isoenv"
# What is said of an environment that came from elsewhere is another test's.
QUIET = {"ISOENV_LOG": "quiet"}

CONFIG = """
project = "{project}"
[instance]
variable = "SHOP_SLOT"
stride = 1000
[ports]
web = {base}
[env]
WHERE = "{{project}}/{{id}}"
"""


@pytest.fixture
def base(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def shop(make_repo: Callable[[str], Path], base: int, git: Callable[..., str]) -> Path:
    """A main checkout, not leased yet."""
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG.format(project="shop", base=base))
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=configured")
    return repo


@pytest.fixture
def feature(shop: Path, worktree: Worktree, allow: Allow) -> Path:
    """A linked worktree of it, not leased yet."""
    root = worktree(shop, "feature")
    allow(root)
    return root


@pytest.fixture
def other(make_repo: Callable[[str], Path], free_port: Callable[[], int], allow: Allow) -> Path:
    """The main checkout of another project."""
    repo = make_repo("other")
    (repo / "isoenv.toml").write_text(CONFIG.format(project="other", base=free_port()))
    allow(repo)
    return repo


@pytest.fixture
def port(isoenv: Isoenv, base: int) -> Callable[..., int]:
    """The slot that `isoenv port web` of a directory comes to."""

    def port(cwd: Path, *args: str, **env: str) -> int:
        done = isoenv("port", "web", *args, cwd=cwd, env=env)
        assert done.returncode == 0, done.stderr
        slot, rest = divmod(int(done.stdout) - base, 1000)
        assert rest == 0
        return slot

    return port


def leases(isoenv: Isoenv, cwd: Path) -> list[tuple[str, int, str]]:
    done = isoenv("list", "--all", "--json", cwd=cwd)
    rows = json.loads(done.stdout)["instances"]
    return [(row["project"], row["slot"], row["name"]) for row in rows]


def failure(done: CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_argument_beats_variable_beats_dotenv_beats_lease(
    shop: Path, feature: Path, isoenv: Isoenv, port: Callable[..., int]
) -> None:
    assert port(shop) == 0
    assert port(feature) == 1
    (feature / ".env").write_text("# comment\nexport SHOP_SLOT='4'  # theirs\nSHOP_SLOT2=9\n")
    assert port(feature) == 4
    assert port(feature, SHOP_SLOT="") == 4
    assert port(feature, SHOP_SLOT="5") == 5
    assert port(feature, SHOP_SLOT="5", ISOENV_INSTANCE="6") == 6
    assert port(feature, "7", SHOP_SLOT="5", ISOENV_INSTANCE="6") == 7
    assert port(feature, "shop", SHOP_SLOT="5") == 0
    # None of that has moved the lease, or taken another.
    assert leases(isoenv, shop) == [("shop", 0, "shop"), ("shop", 1, "feature")]
    (feature / ".env").unlink()
    assert port(feature) == 1


@pytest.mark.parametrize("where", ["shell", "dotenv"])
def test_a_variable_decides_the_slot_of_a_new_lease(
    feature: Path, isoenv: Isoenv, port: Callable[..., int], where: str
) -> None:
    if where == "shell":
        assert port(feature, SHOP_SLOT="4") == 4
    else:
        (feature / ".env").write_text("SHOP_SLOT=4\n")
        assert port(feature) == 4
        (feature / ".env").unlink()
    assert leases(isoenv, feature) == [("shop", 4, "feature")]
    assert port(feature) == 4


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "٢", "2 ", "0x1"])
def test_a_variable_that_is_no_slot_is_an_error(feature: Path, isoenv: Isoenv, value: str) -> None:
    remedy = "`SHOP_SLOT=2` would be one"
    done = isoenv("port", "web", cwd=feature, env={"SHOP_SLOT": value})
    said = f"isoenv: SHOP_SLOT={value} in the environment is no slot: {remedy}\n"
    assert failure(done) == (1, "", said)
    if value != "2 ":
        (feature / ".env").write_text(f"SHOP_SLOT={value}\n")
        said = f"isoenv: SHOP_SLOT={value} in {feature}/.env is no slot: {remedy}\n"
        assert failure(isoenv("port", "web", cwd=feature)) == (1, "", said)
    assert leases(isoenv, feature) == []


@pytest.mark.parametrize("digits", [2, 20, 5000])
@pytest.mark.parametrize("how", ["argument", "variable"])
def test_a_number_without_ports_is_an_error(
    feature: Path, isoenv: Isoenv, digits: int, how: str
) -> None:
    number = "9" * digits
    done = (
        isoenv("port", "web", number, cwd=feature)
        if how == "argument"
        else isoenv("port", "web", cwd=feature, env={"SHOP_SLOT": number})
    )
    assert done.returncode in (1, 2, 5)
    assert done.stdout == ""
    assert done.stderr.startswith("isoenv: ")
    assert done.stderr.count("\n") == 1
    assert leases(isoenv, feature) == []


def test_what_isoenv_exported_for_another_checkout_is_not_the_users_own(
    shop: Path, feature: Path, isoenv: Isoenv, base: int
) -> None:
    assert isoenv("show", cwd=shop).returncode == 0
    script = f'echo "$SHOP_SLOT" && cd {quote(str(feature))} && {NESTED} port web'
    for _ in range(2):
        done = isoenv("exec", ".", "sh", "-c", script, cwd=shop, env=QUIET)
        assert failure(done) == (0, f"0\n{base + 1000}\n", "")
    script = f"cd {quote(str(feature))} && SHOP_SLOT=5 {NESTED} port web"
    done = isoenv("exec", ".", "sh", "-c", script, cwd=shop, env=QUIET)
    assert failure(done) == (0, f"{base + 5000}\n", "")


def test_the_users_own_variable_stays_his_in_a_nested_call(
    shop: Path, feature: Path, isoenv: Isoenv, base: int
) -> None:
    script = f"cd {quote(str(feature))} && {NESTED} port web"
    done = isoenv("exec", ".", "sh", "-c", script, cwd=shop, env={"SHOP_SLOT": "5"})
    assert failure(done) == (0, f"{base + 5000}\n", "")


def test_a_number_pins_and_argument_or_directory_override(
    shop: Path, feature: Path, other: Path, isoenv: Isoenv, base: int
) -> None:
    assert isoenv("show", cwd=feature).returncode == 0
    script = " && ".join(
        [
            f"{NESTED} port web",
            f"{NESTED} exec . sh -c 'echo \"$WHERE\"'",
            f"cd {quote(str(feature))}",
            f"{NESTED} port web",
            f"SHOP_SLOT=5 {NESTED} port web",
            f"{NESTED} exec . sh -c 'echo \"$WHERE\"'",
            f"{NESTED} port web 2",
            f"{NESTED} -C . port web",
            f"{NESTED} -C . exec . sh -c '{NESTED} port web'",
            f"cd {quote(str(other))}",
            f"{NESTED} exec . sh -c 'echo \"$WHERE\"'",
        ]
    )
    done = isoenv("exec", "3", "sh", "-c", script, cwd=shop)
    assert done.stderr == ""
    three = str(base + 3000)
    assert done.stdout.splitlines() == [
        *(three, "shop/3"),
        *(three, three, "shop/3"),
        *(str(base + 2000), str(base + 1000), str(base + 1000)),
        "other/0",
    ]


def test_a_name_pins_and_a_dot_does_not(
    shop: Path, feature: Path, isoenv: Isoenv, base: int
) -> None:
    assert isoenv("show", cwd=feature).returncode == 0
    script = f"cd {quote(str(shop))} && {NESTED} port web"
    done = isoenv("exec", "feature", "sh", "-c", script, cwd=shop)
    assert failure(done) == (0, f"{base + 1000}\n", "")
    done = isoenv("exec", ".", "sh", "-c", script, cwd=feature, env=QUIET)
    assert failure(done) == (0, f"{base}\n", "")


def test_a_project_in_front_names_its_instances_from_anywhere(
    shop: Path, feature: Path, other: Path, isoenv: Isoenv, base: int
) -> None:
    for directory in (shop, feature, other):
        assert isoenv("show", cwd=directory).returncode == 0
    for place in (shop.parent, other, feature):
        done = isoenv("port", "web", "shop:1", cwd=place)
        assert failure(done) == (0, f"{base + 1000}\n", "")
        assert isoenv("port", "web", "shop:feature", cwd=place).stdout == f"{base + 1000}\n"
        assert isoenv("port", "web", "shop:8", cwd=place).stdout == f"{base + 8000}\n"
    script = 'echo "$WHERE $ISOENV_ROOT"; pwd'
    done = isoenv("exec", "shop:feature", "sh", "-c", script, cwd=other)
    assert failure(done) == (0, f"shop/1 {feature}\n{other}\n", "")
    done = isoenv("show", "nosuch:1", cwd=shop)
    assert failure(done) == (
        *(5, ""),
        "isoenv: no project nosuch: `isoenv list --all` shows them\n",
    )
    done = isoenv("show", "shop:nosuch", cwd=other)
    assert failure(done) == (
        *(5, ""),
        "isoenv: no instance nosuch of shop: `isoenv list` shows them\n",
    )


def test_projects_of_one_name_are_told_apart_by_their_paths(
    make_repo: Callable[[str], Path], tmp_path: Path, isoenv: Isoenv
) -> None:
    repos = [make_repo(f"{place}/twin") for place in ("a", "b")]
    for repo in repos:
        assert isoenv("claim", cwd=repo).returncode == 0
    done = isoenv("show", "twin:0", cwd=tmp_path)
    keys = ", ".join(f"{repo}/.git" for repo in repos)
    said = f"isoenv: twin is the name of several projects: {keys}: use one of these\n"
    assert failure(done) == (5, "", said)
    done = isoenv("show", f"{repos[1]}/.git:0", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["root"] == str(repos[1])


def test_a_look_at_a_number_leases_nothing_and_exec_does(
    shop: Path, isoenv: Isoenv, base: int
) -> None:
    assert isoenv("show", cwd=shop).returncode == 0
    shown = json.loads(isoenv("show", "5", "--json", cwd=shop).stdout)
    assert shown["ports"] == {"web": base + 5000}
    assert isoenv("port", "web", "5", cwd=shop).stdout == f"{base + 5000}\n"
    path = isoenv("path", "logs", "5", cwd=shop).stdout
    assert path == f"{shown['env']['ISOENV_DIR']}/logs\n"
    assert not os.path.exists(shown["env"]["ISOENV_DIR"])
    assert leases(isoenv, shop) == [("shop", 0, "shop")]

    done = isoenv("exec", "5", "sh", "-c", 'echo "$WHERE $WEB_PORT $ISOENV_ROOT"', cwd=shop)
    assert failure(done) == (0, f"shop/5 {base + 5000} {shop}\n", "")
    assert leases(isoenv, shop) == [("shop", 0, "shop"), ("shop", 5, "shop-5")]


def test_outside_a_checkout_a_number_is_one_of_the_default_project(
    tmp_path: Path, isoenv: Isoenv
) -> None:
    done = isoenv("exec", "2", "sh", "-c", 'echo "$ISOENV_PROJECT/$ISOENV_INSTANCE"', cwd=tmp_path)
    assert failure(done) == (0, "default/2\n", "")
    for operand in ([], ["."]):
        done = isoenv("show", *operand, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (5, "")
        assert done.stderr.startswith(f"isoenv: {tmp_path} is in no checkout: ")


def test_a_claimed_name_is_a_name_everywhere(
    shop: Path, feature: Path, isoenv: Isoenv, base: int
) -> None:
    done = isoenv("claim", "--name", "review it", cwd=feature)
    assert failure(done) == (0, "", f"isoenv: {feature} holds shop/1 review it\n")
    assert isoenv("port", "web", "review it", cwd=shop).stdout == f"{base + 1000}\n"
    assert isoenv("port", "web", "feature", cwd=shop).returncode == 5
    assert isoenv("claim", "--name", "review it", cwd=shop).returncode == 1
    assert leases(isoenv, feature) == [("shop", 1, "review it")]


def test_a_released_slot_is_free_for_another(
    shop: Path, feature: Path, isoenv: Isoenv, port: Callable[..., int]
) -> None:
    assert isoenv("claim", "3", cwd=feature).returncode == 0
    done = isoenv("claim", "3", cwd=shop)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"slot 3 of shop is held by {feature}" in done.stderr
    done = isoenv("release", "feature", cwd=shop)
    again = f": the next command in {feature} takes one again"
    assert failure(done) == (0, "", f"isoenv: shop/3 feature is free{again}\n")
    assert isoenv("claim", "3", cwd=shop).returncode == 0
    assert port(shop) == 3
    assert port(feature) == 1
    done = isoenv("release", "7", cwd=shop)
    assert failure(done) == (5, "", "isoenv: nobody holds slot 7 of shop: `isoenv list`\n")


def test_a_number_that_a_checkout_holds_has_that_checkouts_configuration(
    shop: Path, feature: Path, isoenv: Isoenv, allow: Allow, base: int
) -> None:
    text = CONFIG.format(project="shop", base=base) + 'NEWER = "yes"\n'
    (feature / "isoenv.toml").write_text(text)
    allow(feature)
    assert isoenv("show", cwd=feature).returncode == 0
    shown = json.loads(isoenv("show", "1", "--json", cwd=shop).stdout)
    assert (shown["root"], shown["env"]["NEWER"]) == (str(feature), "yes")
    assert "NEWER" not in json.loads(isoenv("show", "2", "--json", cwd=shop).stdout)["env"]
