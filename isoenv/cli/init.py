"""Write a starter isoenv.toml."""

from __future__ import annotations

import os

import click

from isoenv import checkout, paths, presets
from isoenv.cli import start
from isoenv.errors import IsoenvError


@click.command("init")
@click.option(
    "--preset", type=click.Choice(sorted(presets.NAMES)), help="Start from a built-in preset."
)
def command(preset: str | None) -> None:
    """Write an isoenv.toml for this checkout. An existing one is never overwritten.

    \b
    Example:
      isoenv init
      isoenv init --preset orient
    """
    caller = start.caller()
    place = checkout.locate(caller.directory)
    root = place.checkout.root if place else caller.directory
    name = checkout.project_name(place.checkout, root) if place else os.path.basename(root)
    target = f"{root}/{paths.CONFIG_NAME}"
    content = _content(name, preset)
    try:
        with open(target, "xb") as file:
            file.write(content)
    except FileExistsError:
        raise IsoenvError(f"{target} exists: edit it, or remove it first") from None
    except OSError as error:
        raise IsoenvError(f"cannot write {target}: {error.strerror}") from None
    start.say(f"wrote {target}")


def _content(name: str, preset: str | None) -> bytes:
    import tomli_w

    # A preset may name the project itself; then all its checkouts share their slots.
    document: dict[str, object] = {}
    if preset != "sky":
        document["project"] = name.replace(":", "-")
    if preset:
        document["extends"] = preset
    else:
        document["ports"] = {"web": 3000}
        document["env"] = {"WEB_URL": "http://localhost:{ports.web}"}
        document["dirs"] = {"DATA_DIR": ".dev-data/instance-{id}"}
    return tomli_w.dumps(document).encode()
