"""The directories of instances outside their checkouts: made, proven to be isoenv's, and deleted.

A directory that the user has made is never deleted, whatever its name: what isoenv makes outside
the state directory gets a mark with the directory's own inode, which no copy has.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

from isoenv import directories, files, identity, mounts, paths
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.models import Lease
    from isoenv.registry import Registry

MARK = ".isoenv-instance"
# What is being deleted has another name first: nobody may come into it meanwhile.
REMOVED = ".isoenv-removed-"
LIMIT = 100


def make(registry: Registry, lease: Lease, directory: str, checkout: str | None) -> None:
    """Make the directory that a configuration has chosen for an instance, and record it as its own.

    Where it is there already, it is the instance's only if isoenv has made it. One that cannot be
    made is left to who needs it. What lies in a checkout goes with the checkout.
    """
    if registry.unwritable or (checkout and is_within(directory, checkout)):
        return
    is_recorded = directory in registry.directories(lease.project, lease.slot)
    if not os.path.lexists(directory):
        with contextlib.suppress(IsoenvError, OSError):
            directories.make([os.path.dirname(directory)], None)
            os.mkdir(directory, 0o700)
            with open(f"{directory}/{MARK}", "xb") as file:
                file.write(_mark(os.lstat(directory)))
    if not is_recorded and is_own(directory, registry.state):
        with registry.transaction():
            registry.record_directory(lease.project, lease.slot, directory)


def is_own(directory: str, state: str) -> bool:
    """Whether isoenv has made a directory: it lies in the state directory, or has its mark."""
    try:
        status = os.lstat(directory)
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
            return False
        if is_within(directory, f"{state}/instances"):
            return True
        return files.read(f"{directory}/{MARK}", LIMIT) == _mark(status)
    except (IsoenvError, OSError):
        return False


def of_lease(registry: Registry, lease: Lease) -> list[str]:
    """Return the directories of an instance that are there and proven to be isoenv's."""
    project = lease.project
    own = paths.instance_dir(registry.state, project.key, project.name, lease.slot)
    candidates = [own, *registry.directories(project, lease.slot)]
    return [path for path in dict.fromkeys(candidates) if is_own(path, registry.state)]


def objection(registry: Registry, directory: str) -> str | None:
    """Return why a directory has to stay, though the instance is gone."""
    if point := mounts.mounted_below(directory):
        return f"{point} is mounted"
    for other in registry.leases():
        if identity.is_gone(other):
            continue
        if other.root and is_within(other.root, directory):
            return f"the checkout {other.root} is in it"
        if directory in registry.directories(other.project, other.slot):
            return f"{other.project.name}/{other.slot} uses it too"
    return None


def hide(directory: str) -> str:
    """Give a directory that is to be deleted a name of its own, and return it."""
    if REMOVED in os.path.basename(directory):
        return directory
    name = f"{directory}{REMOVED}{os.urandom(4).hex()}"
    try:
        os.rename(directory, name)
    except OSError as error:
        raise _not_removed(directory, error) from None
    return name


def delete(directory: str) -> None:
    """Delete a directory and all in it; the mark last, so that the rest stays proven till then."""
    try:
        with os.scandir(directory) as entries:
            found = [entry for entry in entries if entry.name != MARK]
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{directory}/{MARK}")
        os.rmdir(directory)
    except FileNotFoundError:
        return
    except OSError as error:
        raise _not_removed(directory, error) from None


def is_within(path: str, directory: str) -> bool:
    """Whether a path is a directory or lies below it."""
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")


def _mark(status: os.stat_result) -> bytes:
    return b"isoenv instance directory %d\n" % status.st_ino


def _not_removed(directory: str, error: OSError) -> IsoenvError:
    name = os.fsdecode(error.filename or directory)
    # Deep inside a tree a name alone is known.
    where = name if name.startswith("/") else f"{name} in {directory}"
    return IsoenvError(f"cannot remove {where}: {files.reason(error)}: `ls -ld` shows why")
