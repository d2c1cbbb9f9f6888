"""`isoenv init`: a configuration made of what a checkout shows, that a person would keep."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    MakeRepo = Callable[[str], Path]

ROOT = Path(__file__).resolve().parents[1]
# Small projects of the shapes that public ones have, each with the file that is made of it.
PROJECTS = Path(__file__).parent / "projects"
NAMES = sorted(path.stem for path in PROJECTS.glob("*.toml"))

each_project = pytest.mark.parametrize("name", NAMES)


@pytest.fixture
def project(make_repo: MakeRepo, git: Callable[..., str]) -> Callable[[str], Path]:
    """A repository with the files of one of the projects."""

    def project(name: str) -> Path:
        repo = make_repo(name)
        shutil.copytree(PROJECTS / name, repo, dirs_exist_ok=True)
        git(repo, "add", "--all")
        return repo

    return project


def todo(text: str) -> list[str]:
    """What the file says has still to be done."""
    found = re.search(r"^# Still to do.*\n((?:# - .*\n)*)", text, re.MULTILINE)
    return re.findall(r"^# - (.*)$", found[1], re.MULTILINE) if found else []


def test_there_are_projects_of_eleven_shapes() -> None:
    first = ["django", "forward", "fullstack", "go", "monorepo", "next", "orienter"]
    assert [*first, "rails", "sail", "vite", "watch"] == NAMES


@each_project
def test_a_project_gets_the_configuration_that_a_person_would_keep(
    name: str, project: Callable[[str], Path], isoenv: Isoenv
) -> None:
    repo = project(name)
    expected = (PROJECTS / f"{name}.toml").read_text()
    done = isoenv("init", cwd=repo)
    assert (done.returncode, done.stdout) == (0, "")
    assert (repo / "isoenv.toml").read_text() == expected
    # Shown before it is written, for nobody is there to be asked.
    assert done.stderr.startswith(expected)
    assert done.stderr.endswith(
        f"isoenv: wrote {repo}/isoenv.toml: `isoenv allow` lets it take effect\n"
    )


@each_project
def test_what_is_made_passes_check_and_its_first_nine_slots_do_not_meet(
    name: str, project: Callable[[str], Path], isoenv: Isoenv
) -> None:
    repo = project(name)
    assert isoenv("init", cwd=repo).returncode == 0
    done = isoenv("check", cwd=repo)
    assert done.returncode == 0, done.stdout
    config = tomllib.loads((repo / "isoenv.toml").read_text())
    bases = [port if isinstance(port, int) else port["base"] for port in config["ports"].values()]
    numbers = [base + slot * config["instance"]["stride"] for slot in range(10) for base in bases]
    assert len(set(numbers)) == len(numbers)
    assert all(1024 <= number <= 65535 for number in numbers if number not in bases)
    assert isoenv("show", "1", "--json", cwd=repo).returncode == 0


@each_project
def test_a_dry_run_prints_the_file_and_says_what_is_left_to_do(
    name: str, project: Callable[[str], Path], isoenv: Isoenv
) -> None:
    repo = project(name)
    (repo / "isoenv.toml").write_text("# somebody's own\n")
    done = isoenv("init", "--dry-run", cwd=repo)
    expected = (PROJECTS / f"{name}.toml").read_text()
    assert (done.returncode, done.stdout) == (0, expected)
    told = [line.removeprefix("isoenv: ") for line in done.stderr.splitlines()]
    assert told[len(told) - len(todo(expected)) :] == todo(expected)
    assert (repo / "isoenv.toml").read_text() == "# somebody's own\n"


def test_secrets_of_the_users_own_settings_are_not_written_down(
    project: Callable[[str], Path], isoenv: Isoenv
) -> None:
    repo = project("next")
    with (repo / ".env").open("a") as file:
        file.write("DATABASE_URL=postgres://letters:s3cr3t@127.0.0.1:54320/letters\n")
    done = isoenv("init", cwd=repo)
    text = (repo / "isoenv.toml").read_text()
    for secret in ("h4mm3r", "t0k3n", "s3cr3t"):
        assert secret not in text
        assert secret not in done.stderr
    # What everybody has stands in for it; the rest is left to the user's own file.
    assert text == (PROJECTS / "next.toml").read_text()
    for line, name in ((4, "REPORTS_URL"), (5, "WEBHOOK_URL"), (6, "DATABASE_URL")):
        message = f"{name} holds a secret: your own value belongs in isoenv.local.toml"
        assert f"isoenv: .env:{line}: {message}\n" in done.stderr


def test_the_variables_that_a_project_reads_get_the_ports_of_each_slot(
    project: Callable[[str], Path], isoenv: Isoenv, free_port: Callable[[], int]
) -> None:
    repo = project("go")
    bases = [free_port() for _ in range(5)]
    for path in (repo / "compose.yaml", repo / ".env.example"):
        text = path.read_text()
        for old, new in zip((8080, 6060, 3306, 9000, 9001), bases, strict=True):
            # The numbers of the host only: in front of a colon, or behind an equals sign.
            text = re.sub(rf"(:-|\"){old}(?=[:}}])|(?<=_PORT=){old}", rf"\g<1>{new}", text)
        path.write_text(text)
    (repo / ".env").write_text(f"MINIO_API_PORT={bases[3]}\nMINIO_CONSOLE_PORT={bases[4]}\n")
    assert isoenv("init", cwd=repo).returncode == 0
    stride = tomllib.loads((repo / "isoenv.toml").read_text())["instance"]["stride"]
    script = 'echo "$HTTP_PORT $MINIO_API_PORT $PUBLIC_URL $COMPOSE_PROJECT_NAME ${DB_PORT-none}"'
    for slot in (0, 1):
        http, api = bases[0] + slot * stride, bases[3] + slot * stride
        done = isoenv("exec", str(slot), "sh", "-c", script, cwd=repo)
        assert done.stdout == f"{http} {api} http://localhost:{http} go-{slot} none\n", done.stderr


def test_a_preset_is_all_that_is_written_when_it_is_named(repo: Path, isoenv: Isoenv) -> None:
    done = isoenv("init", "--preset", "orient", "--yes", cwd=repo)
    assert done.returncode == 0
    assert tomllib.loads((repo / "isoenv.toml").read_text()) == {
        "project": repo.name,
        "extends": "orient",
    }
    assert isoenv("check", cwd=repo).returncode == 0


def test_the_preset_of_skypilot_names_the_project_itself(repo: Path, isoenv: Isoenv) -> None:
    done = isoenv("init", "--preset", "sky", "--dry-run", cwd=repo)
    assert (done.returncode, done.stdout, done.stderr) == (0, 'extends = "sky"\n', "")
    assert not (repo / "isoenv.toml").exists()


def test_a_preset_that_does_not_exist_is_wrong_usage(repo: Path, isoenv: Isoenv) -> None:
    done = isoenv("init", "--preset", "nosuch", cwd=repo)
    assert done.returncode == 2
    assert "'orient', 'sky'" in done.stderr


def test_an_empty_checkout_gets_an_example_in_comments(repo: Path, isoenv: Isoenv) -> None:
    assert isoenv("init", cwd=repo).returncode == 0
    text = (repo / "isoenv.toml").read_text()
    assert tomllib.loads(text) == {"project": repo.name}
    assert "# [ports]\n# web = 3000\n" in text
    assert isoenv("check", cwd=repo).stdout.endswith(
        "isoenv.toml: right, 0 ports, last slot 9999\n"
    )


def test_a_plain_directory_and_a_subdirectory_work_too(
    tmp_path: Path, repo: Path, isoenv: Isoenv
) -> None:
    plain = tmp_path / "plain"
    plain.mkdir()
    (plain / "Procfile").write_text("web: next dev\n")
    assert isoenv("init", cwd=plain).returncode == 0
    assert tomllib.loads((plain / "isoenv.toml").read_text())["ports"] == {
        "web": {"base": 3000, "variable": "PORT"}
    }
    (repo / "deep/er").mkdir(parents=True)
    assert isoenv("init", cwd=repo / "deep/er").returncode == 0
    assert (repo / "isoenv.toml").exists()


@pytest.mark.parametrize("kind", ["file", "directory", "dangling link"])
def test_what_is_there_is_never_overwritten(kind: str, repo: Path, isoenv: Isoenv) -> None:
    target = repo / "isoenv.toml"
    if kind == "file":
        target.write_text("ports = [\n")
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(repo / "elsewhere")
    before = os.lstat(target)
    done = isoenv("init", "--yes", cwd=repo, trusted=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"isoenv: {target} exists: edit it, or remove it first\n"
    assert os.lstat(target).st_mtime_ns == before.st_mtime_ns
    assert not (repo / "elsewhere").exists()


def test_a_disk_that_takes_no_more_leaves_no_half_a_file(repo: Path) -> None:
    argv = ["sh", "-c", 'ulimit -f 0; exec "$0" -m isoenv init', sys.executable]
    done = subprocess.run(
        argv, cwd=repo, env=_environ(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(f"isoenv: cannot write {repo}/isoenv.toml: file too large\n")
    assert not (repo / "isoenv.toml").exists()


def _environ() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.parametrize(
    ("answer", "written"), [("y", True), ("", True), ("n", False), ("\x03", False)]
)
def test_on_a_terminal_the_file_is_shown_and_asked_about(
    answer: str, *, written: bool, project: Callable[[str], Path]
) -> None:
    repo = project("vite")
    argv = ["-m", "isoenv", "init"]
    child = pexpect.spawn(
        sys.executable, argv, cwd=str(repo), env=_environ(), encoding="utf-8", timeout=None
    )
    child.expect_exact("[ports]")
    child.expect_exact(f"Write {repo}/isoenv.toml? [Y/n]")
    assert not (repo / "isoenv.toml").exists()
    if answer == "\x03":
        child.sendintr()
    else:
        child.sendline(answer)
    child.expect(pexpect.EOF)
    child.close()
    assert (repo / "isoenv.toml").exists() == written
    assert child.exitstatus == (130 if answer == "\x03" else 0)


def test_a_file_that_comes_while_the_question_stands_is_left_alone(
    project: Callable[[str], Path],
) -> None:
    repo = project("vite")
    argv = ["-m", "isoenv", "init"]
    child = pexpect.spawn(
        sys.executable, argv, cwd=str(repo), env=_environ(), encoding="utf-8", timeout=None
    )
    child.expect_exact("? [Y/n]")
    (repo / "isoenv.toml").write_text("# somebody's own\n")
    child.sendline("y")
    child.expect_exact("isoenv.toml exists: edit it, or remove it first")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 1
    assert (repo / "isoenv.toml").read_text() == "# somebody's own\n"


def test_yes_asks_nobody_on_a_terminal(project: Callable[[str], Path]) -> None:
    repo = project("vite")
    argv = ["-m", "isoenv", "init", "--yes"]
    child = pexpect.spawn(
        sys.executable, argv, cwd=str(repo), env=_environ(), encoding="utf-8", timeout=None
    )
    assert child.expect_exact([pexpect.EOF, "? [Y/n]"]) == 0
    child.close()
    assert child.exitstatus == 0
    assert (repo / "isoenv.toml").read_text() == (PROJECTS / "vite.toml").read_text()
