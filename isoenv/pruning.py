"""Give back what is gone, only on proof; what could not be removed stays on record."""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import files, generated, identity, instance_directories, paths, ports
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.models import Lease, Project
    from isoenv.registry import Registry

HOUR = 3600.0
# The number under which a registry remembers what is being deleted: nobody holds it.
NOBODY = -1


@dataclass(frozen=True, slots=True)
class Orphan:
    """A lease whose checkout is gone. ``kept_because`` says why it has to stay all the same."""

    lease: Lease
    kept_because: str | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be given back by itself, and why it has to stay if it has to."""

    registry: Registry
    title: str
    kept_because: str | None = None
    verb = "remove", "removed"

    def remove(self) -> None:
        """Give it back. Raises IsoenvError where that cannot be, and it stays on record."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class LeaseItem(Item):
    """A slot, its ports and what was kept ready for its checkout."""

    lease: Lease | None = None
    verb = "free", "freed"

    def remove(self) -> None:
        """Give the slot back; its directories stay on record."""
        lease, registry = self.lease, self.registry
        assert lease is not None  # noqa: S101  # who plans gives one
        own = instance_directories.of_lease(registry, lease)
        with registry.transaction():
            found = registry.with_slot(lease.project, lease.slot)
            if found is None or found.id != lease.id or not identity.is_gone(found):
                raise IsoenvError("it has changed meanwhile: `isoenv prune` looks again")
            registry.delete(lease)
            for directory in own:
                registry.record_directory(lease.project, lease.slot, directory)
        if lease.root:
            generated.forget(registry.state, lease.root)
            if _is_gone(lease.root):
                _forget(registry.state, lease.root)
        _unlink(paths.notice_file(registry.state, lease.project.key, lease.slot))


@dataclass(frozen=True, slots=True)
class DirectoryItem(Item):
    """A directory that an instance has left."""

    project: Project | None = None
    slot: int = NOBODY

    def remove(self) -> None:
        """Delete it, under a name that the next holder of the slot does not come into."""
        project, registry, directory = self.project, self.registry, self.title
        assert project is not None  # noqa: S101  # who plans gives one
        if self.slot != NOBODY:
            with registry.transaction():
                if registry.with_slot(project, self.slot):
                    raise IsoenvError(f"{project.name}:{self.slot} is held")
                registry.forget_directory(directory)
                directory = instance_directories.hide(directory)
                registry.record_directory(project, NOBODY, directory)
        instance_directories.delete(directory)
        with registry.transaction():
            registry.forget_directory(directory)


@dataclass(frozen=True, slots=True)
class FileItem(Item):
    """A file that nothing needs."""

    path: str = ""

    def remove(self) -> None:
        """Delete it."""
        _unlink(self.path)


@dataclass(frozen=True, slots=True)
class ReadyItem(Item):
    """What was kept ready for a directory."""

    base: str = ""

    def remove(self) -> None:
        """Delete it, with all that is ready for what was in the directory."""
        _forget(self.registry.state, self.base)


def orphans(
    registry: Registry, is_freed: Callable[[int], bool] = lambda _port: False
) -> list[Orphan]:
    """Return the leases whose checkout is proven gone; a missing disk proves nothing.

    ``is_freed`` says of a port that is in use whether it is about to be given back.
    """
    listening = ports.listening()
    found = []
    for lease in registry.leases():
        if not identity.is_gone(lease):
            continue
        held = sorted(set(lease.ports.values()) & listening) if lease.slot else []
        used = [port for port in held if not is_freed(port)]
        reason = f"port {used[0]} is held by {_holder(used[0])}" if used else None
        found.append(Orphan(lease, reason))
    return found


def _holder(port: int) -> str:
    held = ports.holders([port]).get(port)
    return ports.describe(held[0]) if held else "another user's process"


def plan(
    registry: Registry,
    *,
    purge: bool,
    max_age: float | None,
    is_freed: Callable[[int], bool] = lambda _port: False,
) -> list[Item]:
    """Return what is to be given back, each resource by itself, and what has to stay.

    With ``purge`` the instances' own directories too; with ``max_age``, in hours, also what can
    only be told by its age. ``is_freed`` is as in `orphans`.
    """
    items: list[Item] = []
    # What several instances have used is deleted once.
    seen: set[str] = set()
    for orphan in orphans(registry, is_freed):
        lease, reason = orphan.lease, orphan.kept_because
        title = f"{lease.project.name}/{lease.slot} {lease.name} ({lease.root})"
        items.append(LeaseItem(registry, title, reason, lease))
        if purge and not reason:
            own = set(instance_directories.of_lease(registry, lease)) - seen
            items += [_directory(registry, lease.project, lease.slot, each) for each in sorted(own)]
            seen |= own
    for project, slot, directory in left_over(registry) if purge else []:
        if directory not in seen:
            items.append(_directory(registry, project, slot, directory))
            seen.add(directory)
    items += _stale(registry)
    if max_age is not None:
        items += _old(registry, time.time() - max_age * HOUR)
    return items


def left_over(registry: Registry) -> list[tuple[Project, int, str]]:
    """Return the directories of instances that were pruned, with their projects and slots."""
    return [
        (project, slot, directory)
        for project, slot, directory in registry.remains()
        if instance_directories.is_own(directory, registry.state)
    ]


def _directory(registry: Registry, project: Project, slot: int, directory: str) -> DirectoryItem:
    reason = instance_directories.objection(registry, directory)
    return DirectoryItem(registry, directory, reason, project, slot)


def _stale(registry: Registry) -> Iterator[Item]:
    """Yield what is ready for directories that are gone; of checkouts it goes with the slot."""
    covered = [lease.root for lease in registry.leases() if lease.root and _is_gone(lease.root)]
    for base in generated.bases(registry.state):
        if any(instance_directories.is_within(base, root) for root in covered):
            continue
        if _is_gone(base):
            covered.append(base)
            yield ReadyItem(registry, f"what is ready for {base}, which is gone", None, base)


def _old(registry: Registry, before: float) -> Iterator[Item]:
    """Yield what was last written before a moment, in seconds since the epoch."""
    state = registry.state
    for path in sorted(glob.glob(f"{glob.escape(registry.file)}.corrupt-*")):
        if _written(path) < before:
            yield FileItem(registry, path, None, path)
    leases = registry.leases()
    held = {paths.notice_file(state, lease.project.key, lease.slot) for lease in leases}
    for path in sorted(glob.glob(f"{glob.escape(state)}/notices/*")):
        if path not in held and _written(path) < before:
            yield FileItem(registry, path, None, path)
    roots = {lease.root for lease in leases}
    for base in generated.bases(state):
        ready = f"{paths.generated_dir(state, base)}/@env"
        if base not in roots and not _is_gone(base) and _written(ready) < before:
            yield ReadyItem(registry, f"what is ready for {base}", None, base)


def _is_gone(base: str) -> bool:
    """Whether a directory is not there, while the one that it was in is."""
    return not os.path.lexists(base) and os.path.isdir(os.path.dirname(base))


def _written(path: str) -> float:
    try:
        return os.lstat(path).st_mtime
    except OSError:
        return time.time()


def _forget(state: str, base: str) -> None:
    directory, top = paths.generated_dir(state, base), paths.generated_dir(state, "")
    try:
        shutil.rmtree(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise IsoenvError(f"cannot remove {error.filename}: {files.reason(error)}") from None
    # The directories above are there for nothing else.
    with contextlib.suppress(OSError):
        while (directory := os.path.dirname(directory)) != top:
            os.rmdir(directory)


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise IsoenvError(f"cannot remove {path}: {files.reason(error)}") from None
