"""The Orient system, to the number of its table."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

SHORT = 'project = "orienter"\nextends = "orient"\n'

WHOLE = """
project = "orienter"

[instance]
variable = "AI_INSTANCE_ID"
prefer   = "cksum"
ports    = "offset"
stride   = 1000
range    = [20000, 32759]
main     = 0

[ports]
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

[flags]
WHATSAPP_ENABLED = { main = true, others = false, exclusive = true }

[templates]
"docker/nginx-local.conf" = "docker/nginx-local.template.conf"
"""

# Service: its port in slots 0, 1, 2 and 3.
TABLE = {
    "NGINX_PORT": (80, 1080, 2080, 3080),
    "WHATSAPP_PORT": (4097, 5097, 6097, 7097),
    "DASHBOARD_PORT": (4098, 5098, 6098, 7098),
    "OPENCODE_PORT": (4099, 5099, 6099, 7099),
    "VITE_PORT": (5173, 6173, 7173, 8173),
    "POSTGRES_PORT": (5432, 6432, 7432, 8432),
    "MINIO_API_PORT": (9000, 10000, 11000, 12000),
    "MINIO_CONSOLE_PORT": (9001, 10001, 11001, 12001),
}

NGINX = b"""\
server {
  location / { proxy_pass http://localhost:$VITE_PORT; proxy_set_header Host $host; }
  location /api { proxy_pass http://localhost:${DASHBOARD_PORT}; }
  # $ ${} $$ ${NOT_OURS} $HOME \xff\r
  return 301 https://$host$request_uri;
}"""


def expected(root: Path, slot: int) -> dict[str, str]:
    """Every variable of the seed's list but for those of isoenv itself."""
    postgres = TABLE["POSTGRES_PORT"][slot]
    return {
        "AI_INSTANCE_ID": str(slot),
        **{name: str(ports[slot]) for name, ports in TABLE.items()},
        "WHATSAPP_ENABLED": "false" if slot else "true",
        "DATA_DIR": f"{root}/.dev-data/instance-{slot}",
        "LOG_DIR": f"{root}/logs/instance-{slot}",
        "PID_DIR": f"{root}/.dev-data/instance-{slot}/pids",
        "COMPOSE_PROJECT_NAME": f"orienter-{slot}",
        "POSTGRES_DB": f"whatsapp_bot_{slot}",
        "DATABASE_URL": f"postgresql://aibot:aibot@localhost:{postgres}/whatsapp_bot_{slot}",
        "S3_BUCKET": f"orienter-data-{slot}",
        "AWS_ENDPOINT_URL": f"http://localhost:{TABLE['MINIO_API_PORT'][slot]}",
    }


@pytest.fixture
def orienter(make_repo: Callable[[str], Path], git: Callable[..., str]) -> Path:
    repo = make_repo("code/orienter")
    (repo / "isoenv.toml").write_text(SHORT)
    (repo / "docker").mkdir()
    (repo / "docker/nginx-local.template.conf").write_bytes(NGINX)
    (repo / ".gitignore").write_text("docker/nginx-local.conf\n")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=configured")
    return repo


@pytest.fixture
def feature(orienter: Path, worktree: Worktree, isoenv: Isoenv) -> Path:
    """A linked worktree that holds slot 1."""
    root = worktree(orienter, "feature")
    done = isoenv("claim", "1", cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def environment(done: CompletedProcess[str]) -> dict[str, str]:
    """What `env -0` has printed."""
    assert done.returncode == 0, done.stderr
    pairs = (line.partition("=") for line in done.stdout.split("\0") if line)
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize("slot", range(4))
@pytest.mark.parametrize("text", [SHORT, WHOLE], ids=["preset", "whole"])
def test_each_slot_has_the_numbers_of_the_table(
    orienter: Path, isoenv: Isoenv, text: str, slot: int
) -> None:
    (orienter / "isoenv.toml").write_text(text)
    shown = isoenv("show", str(slot), "--format", "json", cwd=orienter)
    assert shown.stderr == ""
    found = json.loads(shown.stdout)
    env = {k: v for k, v in found["env"].items() if not k.startswith("ISOENV_")}
    assert env == expected(orienter, slot)
    assert found["ports"] == {
        name.removesuffix("_PORT").lower(): ports[slot] for name, ports in TABLE.items()
    }
    assert (found["project"], found["slot"]) == ("orienter", slot)


def test_a_command_in_a_worktree_gets_its_own_world(feature: Path, isoenv: Isoenv) -> None:
    env = environment(isoenv("exec", ".", "env", "-0", cwd=feature))
    assert {name: env[name] for name in expected(feature, 1)} == expected(feature, 1)
    assert env["ISOENV_PROJECT"] == "orienter"
    assert env["ISOENV_INSTANCE"] == "1"
    assert env["ISOENV_NAME"] == "feature"
    assert env["ISOENV_ROOT"] == str(feature)


def test_directories_are_there_and_git_still_removes_the_worktree(
    orienter: Path, feature: Path, isoenv: Isoenv, git: Callable[..., str]
) -> None:
    script = 'for d in "$DATA_DIR" "$LOG_DIR" "$PID_DIR"; do echo data >"$d/file" || exit; done'
    assert isoenv("exec", ".", "sh", "-c", script, cwd=feature).returncode == 0
    assert (feature / ".dev-data/instance-1/pids/file").read_text() == "data\n"
    assert git(feature, "status", "--porcelain") == ""
    git(orienter, "worktree", "remove", str(feature))


def test_whatsapp_is_on_in_the_main_checkout_only(
    orienter: Path, feature: Path, isoenv: Isoenv
) -> None:
    script = 'echo "$WHATSAPP_ENABLED"'
    assert isoenv("exec", ".", "sh", "-c", script, cwd=orienter).stdout == "true\n"
    assert isoenv("exec", ".", "sh", "-c", script, cwd=feature).stdout == "false\n"

    refused = isoenv("enable", "WHATSAPP_ENABLED", cwd=feature)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "isoenv: WHATSAPP_ENABLED is on in orienter:0 (orienter) and may be on in one instance "
        "only: `isoenv enable WHATSAPP_ENABLED --steal`\n"
    )
    assert isoenv("exec", ".", "sh", "-c", script, cwd=feature).stdout == "false\n"

    stolen = isoenv("enable", "WHATSAPP_ENABLED", "--steal", cwd=feature)
    assert (stolen.returncode, stolen.stdout) == (0, "")
    assert stolen.stderr == (
        "isoenv: WHATSAPP_ENABLED=true in orienter/1 feature\n"
        "isoenv: WHATSAPP_ENABLED=false in orienter/0 orienter\n"
    )
    assert isoenv("exec", ".", "sh", "-c", script, cwd=feature).stdout == "true\n"
    assert isoenv("exec", ".", "sh", "-c", script, cwd=orienter).stdout == "false\n"

    assert isoenv("enable", "WHATSAPP_ENABLED", cwd=orienter).returncode == 1
    assert isoenv("disable", "WHATSAPP_ENABLED", "1", cwd=orienter).returncode == 0
    assert isoenv("enable", "WHATSAPP_ENABLED", cwd=orienter).returncode == 0
    assert isoenv("exec", ".", "sh", "-c", script, cwd=orienter).stdout == "true\n"


def test_a_main_checkout_that_comes_last_finds_whatsapp_taken(
    orienter: Path, feature: Path, isoenv: Isoenv
) -> None:
    assert isoenv("enable", "WHATSAPP_ENABLED", cwd=feature).returncode == 0
    script = 'echo "$WHATSAPP_ENABLED"'
    assert isoenv("exec", ".", "sh", "-c", script, cwd=orienter).stdout == "false\n"


def test_templates_are_filled_in_with_this_environment_alone(feature: Path, isoenv: Isoenv) -> None:
    (feature / "docker/nginx-local.template.conf").chmod(0o640)
    done = isoenv("render", cwd=feature, env={"NOT_OURS": "theirs"})
    target = feature / "docker/nginx-local.conf"
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"isoenv: wrote {target}\n"
    filled = NGINX.replace(b"$VITE_PORT", b"6173").replace(b"${DASHBOARD_PORT}", b"5098")
    assert target.read_bytes() == filled
    assert target.stat().st_mode & 0o777 == 0o640

    target.write_text("somebody's own")
    assert isoenv("render", "docker/nginx-local.conf", cwd=feature).returncode == 0
    assert target.read_bytes() == filled


def test_a_template_that_is_not_there_leaves_the_old_file(feature: Path, isoenv: Isoenv) -> None:
    target = feature / "docker/nginx-local.conf"
    target.write_text("as it was")
    source = feature / "docker/nginx-local.template.conf"
    source.unlink()
    done = isoenv("render", cwd=feature)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"isoenv: no template {source}: `[templates]` of isoenv.toml names it\n"
    source.mkdir()
    assert isoenv("render", cwd=feature).returncode == 1
    done = isoenv("render", "nosuch.conf", cwd=feature)
    assert done.returncode == 5
    assert "no template for nosuch.conf" in done.stderr
    assert target.read_text() == "as it was"
    assert {path.name for path in (feature / "docker").iterdir()} == {source.name, target.name}


def test_slots_follow_the_hash_of_the_seed_and_the_second_of_two_moves_on(
    orienter: Path, worktree: Worktree, isoenv: Isoenv
) -> None:
    # Without ports nothing on this machine can be in the way.
    config = 'project = "orienter"\n[instance]\nprefer = "cksum"\n'
    (orienter / "isoenv.toml").write_text(config)
    # `printf %s NAME | cksum` % 9 + 1 is 8, 2, 2 and 9.
    for name, slot in {"feature-auth": 8, "qr-login": 2, "slack-bridge": 3, "a": 9}.items():
        root = worktree(orienter, name)
        (root / "isoenv.toml").write_text(config)
        shown = json.loads(isoenv("show", "--json", cwd=root).stdout)
        assert (shown["name"], shown["slot"]) == (name, slot)
