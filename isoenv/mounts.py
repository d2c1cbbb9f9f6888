"""Which file system a path is on, and whether locks and shared memory hold there."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

# Other hosts write to these too, or the host of a virtual machine does: a lock of this kernel
# is none of theirs, or is passed on to a server that may forget it.
SHARED = {
    *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "glusterfs", "lustre", "ncpfs", "nfs", "nfs4"),
    *("orangefs", "prl_fs", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs"),
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


def find(path: str, mountinfo: bytes) -> Mount | None:
    """Return the mount that an absolute path without symbolic links is on, if the table says."""
    found = None
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(b" - ")
        try:
            _, _, device, _, raw, *_ = fields.split(b" ")
            major, _, minor = device.partition(b":")
            mount = Mount(_unescape(raw), rest.split(b" ")[0].decode(), (int(major), int(minor)))
        except ValueError:
            continue
        # Of two at one place the later one hides the earlier.
        if _is_below(path, mount.directory) and (
            found is None or len(mount.directory) >= len(found.directory)
        ):
            found = mount
    return found


def _unescape(raw: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes((int(match[1], 8),)), raw))


def _is_below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")
