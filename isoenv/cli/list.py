"""List the instances of a project."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from isoenv import context, instances, paths, resolver, tokens
from isoenv.cli import output, params, show, start
from isoenv.diagnosis import clashes
from isoenv.errors import IsoenvError, UsageError

if TYPE_CHECKING:
    from isoenv.context import Caller, Context
    from isoenv.instances import Selected
    from isoenv.models import Environment, Lease
    from isoenv.registry import Registry
    from isoenv.services.listing import Question
    from isoenv.services.states import Status
    from isoenv.userconfig import UserConfig

# Seconds between two looks of `--watch`.
INTERVAL = 1.0


@click.command("list")
@click.option("--all", "every", is_flag=True, help="The instances of all projects.")
@click.option("--watch", is_flag=True, help="Keep the table live until Ctrl-C.")
@params.json_option
def command(*, every: bool, watch: bool, as_json: bool) -> None:
    """List the instances of this project: slot, name, checkout, what runs, ports and URLs.

    A checkout that is gone is marked; `isoenv prune` gives its slot back.

    \b
    Example:
      isoenv list
      isoenv list --all --json
    """
    if watch and as_json:
        raise UsageError("`--watch` is for people: leave out `--json`")
    # What is loaded stays: the collector would go over it again and again for many leases.
    gc.freeze()
    caller = start.caller() if every else start.here()
    # A plain dict: `os.environ` decodes at each look, and each lease takes several.
    caller = replace(caller, environ=dict(caller.environ))
    with start.registry(caller) as registry:
        here = _here(caller) if every else context.find(caller)
        while True:
            leases = registry.leases(None if every or here is None else here.project)
            user = _user(caller)
            described = [_describe(caller, registry, lease, here, user) for lease in leases]
            sessions = _sessions(caller)
            found = [
                row | {"sessions": sessions.get((lease.project.key, lease.slot), 0)}
                for row, lease in zip(_with_services(described), leases, strict=True)
            ]
            if as_json:
                output.write_json({"instances": found})
                return
            if watch:
                click.clear()
            _write(found, every=every)
            if not watch:
                _say_clashes(leases if every else registry.leases(), leases)
                return
            time.sleep(INTERVAL)


def _sessions(caller: Caller) -> dict[tuple[str, int | None], int]:
    """Count the sessions of each instance; none where their store cannot be used, which is said."""
    if not paths.has_store(caller.environ, caller.state):
        return {}
    from isoenv.coordination import registering  # more than a machine without sessions needs

    try:
        return registering.counts(caller.state)
    except IsoenvError as error:
        start.say(str(error))
        return {}


def _here(caller: Caller) -> Context | None:
    """Return the place of the caller; None where its configuration is broken."""
    try:
        return context.find(caller)
    except IsoenvError:
        return None


def _user(caller: Caller) -> UserConfig | None:
    """Return the user's own configuration; None where it is broken, which each lease meets then."""
    try:
        return context.user_config(caller)
    except IsoenvError:
        return None


def _describe(
    caller: Caller,
    registry: Registry,
    lease: Lease,
    here: Context | None,
    user: UserConfig | None,
) -> tuple[dict[str, object], list[Question]]:
    """Describe a lease, from the registry alone where its configuration cannot be had.

    Beside it are the services to look at.
    """
    gone = bool(lease.git_dir and tokens.is_gone(lease.git_dir, lease.device, lease.inode))
    found: dict[str, object] = {
        "project": lease.project.name,
        "slot": lease.slot,
        "name": lease.name,
        "root": lease.root,
        "trusted": False,
        "ports": dict(lease.ports),
        "dirs": {},
        "urls": {},
    }
    questions = None
    try:
        if lease.root and not gone:
            selected = instances.of_lease(caller, lease, user)
        elif here and not lease.root and here.project.key == lease.project.key:
            selected = instances.Selected(here, lease.slot, lease)
        else:
            selected = None
        if selected:
            context.require_trust(selected.context)
            environment = instances.environment(selected, registry)
            found |= show.describe(environment)
            questions = _configured(selected, environment)
    except IsoenvError:
        # Somebody's broken or untrusted file must not hide the other instances.
        pass
    if questions is None:
        from isoenv.services import listing  # more than a machine without services needs

        questions = listing.recorded(caller.state, lease)
    if "flags" not in found:
        found["flags"] = registry.flags(lease)
    found |= {"root": lease.root, "services": [], "sessions": 0, "gone": gone}
    return found, questions


def _configured(selected: Selected, environment: Environment) -> list[Question]:
    if not selected.context.config.services:
        return []
    from isoenv.services import listing  # more than a machine without services needs

    return listing.configured(selected, environment)


def _with_services(
    described: list[tuple[dict[str, object], list[Question]]],
) -> list[dict[str, object]]:
    """Add the services of all instances, looked at together."""
    asked = [each for _, questions in described for each in questions]
    if not asked:
        return [found for found, _ in described]
    from isoenv.services import listing  # more than a machine without services needs

    states = iter(listing.ask(asked))
    return [
        {**found, "services": [_state(next(states)) for _ in questions]}
        for found, questions in described
    ]


def _state(status: Status) -> dict[str, object]:
    return {
        "name": status.name,
        "state": status.state,
        "pid": status.pid,
        "since": status.since,
    }


def _write(found: list[dict[str, object]], *, every: bool) -> None:
    headers = ["SLOT", "NAME", "CHECKOUT", "SERVICES", "PORTS", "URLS"]
    rows = []
    if any(row["sessions"] for row in found):
        headers.append("SESSIONS")
    for row in found:
        ports, urls, services = row["ports"], row["urls"], row["services"]
        assert isinstance(ports, dict)  # noqa: S101  # as _describe makes it
        assert isinstance(urls, dict)  # noqa: S101  # likewise
        assert isinstance(services, list)  # noqa: S101  # likewise
        place = str(row["root"] or "-") + (" (gone)" if row["gone"] else "")
        cells = [
            str(row["slot"]),
            str(row["name"]),
            place,
            _running(services) or "-",
            " ".join(f"{name}={port}" for name, port in ports.items()),
            " ".join(map(resolver.mask, urls.values())),
            *([str(row["sessions"])] if "SESSIONS" in headers else []),
        ]
        rows.append([str(row["project"]), *cells] if every else cells)
    if not rows:
        start.say("no instances yet: `isoenv claim` takes a slot for this checkout")
        return
    output.write_table(["PROJECT", *headers] if every else headers, rows)


def _running(services: list[dict[str, object]]) -> str:
    if not services:
        return ""
    from isoenv.services.states import STOPPED  # more than a machine without services needs

    running = [each for each in services if each["state"] != STOPPED]
    return " ".join(f"{each['name']}={each['state']}" for each in running)


def _say_clashes(leases: list[Lease], shown: list[Lease]) -> None:
    """Say which ports of the instances shown are reserved by another instance too."""
    ports = {port for lease in shown for port in lease.ports.values()}
    for finding in clashes.findings(leases):
        if finding.port in ports:
            start.say(finding.message)
