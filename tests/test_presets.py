"""The configurations that come with isoenv."""

from __future__ import annotations

from isoenv import presets
from isoenv.config import Layer, parse
from isoenv.models import Config, Numbering, Port, Service


def preset(name: str) -> Config:
    return parse([Layer("isoenv.toml", f'extends = "{name}"')], presets.text)


def test_a_preset_is_found_by_its_name_alone() -> None:
    assert presets.NAMES == ("orient", "sky")
    assert [preset(name).preset for name in presets.NAMES] == ["orient", "sky"]
    assert [presets.text(name) for name in ("", "Sky", "sky.toml", "../presets/sky")] == [None] * 4


def test_the_orient_preset_sets_every_variable_of_its_guide() -> None:
    config = preset("orient")
    ports = [port.variable for port in config.ports.values()]
    assert {config.numbering.variable, *ports, *config.env, *config.dirs, *config.flags} == {
        *("AI_INSTANCE_ID", "COMPOSE_PROJECT_NAME"),
        *("NGINX_PORT", "WHATSAPP_PORT", "DASHBOARD_PORT", "OPENCODE_PORT", "VITE_PORT"),
        *("POSTGRES_PORT", "MINIO_API_PORT", "MINIO_CONSOLE_PORT"),
        *("POSTGRES_DB", "DATABASE_URL", "S3_BUCKET", "AWS_ENDPOINT_URL"),
        *("DATA_DIR", "LOG_DIR", "PID_DIR", "WHATSAPP_ENABLED"),
    }


def test_the_sky_preset_isolates_a_server_and_unties_it_from_the_others() -> None:
    assert preset("sky") == Config(
        project="skypilot",
        numbering=Numbering(
            variable="SKYPILOT_INSTANCE_ID", stride=1, main="none", dir="{home}/.sky-dev-{id}"
        ),
        ports={
            "api": Port("api", 46580, "SKYPILOT_API_SERVER_LOCAL_PORT"),
            "queue": Port("queue", 50011, None),
        },
        env={
            "SKYPILOT_API_SERVER_ENDPOINT": "http://127.0.0.1:{ports.api}",
            "SKY_RUNTIME_DIR": "{home}/.sky-dev-{id}",
            "SKYPILOT_DISABLE_LOCAL_API_SERVER": "1",
            "SKYPILOT_CONFIG": False,
            "SKYPILOT_DB_CONNECTION_URI": False,
            "SKYPILOT_DB_POOL_CONNECTION_URI": False,
            "SKYPILOT_DB_POOL_HOSTPORT": False,
            "IS_SKYPILOT_SERVER": False,
        },
        services={
            "api": Service(
                "api",
                run=("sky", "api", "start", "--foreground"),
                health="http://127.0.0.1:{ports.api}/api/health",
                start_timeout=180.0,
            )
        },
        preset="sky",
        sources=("isoenv.toml",),
    )
