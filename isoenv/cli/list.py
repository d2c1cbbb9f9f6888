"""List the instances of a project."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from isoenv import checkout, instances
from isoenv.cli import output, params, show, start
from isoenv.errors import ConfigError, IsoenvError

if TYPE_CHECKING:
    from isoenv.instances import Caller
    from isoenv.models import Lease
    from isoenv.registry import Registry

# Seconds between two looks of `--watch`.
INTERVAL = 1.0


@click.command("list")
@click.option("--all", "every", is_flag=True, help="The instances of all projects.")
@click.option("--watch", is_flag=True, help="Keep the table live until Ctrl-C.")
@params.json_option
def command(*, every: bool, watch: bool, as_json: bool) -> None:
    """List the instances of this project: slot, name, checkout, ports and URLs.

    A checkout that is gone is marked; `isoenv prune` gives its slot back.

    \b
    Example:
      isoenv list
      isoenv list --all --json
    """
    caller = start.caller()
    with start.registry(caller) as registry:
        if watch:
            _watch(caller, registry, every=every)
        elif as_json:
            output.write_json({"instances": _instances(caller, registry, every=every)})
        else:
            _write(_instances(caller, registry, every=every), every=every)


def _instances(caller: Caller, registry: Registry, *, every: bool) -> list[dict[str, object]]:
    project = None if every else instances.context(caller).project
    return [_describe(caller, registry, lease) for lease in registry.leases(project)]


def _describe(caller: Caller, registry: Registry, lease: Lease) -> dict[str, object]:
    """Describe a lease, from the registry alone where its checkout cannot be asked."""
    gone = bool(lease.git_dir and checkout.is_gone(lease.git_dir, lease.device, lease.inode))
    found: dict[str, object] = {
        "project": lease.project.name,
        "slot": lease.slot,
        "name": lease.name,
        "root": lease.root,
        "trusted": True,
        "ports": dict(lease.ports),
        "dirs": {},
        "urls": {},
        "flags": registry.flags(lease),
    }
    if not gone:
        try:
            selected = instances.of_lease(caller, lease)
            found |= show.describe(instances.environment(selected, registry))
        except ConfigError:
            found["trusted"] = False
        except IsoenvError:
            pass
    return found | {"root": lease.root, "services": [], "sessions": 0, "gone": gone}


def _write(found: list[dict[str, object]], *, every: bool) -> None:
    headers = ["SLOT", "NAME", "CHECKOUT", "PORTS", "URLS"]
    rows = []
    for row in found:
        ports, urls = row["ports"], row["urls"]
        assert isinstance(ports, dict)  # noqa: S101  # as _describe makes it
        assert isinstance(urls, dict)  # noqa: S101  # likewise
        place = str(row["root"] or "-") + (" (gone)" if row["gone"] else "")
        cells = [
            str(row["slot"]),
            str(row["name"]),
            place,
            " ".join(f"{name}={port}" for name, port in ports.items()),
            " ".join(urls.values()),
        ]
        rows.append([str(row["project"]), *cells] if every else cells)
    if not rows:
        start.say("no instances yet: `isoenv claim` takes a slot for this checkout")
        return
    output.write_table(["PROJECT", *headers] if every else headers, rows)


def _watch(caller: Caller, registry: Registry, *, every: bool) -> None:
    while True:
        # Home and clear, as `watch` does, only where somebody looks.
        click.clear()
        _write(_instances(caller, registry, every=every), every=every)
        time.sleep(INTERVAL)
