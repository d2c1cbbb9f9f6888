"""Count what sessions use, and show the sums."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isoenv import context
from isoenv.cli import output, params, start
from isoenv.coordination import current, place, reaping
from isoenv.coordination.records import Sum
from isoenv.coordination.statusline import plain_number
from isoenv.coordination.store import open_store
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from isoenv.context import Caller
    from isoenv.coordination.store import Store

HEADERS = ["METRIC", "VALUE", "TOTAL", "AVERAGE", "SESSIONS", "INSTANCES", "LIMIT", "LEFT"]


@click.group("metrics")
def command() -> None:
    """Count what sessions use: agents, tokens, anything; and show the sums.

    \b
    Example:
      isoenv metrics add agents 25
      isoenv metrics show
    """


@command.command("set", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("value", type=float)
@params.session_option
def set_value(name: str, value: float, session: str | None) -> None:
    """Set a number of a session. It is gone with the session.

    \b
    Example:
      isoenv metrics set confidence 99.2
    """
    current.named_or_nameless(start.acting(session), session).metrics.set(name, value)


@command.command("add", context_settings={"ignore_unknown_options": True})
@click.argument("name")
@click.argument("value", type=float)
@params.session_option
def add_value(name: str, value: float, session: str | None) -> None:
    """Add to a number of a session; it is 0 before. No two additions get lost.

    \b
    Example:
      isoenv metrics add agents 25
      isoenv metrics add agents -1
    """
    current.named_or_nameless(start.acting(session), session).metrics.add(name, value)


@command.command()
@click.option("--session", type=params.SessionParam(), help="The metrics of this session.")
@click.option("--instance", type=params.InstanceParam(), help="Sum up this instance's alone.")
@params.json_option
def show(session: str | None, instance: str | None, *, as_json: bool) -> None:
    """Show each metric: the session's value, the total of all live sessions, and their average.

    `agents` is the number that was set plus the subagents that are running. LIMIT and LEFT are
    those of `[limits]` in isoenv.toml: a pool that all sessions share.

    \b
    Example:
      isoenv metrics show
      isoenv metrics show --instance 2 --json
    """
    caller = start.here(instance or session)
    store = open_store(caller.state)
    reaping.reap(store)
    record = current.existing(caller, store, session)
    own = store.metrics(record.id) if record else {}
    limits = _limits(caller)
    sums = _sums(caller, store, instance)
    names = own if session else sorted({*sums, *limits})
    found = [_described(name, own, sums.get(name, Sum(name, 0, 0, 0)), limits) for name in names]
    if as_json:
        output.write_json({"metrics": found})
    elif not found:
        start.say("no metrics: `isoenv metrics set NAME VALUE` sets one")
    else:
        output.write_table(HEADERS, [_row(each) for each in found])


def _sums(caller: Caller, store: Store, instance: str | None) -> dict[str, Sum]:
    if instance is None:
        return {each.name: each for each in store.sums()}
    here = place.find(caller.environ, caller.directory)
    meant = place.instance(instance, here, caller.state)
    return {each.name: each for each in store.sums(meant.project.key, meant.slot)}


def _limits(caller: Caller) -> Mapping[str, int]:
    """Return the pool limits of the configuration here; none of one that is not allowed."""
    try:
        here = context.find(caller)
        context.require_trust(here)
    except IsoenvError:
        return {}
    return here.config.limits


def _described(
    name: str, own: Mapping[str, float], found: Sum, limits: Mapping[str, int]
) -> dict[str, object]:
    limit = limits.get(name)
    return {
        "name": name,
        "value": plain_number(own[name]) if name in own else None,
        "total": plain_number(found.total),
        "average": plain_number(found.average),
        "sessions": found.sessions,
        "instances": found.instances,
        "limit": limit,
        "left": None if limit is None else plain_number(limit - found.total),
    }


def _row(described: Mapping[str, object]) -> Sequence[str]:
    return ["-" if value is None else str(value) for value in described.values()]
