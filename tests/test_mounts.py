"""The file system of a path is read from the kernel's table, whatever stands in it."""

from __future__ import annotations

import os

import pytest

from isoenv import mounts

TABLE = rb"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
23 22 0:21 / /home rw - nfs4 server:/home rw,vers=4.2
24 23 0:22 / /home/you/local\040disk rw,nosuid master:3 - xfs /dev/b rw
25 22 0:23 / /srv rw - ext4 /dev/c rw
26 22 0:24 / /srv rw - fuse.sshfs host:/ rw
27 22 0:25 / /raw\134\377 rw - tmpfs none rw
no mount at all
28 22 zero:0 / /broken rw - 9p x rw
"""


@pytest.mark.parametrize(
    ("path", "directory", "kind"),
    [
        ("/", "/", "ext4"),
        ("/etc/passwd", "/", "ext4"),
        ("/home", "/home", "nfs4"),
        ("/homework", "/", "ext4"),
        ("/home/you/.local/state", "/home", "nfs4"),
        ("/home/you/local disk/x", "/home/you/local disk", "xfs"),
        ("/srv/x", "/srv", "fuse.sshfs"),
        ("/raw\\\udcff/x", "/raw\\\udcff", "tmpfs"),
        ("/broken/x", "/", "ext4"),
    ],
)
def test_the_longest_mount_above_a_path_is_its_own(path: str, directory: str, kind: str) -> None:
    found = mounts.find(path, TABLE)
    assert found
    assert (found.directory, found.kind) == (directory, kind)


def test_the_kernels_own_table_has_this_directory(tmp_path: object) -> None:
    found = mounts.find(os.path.realpath(str(tmp_path)), mounts.table())
    assert found
    assert not found.is_shared
    assert os.stat(found.directory).st_dev == os.makedev(*found.device)


def test_without_a_table_nothing_is_known() -> None:
    assert mounts.find("/", b"") is None


@pytest.mark.parametrize(
    ("kind", "is_shared"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "vboxsf")),
        *((kind, True) for kind in ("fuse", "fuse.sshfs", "fuse.unheard-of")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "apfs")),
        *((kind, False) for kind in ("fuseblk", "fuse.fuse-overlayfs", "fuse.gocryptfs")),
    ],
)
def test_a_file_system_of_several_hosts_is_told_from_a_local_one(
    kind: str, *, is_shared: bool
) -> None:
    assert mounts.Mount("/", kind, (8, 1)).is_shared == is_shared


def test_only_a_file_system_of_several_hosts_has_a_shared_kind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mounts, "table", lambda: TABLE)
    assert mounts.shared_kind("/home/you/.local/state") == "nfs4"
    assert mounts.shared_kind("/etc") is None


def test_what_is_mounted_at_or_below_a_directory_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts, "table", lambda: TABLE)
    assert mounts.mounted_below("/home/you") == "/home/you/local disk"
    assert mounts.mounted_below("/srv") == "/srv"
    assert mounts.mounted_below("/homework") is None
