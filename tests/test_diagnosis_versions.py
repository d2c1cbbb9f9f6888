"""What doctor says of other versions of isoenv, and of what no longer serves."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import context, generated, paths, scripts
from isoenv.diagnosis import versions

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from isoenv.diagnosis.finding import Finding

    Isoenv = Callable[..., CompletedProcess[str]]

OTHER = "isoenv 1 0.0.9"


def findings(**environ: str) -> list[Finding]:
    return list(versions.findings(context.Caller("/", {**os.environ, **environ})))


def kinds(**environ: str) -> list[str]:
    return [found.kind for found in findings(**environ)]


@pytest.fixture
def ready(tmp_path: Path) -> Callable[..., Path]:
    """Write what a version of isoenv makes ready for a directory, at a time in seconds."""

    def ready(base: Path, by: str = generated.FORMAT, time: int = 1000) -> Path:
        directory = Path(paths.generated_dir(str(tmp_path / "state"), str(base)))
        directory.mkdir(parents=True, exist_ok=True)
        for name in ("@env", "@env.sh", "@env.fish", "@g.1", "@w0.1"):
            (directory / name).write_text(f"{by}\0{base}\0")
            os.utime(directory / name, (time, time))
        return directory

    return ready


def launcher(directory: Path, by: str | None = OTHER) -> Path:
    """Put a command of that name into a directory of PATH."""
    directory.mkdir(exist_ok=True)
    file = directory / "isoenv"
    text = scripts.text("isoenv.sh")
    if by:
        text = text.replace(f"'# {generated.FORMAT}'", f"'# {by}'")
        assert by in text
    else:
        text = "#!/bin/sh\ntouch ran\n"
    file.write_text(text)
    file.chmod(0o755)
    return file


def test_another_version_on_path_is_named_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = launcher(tmp_path / "bin")
    launcher(tmp_path / "more", by=None)
    launcher(tmp_path / "same", by=generated.FORMAT)
    (tmp_path / "again").symlink_to("bin")
    path = ":".join(
        [os.environ["PATH"], *(str(tmp_path / name) for name in ("bin", "again", "more", "same"))]
    )
    [found] = findings(PATH=path)
    assert (found.kind, found.harmless, found.file) == ("two-versions", False, str(file))
    assert found.message.startswith(f"{file} is isoenv 0.0.9, this is isoenv ")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("make", ["fifo", "directory", "unreadable", "relative"])
def test_what_else_stands_on_path_is_passed_over(
    tmp_path: Path, make: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    file = tmp_path / "bin/isoenv"
    if make == "fifo":
        os.mkfifo(file, 0o755)
    elif make == "directory":
        file.mkdir()
    elif make == "unreadable":
        file.symlink_to("isoenv")
    else:
        monkeypatch.chdir(tmp_path)
        launcher(tmp_path / "bin")
    path = "bin" if make == "relative" else str(tmp_path / "bin")
    assert kinds(PATH=f"{path}::{os.environ['PATH']}") == []


def test_what_is_ready_for_a_directory_that_is_gone_is_removed(
    tmp_path: Path, ready: Callable[..., Path]
) -> None:
    kept, gone = tmp_path / "a/kept", tmp_path / "b/c/gone"
    kept.mkdir(parents=True)
    (tmp_path / "a/kept/below").mkdir()
    stay = [ready(kept), ready(kept / "below"), ready(kept / "@slot.2")]
    leave = [ready(gone), ready(gone / "@slot.2"), ready(kept / "lost")]
    [found] = findings()
    assert (found.kind, found.harmless) == ("generated-stale", True)
    assert f"3 ready environments of directories that are gone: {kept}/lost, {gone}, {gone}" in (
        found.message
    )
    assert found.repair is not None
    assert found.repair() == "removed 3 ready environments"
    assert all((directory / "@env").exists() for directory in stay)
    assert not any(directory.exists() for directory in leave)
    assert not Path(paths.generated_dir(str(tmp_path / "state"), str(tmp_path / "b"))).exists()
    assert kinds() == []


def test_what_an_older_version_has_left_is_something_to_know(
    tmp_path: Path, ready: Callable[..., Path]
) -> None:
    for name in "abc":
        (tmp_path / name).mkdir()
    old = [ready(tmp_path / name, OTHER, time) for name, time in (("a", 100), ("b", 200))]
    new = ready(tmp_path / "c", time=300)
    [found] = findings()
    assert (found.kind, found.harmless) == ("generated-outdated", True)
    assert f"2 ready environments written by {OTHER!r}, this is " in found.message
    assert found.repair is not None
    found.repair()
    assert [directory.exists() for directory in (*old, new)] == [False, False, True]
    assert kinds() == []


def test_two_versions_that_take_turns_are_wrong(tmp_path: Path, ready: Callable[..., Path]) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
    ready(tmp_path / "a", time=100)
    other = ready(tmp_path / "b", OTHER, time=200)
    [found] = findings()
    assert (found.kind, found.harmless, found.file) == ("two-versions", False, f"{other}/@env")
    assert f"was written by {OTHER!r} after {generated.FORMAT!r} had written others" in (
        found.message
    )


@pytest.mark.parametrize("content", [b"", b"\0", b"\xff\xfe" * 300])
def test_a_damaged_ready_environment_counts_as_anothers(
    tmp_path: Path, ready: Callable[..., Path], content: bytes
) -> None:
    (ready(tmp_path) / "@env").write_bytes(content)
    assert kinds() == ["generated-outdated"]


def test_a_ready_environment_that_was_removed_is_made_again(repo: Path, isoenv: Isoenv) -> None:
    (repo / "isoenv.toml").write_text('project = "shop"\n[env]\nX = "{id}"\n')
    assert isoenv("exec", ".", "true", cwd=repo).returncode == 0
    away = repo.with_name("away")
    shutil.move(repo, away)
    [found] = findings()
    assert found.repair is not None
    found.repair()
    done = isoenv("exec", ".", "printenv", "X", cwd=away)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert kinds() == []


def test_the_launcher_beside_this_interpreter_is_of_this_version() -> None:
    assert kinds() == []
