"""What doctor says of a project's own files: ports, names and addresses that instances share."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from isoenv import context
from isoenv.diagnosis import survey

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from subprocess import CompletedProcess

    from isoenv.diagnosis.finding import Finding

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

COMPOSE = """\
name: shop
services:
  web:
    image: shop
    container_name: shop-web
    ports:
      - "{web}:80"
      - "${{API_PORT:-{api}}}:81"
      - "${{ADMIN_PORT:-{admin}}}:82"
  db:
    image: postgres
    container_name: ${{COMPOSE_PROJECT_NAME}}-db
volumes:
  data:
    name: shop-data
  own: {{}}
  theirs:
    external: true
    name: theirs
networks:
  inner:
    name: "${{COMPOSE_PROJECT_NAME}}-inner"
  fixed:
    ipam:
      config:
        - subnet: 172.28.0.0/16
"""
CONFIG = """\
project = "shop"
[ports]
web = {web}
api = {api}
[env]
API_URL = "http://localhost:{{ports.api}}"
"""


@pytest.fixture
def numbers(free_port: Callable[[], int]) -> dict[str, int]:
    return {name: free_port() for name in ("web", "api", "admin")}


@pytest.fixture
def shop(make_repo: Callable[[str], Path], numbers: dict[str, int], isoenv: Isoenv) -> Path:
    """A main checkout with a compose file that defeats isolation in every way, and its lease."""
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG.format(**numbers))
    (repo / "compose.yaml").write_text(COMPOSE.format(**numbers))
    assert isoenv("claim", cwd=repo).returncode == 0
    return repo


@pytest.fixture
def feature(shop: Path, worktree: Worktree, isoenv: Isoenv) -> Path:
    """A second instance of the shop."""
    tree = worktree(shop, "feature")
    for name in ("isoenv.toml", "compose.yaml"):
        (tree / name).write_text((shop / name).read_text())
    assert isoenv("claim", cwd=tree).returncode == 0
    return tree


def findings(directory: Path, *ignored: str) -> list[Finding]:
    caller = context.Caller(str(directory), os.environ)
    found = survey.findings(caller, interactive=False)
    return [each for each in found if each.kind not in ("ephemeral", *ignored)]


def seen(directory: Path) -> list[tuple[str, int | None, bool]]:
    return [(found.kind, found.line, found.harmless) for found in findings(directory)]


def line_of(text: str, numbers: dict[str, int]) -> int:
    """Return the line of the compose file that begins with a text."""
    lines = COMPOSE.format(**numbers).splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.strip().startswith(text))


def expected(numbers: dict[str, int], *, harmless: bool) -> list[tuple[str, int | None, bool]]:
    web, admin = f'- "{numbers["web"]}', '- "${ADMIN'
    names = ("container_name: shop-web", "name: shop-data", "- subnet")
    return [
        *(("fixed-name", line_of(text, numbers), harmless) for text in names),
        ("external", line_of("external", numbers), True),
        ("compose-project", None, harmless),
        *(("fixed-port", line_of(text, numbers), harmless) for text in (web, admin)),
    ]


def test_what_defeats_isolation_is_found_with_file_and_line(
    feature: Path, numbers: dict[str, int]
) -> None:
    assert seen(feature) == expected(numbers, harmless=False)
    found = {(each.kind, each.line): each for each in findings(feature)}
    file = f"{feature}/compose.yaml"
    name = found["fixed-name", 5]
    assert name.message == f"{file}:5: container_name `shop-web` is one for all instances"
    assert (name.remedy, name.file) == ("take the line out", file)
    fixed, unset = found["fixed-port", 7], found["fixed-port", 9]
    web, admin = numbers["web"], numbers["admin"]
    assert fixed.message == f"{file}:7: {web} is fixed here"
    assert (fixed.remedy, fixed.port) == (f'`"${{WEB_PORT:-{web}}}:80"` moves it', web)
    assert unset.message == f"{file}:9: ADMIN_PORT is {admin} in each instance, nothing sets it"
    assert unset.remedy == f'`{{ base = {admin}, variable = "ADMIN_PORT" }}` in `[ports]`'
    assert "`name: shop` is what Compose tells" in found["compose-project", None].message


def test_one_instance_alone_is_told_what_would_go_wrong(
    shop: Path, numbers: dict[str, int]
) -> None:
    assert seen(shop) == expected(numbers, harmless=True)


def test_what_is_put_right_is_found_no_more(
    feature: Path, numbers: dict[str, int], isoenv: Isoenv
) -> None:
    toml = CONFIG.format(**numbers).replace("[ports]", f"[ports]\nadmin = {numbers['admin']}")
    toml += 'COMPOSE_PROJECT_NAME = "{project}-{id}"\n'
    (feature / "isoenv.toml").write_text(toml)
    lines = COMPOSE.format(**numbers).splitlines()
    put_right = (5, 7, 15, 18, 26)
    text = "\n".join(line for number, line in enumerate(lines, 1) if number not in put_right)
    text = text.replace("config:", "driver: default").replace("  theirs:\n    name: theirs\n", "")
    (feature / "compose.yaml").write_text(f"{text}\n")
    assert isoenv("claim", cwd=feature).returncode == 0
    assert seen(feature) == []


def test_a_name_of_a_variable_that_nobody_sets_is_one_for_all(
    feature: Path, isoenv: Isoenv
) -> None:
    text = "services:\n  db:\n    container_name: ${DB_NAME:-shop-db}\n"
    (feature / "compose.yaml").write_text(text)
    kinds = ("compose-project",)
    [found] = findings(feature, *kinds)
    assert (found.kind, found.line, found.harmless) == ("fixed-name", 3, False)
    assert found.message.endswith("container_name `shop-db` is one for all instances")
    assert found.remedy == '`DB_NAME = "shop-db-{id}"` in `[env]` of isoenv.toml'
    with (feature / "isoenv.toml").open("a") as file:
        file.write('DB_NAME = "shop-db-{id}"\n')
    assert isoenv("claim", cwd=feature).returncode == 0
    assert findings(feature, *kinds) == []


def test_a_fixed_port_that_another_project_has_leased_is_wrong_at_once(
    shop: Path, make_repo: Callable[[str], Path], numbers: dict[str, int], isoenv: Isoenv
) -> None:
    other = make_repo("other")
    toml = f'project = "other"\n[ports]\nhttp = {numbers["admin"]}\n'
    (other / "isoenv.toml").write_text(toml)
    assert isoenv("claim", cwd=other).returncode == 0
    [found] = [each for each in findings(shop) if not each.harmless]
    assert (found.kind, found.line) == ("fixed-port", 9)
    assert found.message.endswith("nothing sets it, and reserved by other/0 other (http)")


def test_a_variable_that_the_user_sets_in_his_own_env_is_his_affair(
    feature: Path, free_port: Callable[[], int]
) -> None:
    (feature / ".env").write_text(f"ADMIN_PORT={free_port()}\n")
    assert not [each for each in findings(feature) if each.line == 9]


def test_files_of_a_repository_without_configuration_are_nobodys_business(
    repo: Path, numbers: dict[str, int]
) -> None:
    (repo / "compose.yaml").write_text(COMPOSE.format(**numbers))
    assert seen(repo) == []


@pytest.mark.parametrize(
    "text", ["DB_PORT={api}", "export DB_PORT='{api}' # x", "DB_URL=postgres://u@localhost:{api}/x"]
)
def test_a_setting_that_leads_to_another_instance_is_wrong_from_anywhere(
    shop: Path, feature: Path, numbers: dict[str, int], tmp_path: Path, text: str
) -> None:
    (shop / "compose.yaml").unlink()
    (feature / "compose.yaml").unlink()
    (shop / ".env").write_text(text.format(**numbers))
    assert seen(tmp_path) == []
    (feature / ".env").write_text("# own\n" + text.format(**numbers) + "\n")
    [found] = findings(tmp_path)
    name = "DB_URL" if "URL" in text else "DB_PORT"
    api = numbers["api"]
    assert (found.kind, found.harmless, found.line, found.port) == (
        *("settings-clash", False, 2),
        api,
    )
    assert found.message == (
        f"{feature}/.env:2: {name} names port {api}, which is api of shop/0 shop, "
        f"where shop/1 feature has {api + 1000}"
    )


def test_a_setting_that_isoenv_sets_itself_leads_nowhere(
    feature: Path, numbers: dict[str, int], tmp_path: Path
) -> None:
    text = "API_PORT={api}\nAPI_URL=http://localhost:{api}\nWEB_PORT={web}\n"
    (feature / ".env").write_text(text.format(**numbers))
    assert seen(tmp_path) == []


def test_a_server_that_two_projects_share_is_something_to_know(
    shop: Path, make_repo: Callable[[str], Path], numbers: dict[str, int], isoenv: Isoenv
) -> None:
    (shop / "compose.yaml").unlink()
    other = make_repo("other")
    (other / "isoenv.toml").write_text('project = "other"\n')
    (other / ".env").write_text(f"SHOP_URL=http://127.0.0.1:{numbers['web']}\n")
    assert isoenv("claim", cwd=other).returncode == 0
    assert seen(shop) == [("settings-clash", 1, True)]


@pytest.mark.parametrize("make", ["fifo", "directory", "binary"])
def test_settings_that_cannot_be_read_are_passed_over(
    shop: Path, tmp_path: Path, make: str
) -> None:
    path = shop / ".env"
    if make == "fifo":
        os.mkfifo(path)
    elif make == "directory":
        path.mkdir()
    else:
        path.write_bytes(b"\xff\0PORT=\xfe=:\n" * 9)
    assert seen(tmp_path) == []


def test_a_broken_configuration_is_said(repo: Path) -> None:
    (repo / "isoenv.toml").write_text("ports = 3\n")
    [found] = findings(repo)
    assert (found.kind, found.remedy) == ("config", "`isoenv check`")
    assert f"{repo}/isoenv.toml" in found.message


@contextlib.contextmanager
def serving(port: int, cwd: Path) -> Iterator[int]:
    """A process that listens, in a directory."""
    code = (
        "import socket, sys\n"
        f"held = socket.create_server(('127.0.0.1', {port}))\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        assert process.stdin is not None
        process.stdin.close()


def test_a_port_of_the_files_that_somebody_else_listens_on_is_named(
    shop: Path, numbers: dict[str, int], tmp_path: Path
) -> None:
    with serving(numbers["admin"], tmp_path) as pid:
        [found] = [each for each in findings(shop) if each.kind == "file-port-held"]
        assert found.message.startswith(f"{shop}/compose.yaml:9: port {numbers['admin']} is held")
        assert f"(pid {pid}), in {tmp_path}, of user " in found.message
        assert (found.harmless, found.port) == (False, numbers["admin"])
        assert found.holder is not None
        assert (found.holder.pid, found.holder.cwd) == (pid, str(tmp_path))
    with serving(numbers["admin"], shop):
        assert not [each for each in findings(shop) if each.kind == "file-port-held"]
