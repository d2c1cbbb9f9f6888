"""Write a starter isoenv.toml."""

from __future__ import annotations

import os

import click

from isoenv import checkout, files, paths, presets
from isoenv.cli import start
from isoenv.errors import IsoenvError

# What a project may be called, in characters.
LENGTH = 64


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
    found = checkout.project_name(place.checkout, root) if place else os.path.basename(root)
    name = checkout.instance_name(found, "project", ())[:LENGTH].strip()
    target = f"{root}/{paths.CONFIG_NAME}"
    _write(target, _content(name, preset))
    start.say(f"wrote {target}")


def _content(name: str, preset: str | None) -> bytes:
    import tomli_w

    # The preset of SkyPilot names the project itself: all its checkouts share their slots.
    document: dict[str, object] = {} if preset == "sky" else {"project": name}
    if preset:
        document["extends"] = preset
    else:
        document["ports"] = {"web": 3000}
        document["env"] = {"WEB_URL": "http://localhost:{ports.web}"}
        document["dirs"] = {"DATA_DIR": ".dev-data/instance-{id}"}
    return tomli_w.dumps(document).encode()


def _write(target: str, content: bytes) -> None:
    """Write a file that is not there yet, whole or not at all."""
    try:
        with open(target, "xb") as file:
            try:
                file.write(content)
                file.flush()
            except OSError:
                os.unlink(target)
                raise
    except FileExistsError:
        raise IsoenvError(f"{target} exists: edit it, or remove it first") from None
    except OSError as error:
        raise IsoenvError(f"cannot write {target}: {files.reason(error)}") from None
