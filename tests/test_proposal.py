"""What is made of the files of a checkout, read without trust: odd ones give a line."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv import presets
from isoenv.config import Layer, parse
from isoenv.detection import proposal, scan, stride
from isoenv.models import Port

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., proposal.Proposal]:
    """What is made of some files, by their paths; a name of the project may be given."""

    def made(files: dict[str, str | bytes], project: str = "shop") -> proposal.Proposal:
        for name, content in files.items():
            path = tmp_path / "checkout" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return proposal.make(scan.scan(str(tmp_path / "checkout")), project)

    return made


def tables(of: proposal.Proposal) -> dict[str, Any]:
    """The tables of the text, which is right."""
    parse([Layer("isoenv.toml", of.text)], presets.text)
    return tomllib.loads(of.text)


def told(of: proposal.Proposal) -> list[str]:
    return [str(remark) for remark in of.remarks]


@pytest.mark.parametrize(
    ("bases", "step", "reason"),
    [
        ((3000, 8000, 5432), 10, "slots 0 to 9 stay clear of each other"),
        ((3000, 3010), 100, "with 10 `p0` of slot 1 is `p1` of slot 0: 3010"),
        ((3000, 3090), 100, "with 10 `p0` of slot 9 is `p1` of slot 0: 3090"),
        ((3000, 3100, 3110), 1000, "with 100 `p0` of slot 1 is `p1` of slot 0: 3100"),
        ((80, 443), 1000, "with 100 `p0` of slot 1 is 180, below 1024, where only root may listen"),
        ((80, 8080, 8090, 1080), 1100, "with 1000 `p0` of slot 1 is `p3` of slot 0: 1080"),
        ((4950,), 10, "slots 0 to 9 stay clear of each other"),
        ((65000,), 10, "slots 0 to 9 stay clear of each other"),
        (
            (32700,),
            10,
            (
                "no stride is without a flaw; with this one `p0` of slot 7 is 32770, "
                "where the kernel takes ports for outgoing connections"
            ),
        ),
        (
            (65500, 3000, 3010),
            10,
            "no stride is without a flaw; with this one `p1` of slot 1 is `p2` of slot 0: 3010",
        ),
    ],
)
def test_the_smallest_stride_that_works_is_chosen(
    bases: tuple[int, ...], step: int, reason: str
) -> None:
    ports = {f"p{n}": Port(f"p{n}", base, None) for n, base in enumerate(bases)}
    assert stride.choose(ports) == (step, reason)


def test_a_server_that_nothing_here_starts_is_shared_and_keeps_its_port(
    made: Callable[..., proposal.Proposal],
) -> None:
    env = """\
DATABASE_URL=mysql://localhost/shop?pool=5
DB_HOST=127.0.0.1
DB_PORT=3306
DB_NAME=shop
REDIS_URL=redis://:secret@localhost:6379/0
QUEUE_URL=redis://localhost:6379/2
AMQP_URL=amqp://localhost
"""
    proposed = made({".env.example": env})
    found = tables(proposed)
    assert "ports" not in found
    assert found["env"] == {
        "DATABASE_URL": "mysql://localhost:3306/shop_{id}?pool=5",
        "DB_NAME": "shop_{id}",
        "REDIS_URL": "redis://:secret@localhost:6379/{id}",
    }
    assert "# - mysql: 3306 (.env.example:3)\n" in proposed.text
    assert "# - rabbitmq: 5672 (.env.example:7)\n" in proposed.text


def test_a_server_of_its_own_keeps_the_name_of_its_database(
    made: Callable[..., proposal.Proposal],
) -> None:
    found = tables(
        made(
            {
                "compose.yaml": "services: { pg: { ports: ['${PG_PORT:-5432}:5432'] } }\n",
                ".env.example": "DATABASE_URL=postgres://localhost/shop\nPGDATABASE=shop\n",
            }
        )
    )
    assert found["ports"] == {"pg": 5432}
    assert found["env"]["DATABASE_URL"] == "postgres://localhost:{ports.pg}/shop"
    assert "PGDATABASE" not in found["env"]


def test_ports_of_other_machines_and_of_containers_are_left_alone(
    made: Callable[..., proposal.Proposal],
) -> None:
    env = """\
MAIL_HOST=mail.example.org
MAIL_PORT=2500
SMTP_PORT=587
CACHE_HOST=cache
CACHE_PORT=6000
API_URL=https://api.example.org:8443
SEARCH_URL=http://search:7700
"""
    files = {".env.example": env, "compose.yaml": "services: { cache: { ports: ['6001:6000'] } }"}
    found = tables(made(files))
    # What the containers read as CACHE_PORT must stay what it is.
    assert found["ports"] == {"cache_host": 6001}
    assert list(found["env"]) == ["COMPOSE_PROJECT_NAME"]


def test_one_number_is_one_port_and_its_other_variables_follow_it(
    made: Callable[..., proposal.Proposal],
) -> None:
    env = "APP_PORT=3100\nPORT=${APP_PORT}\nURL=http://localhost:${PORT}/x\nWEB_PORT=3100\n"
    found = tables(made({".env.example": env, "Procfile": "web: ./web -p 3200\n"}))
    # WEB_PORT is taken, so the process `web` cannot have it.
    assert found["ports"] == {"app": 3100, "web_host": 3200}
    assert found["env"] == {
        "PORT": "{ports.app}",
        "WEB_PORT": "{ports.app}",
        "URL": "http://localhost:{ports.app}/x",
    }


def test_two_names_never_make_one_variable(made: Callable[..., proposal.Proposal]) -> None:
    text = (
        "services: { a-b: { ports: ['81:1'] }, a_b: { ports: ['82:1'] }, A.B: { ports: ['83:1'] } }"
    )
    assert tables(made({"compose.yaml": text}))["ports"] == {
        "a-b": 81,
        "a_b_host": 82,
        "a-b_1": 83,
    }


def test_a_variable_of_two_numbers_is_nobodys(made: Callable[..., proposal.Proposal]) -> None:
    proposed = made(
        {
            "apps/a/.env.example": "PORT=3000\nURL=http://localhost:3000\n",
            "apps/b/.env.example": "PORT=4000\nURL=http://localhost:4000\n",
        }
    )
    found = tables(proposed)
    assert (found["ports"], found.get("env")) == ({"a": 3000, "b": 4000}, None)
    assert told(proposed) == [
        (
            "apps/a/.env.example:1: PORT is 3000 here and 4000 in apps/b/.env.example:1: "
            "start each with its own, `PORT=$A_PORT` or `PORT=$B_PORT`"
        ),
        "apps/a/.env.example:2: URL has another value in apps/b/.env.example:2: left out",
    ]


def test_braces_and_variables_of_the_shell_are_kept_from_being_fields(
    made: Callable[..., proposal.Proposal],
) -> None:
    env = """\
WEB_PORT=3000
JSON='{"url": "http://localhost:3000/{id}"}'
UID=http://localhost:3000
PATH=http://localhost:3000
ISOENV_URL=http://localhost:3000
ISOENV_PORT=3001
UNKNOWN=http://localhost:3000/$NOBODY
"""
    proposed = made({".env.example": env})
    found = tables(proposed)
    assert found["env"] == {"JSON": '{{"url": "http://localhost:{ports.web}/{{id}}"}}'}
    assert found["ports"] == {"web": 3000, "port_isoenv": 3001}
    assert ".env.example:3: UID is read-only in bash: left out" in told(proposed)


def test_the_compose_project_has_a_name_that_compose_takes(
    made: Callable[..., proposal.Proposal],
) -> None:
    files = {"compose.yaml": "services: {}\n"}
    assert tables(made(files))["env"]["COMPOSE_PROJECT_NAME"] == "{project}-{id}"
    named = tables(made(files, "My Shop é"))
    assert named["env"]["COMPOSE_PROJECT_NAME"] == "my-shop-{id}"
    files[".env"] = "COMPOSE_PROJECT_NAME=store\n"
    assert tables(made(files))["env"]["COMPOSE_PROJECT_NAME"] == "store-{id}"


@pytest.mark.parametrize("name", scan.INSTANCE_VARIABLES)
@pytest.mark.parametrize("file", [".env", "run.sh", "compose.yaml", "bin/dev", "scripts/up.sh"])
def test_a_variable_that_numbers_instances_already_carries_the_slot(
    name: str, file: str, made: Callable[..., proposal.Proposal]
) -> None:
    found = tables(made({file: f"#\n# {name}=1\n", ".env.example": f"DB=shop_${{{name}:-0}}\n"}))
    assert found["instance"]["variable"] == name
    assert found["env"]["DB"] == "shop_{id}"


HOSTILE: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no YAML": ({"compose.yaml": "a: [\n"}, "compose.yaml:2: not read: "),
    "tabs": ({"compose.yaml": "services:\n\ta: b\n"}, "compose.yaml:2: not read: "),
    "deep": ({"compose.yaml": "[" * 100_000}, "compose.yaml:1: not read: nested too deep"),
    "control": ({"compose.yaml": "a: \x07"}, "compose.yaml:1: not read: a character "),
    "huge": ({"compose.yaml": "#" * (1 << 20)}, "compose.yaml:1: not read: it is longer than "),
    "binary": ({"compose.yaml": b"\x7fELF\xff"}, "compose.yaml:1: not read: it is not UTF-8"),
    "NUL": ({".env": b"PORT=1\0"}, ".env:1: not read: it holds NUL"),
    "no JSON": ({"package.json": "{\n"}, "package.json:2: not read: "),
    "deep JSON": ({"package.json": "[" * 100_000}, "package.json:1: not read: nested too deep"),
    "number": ({"package.json": "9" * 5000}, "package.json:1: not read: nested too deep, or "),
    "port": (
        {"compose.yaml": "services: { a: { ports: ['99999:1'] } }"},
        "compose.yaml:1: `99999` is no port from 1 to 65535: left out",
    ),
    "env port": ({".env": "A_PORT=70000\n"}, ".env:1: A_PORT is no port from 1 to 65535: left out"),
    "many": (
        {"compose.yaml": f"services: {{ a: {{ ports: {[f'{n}:1' for n in range(1, 99)]} }} }}"},
        "compose.yaml:1: more than 60 published ports: the rest is left out",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_gives_a_line_and_the_others_are_read(
    name: str, made: Callable[..., proposal.Proposal]
) -> None:
    files, line = HOSTILE[name]
    proposed = made({**files, "zz/.env.example": "LAST_PORT=7777\n"})
    assert any(remark.startswith(line) for remark in told(proposed)), told(proposed)
    assert tables(proposed)["ports"]["last"] == 7777


def test_what_repeats_itself_is_read_once(made: Callable[..., proposal.Proposal]) -> None:
    rows = ["x0: &x0 { ports: ['80:80'] }"]
    rows += [f"x{n}: &x{n} {{ <<: [{', '.join([f'*x{n - 1}'] * 9)}] }}" for n in range(1, 30)]
    lists = ["y0: &y0 [a]"]
    lists += [f"y{n}: &y{n} [{', '.join([f'*y{n - 1}'] * 9)}]" for n in range(1, 30)]
    text = "\n".join([*rows, *lists, "z: &z { <<: *z, a: *z }", "services: { a: *x29, b: *z }"])
    assert tables(made({"compose.yaml": text}))["ports"] == {"a": 80}


def test_links_that_lead_out_pipes_and_directories_are_not_read(
    tmp_path: Path, made: Callable[..., proposal.Proposal]
) -> None:
    (tmp_path / "secret.env").write_text("SECRET_PORT=4000\n")
    root = tmp_path / "checkout"
    root.mkdir()
    (root / ".env").symlink_to(tmp_path / "secret.env")
    (root / "inside.txt").write_text("INSIDE_PORT=4001\n")
    (root / ".env.example").symlink_to("inside.txt")
    (root / ".env.local").symlink_to(".env.local")
    (root / "linked").symlink_to(tmp_path)
    os.mkfifo(root / "Procfile")
    (root / "compose.yaml").mkdir()
    (root / "package.json").symlink_to("/dev/zero")
    proposed = made({})
    assert tables(proposed)["ports"] == {"inside": 4001}
    assert told(proposed) == [
        ".env:1: not read: it leads out of the checkout",
        ".env.local:1: not read: too many levels of symbolic links",
        "Procfile:1: not read: it is no regular file",
        "package.json:1: not read: it leads out of the checkout",
    ]


def test_other_checkouts_and_installed_packages_are_not_looked_into(
    made: Callable[..., proposal.Proposal],
) -> None:
    inside = {
        f"{directory}/.env": f"A{number}_PORT={4000 + number}\n"
        for number, directory in enumerate(
            ["node_modules/x", ".hidden", "worktrees/b", "tests", "a/b/c/d", "a/b/c"]
        )
    }
    found = tables(made({**inside, "worktrees/b/.git": "gitdir: elsewhere\n"}))
    assert found["ports"] == {"a5": 4005}


def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    root = tmp_path / "checkout"
    name = os.fsdecode(b"a\xff\n] = 1\x1b[31m")
    (root / name).mkdir(parents=True)
    (root / name / "compose.yaml").write_text("services: { db: { ports: ['1:1'] } }")
    proposed = proposal.make(scan.scan(str(root)), "shop")
    assert tables(proposed)["ports"] == {"db": 1}
    assert "\x1b" not in proposed.text


def test_more_than_a_person_would_keep_is_left_out(made: Callable[..., proposal.Proposal]) -> None:
    rows = [f"V{number:03}=localhost:80\n" for number in range(300)]
    found = tables(
        made({".env": "".join(["HTTP_PORT=80\n", f"{'X' * 101}=localhost:80\n", *rows])})
    )
    assert list(found["env"]) == [f"V{number:03}" for number in range(200)]


def test_settings_without_end_end(made: Callable[..., proposal.Proposal]) -> None:
    many = "".join(
        f"A{number}_PORT={number}\nU{number}=localhost:{number}\n" for number in range(1, 5000)
    )
    long = f"{'_URL' * 30_000}x=http://localhost:1\nX_URL=http://localhost:1/{'?key' * 30_000}\n"
    twice = "".join(f"PORT_X{number}={number}\n" for number in range(1000, 1500))
    again = "".join(f"PORT_X{number}={number + 1}\n" for number in range(1000, 1500))
    proposed = made({".env": many, "a/.env": long, "b/.env": twice, "c/.env": again})
    assert "_URL" * 99 not in proposed.text
    found = tables(proposed)
    assert len(found["ports"]) <= 100
    assert len(proposed.text) < 1 << 20


WORDS = """
    PORT WEB_PORT DB_PORT DB_HOST DB_NAME web_port PORT_API API_URL DATABASE_URL REDIS_URL LOGS_PORT
    START_PORT ISOENV_PORT UID PATH AI_INSTANCE_ID COMPOSE_PROJECT_NAME POSTGRES_DB
"""
TEXTS = """
    3000 4000 0 65536 localhost 127.0.0.1 db shop_0 $PORT ${DB_PORT:-5432} {id} } {{ \ue000
    http://localhost:3000 postgres://u:p@localhost/db_0 redis://localhost ${AI_INSTANCE_ID}
    postgres://localhost:${DB_PORT}/x mysql+x://127.0.0.1:4000/{a}
"""
NAMES = st.sampled_from(WORDS.split())
VALUES = st.sampled_from(TEXTS.split()) | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=12
)
ENV = st.lists(st.tuples(NAMES, VALUES), max_size=8).map(
    lambda pairs: "".join(f"{name}={value}\n" for name, value in pairs)
)
PORTS = st.lists(
    st.sampled_from(
        ["80:80", "3000:3000", "${PORT:-3000}:80", "${WEB_PORT}:3000", "5432:5432", "3000-3003:1-4"]
    ),
    max_size=3,
)
SERVICES = st.dictionaries(
    st.sampled_from(["web", "logs", "db", "a b", "a_b", "É", "ISOENV"]), PORTS
)
FILES = st.fixed_dictionaries(
    {},
    optional={
        ".env": ENV,
        ".env.example": ENV,
        "api/.env": ENV,
        "Procfile": st.sampled_from(["web: rails s -p 3000\n", "logs: x -p $PORT\n", "\n"]),
        "compose.yaml": SERVICES.map(
            lambda services: (
                "services:\n"
                + "".join(
                    f"  {name!r}: {{ ports: {ports!r} }}\n" for name, ports in services.items()
                )
            )
        ),
    },
)


@settings(deadline=None, max_examples=300)
@given(FILES)
def test_whatever_the_files_hold_the_configuration_is_right(files: dict[str, str]) -> None:
    with TemporaryDirectory() as directory:
        for name, content in files.items():
            path = Path(directory) / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(content, newline="")
        found = scan.scan(directory)
        once = proposal.make(found, "shop")
        assert proposal.make(scan.scan(directory), "shop") == once
    tables(once)
    assert [stack.file for stack in found.stacks] == [n for n in files if n == "compose.yaml"]


def test_nothing_that_is_found_is_run(
    repo: Path, isoenv: Callable[..., CompletedProcess[str]]
) -> None:
    run = f"touch {repo}/ran"
    (repo / "Procfile").write_text(f"web: $({run}) rails s -p $({run})\n")
    (repo / ".env").write_text(f"WEB_PORT=$({run})\nA=`{run}`\nPORT=3000\n")
    (repo / "package.json").write_text('{"scripts": {"dev": "vite; touch ran"}}')
    (repo / "compose.yaml").write_text(
        f"a: !!python/object/apply:os.system ['{run}']\n"
        "services: { a: { ports: ['80:80'] } }\n".replace("\\", "")
    )
    (repo / "run.sh").write_text(f"#!/bin/sh\n{run}\n")
    (repo / "run.sh").chmod(0o755)
    assert isoenv("init", cwd=repo).returncode == 0
    assert not list(repo.rglob("ran"))
    assert isoenv("check", cwd=repo).returncode == 0


def test_a_settings_file_that_git_has_is_everybodys(
    made: Callable[..., proposal.Proposal], git: Callable[..., str], tmp_path: Path
) -> None:
    files = {".env": "API_URL=http://me:s3cr3t@localhost:4000\nPORT=4000\n"}
    of = made(files)
    assert "API_URL" not in tables(of).get("env", {})
    assert told(of)[0].startswith(".env:1: API_URL holds a secret")
    git(tmp_path / "checkout", "init", "-q")
    assert "API_URL" not in tables(made(files)).get("env", {})
    git(tmp_path / "checkout", "add", ".env")
    of = made(files)
    assert tables(of)["env"]["API_URL"] == "http://me:s3cr3t@localhost:{ports.web}"
    assert told(of) == []


def test_names_of_containers_that_a_variable_carries_get_the_slot(
    made: Callable[..., proposal.Proposal],
) -> None:
    compose = (
        "services:\n"
        "  a: {container_name: '${A_NAME:-shop-a}'}\n"
        "  b: {container_name: '${COMPOSE_PROJECT_NAME:-shop}'}\n"
        "  c: {container_name: '${UID:-shop}'}\n"
        "volumes: {v: {name: '${V_NAME:-shop_v}'}, w: {name: '${V_NAME:-shop_v}'}}\n"
    )
    of = made({"compose.yaml": compose})
    assert tables(of)["env"] == {
        "COMPOSE_PROJECT_NAME": "{project}-{id}",
        "A_NAME": "shop-a-{id}",
        "V_NAME": "shop_v_{id}",
    }
    assert 'V_NAME = "shop_v_{id}" # compose.yaml:5' in of.text


@pytest.mark.parametrize("directory", ["docker/production", "deploy", "testing", "ci"])
def test_what_is_for_another_machine_by_its_directory_says_nothing(
    made: Callable[..., proposal.Proposal], directory: str
) -> None:
    of = made({f"{directory}/compose.yaml": "services: {web: {ports: ['443:8000']}}\n"})
    assert "ports" not in tables(of)


@pytest.mark.parametrize(
    ("value", "told_"),
    [
        ("http://localhost", True),
        ("https://127.0.0.1/x", True),
        ("http://localhost.example.org", False),
        ("http://localhost:80", False),
        ("ftp://localhost", False),
    ],
)
def test_an_address_without_its_port_is_said_where_the_port_moves(
    made: Callable[..., proposal.Proposal], value: str, *, told_: bool
) -> None:
    compose = "services: {web: {ports: ['${WEB_PORT:-80}:80', '${TLS_PORT:-443}:443']}}\n"
    of = made({"compose.yaml": compose, ".env.example": f"APP_URL={value}\n"})
    lines = [line for line in told(of) if "is slot 0's address in each instance" in line]
    assert bool(lines) == told_
    if value == "https://127.0.0.1/x":
        address = "https://127.0.0.1:{ports.tls}/x"
        assert lines[0].endswith(f': `APP_URL = "{address}"` in [env] moves it')
