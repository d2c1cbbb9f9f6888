"""What doctor says of the shell that asks: its hook, what it inherited, what else manages it."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING

import pytest

from isoenv import context, envdiff, instances
from isoenv.diagnosis import shell

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from isoenv.diagnosis.finding import Finding


def findings(
    directory: Path, environ: dict[str, str], *, interactive: bool = False
) -> list[Finding]:
    caller = context.Caller(str(directory), {**os.environ, **environ})
    return list(shell.findings(caller, interactive=interactive))


def kinds(directory: Path, environ: dict[str, str], *, interactive: bool = False) -> list[str]:
    return [found.kind for found in findings(directory, environ, interactive=interactive)]


@pytest.fixture
def loaded(tmp_path: Path) -> dict[str, str]:
    """An environment that isoenv has loaded, with its record."""
    root = str(tmp_path)
    return envdiff.apply({"PATH": "/bin"}, {"WEB_PORT": "4000", "ISOENV_ROOT": root}, (), root)


@pytest.mark.parametrize(
    ("word", "expected"),
    [("bash:1", []), ("zsh:0", ["hook-lost"]), ("fish:2", ["hook-doubled"])],
)
def test_a_hook_that_is_lost_or_doubled_is_found(
    tmp_path: Path, word: str, expected: list[str]
) -> None:
    assert kinds(tmp_path, {shell.HOOK: word}) == expected


def test_a_missing_hook_is_worth_a_word_to_a_person_only(tmp_path: Path) -> None:
    assert kinds(tmp_path, {}, interactive=True) == ["hook-missing"]
    assert kinds(tmp_path, {}) == []


def test_an_environment_of_another_checkout_is_found(repo: Path) -> None:
    assert kinds(repo, {"ISOENV_ROOT": "/elsewhere"}) == ["foreign-environment"]
    assert kinds(repo, {"ISOENV_ROOT": str(repo)}) == []


def test_an_instance_that_was_chosen_by_number_is_not_foreign(repo: Path) -> None:
    chosen = {"ISOENV_ROOT": "/elsewhere", instances.PIN: "3:shop"}
    assert kinds(repo, chosen) == []


def test_an_environment_of_a_checkout_that_is_gone_is_found_anywhere(tmp_path: Path) -> None:
    [found] = findings(tmp_path, {"ISOENV_ROOT": "/elsewhere", "ISOENV_INSTANCE": "2"})
    assert found.kind == "foreign-environment"
    assert found.message == "this environment is that of ?:2 in /elsewhere, which is gone"
    assert kinds(tmp_path, {"ISOENV_ROOT": str(tmp_path)}) == []


@contextlib.contextmanager
def sleeping(environ: dict[str, str]) -> Iterator[int]:
    """A process of this user with another environment."""
    argv = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]
    with subprocess.Popen(
        argv, env={**os.environ, **environ}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_a_shell_with_another_state_directory_is_found(tmp_path: Path) -> None:
    other = f"{tmp_path}/other"
    with sleeping({"ISOENV_STATE_DIR": other}) as pid, sleeping({"ISOENV_STATE_DIR": other}):
        [found] = findings(tmp_path, {})
        assert (found.kind, found.harmless, found.file) == ("two-states", True, other)
        assert f"(pid {pid}) and 1 other would use the state directory {other}, " in found.message
    assert kinds(tmp_path, {}) == []


def test_a_world_with_claims_of_its_own_is_nobodys_business(tmp_path: Path) -> None:
    with sleeping({"ISOENV_STATE_DIR": f"{tmp_path}/o", "ISOENV_HOST_DIR": f"{tmp_path}/h"}):
        assert kinds(tmp_path, {}) == []
    link = tmp_path / "link"
    (tmp_path / "state").mkdir()
    link.symlink_to(tmp_path / "state")
    with sleeping({"ISOENV_STATE_DIR": str(link)}):
        assert kinds(tmp_path, {}) == []


def test_variables_that_direnv_manages_too_are_found(
    tmp_path: Path, loaded: dict[str, str]
) -> None:
    document = json.dumps({"p": {}, "n": {"WEB_PORT": "1", "PATH": "/x"}}).encode()
    record = base64.urlsafe_b64encode(zlib.compress(document)).decode()
    assert kinds(tmp_path, {**loaded, "DIRENV_DIFF": record}) == ["two-injectors"]
    other = base64.urlsafe_b64encode(zlib.compress(b'{"p": {}, "n": {"OTHER": "1"}}')).decode()
    assert kinds(tmp_path, {**loaded, "DIRENV_DIFF": other}) == []


@pytest.mark.parametrize("record", ["", "garbage", "eJw=", "\udcff", "W10="])
def test_a_damaged_record_of_another_tool_is_passed_over(
    tmp_path: Path, loaded: dict[str, str], record: str
) -> None:
    assert kinds(tmp_path, {**loaded, "DIRENV_DIFF": record, "__MISE_DIFF": record}) == []
