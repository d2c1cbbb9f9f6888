"""Start and stop services, and say how that goes."""

from __future__ import annotations

import os
import uuid
from typing import TYPE_CHECKING

import click

from isoenv import resolver
from isoenv.cli import output, progress, start
from isoenv.databases import awaited
from isoenv.services import logs, order, record, setup, starting, stopping
from isoenv.services.failure import ServiceError

if TYPE_CHECKING:
    from isoenv.cli.targets import Target
    from isoenv.services.plans import Plan
    from isoenv.services.stopping import Stopped

# How many lines of its log a service that failed is shown with.
LAST_WORDS = 10


def bring_up(target: Target) -> None:
    """Start the services that are meant and what they require, each when the one before is up.

    Databases that are missing are made as soon as the server answers that they belong on.
    """
    names = order.starting(target.services, target.names)
    # Whatever `down` says from now on is meant for all of them.
    cancellations = {name: record.cancellation(target.plans[name].place) for name in names}
    databases = awaited.Awaited(target.selected, target.environment, start.say)
    databases.make()
    setup.run(target.setup, start.say)
    if not names:
        databases.make(last=True)
        start.say(f"{target.title} has no services: `[services.NAME]` in isoenv.toml makes one")
        return
    for name in names:
        plan = target.plans[name]
        try:
            with progress.doing(f"starting {name}"):
                done = starting.start(plan, cancellations[name])
        except ServiceError as error:
            show_last_words(error)
            raise
        start.say(_said(plan, done))
        databases.make(last=name == names[-1])


def _said(plan: Plan, done: starting.Started) -> str:
    if done.already:
        return f"{plan.name} runs already"
    where = f" ({resolver.mask(plan.health)})" if plan.health else ""
    word = "healthy" if plan.health else "up"
    return f"{plan.name} is {word} after {done.seconds:.1f} s{where}"


def take_down(target: Target) -> None:
    """Stop the services that are meant, the last one first; without names all that runs."""
    meant = {
        name: plan
        for name, plan in target.left_over.items()
        if name in target.names or not target.names
    }
    if names := [name for name in target.names if name not in meant]:
        meant |= {name: target.plans[name] for name in order.stopping(target.services, names)}
    elif not target.names:
        meant |= {name: target.plans[name] for name in order.stopping(target.services, ())}
    if not meant:
        start.say(f"{target.title} has no services")
        return

    def after(plan: Plan, done: Stopped) -> None:
        if not done.was_up:
            start.say(f"{plan.name} is down already")
            return
        killed = f"; {done.killed} had to be killed" if done.killed else ""
        start.say(f"{plan.name} is down after {done.seconds:.1f} s{killed}")

    with progress.doing(f"stopping {', '.join(meant)}"):
        problems = stopping.stop(list(meant.values()), uuid.uuid4().hex, after=after)
    for error in problems[:-1]:
        start.say(str(error))
    if problems:
        show_last_words(problems[-1])
        raise problems[-1]


def show_last_words(error: Exception) -> None:
    """Show the end of the log of a service that failed."""
    if not isinstance(error, ServiceError) or error.log is None:
        return
    for line in logs.tail(error.log, LAST_WORDS):
        click.echo(f"  | {output.clean(os.fsdecode(line))}", err=True)
