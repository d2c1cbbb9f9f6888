"""Which kind of file system a path is on, by the kernel's table of mounts."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

TABLE = "/proc/self/mountinfo"
# Where locks and memory that is mapped together reach one host alone, or nobody.
SHARED = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "gpfs"),
    *("afs", "beegfs", "vboxsf", "fuse.sshfs", "fuse.glusterfs", "fuse.s3fs", "fuse.rclone"),
}
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """Where a file system is mounted, and of which type it is."""

    point: str
    kind: str


def table() -> bytes:
    """Return the kernel's table of mounts, empty where there is none."""
    try:
        with open(TABLE, "rb") as file:
            return file.read()
    except OSError:
        return b""


def mounts(text: bytes) -> Iterator[Mount]:
    """Yield the mounts of a table, later ones over earlier ones."""
    for line in text.splitlines():
        # A variable number of optional fields ends in a hyphen.
        before, found, after = line.partition(b" - ")
        fields = before.split(b" ")
        if found and len(fields) > 4:  # noqa: PLR2004  # the fifth is the mount point
            point = _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]), fields[4])
            yield Mount(os.fsdecode(point), os.fsdecode(after.partition(b" ")[0]))


def kind_of(path: str, text: bytes) -> str | None:
    """Return the type of the file system that an absolute path is on, by a table of mounts."""
    found = Mount("", "")
    for mount in mounts(text):
        if _is_at_or_below(path, mount.point) and len(mount.point) >= len(found.point):
            found = mount
    return found.kind or None


def shared_kind(path: str) -> str | None:
    """Return the type of a network or shared file system that a path is on, None on a local one."""
    kind = kind_of(os.path.realpath(path), table())
    return kind if kind in SHARED else None


def mounted_below(path: str) -> str | None:
    """Return a mount point at or below a path, if there is one."""
    real = os.path.realpath(path)
    points = (mount.point for mount in mounts(table()))
    return next((point for point in points if _is_at_or_below(point, real)), None)


def _is_at_or_below(path: str, directory: str) -> bool:
    return f"{path}/".startswith(f"{directory.rstrip('/')}/")
