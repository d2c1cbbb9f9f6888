"""What a configuration means, layer by layer, and where its problems are."""

from __future__ import annotations

import pytest

from isoenv import presets
from isoenv.config import LIMIT, ConfigProblems, Layer, Problem, decode, parse
from isoenv.models import Config, Database, Flag, Numbering, Port, Service

ORIENT = """\
project = "orienter"

[instance]
variable = "AI_INSTANCE_ID"    # carries the slot
prefer   = "cksum"
ports    = "offset"
stride   = 1000
range    = [20000, 32759]
main     = 0

[ports]                        # long form: { base = 80, variable = "HTTP_PORT" }
nginx = 80
whatsapp = 4097
dashboard = 4098
opencode = 4099
vite = 5173
postgres = 5432
minio_api = 9000
minio_console = 9001

[env]
COMPOSE_PROJECT_NAME = "orienter-{id}"
POSTGRES_DB = "whatsapp_bot_{id}"
DATABASE_URL = "postgresql://aibot:aibot@localhost:{ports.postgres}/{env.POSTGRES_DB}"
S3_BUCKET = "orienter-data-{id}"
AWS_ENDPOINT_URL = "http://localhost:{ports.minio_api}"

[dirs]
DATA_DIR = ".dev-data/instance-{id}"
LOG_DIR = "logs/instance-{id}"
PID_DIR = ".dev-data/instance-{id}/pids"

[path]
prepend = [".venv/bin"]

[setup]
copy = [".env.local"]
run = ["npm ci"]

[flags]
WHATSAPP_ENABLED = { main = true, others = false, exclusive = true }

[templates]
"docker/nginx-local.conf" = "docker/nginx-local.template.conf"

[services.infra]
start = "docker compose -f docker/docker-compose.infra.yml up -d"
stop  = "docker compose -f docker/docker-compose.infra.yml down"

[services.api]
run = "uvicorn app:app --port {ports.dashboard}"
health = "http://127.0.0.1:{ports.dashboard}/health"
start_timeout = 60
"""

ORIENT_PORTS = {
    "nginx": Port("nginx", 80, "NGINX_PORT"),
    "whatsapp": Port("whatsapp", 4097, "WHATSAPP_PORT"),
    "dashboard": Port("dashboard", 4098, "DASHBOARD_PORT"),
    "opencode": Port("opencode", 4099, "OPENCODE_PORT"),
    "vite": Port("vite", 5173, "VITE_PORT"),
    "postgres": Port("postgres", 5432, "POSTGRES_PORT"),
    "minio_api": Port("minio_api", 9000, "MINIO_API_PORT"),
    "minio_console": Port("minio_console", 9001, "MINIO_CONSOLE_PORT"),
}


def read(*texts: str) -> Config:
    names = ("isoenv.toml", "isoenv.local.toml", "third.toml")
    layers = [Layer(path, text) for path, text in zip(names, texts, strict=False)]
    return parse(layers, presets.text)


def problems(*texts: str) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        read(*texts)
    return [str(problem) for problem in caught.value.problems]


def test_the_orient_file_of_the_contract_is_read_as_a_whole() -> None:
    assert read(ORIENT) == Config(
        project="orienter",
        numbering=Numbering(
            variable="AI_INSTANCE_ID",
            prefer="cksum",
            ports="offset",
            stride=1000,
            range=(20000, 32759),
            main=0,
        ),
        ports=ORIENT_PORTS,
        env={
            "COMPOSE_PROJECT_NAME": "orienter-{id}",
            "POSTGRES_DB": "whatsapp_bot_{id}",
            "DATABASE_URL": "postgresql://aibot:aibot@localhost:{ports.postgres}/{env.POSTGRES_DB}",
            "S3_BUCKET": "orienter-data-{id}",
            "AWS_ENDPOINT_URL": "http://localhost:{ports.minio_api}",
        },
        dirs={
            "DATA_DIR": ".dev-data/instance-{id}",
            "LOG_DIR": "logs/instance-{id}",
            "PID_DIR": ".dev-data/instance-{id}/pids",
        },
        path_prepend=(".venv/bin",),
        setup_copy=(".env.local",),
        setup_run=("npm ci",),
        flags={"WHATSAPP_ENABLED": Flag("WHATSAPP_ENABLED", main=True, exclusive=True)},
        templates={"docker/nginx-local.conf": "docker/nginx-local.template.conf"},
        services={
            "infra": Service(
                "infra",
                start="docker compose -f docker/docker-compose.infra.yml up -d",
                stop="docker compose -f docker/docker-compose.infra.yml down",
            ),
            "api": Service(
                "api",
                run="uvicorn app:app --port {ports.dashboard}",
                health="http://127.0.0.1:{ports.dashboard}/health",
                start_timeout=60.0,
            ),
        },
        sources=("isoenv.toml",),
    )


def test_no_layers_and_an_empty_file_are_the_defaults() -> None:
    assert parse([], presets.text) == Config()
    assert read("") == Config(sources=("isoenv.toml",))


def test_every_other_form_of_a_value_is_read() -> None:
    config = read(
        """
        [instance]
        prefer = "lowest"
        ports = "block"
        stride = 65535
        range = [1, 11]
        main = "none"
        dir = "{home}/.world-{project}-{name}-{ports.web}"
        [ports]
        web = { base = 65535, variable = "HTTP_PORT" }
        queue = { base = 1, variable = false }
        my-db = { base = 5432 }
        [env]
        EMPTY = ""
        BRACES = "{{{id}}}"
        GONE = false
        ALL = "{root}{home}{dirs.D}{env.D}{env.FLAG}{env.MY_DB_PORT}{env.EMPTY}"
        [dirs]
        D = "../{id}-{name}-{project}-{ports.my-db}"
        [flags]
        FLAG = {}
        [path]
        prepend = ["{dirs.D}/bin", "/opt/{env.EMPTY}"]
        [services.a]
        run = ["serve", "{ports.web}", ""]
        health = "tcp:{ports.web}"
        start_timeout = 0.5
        requires = ["b"]
        [services.b]
        start = "x"
        stop = ["y"]
        health = "tcp:80"
        [databases.main]
        url = "postgresql://localhost/app{env.EMPTY}"
        template = "base_{id}"
        shared = true
        [limits]
        agents = 0
    """
    )
    assert config.numbering == Numbering(
        None,
        "lowest",
        "block",
        65535,
        (1, 11),
        "none",
        "{home}/.world-{project}-{name}-{ports.web}",
    )
    assert config.ports == {
        "web": Port("web", 65535, "HTTP_PORT"),
        "queue": Port("queue", 1, None),
        "my-db": Port("my-db", 5432, "MY_DB_PORT"),
    }
    assert config.env["GONE"] is False
    assert config.env["EMPTY"] == ""
    assert config.flags == {"FLAG": Flag("FLAG")}
    assert config.path_prepend == ("{dirs.D}/bin", "/opt/{env.EMPTY}")
    assert config.services["a"] == Service(
        "a",
        run=("serve", "{ports.web}", ""),
        health="tcp:{ports.web}",
        start_timeout=0.5,
        requires=("b",),
    )
    assert config.services["b"] == Service("b", start="x", stop=("y",), health="tcp:80")
    assert config.databases == {
        "main": Database("main", "postgresql://localhost/app{env.EMPTY}", "base_{id}", shared=True)
    }
    assert config.limits == {"agents": 0}


def test_layers_are_laid_over_each_other_key_by_key() -> None:
    config = read(
        '[instance]\nstride = 10\nprefer = "cksum"\n[env]\nA = "1"\nB = "2"\n[limits]\nx = 1',
        '[env]\nC = "3"\nA = "one"\n[instance]\nstride = 20',
        "[env]\nB = false",
    )
    assert list(config.env.items()) == [("A", "one"), ("B", False), ("C", "3")]
    assert config.numbering == Numbering(stride=20, prefer="cksum")
    assert config.limits == {"x": 1}
    assert config.sources == ("isoenv.toml", "isoenv.local.toml", "third.toml")


def test_a_stronger_layer_moves_a_port_and_keeps_its_variable() -> None:
    long = '[ports]\nweb = { base = 80, variable = "HTTP" }'
    assert read(long, "[ports]\nweb = 81").ports == {"web": Port("web", 81, "HTTP")}
    short = "[ports]\nweb = 80"
    assert read(short, "[ports.web]\nvariable = false").ports == {"web": Port("web", 80, None)}


def test_a_list_of_a_stronger_layer_takes_the_place_of_the_whole_list() -> None:
    config = read('[path]\nprepend = ["a", "b"]', '[path]\nprepend = ["c"]')
    assert config.path_prepend == ("c",)


def test_extends_puts_a_preset_below_all_layers() -> None:
    config = read('extends = "sky"\nproject = "mine"', '[env]\nSKY_RUNTIME_DIR = "x"\nNEW = "y"')
    assert config.preset == "sky"
    assert config.project == "mine"
    assert config.sources == ("isoenv.toml", "isoenv.local.toml")
    assert config.numbering.stride == 1
    assert config.env["SKY_RUNTIME_DIR"] == "x"
    assert next(iter(config.env)) == "SKYPILOT_API_SERVER_ENDPOINT"
    assert [*config.env][-1] == "NEW"


def test_the_strongest_extends_counts() -> None:
    assert read('extends = "sky"', 'extends = "orient"').ports == ORIENT_PORTS
    assert read("", 'extends = "orient"').preset == "orient"


def test_the_orient_preset_is_the_orient_file_without_what_belongs_to_its_repository() -> None:
    whole, preset = read(ORIENT), read('extends = "orient"')
    same = ("numbering", "ports", "env", "dirs", "flags", "templates")
    assert [getattr(preset, name) for name in same] == [getattr(whole, name) for name in same]
    rest = (preset.project, preset.services, preset.setup_run, preset.path_prepend)
    assert rest == (None, {}, (), ())


def test_there_is_no_preset_but_those_named() -> None:
    assert problems('extends = "skyy"') == [
        'isoenv.toml:1: extends: no preset "skyy": did you mean `sky`?'
    ]
    assert problems("\nextends = ''") == [
        'isoenv.toml:2: extends: no preset "": expected `orient` or `sky`'
    ]
    assert problems("", "extends = 3") == ["isoenv.local.toml:1: extends: expected a string, got 3"]


def test_a_problem_is_placed_in_the_layer_that_caused_it() -> None:
    assert problems("[ports]\nweb = 80", "\n[ports]\nweb = 0\n") == [
        "isoenv.local.toml:3: ports.web: expected an integer from 1 to 65535, got 0"
    ]
    assert problems("[ports]\nweb = 0", '[ports.web]\nvariable = "W"\n') == [
        "isoenv.toml:2: ports.web: expected an integer from 1 to 65535, got 0"
    ]
    message = "services.a: `stop` is missing: the command that ends what `start` began"
    assert problems('[services.a]\nstart = "x"', '[services.a]\nhealth = "tcp:1"') == [
        f"isoenv.local.toml:1: {message}"
    ]
    assert problems('extends = "orient"\n[ports]\npg = { base = 1, variable = "S3_BUCKET" }') == [
        "preset orient:23: env.S3_BUCKET: is already set by `ports.pg`: set it once"
    ]


def test_all_problems_are_collected_in_the_order_of_the_lines() -> None:
    first = "limits = 1\n[instance]\nstride = 0\nprefre = 1\n"
    with pytest.raises(ConfigProblems) as caught:
        read(first, "project = 1\n")
    assert caught.value.problems == (
        Problem("isoenv.toml", 1, "limits", "expected a table, got 1"),
        Problem("isoenv.toml", 3, "instance.stride", "expected an integer from 1 to 65535, got 0"),
        Problem("isoenv.toml", 4, "instance.prefre", "unknown key: did you mean `prefer`?"),
        Problem("isoenv.local.toml", 1, "project", "expected a string, got 1"),
    )
    assert str(caught.value) == (
        "isoenv.toml:1: limits: expected a table, got 1 (and 3 more: `isoenv check`)"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1\na = 2\n", "2: not valid TOML: cannot overwrite a value"),
        ("\nweb 80", "2: not valid TOML: expected '=' after a key in a key/value pair"),
        ('\n\na = """\n\n\n', "3: not valid TOML: unterminated string"),
        (
            "a = 1\rb = 2",
            "1: not valid TOML: expected newline or end of document after a statement",
        ),
        ('a = "\0"', "1: not valid TOML: illegal character '\\x00'"),
        ("a = 1\nb = " + "1" * 5000, "2: a number of more than 4300 digits: shorten it"),
        ("a = " + "[" * 9000, "1: tables and lists nested more than 32 deep: flatten them"),
        ("[a" + ".a" * 40 + "]", "1: tables and lists nested more than 32 deep: flatten them"),
        ("\n[a" + ".a" * 1001 + "]", "2: more than 1000 dots in one line: shorten it"),
    ],
)
def test_a_file_that_is_not_toml_is_a_problem_at_its_line(text: str, message: str) -> None:
    assert problems(text) == [f"isoenv.toml:{message}"]


def test_syntax_errors_of_all_layers_are_told_and_nothing_else() -> None:
    assert problems("stride = 0", "b =", "=") == [
        "isoenv.local.toml:1: not valid TOML: invalid value",
        "third.toml:1: not valid TOML: invalid statement",
    ]


def test_bytes_become_text_or_a_problem_at_their_line() -> None:
    assert decode("f", "\ufeffé = 1\r\n".encode()) == Layer("f", "é = 1\r\n")
    assert decode("f", b"#" * LIMIT).text == "#" * LIMIT
    with pytest.raises(ConfigProblems, match=r"^f:1: larger than 1 MiB: shorten it$"):
        decode("f", b"#" * (LIMIT + 1))
    message = r"^f:3: byte 0xe9 is not UTF-8: save the file as UTF-8$"
    with pytest.raises(ConfigProblems, match=message):
        decode("f", b"a = 1\r\n\n# caf\xe9\n")
