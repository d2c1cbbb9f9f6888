"""Services that people really run: PostgreSQL, Redis, nginx, uvicorn; Orient's compose file."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.request
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from isoenv import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from subprocess import CompletedProcess

    from conftest import Serving

    Git = Callable[..., str]
    Isoenv = Callable[..., CompletedProcess[str]]
    WaitFor = Callable[[Callable[[], object]], Any]
    Worktree = Callable[[Path, str], Path]

ORIENT = Path(__file__).resolve().parents[1] / "examples/orient"


def program(name: str) -> str:
    """Return the path of a server; where it is missing, skip on a laptop and fail in CI."""
    directories = [
        *glob("/usr/lib/postgresql/*/bin"),
        "/usr/sbin",
        "/usr/local/sbin",
    ]  # a pattern of directories
    found = shutil.which(name, path=os.pathsep.join([os.environ["PATH"], *directories]))
    if found is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"{name} is not installed")
    return str(found)


def fetch(port: int, path: str = "/") -> tuple[str, Any]:
    with urllib.request.urlopen(
        f"http://127.0.0.1:{port}{path}", timeout=60
    ) as answer:  # http alone
        return answer.read().decode(), answer.headers


@pytest.fixture
def postgres_data() -> Iterator[tuple[Path, list[str]]]:
    """A data directory, and the words in front of a command that make it another user's than root.

    PostgreSQL refuses to run as root, and another user cannot look into the test's own directory.
    """
    as_user: list[str] = []
    data = Path(tempfile.mkdtemp(prefix="isoenv-postgres-"))
    if os.getuid() == 0:
        user = pwd.getpwnam("postgres")
        os.chown(data, user.pw_uid, user.pw_gid)
        as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "--"]
    yield data, as_user
    shutil.rmtree(data)


def test_postgresql_and_redis_run_and_stop_in_order(
    serving: Serving,
    postgres_data: tuple[Path, list[str]],
    free_port: Callable[[], int],
    wait_for: WaitFor,
) -> None:
    data, as_user = postgres_data
    initdb, postgres, psql = program("initdb"), program("postgres"), program("psql")
    run = [*as_user, postgres, "-D", f"{data}/db", "-k", str(data), "-p", "{ports.postgres}"]
    serving.configure(
        f"""
[services.postgres]
run = {run}
health = "tcp:{{ports.postgres}}"
[services.redis]
run = "exec {program("redis-server")} --port {{ports.redis}} --save '' --dir {serving.root}"
health = "tcp:{{ports.redis}}"
requires = ["postgres"]
""",
        f'[setup]\nrun = ["cd / && {" ".join(as_user)} {initdb} -U aibot -A trust -D {data}/db"]',
    )
    port, redis_port = free_port(), free_port()
    text = (serving.root / "isoenv.toml").read_text()
    text = text.replace("[ports]\n", f"[ports]\npostgres = {port}\nredis = {redis_port}\n")
    (serving.root / "isoenv.toml").write_text(text)
    done = serving.run("up")
    assert done.returncode == 0, done.stderr
    assert serving.states() == {"postgres": "healthy", "redis": "healthy"}
    words = [psql, "-h", "127.0.0.1", "-p", str(port), "-U", "aibot", "-d", "postgres", "-Atc"]

    def answer() -> str:
        # It listens before it takes connections.
        asked = subprocess.run([*words, "SELECT 40 + 2"], capture_output=True, check=False)
        return asked.stdout.decode().strip()

    assert wait_for(answer) == "42"
    with socket.create_connection(("127.0.0.1", redis_port)) as redis:
        redis.sendall(b"PING\r\n")
        assert redis.recv(64) == b"+PONG\r\n"
    # A master that is killed takes its workers with it, and comes up again.
    os.kill(serving.pid("postgres"), signal.SIGKILL)
    assert serving.states()["postgres"] == "crashed"
    assert serving.run("restart", "postgres").returncode == 0
    assert wait_for(answer) == "42"
    done = serving.run("down")
    assert done.returncode == 0, done.stderr
    assert "killed" not in done.stderr
    said = [line.split()[1] for line in done.stderr.splitlines() if " is down " in line]
    assert said == ["redis", "postgres"]
    for each in (port, redis_port):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", each))


def test_up_makes_the_databases_between_their_server_and_what_needs_them(
    serving: Serving, postgres_data: tuple[Path, list[str]], free_port: Callable[[], int]
) -> None:
    data, as_user = postgres_data
    run = [*as_user, program("postgres"), "-D", f"{data}/db", "-k", str(data)]
    serve = "http.server as s; s.test(s.SimpleHTTPRequestHandler, port={ports.web})"
    app = f"import os, psycopg; psycopg.connect(os.environ['DATABASE_URL']); import {serve}"
    serving.configure(
        f"""
[services.postgres]
run = {[*run, "-p", "{ports.postgres}"]}
health = "tcp:{{ports.postgres}}"
[services.app]
run = ["{sys.executable}", "-c", "{app}"]
health = "http://127.0.0.1:{{ports.web}}/"
requires = ["postgres"]
[databases.main]
url = "{{env.DATABASE_URL}}"
[databases.file]
url = "sqlite:///shop-{{id}}.db"
""",
        f"""[env]
DATABASE_URL = "postgresql://aibot@127.0.0.1:{{ports.postgres}}/shop_{{id}}"
[setup]
run = ["cd / && {" ".join(as_user)} {program("initdb")} -U aibot -A trust -D {data}/db"]""",
    )
    port = free_port()
    text = (serving.root / "isoenv.toml").read_text()
    text = text.replace("[ports]\n", f"[ports]\npostgres = {port}\n")
    (serving.root / "isoenv.toml").write_text(text)
    done = serving.run("up")
    assert done.returncode == 0, done.stderr
    assert serving.states() == {"postgres": "healthy", "app": "healthy"}
    told = [
        line.split()[1:3]
        for line in done.stderr.splitlines()
        if " after " in line or " made " in line
    ]
    assert told == [
        ["made", f"{serving.root}/shop-0.db"],
        ["postgres", "is"],
        ["made", "shop_0"],
        ["app", "is"],
    ]
    done = serving.run("up")
    assert "made" not in done.stderr
    assert done.returncode == 0, done.stderr
    # What cannot be made is said, and what runs goes on running.
    text = text.replace(
        'url = "{env.DATABASE_URL}"', 'url = "{env.DATABASE_URL}"\ntemplate = "no_such"'
    )
    (serving.root / "isoenv.toml").write_text(text.replace("shop_{id}", "other_{id}"))
    done = serving.run("up")
    assert done.returncode == 1
    assert "no_such" in done.stderr
    assert serving.states()["postgres"] == "healthy"
    assert serving.run("down").returncode == 0


UVICORN_APP = """
import os
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    status = 200 if scope["path"] == "/health" else 404
    await send({"type": "http.response.start", "status": status, "headers": []})
    body = f"{os.environ['ISOENV_INSTANCE']} {os.getpid()}".encode()
    await send({"type": "http.response.body", "body": body})
"""


def test_uvicorn_with_workers_runs_in_two_instances_and_stops_with_all_of_them(
    serving: Serving, wait_for: WaitFor
) -> None:
    (serving.root / "app.py").write_text(UVICORN_APP)
    serving.configure(f"""
[services.api]
run = "exec {sys.executable} -m uvicorn --workers 2 --port {{ports.web}} app:app"
health = "http://127.0.0.1:{{ports.web}}/health"
""")
    for slot in ("0", "4"):
        done = serving.run("api", slot, "start")
        assert done.returncode == 0, done.stderr
    assert fetch(serving.port, "/health")[0].startswith("0 ")
    worker = int(fetch(serving.port + 4000, "/health")[0].removeprefix("4 "))
    assert worker != serving.pid("api", slot=4)
    assert serving.run("api", "0", "stop").returncode == 0
    assert serving.run("api", "0", "status").returncode == 3
    assert serving.run("api", "4", "status").returncode == 0
    os.kill(serving.pid("api", slot=4), signal.SIGKILL)
    wait_for(lambda: serving.states("4")["api"] == "crashed")
    assert worker in serving.ps("4")["api"]["leftovers"]
    assert serving.run("api", "4", "stop").returncode == 0
    assert process.identify(worker) is None
    assert serving.run("api", "4", "start").returncode == 0
    assert serving.run("api", "4", "stop").returncode == 0


@pytest.fixture
def orient(
    make_repo: Callable[[str], Path], git: Git, worktree: Worktree, isoenv: Isoenv
) -> tuple[Path, Path]:
    """The example as a repository that holds slot 0, and a linked worktree of it with slot 3."""
    main = make_repo("orienter")
    shutil.copytree(ORIENT, main, dirs_exist_ok=True)
    git(main, "add", ".")
    git(main, "commit", "--quiet", "--message=the example")
    assert isoenv("claim", cwd=main).returncode == 0
    feature = worktree(main, "feature")
    assert isoenv("claim", "3", cwd=feature).returncode == 0
    return main, feature


def compose_client() -> list[str]:
    for words in (["docker", "compose"], ["docker-compose"]):
        if shutil.which(words[0]) is None:
            continue
        if subprocess.run([*words, "version"], capture_output=True, check=False).returncode == 0:
            return words
    pytest.skip("no compose client is installed")


def test_compose_keeps_the_instances_of_the_example_apart(
    serving: Serving, orient: tuple[Path, Path]
) -> None:
    client = compose_client()
    found = []
    for slot in ("0", "3"):
        words = [*client, "-f", f"{orient[0]}/docker/docker-compose.infra.yml", "config"]
        done = serving.isoenv("exec", slot, *words, cwd=orient[0])
        assert done.returncode == 0, done.stderr
        found.append(resources(yaml.safe_load(done.stdout)))
    main, feature = found
    assert feature["containers"] == {
        f"orienter-{name}-3" for name in ("nginx", "postgres", "minio")
    }
    assert feature["ports"] == {"3080", "8432", "12000", "12001"}
    assert feature["volumes"] == {"postgres-data-3", "minio-data-3"}
    assert feature["networks"] == {"orienter-network-3"}
    assert main["ports"] == {"80", "5432", "9000", "9001"}
    for kind, names in main.items():
        assert names
        assert names.isdisjoint(feature[kind])


def resources(config: dict[str, Any]) -> dict[str, set[str]]:
    """Return what a resolved compose file claims on the host, as both clients write it."""
    services = config["services"].values()
    ports = [port for service in services for port in service["ports"]]
    return {
        "containers": {service["container_name"] for service in services},
        "ports": {
            str(port["published"]) if isinstance(port, dict) else port.split(":")[0]
            for port in ports
        },
        "volumes": {volume["name"] for volume in config["volumes"].values()},
        "networks": {network["name"] for network in config["networks"].values()},
    }


# nginx on this machine instead of in a container, and servers that need no npm.
LOCAL = """
[ports]
nginx = {nginx}
dashboard = {dashboard}
vite = {vite}
[env]
UPSTREAM_HOST = "127.0.0.1"
[setup]
run = ["mkdir web && echo instance $AI_INSTANCE_ID >web/index.html"]
[services.vite]
run = "cd web && exec python3 -m http.server --bind 127.0.0.1 {{ports.vite}}"
[services.api]
run = "cd web && exec python3 -m http.server --bind 127.0.0.1 {{ports.dashboard}}"
health = "http://127.0.0.1:{{ports.dashboard}}/"
requires = []
[services.proxy]
run = "exec {program} -e stderr -p $PWD -c $PWD/nginx.conf"
health = "http://127.0.0.1:{{ports.nginx}}/"
requires = ["api", "vite"]
"""
NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {}
http {
  access_log off;
  client_body_temp_path temp; proxy_temp_path temp; fastcgi_temp_path temp;
  uwsgi_temp_path temp; scgi_temp_path temp;
  include docker/nginx-local.conf;
}
"""


def test_nginx_serves_the_rendered_file_of_each_instance(
    serving: Serving, orient: tuple[Path, Path], free_port: Callable[[], int]
) -> None:
    names = ("nginx", "dashboard", "vite")
    local = LOCAL.format(program=program("nginx"), **{name: free_port() for name in names})
    ports = []
    for root in orient:
        (root / "isoenv.local.toml").write_text(local)
        (root / "nginx.conf").write_text(NGINX)
        done = serving.isoenv("render", cwd=root)
        assert done.returncode == 0, done.stderr
        done = serving.isoenv("up", "proxy", cwd=root)
        assert done.returncode == 0, done.stderr
        ports.append(int(serving.isoenv("port", "nginx", cwd=root).stdout))
    try:
        assert ports[1] == ports[0] + 3000
        for port, slot in zip(ports, ("0", "3"), strict=True):
            text, headers = fetch(port)
            assert (text, headers["X-Instance"]) == (f"instance {slot}\n", slot)
            assert fetch(port, "/api/")[0] == f"instance {slot}\n"
    finally:
        for root in orient:
            assert serving.isoenv("down", "proxy", "api", "vite", cwd=root).returncode == 0
    rendered = (orient[1] / "docker/nginx-local.conf").read_text()
    assert "proxy_set_header Host $host;" in rendered
    assert f"listen {ports[1]};" in rendered
