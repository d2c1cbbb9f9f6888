"""Which file system a path is on, and whether locks and shared memory hold there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

# Other hosts write to these too, or the host of a virtual machine does: a lock of this kernel
# is none of theirs, or is passed on to a server that may forget it.
SHARED = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("gpfs", "orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
}
# Of what a program serves (FUSE), the kinds that are on this host alone.
LOCAL_FUSE = {
    *("fuse.bindfs", "fuse.cryfs", "fuse.encfs", "fuse.fuse-overlayfs", "fuse.gocryptfs"),
    *("fuse.mergerfs", "fuse.ntfs-3g", "fuse.securefs"),
}
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted file system; ``device`` is (major, minor) as the kernel's tables have it."""

    directory: str
    kind: str
    device: tuple[int, int]

    @property
    def is_shared(self) -> bool:
        """Whether others than this kernel write to it."""
        if self.kind == "fuse" or self.kind.startswith("fuse."):
            return self.kind not in LOCAL_FUSE
        return self.kind in SHARED


def table() -> bytes:
    """Return the kernel's table of mounts; nothing where there is none."""
    try:
        with open("/proc/self/mountinfo", "rb") as file:
            return file.read()
    except OSError:
        return b""


def parse(mountinfo: bytes) -> Iterator[Mount]:
    """Yield the mounts of a table; of two at one place the later one hides the earlier."""
    for line in mountinfo.splitlines():
        # A variable number of optional fields ends in a hyphen.
        fields, _, rest = line.partition(b" - ")
        try:
            _, _, device, _, raw, *_ = fields.split(b" ")
            major, _, minor = device.partition(b":")
            yield Mount(_unescape(raw), rest.split(b" ")[0].decode(), (int(major), int(minor)))
        except ValueError:
            continue


def find(path: str, mountinfo: bytes) -> Mount | None:
    """Return the mount that an absolute path without symbolic links is on, if the table says."""
    found = None
    for mount in parse(mountinfo):
        if _is_below(path, mount.directory) and (
            found is None or len(mount.directory) >= len(found.directory)
        ):
            found = mount
    return found


def shared_kind(path: str) -> str | None:
    """Return the kind of a file system of several hosts that a path is on, None on a local one."""
    found = find(os.path.realpath(path), table())
    return found.kind if found and found.is_shared else None


def mounted_below(path: str) -> str | None:
    """Return a directory at or below a path that something is mounted on, if there is one."""
    real = os.path.realpath(path)
    found = (mount.directory for mount in parse(table()))
    return next((directory for directory in found if _is_below(directory, real)), None)


def _unescape(raw: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), raw))


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")
