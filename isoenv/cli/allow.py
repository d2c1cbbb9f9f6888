"""Trust this checkout's isoenv.toml."""

from __future__ import annotations

import difflib
import os

import click

from isoenv import context, generated, trust
from isoenv.cli import output, start
from isoenv.errors import NotFoundError


@click.command("allow")
def command() -> None:
    """Trust this checkout's isoenv.toml, and isoenv.local.toml beside it.

    An isoenv.toml can set any variable and run commands, so nothing of it is used before. What
    is allowed is this content in this repository: a new linked worktree with the same bytes is
    trusted silently, a changed file asks again, and `allow` shows what has changed. SkyPilot's
    own source needs no file: there it is the code that you allow to be run.

    \b
    Example:
      isoenv allow
      isoenv -C ../shop-feature allow
    """
    decide(trust.ALLOWED)


def decide(verdict: str) -> None:
    """Record the verdict on the files of this place, showing what is new about them."""
    caller = start.here()
    here = context.find(caller)
    subjects = here.subjects or here.offers
    if here.checkout is None or here.base is None or not subjects:
        raise NotFoundError(
            f"no isoenv.toml in {here.base or caller.directory}: `isoenv init` writes one"
        )
    for subject in subjects:
        file = f"{here.checkout.root}/{subject.name}"
        former = trust.last_allowed(caller.state, here.checkout, subject.name)
        if verdict == trust.ALLOWED and former is not None and former != subject.content:
            _show_difference(subject.name, former, subject.content)
        trust.write(caller.state, here.checkout, [subject], verdict)
        start.say(f"{'allowed' if verdict == trust.ALLOWED else 'denied'} {file}")
    generated.forget(caller.state, here.base)


def _show_difference(name: str, before: bytes, after: bytes) -> None:
    lines = difflib.unified_diff(
        os.fsdecode(before).splitlines(),
        os.fsdecode(after).splitlines(),
        f"{name} as allowed before",
        f"{name} now",
        lineterm="",
    )
    for line in lines:
        click.echo(output.clean(line), err=True)
