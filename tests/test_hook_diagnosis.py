"""What doctor says of the shell that asks: its hook, what it inherited, what else manages it."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import TYPE_CHECKING

import pytest

from isoenv import context, envdiff, generated, hook_diagnosis, paths

if TYPE_CHECKING:
    from pathlib import Path


def kinds(directory: Path, environ: dict[str, str], *, interactive: bool = False) -> list[str]:
    caller = context.Caller(str(directory), {**os.environ, **environ})
    return [found.kind for found in hook_diagnosis.findings(caller, interactive=interactive)]


@pytest.fixture
def loaded() -> dict[str, str]:
    """An environment that isoenv has loaded, with its record."""
    before = {"PATH": "/bin"}
    return envdiff.apply(
        before, {"WEB_PORT": "4000", "ISOENV_ROOT": "/elsewhere"}, (), "/elsewhere"
    )


@pytest.mark.parametrize(
    ("word", "expected"),
    [("bash:1", []), ("zsh:0", ["hook-lost"]), ("fish:2", ["hook-doubled"])],
)
def test_a_hook_that_is_lost_or_doubled_is_found(
    tmp_path: Path, word: str, expected: list[str]
) -> None:
    assert kinds(tmp_path, {hook_diagnosis.HOOK: word}) == expected


def test_a_missing_hook_is_worth_a_word_to_a_person_only(tmp_path: Path) -> None:
    assert kinds(tmp_path, {}, interactive=True) == ["hook-missing"]
    assert kinds(tmp_path, {}) == []


def test_an_environment_of_another_checkout_is_found(repo: Path) -> None:
    assert kinds(repo, {"ISOENV_ROOT": "/elsewhere"}) == ["foreign-environment"]
    assert kinds(repo, {"ISOENV_ROOT": str(repo)}) == []


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


def test_a_ready_environment_of_another_version_is_found(repo: Path) -> None:
    directory = paths.generated_dir(paths.state_dir(os.environ), str(repo))
    paths.make_private(directory)
    for written, expected in (("isoenv 0 0.0.1", ["generated-outdated"]), (generated.FORMAT, [])):
        with open(f"{directory}/@env", "wb") as file:
            file.write(written.encode() + b"\0")
        assert kinds(repo, {}) == expected
