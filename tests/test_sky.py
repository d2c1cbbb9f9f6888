"""SkyPilot by number, with no file at all."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import pytest

from isoenv.models import Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

SKYPILOT = Project("skypilot", "skypilot")
NESTED = f"{quote(sys.executable)} -m isoenv"

# What the caller has set and what would tie all instances together.
TIES = {
    "SKYPILOT_CONFIG": "/etc/sky/config.yaml",
    "SKYPILOT_DB_CONNECTION_URI": "postgresql://everybody/sky",
    "SKYPILOT_DB_POOL_CONNECTION_URI": "postgresql://everybody/pool",
    "SKYPILOT_DB_POOL_HOSTPORT": "everybody:6432",
    "IS_SKYPILOT_SERVER": "true",
}
FREE = {"SKYPILOT_DEBUG": "1", "SKYPILOT_API_SERVER_ENDPOINT": "https://sky.example.org"}


def ours(home: Path, slot: int) -> dict[str, str]:
    """What SkyPilot has to see in an instance."""
    return {
        "SKYPILOT_USER_ID": (home / f".sky-dev-{slot}/user_id").read_text().strip(),
        "SKYPILOT_DISABLE_LOCAL_API_SERVER": "1",
        "SKYPILOT_INSTANCE_ID": str(slot),
        "SKYPILOT_API_SERVER_LOCAL_PORT": str(46580 + slot),
        "SKYPILOT_API_SERVER_ENDPOINT": f"http://127.0.0.1:{46580 + slot}",
        "SKY_RUNTIME_DIR": f"{home}/.sky-dev-{slot}",
        "SKYPILOT_DEBUG": "1",
    }


@pytest.fixture(autouse=True)
def sky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for SkyPilot's command that prints its environment."""
    command = tmp_path / "bin/sky"
    command.parent.mkdir()
    command.write_text("#!/bin/sh\nexec env -0\n")
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{command.parent}:{os.environ['PATH']}")
    return command


@pytest.fixture
def tree(make_repo: Callable[[str], Path], git: Callable[..., str]) -> Path:
    """A SkyPilot checkout, as far as anybody looks."""
    repo = make_repo("skypilot")
    (repo / "sky/skylet").mkdir(parents=True)
    for file in ("sky/__init__.py", "sky/skylet/__init__.py"):
        (repo / file).touch()
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=sky")
    return repo


@pytest.fixture
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A directory of the kind that the test names."""
    if request.param == "outside":
        (tmp_path / "outside").mkdir()
        return tmp_path / "outside"
    fixture = {"repository": "repo", "skypilot": "tree"}[request.param]
    found = request.getfixturevalue(fixture)
    assert isinstance(found, Path)
    return found


def environment(done: CompletedProcess[str]) -> dict[str, str]:
    """What the stand-in has printed."""
    assert done.returncode == 0, done.stderr
    pairs = (line.partition("=") for line in done.stdout.split("\0") if line)
    return {name: value for name, _, value in pairs}


def sky_variables(environ: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in environ.items() if k.startswith(("SKY", "IS_SKYPILOT"))}


def hold(*slots: int) -> None:
    """Let bare numbers hold slots of SkyPilot."""
    with Registry(os.environ["ISOENV_STATE_DIR"]) as registry, registry.transaction():
        for slot in slots:
            registry.insert(SKYPILOT, slot, f"skypilot-{slot}")


@pytest.mark.parametrize("place", ["outside", "repository", "skypilot"], indirect=True)
def test_a_number_is_an_instance_in_any_directory(place: Path, home: Path, isoenv: Isoenv) -> None:
    before = sorted(os.listdir(place))
    done = isoenv("exec", "2", "sky", "launch", "task.yaml", cwd=place, env={**TIES, **FREE})
    env = environment(done)
    assert sky_variables(env) == ours(home, 2)
    assert (env["ISOENV_PROJECT"], env["ISOENV_INSTANCE"]) == ("skypilot", "2")
    assert env["PWD"] == str(place)
    assert sorted(os.listdir(place)) == before
    assert not (home / ".sky").exists()

    again = isoenv("exec", "2", "sky", cwd=place, env={**TIES, **FREE})
    assert sky_variables(environment(again)) == ours(home, 2)
    assert again.stderr == ""


def test_all_directories_mean_the_same_instance(
    tree: Path, repo: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    for directory in (tmp_path, repo, tree):
        assert isoenv("exec", "2", "sky", cwd=directory).returncode == 0
    listed = json.loads(isoenv("list", "--all", "--json", cwd=tmp_path).stdout)["instances"]
    assert [(row["project"], row["slot"], row["ports"]) for row in listed] == [
        ("skypilot", 2, {"api": 46582, "queue": 50013})
    ]


def test_the_main_checkout_is_left_alone(tree: Path, home: Path, isoenv: Isoenv) -> None:
    (home / ".sky").mkdir()
    (home / ".sky/config.yaml").write_text("theirs: true\n")
    caller = {**os.environ, **TIES, **FREE, "PYTHONPATH": str(Path(__file__).parents[1])}
    for _ in range(2):
        done = isoenv("exec", ".", "sky", cwd=tree, env={**TIES, **FREE})
        # `sh`, which the stand-in is run by, adds PWD.
        assert {**environment(done), "PWD": ""} == {**caller, "PWD": ""}
        assert done.stderr == ""
    assert isoenv("export", "bash", cwd=tree, env=TIES).stdout == ""
    assert [path.name for path in home.iterdir()] == [".sky"]
    assert [path.name for path in (home / ".sky").iterdir()] == ["config.yaml"]


def test_the_main_checkout_has_no_directory_of_isoenvs(tree: Path, isoenv: Isoenv) -> None:
    done = isoenv("path", "logs", cwd=tree)
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == "isoenv: skypilot/0 is left as it is: `isoenv path logs 1`\n"


def test_a_worktree_gets_a_number_of_its_own(
    tree: Path, worktree: Worktree, home: Path, isoenv: Isoenv
) -> None:
    root = worktree(tree, "feature")
    hold(*range(1, 8))
    env = environment(isoenv("exec", ".", "sky", cwd=root, env={**TIES, **FREE}))
    # 8, unless a stranger holds a port of it on this machine.
    slot = int(env["SKYPILOT_INSTANCE_ID"])
    assert slot in (8, 9, 11, 12)
    assert sky_variables(env) == ours(home, slot)
    assert isoenv("path", "logs/x", cwd=root).stdout == f"{home}/.sky-dev-{slot}/logs/x\n"
    assert isoenv("path", "", "3", cwd=root).stdout == f"{home}/.sky-dev-3\n"


def test_leaving_an_instance_gives_the_callers_own_values_back(
    tree: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    script = f'cd "{tree}" && exec {NESTED} exec . sky'
    done = isoenv("exec", "2", "sh", "-c", script, cwd=tree, env={**TIES, **FREE})
    # Pinned to 2 by the number, so still there …
    assert sky_variables(environment(done))["SKYPILOT_INSTANCE_ID"] == "2"
    script = f'exec {NESTED} -C "{tree}" exec . sky'
    done = isoenv("exec", "2", "sky", cwd=tmp_path, env={**TIES, **FREE})
    assert "SKYPILOT_CONFIG" not in environment(done)
    done = isoenv("exec", "2", "sh", "-c", script, cwd=tree, env={**TIES, **FREE})
    # … and left by -C: the main checkout again.
    assert sky_variables(environment(done)) == {**TIES, **FREE}


def test_the_number_of_skylets_port_is_skipped_but_obeyed(
    tree: Path, worktree: Worktree, home: Path, isoenv: Isoenv
) -> None:
    hold(*range(1, 10))
    root = worktree(tree, "feature")
    done = isoenv("port", "api", cwd=root)
    assert int(done.stdout) > 46590
    assert "isoenv: slot 10 skipped: port 46590 (api) " in done.stderr

    done = isoenv("exec", "10", "sky", cwd=tree, env=FREE)
    assert sky_variables(environment(done)) == ours(home, 10)


def test_nothing_is_leased_by_a_look(tree: Path, isoenv: Isoenv) -> None:
    assert isoenv("port", "api", "7", cwd=tree).stdout == "46587\n"
    assert json.loads(isoenv("show", "7", "--json", cwd=tree).stdout)["slot"] == 7
    assert json.loads(isoenv("list", "--all", "--json", cwd=tree).stdout)["instances"] == []
