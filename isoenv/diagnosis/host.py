"""What is wrong with the claims that all users of the host share, and with other registries."""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING

from isoenv import files, host_claims, host_directory, paths
from isoenv.diagnosis.finding import FIX, Finding, several, title
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isoenv.context import Caller
    from isoenv.models import Lease

# How many ports or checkouts a message names.
NAMED = 5


def findings(caller: Caller, registry: Registry, leases: Sequence[Lease]) -> Iterator[Finding]:
    """Look at the directory, at what is claimed in it, and at who else claims."""
    directory = registry.host.directory
    try:
        folder = host_directory.enter(directory)
    except FileNotFoundError:
        # Made by the next lease, where it can be made.
        if leases and not os.access(os.path.dirname(directory), os.W_OK):
            yield _unusable(directory, "is not there")
        return
    except OSError as error:
        yield _unusable(directory, f"cannot be opened: {files.reason(error)}")
        return
    try:
        if objection := host_directory.objection(folder):
            yield _unusable(directory, objection)
        elif not os.access(".", os.W_OK, dir_fd=folder):
            yield _unusable(directory, "may not be written to")
        else:
            yield from _claims(caller, registry, leases, folder)
    finally:
        os.close(folder)


def _unusable(directory: str, problem: str) -> Finding:
    return Finding(
        "claims-unusable",
        f"{directory} {problem}: other users cannot see which ports are leased",
        f"`sudo install -d -o root -m 1777 {directory}`, or set ISOENV_HOST_DIR",
        file=directory,
    )


def _claims(
    caller: Caller, registry: Registry, leases: Sequence[Lease], folder: int
) -> Iterator[Finding]:
    held, user = registry.claimed(), os.geteuid()
    own = [
        entry
        for entry in host_directory.entries(folder)
        if entry.port is not None and host_directory.owner(folder, entry.name) == user
    ]
    left: list[int] = []
    elsewhere: Counter[str] = Counter()
    # One look at a file does for all of its names.
    known: dict[int, host_claims.Claim | None] = {}
    for entry in own:
        if entry.inode not in known:
            with host_directory.opened(folder, entry.name) as descriptor:
                known[entry.inode] = None if descriptor is None else host_claims.read(descriptor)
        claim = known[entry.inode]
        if claim is None or entry.port is None:
            continue
        if claim.state == registry.host.state:
            left += [] if entry.port in held else [entry.port]
        elif host_claims.is_gone(claim):
            left.append(entry.port)
        else:
            elsewhere[claim.state] += 1
    if left:
        yield Finding(
            "claims-left",
            f"{several(len(left), 'claim')} of ports that no lease has: {_some(sorted(left))}",
            FIX,
            file=registry.host.directory,
            repair=_tidying(caller, left),
        )
    yield from _others(leases, folder)
    for state, count in elsewhere.items():
        yield _second_registry(caller, state, count, leases)


def _some(ports: Sequence[int]) -> str:
    more = f" and {len(ports) - NAMED} more" if len(ports) > NAMED else ""
    return ", ".join(map(str, ports[:NAMED])) + more


def _tidying(caller: Caller, left: Sequence[int]) -> Callable[[], str]:
    def tidy() -> str:
        with Registry(caller.state) as registry, registry.transaction():
            # Adopted, and given back with all else that no lease has when the transaction ends.
            for port in left:
                registry.host.claim(port)
        return f"gave {several(len(left), 'claim')} back"

    return tidy


def _others(leases: Sequence[Lease], folder: int) -> Iterator[Finding]:
    """Find leased ports that are claimed by another user too."""
    user = os.geteuid()
    for lease in leases:
        if not lease.slot:
            continue
        for name, port in lease.ports.items():
            owner = host_directory.owner(folder, host_directory.name_of(port))
            if owner not in (None, user):
                yield Finding(
                    "claimed-elsewhere",
                    f"port {port} ({name}) of {title(lease)} is claimed by user "
                    f"{host_directory.user_name(owner or 0)} too",
                    "`isoenv claim` another slot, or ask that user for theirs",
                    port=port,
                )


def _second_registry(caller: Caller, state: str, count: int, leases: Sequence[Lease]) -> Finding:
    """Tell of another registry of this user; a checkout with a lease in both is wrong."""
    both = sorted({lease.git_dir for lease in leases if lease.git_dir} & _git_dirs(state))
    message = f"this user has another registry in {state}, with {several(count, 'port')}"
    if both:
        message += f": {_places(both)} {'has' if len(both) == 1 else 'have'} a slot in each"
    return Finding(
        "two-registries",
        f"{message}; this shell uses {caller.state}",
        "set ISOENV_STATE_DIR alike for all shells, in ~/.profile, or nowhere",
        harmless=not both,
        file=state,
    )


def _places(git_dirs: Sequence[str]) -> str:
    more = f" and {len(git_dirs) - NAMED} more" if len(git_dirs) > NAMED else ""
    return ", ".join(path.removesuffix("/.git") for path in git_dirs[:NAMED]) + more


def _git_dirs(state: str) -> set[str]:
    """Return the directories by which another registry knows its checkouts, as far as it tells."""
    from urllib.parse import quote

    file = quote(os.fsencode(paths.registry_file(state)))
    try:
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=1)) as connection:
            rows = connection.execute("SELECT git_dir FROM lease WHERE git_dir IS NOT NULL")
            return {os.fsdecode(path) for (path,) in rows}
    except sqlite3.Error:
        return set()
