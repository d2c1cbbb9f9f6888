"""The token that a checkout is known by, and whether a checkout is no more."""

from __future__ import annotations

import contextlib
import fcntl
import os
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from isoenv.checkout import READ_FLAGS, read
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isoenv.models import Checkout

# A symbolic link must not lead elsewhere.
DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
TOKEN_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Token:
    """A checkout's identity, 32 hex digits, and the (slot, name) it holds by project key."""

    value: str
    entries: Mapping[str, tuple[int, str]] = field(default_factory=dict)


def is_gone(directory: str, device: int | None, inode: int | None) -> bool | None:
    """Whether a checkout, known by its git dir or plain root, is no more; None without proof.

    Proof is that another directory, or none, is there on the same disk, and that the directory
    the repository stood in is still there: an unmounted disk proves nothing.
    """
    nearest, found = directory, None
    while found is None:
        try:
            found = os.lstat(nearest)
        except (FileNotFoundError, NotADirectoryError):
            nearest = os.path.dirname(nearest)
        except OSError:
            return None
    if nearest == directory and found.st_ino == inode:
        return False
    return True if found.st_dev == device and os.path.isdir(_holder(directory)) else None


def _holder(directory: str) -> str:
    """Return the directory that the repository of a git dir, or a plain checkout, stands in."""
    # Git itself removes `worktrees` with the last of them, and all of it goes with the repository.
    for own in ("/.git/", "/.bare/", "/worktrees/"):
        repository, found, _ = f"{directory}/".rpartition(own)
        if found:
            return os.path.dirname(repository)
    return os.path.dirname(directory)


def fresh_token() -> Token:
    """Return a token that no checkout has."""
    return Token(os.urandom(TOKEN_DIGITS // 2).hex())


def read_token(checkout: Checkout) -> Token | None:
    """Return the checkout's token, None where there is none, or none that is whole."""
    try:
        folder = os.open(os.path.dirname(checkout.token_file), DIRECTORY_FLAGS)
    except OSError:
        return None
    try:
        return _stored(folder)
    finally:
        os.close(folder)


def mint(checkout: Checkout) -> Token:
    """Return the checkout's token, a fresh one where it has none; all who ask at once get one."""
    if stored := read_token(checkout):
        return stored
    token = fresh_token()
    with _token_folder(checkout) as folder, _written(folder, _format(token)) as temporary:
        try:
            os.link(temporary, "id", src_dir_fd=folder, dst_dir_fd=folder)
        except OSError:
            if stored := _stored(folder):
                return stored
            # A damaged file, or a file system without hard links: one at a time.
            fcntl.flock(folder, fcntl.LOCK_EX)
            if stored := _stored(folder):
                return stored
            os.replace(temporary, "id", src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)
    return token


def write_token(checkout: Checkout, token: Token) -> None:
    """Replace the checkout's token file, atomically."""
    with _token_folder(checkout) as folder:
        _replace(folder, "id", _format(token))


@contextlib.contextmanager
def _token_folder(checkout: Checkout) -> Iterator[int]:
    """Open the directory of the token, made if missing and taken back after a failure."""
    path, made = os.path.dirname(checkout.token_file), False
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
            made = True
        folder = os.open(path, DIRECTORY_FLAGS)
        try:
            if checkout.git_dir is None and not os.path.lexists(f"{path}/.gitignore"):
                _replace(folder, ".gitignore", b"*\n")
            yield folder
        finally:
            os.close(folder)
    except OSError as error:
        if made and not os.path.lexists(checkout.token_file):
            with contextlib.suppress(OSError):
                os.unlink(f"{path}/.gitignore")
            with contextlib.suppress(OSError):
                os.rmdir(path)
        reason = (error.strerror or str(error)).lower()
        raise IsoenvError(
            f"cannot write {checkout.token_file!r}: {reason}; "
            "`ls -ld` and `df` of its directory show why"
        ) from None


@contextlib.contextmanager
def _written(folder: int, text: bytes) -> Iterator[str]:
    """Write a temporary file in the directory; yield its name, and remove what is left of it."""
    name = f"id.{os.getpid()}.{os.urandom(4).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with open(os.open(name, flags, 0o600, dir_fd=folder), "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield name
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=folder)


def _replace(folder: int, name: str, text: bytes) -> None:
    with _written(folder, text) as temporary:
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
        os.fsync(folder)


def _stored(folder: int) -> Token | None:
    return _parse(read("id", folder, READ_FLAGS | os.O_NOFOLLOW) or b"")


def _format(token: Token) -> bytes:
    lines = [token.value]
    for key, (slot, name) in token.entries.items():
        lines.append(f"{slot}\t{_escape(name)}\t{_escape(key)}")
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _parse(text: bytes) -> Token | None:
    value, *lines = text.decode("utf-8", "surrogateescape").split("\n")
    if len(value) != TOKEN_DIGITS or value.strip("0123456789abcdef") or not text.endswith(b"\n"):
        return None
    entries: dict[str, tuple[int, str]] = {}
    try:
        for line in lines[:-1]:
            slot, name, key = line.split("\t")
            entries[_unescape(key)] = (int(slot), _unescape(name))
    except ValueError:
        return None
    return Token(value, MappingProxyType(entries))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\t", "\t").replace("\\n", "\n") for part in parts)
