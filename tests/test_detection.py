"""What the files of a checkout say, read without trust: odd and hostile ones give a line."""

from __future__ import annotations

import pytest

from isoenv.detection import (
    commands,
    compose,
    dotenv,
    interpolation,
    package_json,
    procfile,
)
from isoenv.detection.evidence import Place, name_in_variable, port_name

HERE = Place("file", 1)


def stack(ports: str, **values: str) -> list[tuple[int, str, str | None]]:
    """Port, name and variable of the ports of a service `db`, given as a YAML list."""
    read = compose.parse(f"services:\n  db:\n    ports: {ports}\n", "compose.yaml", values)
    return [(seen.port, seen.name, seen.variable) for seen in read.sightings]


@pytest.mark.parametrize(
    ("ports", "expected"),
    [
        ("['5432:5432']", [(5432, "db", None)]),
        ("[5433:5432]", [(5433, "db", None)]),
        ("[22:22]", [(22, "db", None)]),  # a number of base 60 to others
        ("['127.0.0.1:5433:5432/tcp']", [(5433, "db", None)]),
        ("['[::1]:5433:5432']", [(5433, "db", None)]),
        ("['53:53/udp']", [(53, "db", None)]),
        ("['${POSTGRES_PORT:-5432}:5432']", [(5432, "postgres", "POSTGRES_PORT")]),
        ("['${POSTGRES_PORT-5432}:5432']", [(5432, "postgres", "POSTGRES_PORT")]),
        ("['${IP:-127.0.0.1}:${PORT_DB:-1}:5432']", [(1, "db", "PORT_DB")]),
        ("['${A_PORT:-${B_PORT:-81}}:80']", [(81, "a", "A_PORT")]),
        ("['$A_PORT:80']", [(80, "a", "A_PORT")]),
        ("['${A_PORT:?set it}:80']", [(80, "a", "A_PORT")]),
        ("['${PORT}:80']", [(80, "db", "PORT")]),
        ("[{target: 80, published: 8080}]", [(8080, "db", None)]),
        ("[{target: 80, published: '${A_PORT:-8080}'}]", [(8080, "a", "A_PORT")]),
        ("[{target: 80}]", []),
        ("['80']", []),
        ("[80]", []),
        ("[':80']", []),
        ("['127.0.0.1::80']", []),
        ("['3000-3002:3000-3002']", [(p, f"db_{p}", None) for p in (3000, 3001, 3002)]),
        ("['8080:80', '9001:9001']", [(8080, "db", None), (9001, "db_console", None)]),
        ("['${FORWARD:-127.0.0.1:8000}:80']", [(8000, "db", None)]),
        ("['${FORWARD:-10.0.0.1:8000}:80']", []),
        ("['a:80']", []),
        ("['0:80']", []),
        ("['65536:80']", []),
        ("['-1:80']", []),
        ("['1e3:80']", []),
        ("['9-3:80']", []),
        ("['${A_PORT:-x}:80']", []),
        ("5432", []),
        ("{a: b}", []),
        ("!reset null", []),
        ("!override ['81:80']", [(81, "db", None)]),
    ],
)
def test_published_ports_are_read_in_every_form(
    ports: str, expected: list[tuple[int, str, str | None]]
) -> None:
    assert stack(ports) == expected


def test_the_settings_beside_a_compose_file_beat_its_defaults() -> None:
    found = stack("['${A_PORT:-80}:80', '${B_PORT}:81']", A_PORT="90", B_PORT="${A_PORT}1")
    assert found == [(90, "a", "A_PORT"), (901, "b", "B_PORT")]


def test_fixed_names_are_told_and_those_with_a_variable_are_not() -> None:
    text = """\
services:
  a: { container_name: fixed }
  b: { container_name: "b-${AI_INSTANCE_ID:-0}" }
volumes:
  data: { name: pgdata }
  mine: { name: "data-${COMPOSE_PROJECT_NAME}" }
  theirs: { name: theirs, external: true }
  own:
networks:
  net: { name: backend }
"""
    assert [str(remark) for remark in compose.parse(text, "c.yml", {}).remarks] == [
        "c.yml:2: container_name `fixed` is one for all instances: take the line out",
        "c.yml:5: the volume `pgdata` is one for all instances: take the `name` out",
        "c.yml:10: the network `backend` is one for all instances: take the `name` out",
    ]


def test_merged_and_aliased_services_have_the_ports_they_merge() -> None:
    text = """\
x-base: &base { ports: ["80:80"], container_name: &name one }
services:
  a: *base
  b: { <<: *base, ports: ["81:80"] }
  c: { <<: [*base, { image: x }] }
"""
    read = compose.parse(text, "c.yml", {})
    assert [(seen.port, seen.place.line) for seen in read.sightings] == [(80, 1), (81, 4), (80, 1)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("compose.yaml", True),
        ("docker-compose.yml", True),
        ("docker-compose.override.yml", True),
        ("docker-compose-infra.yml", True),
        ("compose.dev.yaml", True),
        ("compose.prod.yaml", False),
        ("docker-compose-test.yml", False),
        ("my-compose.yaml", False),
        ("compose.json", False),
    ],
)
def test_a_compose_file_is_known_by_its_name(name: str, *, expected: bool) -> None:
    assert compose.is_compose(name) is expected


SETTINGS = r"""
# comment
PLAIN=value # comment
export QUOTED="a \"b\" $PLAIN # no comment"
SINGLE='$PLAIN "x"'
 SPACED = x y
EMPTY=
HASH=a#b
MANY="-----BEGIN-----
abc=
-----END-----"
lower=1
AFTER=2
AFTER=3
not a setting
"""


def test_settings_are_read_as_their_readers_do() -> None:
    found = {each.name: each for each in dotenv.parse(SETTINGS, ".env")}
    assert {name: each.value for name, each in found.items()} == {
        "PLAIN": "value",
        "QUOTED": 'a "b" $PLAIN # no comment',
        "SINGLE": '$PLAIN "x"',
        "SPACED": "x y",
        "EMPTY": "",
        "HASH": "a#b",
        "MANY": "-----BEGIN-----\nabc=\n-----END-----",
        "lower": "1",
        "AFTER": "3",
    }
    assert found["SINGLE"].literal
    assert not found["QUOTED"].literal
    assert [found[name].place.line for name in ("PLAIN", "MANY", "lower")] == [3, 9, 12]


@pytest.mark.parametrize(
    ("name", "is_settings", "private"),
    [
        (".env", True, True),
        (".env.local", True, True),
        (".env.development.local", True, True),
        (".env.example", True, False),
        (".env.local.example", True, False),
        (".env.development", True, False),
        ("env.example", True, False),
        (".env.production", False, True),
        (".env.test", False, True),
        (".envrc", False, True),
        ("env", False, True),
    ],
)
def test_a_file_of_settings_is_shared_or_the_users_own(
    name: str, *, is_settings: bool, private: bool
) -> None:
    assert dotenv.is_settings(name) is is_settings
    if is_settings:
        assert dotenv.is_private(name) is private


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a$B${B}c", "a11c"),
        ("${X:-2}${X-3}", "23"),
        ("${E:-4}${E-5}", "4"),
        ("${B:+6}${X:+7}", "6"),
        ("${B:?no}", "1"),
        ("${X:?no}", None),
        ("${X}", None),
        ("$X", None),
        ("${X:-${Y:-${B}}}", "1"),
        ("${LOOP}", None),
        ("${GROWS}", None),
        ("${", None),
        ("5 $ 6", "5 $ 6"),
    ],
)
def test_references_are_expanded_and_end(text: str, expected: str | None) -> None:
    values = {"B": "1", "E": "", "LOOP": "${LOOP}", "GROWS": "x${GROWS}${GROWS}" * 20}
    assert interpolation.expand(text, values) == expected


@pytest.mark.parametrize(
    ("command", "port", "variable", "fixed"),
    [
        ("bin/rails server -p 3000", 3000, None, "-p "),
        ("bin/rails s", 3000, "PORT", None),
        ("bundle exec puma -p $PORT", 3000, "PORT", None),
        ("bundle exec puma -p ${PORT:-3007}", 3007, "PORT", None),
        ("node server.js --port=${API_PORT}", 4321, "API_PORT", None),
        ("node server.js --port 4000", 4000, None, "--port "),
        ("PORT=4000 node server.js", 4000, None, "PORT="),
        ("cross-env PORT=4000 react-scripts start", 4000, None, "PORT="),
        ("PORT=$CONDUCTOR_PORT next dev", 3000, "CONDUCTOR_PORT", None),
        ("react-scripts start", 3000, "PORT", None),
        ("next dev", 3000, "PORT", None),
        ("next dev -p 3001", 3001, None, "-p "),
        ("vite", 5173, None, "vite --port "),
        ("vite --host", 5173, None, "vite --port "),
        ("vite dev", 5173, None, "vite dev --port "),
        ("vite preview", 4173, None, "vite preview --port "),
        ("python manage.py runserver", 8000, None, "manage.py runserver "),
        ("python manage.py runserver 0.0.0.0:8001", 8001, None, "runserver 0.0.0.0:"),
        ("python manage.py runserver $PORT", 8000, "PORT", None),
        ("uvicorn app:app --reload", 8000, "UVICORN_PORT", None),
        ("uvicorn app:app --port 8002", 8002, None, "--port "),
        ("gunicorn -b 127.0.0.1:8003 app", 8003, None, "-b 127.0.0.1:"),
        ("flask --app web run", 5000, "FLASK_RUN_PORT", None),
        ("./api -p $PORT", 5000, "PORT", None),
        ("redis-server --port 6380", 6380, None, "--port "),
    ],
)
def test_a_server_is_known_by_its_command(
    command: str, port: int, variable: str | None, fixed: str | None
) -> None:
    seen = commands.sighting(command, HERE, "web", {"API_PORT": "4321"})
    assert seen is not None
    found = (seen.port, seen.variable, seen.fixed and seen.fixed[0])
    assert found == (port, variable, fixed)


@pytest.mark.parametrize(
    "command",
    [
        "vite build",
        "vitest",
        "tsc -p tsconfig.json",
        "docker run -p 3000:3000 image",
        "bundle exec sidekiq",
        "turbo run dev",
        "EXPORT=3000 ./run",
        "tailwindcss --watch",
        "next build",
        "./run --port 99999",
        "$(curl example.org)",
        "",
    ],
)
def test_a_command_that_serves_nothing_has_no_port(command: str) -> None:
    assert commands.sighting(command, HERE, "web", {}) is None


def test_of_the_main_scripts_the_first_one_that_serves_counts() -> None:
    text = """{"scripts": {
  "start": "next start -p 80",
  "dev": "next dev -p 3000",
  "dev:api": "node api --port 4000",
  "start:prod": "node api --port 81",
  "storybook": "storybook dev -p 6006",
  "list": ["no", "command"]
}}"""
    found = package_json.parse(text, "apps/Admin UI/package.json", {})
    assert [(seen.port, seen.name, seen.place.line) for seen in found] == [
        (3000, "admin-ui", 3),
        (4000, "api", 4),
        (6006, "storybook", 6),
    ]


def test_processes_have_the_names_of_their_lines() -> None:
    text = "# web: x -p 1\n\nweb: rails s\r\nAPI: ./api --port 4000\nworker: sidekiq\n"
    found = procfile.parse(text, "Procfile", {"PORT": "3100"})
    assert [(seen.port, seen.name, seen.place.line) for seen in found] == [
        (3100, "web", 3),
        (4000, "api", 4),
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My App", "my-app"),
        ("3scale", "port_3scale"),
        ("--", "web"),
        ("é", "web"),
        ("a.b_c", "a-b_c"),
    ],
)
def test_any_text_makes_a_name(text: str, name: str) -> None:
    assert port_name(text) == name


def test_a_variable_names_its_port() -> None:
    found = ["POSTGRES_PORT", "PORT_API", "PORT", "CONDUCTOR_PORT", "FORWARD_DB_PORT"]
    assert list(map(name_in_variable, found)) == ["postgres", "api", "", "", "forward_db"]


NAMES = """\
services:
  db: {{container_name: '{name}'}}
volumes:
  own: {{name: '{name}'}}
  theirs: {{name: '{name}', external: {external}}}
networks:
  inner: {{name: '{name}'}}
"""


@pytest.mark.parametrize(
    ("name", "external", "named", "fixed"),
    [
        ("shop-db", "true", 0, 3),
        ("shop-db", "false", 0, 4),
        ("shop-db", "{name: there}", 0, 3),
        ("${NAME:-shop-db}", "true", 3, 0),
        ("${NAME}", "true", 0, 0),
        ("${NAME:-shop}-db", "true", 0, 0),
    ],
)
def test_names_that_instances_would_share_are_told_from_those_of_a_variable(
    name: str, external: str, named: int, fixed: int
) -> None:
    text = NAMES.format(name=name, external=external)
    read = compose.parse(text, "compose.yaml", {})
    assert [each.variable for each in read.named] == ["NAME"] * named
    assert {each.value for each in read.named} <= {"shop-db"}
    assert sum(remark.shares for remark in read.remarks) == fixed
    assert [place.line for place in read.external] == ([] if external == "false" else [5])


def test_a_fixed_subnet_and_the_name_of_a_file_are_seen() -> None:
    text = (
        "name: shop\nnetworks:\n  a:\n    ipam:\n      config:\n"
        "        - subnet: 10.9.0.0/16\n        - subnet: $NET\n"
    )
    read = compose.parse(text, "compose.yaml", {})
    assert read.project == "shop"
    [remark] = read.remarks
    assert str(remark) == (
        "compose.yaml:6: the subnet `10.9.0.0/16` is one for all instances: let Docker choose"
    )
    assert remark.shares
