"""Write a starter isoenv.toml."""

from __future__ import annotations

import os
import sys

import click

from isoenv import checkout, files, paths, presets
from isoenv.cli import output, start
from isoenv.detection import proposal, scan
from isoenv.errors import IsoenvError

# What a project may be called, in characters.
LENGTH = 64


@click.command("init")
@click.option(
    "--preset", type=click.Choice(sorted(presets.NAMES)), help="Start from a built-in preset."
)
@click.option("--yes", "-y", is_flag=True, help="Write without asking.")
@click.option("--dry-run", is_flag=True, help="Print it, and write nothing.")
def command(preset: str | None, *, yes: bool, dry_run: bool) -> None:
    """Write an isoenv.toml for this checkout. An existing one is never overwritten.

    Without a preset it is made from what the checkout shows: compose files, .env and
    .env.example, Procfile and the scripts of package.json. They are read, and nothing of them
    is run. What is written is shown first, and on a terminal you are asked.

    \b
    Example:
      isoenv init
      isoenv init --dry-run
      isoenv init --preset orient --yes
    """
    caller = start.here()
    place = checkout.locate(caller.directory)
    root = place.checkout.root if place else caller.directory
    target = f"{root}/{paths.CONFIG_NAME}"
    if not dry_run and os.path.lexists(target):
        raise _exists(target)
    found = checkout.project_name(place.checkout, root) if place else os.path.basename(root)
    name = checkout.instance_name(found, "project", ())[:LENGTH].strip()
    made = _from_preset(name, preset) if preset else proposal.make(scan.scan(root), name)
    if dry_run:
        output.write(made.text)
    else:
        click.echo(made.text, err=True)
    # What is shown on standard error ends with what is still to do.
    for remark in made.remarks if dry_run else made.asides:
        start.say(str(remark))
    if dry_run:
        return
    # Like `npm init` and `git init` in a script: without a person there is nobody to ask.
    if not yes and _is_attended() and not click.confirm(f"Write {target}?", default=True, err=True):
        start.say("nothing written")
        return
    _write(target, made.text.encode())
    start.say(f"wrote {target}: `isoenv allow` lets it take effect")


def _from_preset(name: str, preset: str) -> proposal.Proposal:
    import tomli_w

    # The preset of SkyPilot names the project itself: all its checkouts share their slots.
    document = {} if preset == "sky" else {"project": name}
    return proposal.Proposal(tomli_w.dumps({**document, "extends": preset}))


def _is_attended() -> bool:
    return all(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr))


def _exists(target: str) -> IsoenvError:
    return IsoenvError(f"{target} exists: edit it, or remove it first")


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
        raise _exists(target) from None
    except OSError as error:
        raise IsoenvError(f"cannot write {target}: {files.reason(error)}") from None
