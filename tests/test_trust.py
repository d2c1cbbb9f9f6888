"""Nothing of an isoenv.toml is used before its user has allowed it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

CONFIG = """
[ports]
web = 8000
[env]
EVIL = "yes"
[path]
prepend = ["tools"]
[dirs]
DATA_DIR = "made"
[templates]
"out.conf" = "in.conf"
[flags]
FLAG = {}
"""


@pytest.fixture
def shop(repo: Path, git: Callable[..., str]) -> Path:
    """A repository whose hostile or honest isoenv.toml nobody has allowed yet."""
    (repo / "isoenv.toml").write_text(CONFIG)
    (repo / "in.conf").write_text("$EVIL")
    (repo / "tools").mkdir()
    (repo / "tools/tool").write_text('#!/bin/sh\ntouch "$0.ran"\n')
    (repo / "tools/tool").chmod(0o755)
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "config")
    return repo


COMMANDS = [
    ("exec", ".", "env"),
    ("exec", "3", "env"),
    ("exec", ".", "tool"),
    ("export", "bash"),
    ("export", "fish", "--no-diff"),
    ("show",),
    ("show", "3"),
    ("port", "web"),
    ("path",),
    ("render",),
    ("claim",),
    ("claim", "4"),
    ("enable", "FLAG"),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_no_command_uses_what_was_not_allowed(
    shop: Path, isoenv: Isoenv, command: tuple[str, ...]
) -> None:
    done = isoenv(*command, cwd=shop, trusted=False)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == (
        f"isoenv: {shop}/isoenv.toml is not allowed yet: read it, then `isoenv allow`\n"
    )
    assert not (shop / "made").exists()
    assert not (shop / "out.conf").exists()
    assert not (shop / "tools/tool.ran").exists()
    assert isoenv("list", "--all", cwd=shop, trusted=False).stdout == ""


def test_a_hook_loads_nothing_that_was_not_allowed_and_says_so(shop: Path, isoenv: Isoenv) -> None:
    done = isoenv("export", "bash", "--hook", cwd=shop, trusted=False)
    assert done.returncode == 0
    assert "EVIL" not in done.stdout
    assert "__isoenv_use='none'" in done.stdout
    assert "is not allowed yet" in done.stdout
    assert not (shop / "made").exists()


def test_a_linked_worktree_with_the_same_bytes_is_trusted_silently(
    shop: Path, isoenv: Isoenv, worktree: Worktree
) -> None:
    assert isoenv("allow", cwd=shop, trusted=False).returncode == 0
    feature = worktree(shop, "feature")
    done = isoenv("port", "web", cwd=feature, trusted=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "9000\n", "")


def test_one_changed_byte_asks_again_and_allow_shows_it(
    shop: Path, isoenv: Isoenv, worktree: Worktree
) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    feature = worktree(shop, "feature")
    (feature / "isoenv.toml").write_text(CONFIG.replace("yes", "yet"))
    done = isoenv("show", cwd=feature, trusted=False)
    assert (done.returncode, done.stderr) == (
        4,
        f"isoenv: {feature}/isoenv.toml has changed: `isoenv allow` shows how, and allows it\n",
    )
    assert isoenv("port", "web", cwd=shop, trusted=False).stdout == "8000\n"
    done = isoenv("allow", cwd=feature, trusted=False)
    assert done.returncode == 0
    assert '-EVIL = "yes"\n+EVIL = "yet"\n' in done.stderr
    assert isoenv("show", cwd=feature, trusted=False).returncode == 0


def test_deny_blocks_and_allow_takes_it_back(shop: Path, isoenv: Isoenv) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    assert isoenv("exec", ".", "true", cwd=shop, trusted=False).returncode == 0
    isoenv("deny", cwd=shop, trusted=False)
    done = isoenv("exec", ".", "true", cwd=shop, trusted=False)
    assert (done.returncode, done.stderr) == (
        4,
        f"isoenv: {shop}/isoenv.toml is denied: `isoenv allow` takes that back\n",
    )
    isoenv("allow", cwd=shop, trusted=False)
    assert isoenv("exec", ".", "true", cwd=shop, trusted=False).returncode == 0


def test_the_local_layer_needs_trust_of_its_own(shop: Path, isoenv: Isoenv) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    (shop / "isoenv.local.toml").write_text("[ports]\nweb = 8100\n")
    done = isoenv("port", "web", cwd=shop, trusted=False)
    assert (done.returncode, "isoenv.local.toml is not allowed" in done.stderr) == (4, True)
    isoenv("allow", cwd=shop, trusted=False)
    assert isoenv("port", "web", cwd=shop, trusted=False).stdout == "8100\n"


def test_a_clone_and_a_copy_are_not_trusted_by_the_original(
    shop: Path, isoenv: Isoenv, git: Callable[..., str], tmp_path: Path
) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    git(tmp_path, "clone", "-q", str(shop), str(tmp_path / "clone"))
    shutil.copytree(shop, tmp_path / "copy", symlinks=True)
    for place in (tmp_path / "clone", tmp_path / "copy"):
        assert isoenv("show", cwd=place, trusted=False).returncode == 4
        assert isoenv("allow", cwd=place, trusted=False).returncode == 0
    assert isoenv("show", cwd=shop, trusted=False).returncode == 0


def test_a_forged_pointer_into_a_trusted_repository_is_refused(
    shop: Path, isoenv: Isoenv, worktree: Worktree, tmp_path: Path
) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    feature = worktree(shop, "feature")
    for pointer in (f"{shop}/.git", f"{shop}/.git/worktrees/feature"):
        forged = tmp_path / f"forged-{len(pointer)}"
        forged.mkdir()
        (forged / ".git").write_text(f"gitdir: {pointer}\n")
        (forged / "isoenv.toml").write_text(CONFIG)
        done = isoenv("exec", ".", "env", cwd=forged, trusted=False)
        assert done.returncode in (1, 4), done
        assert "EVIL" not in done.stdout
        assert isoenv("allow", cwd=forged, trusted=False).returncode == 1
    assert isoenv("port", "web", cwd=feature, trusted=False).returncode == 0


def test_a_broken_registry_untrusts_nothing(shop: Path, isoenv: Isoenv) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    (Path(os.environ["ISOENV_STATE_DIR"]) / "registry.db").unlink(missing_ok=True)
    assert isoenv("port", "web", cwd=shop, trusted=False).stdout == "8000\n"


def test_two_who_allow_at_once_lose_neither(shop: Path, isoenv: Isoenv) -> None:
    bases = [shop / f"part{number}" for number in range(8)]
    for base in bases:
        base.mkdir()
        (base / "isoenv.toml").write_text(f"[ports]\nweb = {8000 + len(base.name)}\n")
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    argv = [sys.executable, "-m", "isoenv", "allow"]
    running = [
        subprocess.Popen(argv, cwd=base, env=environ, stderr=subprocess.PIPE) for base in bases
    ]
    for process in running:
        process.communicate()
        assert process.returncode == 0
    for base in bases:
        assert isoenv("show", cwd=base, trusted=False).returncode == 0


def test_a_moved_repository_stays_trusted(shop: Path, isoenv: Isoenv, tmp_path: Path) -> None:
    isoenv("allow", cwd=shop, trusted=False)
    shop.rename(tmp_path / "moved")
    assert isoenv("port", "web", cwd=tmp_path / "moved", trusted=False).returncode == 0
