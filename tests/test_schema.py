"""The JSON schema of isoenv.toml says what the configuration's own reader says."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from isoenv import presets, reserved, schema
from isoenv.config import ConfigProblems, Layer, parse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

VALIDATOR = Draft202012Validator(schema.document())

WHOLE = """
project = "orienter"

[instance]
variable = "AI_INSTANCE_ID"
prefer   = "cksum"
ports    = "offset"
stride   = 1000
range    = [20000, 32759]
main     = 0
dir      = "{home}/.orient-{id}"

[ports]
nginx = { base = 80, variable = "HTTP_PORT" }
whatsapp = 4097
queue = { base = 50011, variable = false }
vite = { base = 5173 }
postgres = 5432
minio_api = 9000

[env]
COMPOSE_PROJECT_NAME = "orienter-{id}"
POSTGRES_DB = "whatsapp_bot_{id}"
DATABASE_URL = "postgresql://aibot:aibot@localhost:{ports.postgres}/{env.POSTGRES_DB}"
BRACES = '{{"a": "{id}"}}'
EMPTY = ""
GONE = false

[dirs]
DATA_DIR = ".dev-data/instance-{id}"
RUN_DIR = "{home}/.run-{ports.vite}"

[path]
prepend = [".venv/bin", "{dirs.RUN_DIR}/bin"]

[setup]
copy = [".env.local", "config/..secret"]
run = ["npm ci"]

[flags]
WHATSAPP_ENABLED = { main = true, others = false, exclusive = true }
DEBUG = {}

[templates]
"docker/nginx-local.conf" = "docker/nginx-local.template.conf"

[services.infra]
start = "docker compose -f docker/docker-compose.infra.yml up -d"
stop  = ["docker", "compose", "down"]

[services.api]
run = ["uvicorn", "app:app", "--port", "{ports.whatsapp}", ""]
health = "http://127.0.0.1:{ports.whatsapp}/health"
start_timeout = 0.5
requires = ["infra"]

[services.web]
run = "vite"
health = "tcp:{ports.vite}"

[databases.main]
url = "{env.DATABASE_URL}"
template = "whatsapp_bot_0"
shared = false

[limits]
tokens = 200000
"""

RIGHT = {
    "empty": "",
    "whole": WHOLE,
    "longest name": f'project = "{"x" * 64}"',
    **{f"preset {name}": presets.text(name) or "" for name in presets.NAMES},
    **{f"extends {name}": f'extends = "{name}"\n' for name in presets.NAMES},
    # The base is the preset's.
    "variable of a preset's port": 'extends = "orient"\n[ports]\nnginx = { variable = "HTTP" }\n',
}

# Each line is a file of its own: a key, or a table, that config.py refuses for its structure.
WRONG = r"""
zzz = 1
project = ""
project = 3
project = "12"
project = "a:b"
project = "a/b"
project = " a"
project = "a\tb"
extends = "nosuch"
extends = 1
instance = []
instance.zzz = 1
instance.variable = "A B"
instance.variable = "ISOENV_X"
instance.variable = false
instance.prefer = "highest"
instance.ports = true
instance.stride = 0
instance.stride = 65536
instance.stride = "10"
instance.range = [1]
instance.range = [20000, 20100, 20200]
instance.range = [0, 100]
instance.range = "20000-30000"
instance.main = false
instance.main = 1
instance.main = "0"
instance.dir = "~/x"
instance.dir = "{env.X}"
instance.dir = ""
ports = 3
ports.web = 0
ports.web = 65536
ports.web = true
ports.web = "80"
ports.web = 80.5
ports.web = {}
ports.web = { variable = "X" }
ports.web = { base = "80" }
ports.web = { base = 80, zzz = 1 }
ports.web = { base = 80, variable = true }
ports.web = { base = 80, variable = "A-B" }
ports.web = { base = 80, variable = "" }
ports.web = { base = 80, variable = "UID" }
ports.1st = 80
ports."a b" = 80
ports.logs = 80
env = []
env.A = true
env.A = 5
env.A = ["x"]
env.A = 1979-05-27
env.A = "\u0000"
env.A-B = "x"
env."" = "x"
env."É" = "x"
env.UID = "x"
env.PATH = "x"
env.fish_user_paths = "x"
env.ISOENV_NAME = "x"
env.__ISOENV_X = false
env.A = "{"
env.A = "}"
env.A = "{}"
env.A = "{{id}"
env.A = "{ID}"
env.A = "{prots.web}"
env.A = '{"a": 1}'
dirs.D = ""
dirs.D = false
dirs.D = "~"
dirs.D = "~/a"
dirs.D = "{env.X}"
dirs.D = "{"
dirs.PWD = "x"
path.zzz = 1
path.prepend = "bin"
path.prepend = [1]
path.prepend = [""]
path.prepend = ["a:b"]
path.prepend = ["~/bin"]
path.prepend = ["{x.y}"]
setup.zzz = 1
setup.copy = "a"
setup.copy = ["../a"]
setup.copy = ["/a"]
setup.copy = ["a/../b"]
setup.copy = ["a/.."]
setup.copy = ["."]
setup.copy = ["./"]
setup.run = "npm ci"
setup.run = [""]
flags.F = true
flags.F = { main = 1 }
flags.F = { zzz = true }
flags.F = { exclusive = true, others = true }
flags."a b" = {}
templates."/a" = "b"
templates."../a" = "b"
templates."./" = "b"
templates."" = "b"
templates."a\u0000" = "b"
templates.a = 3
templates.a = ""
templates.a = "/b"
services.a = 3
services.a = {}
services.a = { zzz = 1, run = "x" }
services.a = { run = "x", start = "y", stop = "z" }
services.a = { start = "x" }
services.a = { run = "x", stop = "y" }
services.a = { run = 3 }
services.a = { run = "" }
services.a = { run = [] }
services.a = { run = ["", "a"] }
services.a = { run = ["a", 3] }
services.a = { run = "{print}" }
services.a = { run = "x", health = "ftp://a" }
services.a = { run = "x", health = "tcp:0" }
services.a = { run = "x", health = "tcp:65536" }
services.a = { run = "x", health = "tcp:web" }
services.a = { run = "x", health = "http:///health" }
services.a = { run = "x", health = "http://{" }
services.a = { run = "x", start_timeout = 0 }
services.a = { run = "x", start_timeout = 86401 }
services.a = { run = "x", start_timeout = true }
services.a = { run = "x", start_timeout = "60" }
services.a = { run = "x", start_timeout = inf }
services.a = { run = "x", requires = "b" }
services.logs = { run = "x" }
services."a b" = { run = "x" }
databases.d = 3
databases.d = {}
databases.d = { url = "" }
databases.d = { url = 3 }
databases.d = { url = "x", zzz = 1 }
databases.d = { url = "x", template = "{" }
databases.d = { url = "x", shared = "yes" }
databases."a b" = { url = "x" }
limits.a = -1
limits.a = "1"
limits.a = true
""".strip("\n").split("\n")
WRONG.append(f'project = "{"x" * 65}"')

# What config.py refuses and no schema can say: it is about two places, or about a character.
BEYOND_A_SCHEMA = r"""
ports = { a = 80, b = 80 }
ports = { a-b = 80, a_b = 81 }
ports = { isoenv_web = 80 }
instance.range = [20000, 20005]
env.A = "{ports.nosuch}"
env.A = "{env.A}"
templates.same = "same"
services.a = { run = "x", requires = ["nosuch"] }
services.a = { run = "x", requires = ["a"] }
services.a = { run = "x", start_timeout = nan }
project = "a\u202eb"
instance.stride = 10.0
limits.a = 1.0
""".strip("\n").split("\n")


def is_right(text: str) -> bool:
    try:
        parse([Layer("isoenv.toml", text)], presets.text)
    except ConfigProblems:
        return False
    return True


def errors(text: str) -> list[str]:
    found = VALIDATOR.iter_errors(tomllib.loads(text))
    return [f"{error.json_path}: {error.message}" for error in found]


def test_the_command_prints_a_schema_that_the_meta_schema_accepts(
    isoenv: Callable[..., CompletedProcess[str]],
) -> None:
    done = isoenv("schema")
    assert (done.returncode, done.stderr) == (0, "")
    printed = json.loads(done.stdout)
    assert printed == schema.document()
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    Draft202012Validator.check_schema(printed)


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_validates(name: str) -> None:
    assert is_right(RIGHT[name])
    assert errors(RIGHT[name]) == []


@pytest.mark.parametrize("text", WRONG)
def test_what_is_refused_for_its_structure_does_not_validate(text: str) -> None:
    assert not is_right(text)
    assert errors(text) != []


@pytest.mark.parametrize("text", BEYOND_A_SCHEMA)
def test_what_no_schema_can_say_is_left_to_check(text: str) -> None:
    assert not is_right(text)
    assert errors(text) == []


def mentioned(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk the tables of the schema with a closed list of keys."""
    if isinstance(node, dict):
        if node.get("additionalProperties") is False:
            yield path, node
        for key, child in node.items():
            yield from mentioned(child, (*path, key))
    elif isinstance(node, list):
        for child in node:
            yield from mentioned(child, path)


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("", "qqqqq = 1"),
        *((name, f"[{name}]\nqqqqq = 1") for name in ("instance", "path", "setup")),
        ("ports.*", "[ports]\nweb = { base = 1, qqqqq = 1 }"),
        ("flags.*", "[flags]\nF = { qqqqq = 1 }"),
        ("services.*", "[services.a]\nrun = 'x'\nqqqqq = 1"),
        ("databases.*", "[databases.a]\nurl = 'x'\nqqqqq = 1"),
    ],
)
def test_the_schema_offers_exactly_the_keys_that_are_known(table: str, text: str) -> None:
    with pytest.raises(ConfigProblems) as caught:
        parse([Layer("f", text)], presets.text)
    known = set(re.findall(r"`(\w+)`", str(caught.value).partition("expected ")[2]))
    whole: Any = schema.document()
    name, _, values = table.partition(".")
    found = whole["properties"][name] if name else whole
    if values:
        found = found["additionalProperties"]
    if found.get("$ref") == "#/$defs/port":
        found = whole["$defs"]["port"]["anyOf"][1]
    assert set(found["properties"]) == known


def test_every_key_has_a_description() -> None:
    tables = dict(mentioned(schema.document()))
    assert len(tables) == 8
    for path, table in tables.items():
        for name, value in table["properties"].items():
            text = value.get("description", "")
            assert re.fullmatch(r"\S.*\.", text), f"{'.'.join(path)}.{name}: {text!r}"


@pytest.mark.parametrize("name", ["A", "_", "HOME", "TZ", "PATH", "path", *reserved.REASONS])
def test_a_variable_is_refused_by_both_or_by_none(name: str) -> None:
    text = f'[env]\n{name} = "x"\n'
    assert is_right(text) == (errors(text) == []) == (reserved.objection(name) is None)


# Values at the edges, so that a fair share of the files is right.
NAMES = st.sampled_from(["web", "a-b", "_x", "DATA_DIR", "UID", "1st", "a b", "logs", "Ü"])
TEXTS = st.sampled_from(
    ["", "x", "~/a", "{id}", "{ports.web}x", "{{}}", "{", "a:b", "/a", "../a", "a/./b", "tcp:80"]
)
SCALARS = TEXTS | st.booleans() | st.sampled_from([0, 1, 10, 80, 65535, 65536, 0.5, "none", "sky"])
KEYS = """
    base variable main others exclusive run start stop health start_timeout requires url template
    shared prepend copy prefer ports stride range dir
"""
ENTRIES = st.dictionaries(st.sampled_from(KEYS.split()), SCALARS | st.lists(SCALARS, max_size=2))
TOP = """
    project extends instance ports env dirs path setup flags templates services databases limits
"""
# What a schema cannot refuse is not asked here: everything that is accepted must validate.
FILES = st.dictionaries(
    st.sampled_from(TOP.split()),
    SCALARS | ENTRIES | st.dictionaries(NAMES, SCALARS | ENTRIES, max_size=3),
    max_size=3,
)


@settings(deadline=None, max_examples=300)
@given(FILES)
def test_whatever_the_reader_accepts_validates(data: dict[str, object]) -> None:
    text = tomli_w.dumps(data)
    if is_right(text):
        assert errors(text) == []
