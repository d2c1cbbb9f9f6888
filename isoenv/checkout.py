"""From a directory to its checkout, and the token that the checkout is known by.

`locate` runs at every call, so it reads ``.git`` as git does, but without a git process. The
caller's ``GIT_DIR`` and ``GIT_WORK_TREE`` are not looked at, mount points bound nothing (the
shell hook cannot see them), and ``core.worktree`` moves no root: the root is where ``.git`` is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from isoenv.errors import IsoenvError, UsageError
from isoenv.models import Checkout

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

CONFIG_NAME = "isoenv.toml"
# Git's own limit for a `.git` file, in bytes; nothing that is read here is longer.
LIMIT = 1 << 20
PATH_LIMIT = 4096
# A pipe must not block, and a symbolic link not lead elsewhere.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
DIRECTORY_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY | os.O_NOFOLLOW
TOKEN_DIGITS = 32


@dataclass(frozen=True, slots=True)
class Place:
    """A checkout, and the directory in it that the environment is for.

    ``base`` is the directory of the nearest ``isoenv.toml``, else the checkout's root.
    """

    checkout: Checkout
    base: str


@dataclass(frozen=True, slots=True)
class Worktree:
    """A work tree that git lists. ``locked`` is the reason, perhaps empty, or None."""

    path: str
    git_dir: str
    locked: str | None = None
    prunable: bool = False
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Token:
    """A checkout's identity, 32 hex digits, and the (slot, name) it holds by project key."""

    value: str
    entries: Mapping[str, tuple[int, str]] = field(default_factory=dict)


def locate(directory: str) -> Place | None:
    """Return the checkout that ``directory`` is in, or None where there is no work tree.

    Raises IsoenvError when the directory is gone or its ``.git`` file is broken.
    """
    here, base = _physical(directory), None
    while True:
        if base is None and os.path.isfile(os.path.join(here, CONFIG_NAME)):
            base = here
        if found := _repository(here):
            git_dir, common = found
            if git_dir == common and _is_bare(git_dir):
                return None
            return Place(Checkout(here, git_dir, _main_common_dir(common)), base or here)
        if _common_dir(here):
            # Inside a git dir: git refuses to work here too.
            return None
        if (parent := os.path.dirname(here)) == here:
            return Place(Checkout(base), base) if base else None
        here = parent


def project_dir(checkout: Checkout) -> str:
    """Return the path that identifies a project whose configuration names none."""
    return checkout.common_dir or checkout.root


def project_name(checkout: Checkout, base: str) -> str:
    """Return what people call the project: the name of the main checkout's directory."""
    path = base
    if base == checkout.root and checkout.common_dir:
        path, name = os.path.split(checkout.common_dir)
        if name not in (".git", ".bare"):
            path = checkout.common_dir.removesuffix(".git")
    return _clean(os.path.basename(path)).lstrip("-") or "project"


def instance_name(directory_name: str, project_name: str, forbidden: Container[str]) -> str:
    """Return a name that an instance may have, made from that of its directory."""
    name = _clean(directory_name)
    while _objection(name, forbidden):
        name = f"{project_name}-{name}"
    return name


def check_name(name: str, forbidden: Container[str]) -> None:
    """Raise UsageError when an instance cannot be called ``name``."""
    if objection := _objection(name, forbidden):
        raise UsageError(
            f"the name {name!r} {objection}: choose another, `isoenv claim --name NAME`"
        )


def _objection(name: str, forbidden: Container[str]) -> str | None:
    if not name:
        return "is empty"
    if name.isdigit():
        return "is a number, and numbers are slots"
    if name == "." or name in forbidden:
        return "is a word of the command line"
    if name.startswith("-"):
        return "looks like an option"
    if name != _clean(name):
        return "holds a ':', a '/' or a character that cannot be printed"
    return None


def _clean(name: str) -> str:
    return "".join(c if c.isprintable() and c not in ":/" else "-" for c in name)


def _physical(directory: str) -> str:
    try:
        return os.path.realpath(directory, strict=True)
    except PermissionError:
        # What lies above a directory that may not be searched can still be seen.
        return os.path.realpath(directory)
    except (OSError, ValueError):
        raise IsoenvError(f"no directory {directory!r}: `cd` to one that exists") from None


def _repository(directory: str) -> tuple[str, str] | None:
    """Return the git dir and the common dir of the ``.git`` in ``directory``, if there is one."""
    dot_git = os.path.join(directory, ".git")
    try:
        mode = os.stat(dot_git).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        git_dir = os.path.realpath(dot_git)
        # Like git, go on upwards from a directory that merely has the name.
        return (git_dir, common) if (common := _common_dir(git_dir)) else None
    if not stat.S_ISREG(mode):
        return None
    text = _read(dot_git) or b""
    pointer = _pointer(text.removeprefix(b"gitdir: ")) if text.startswith(b"gitdir: ") else ""
    if not pointer:
        raise IsoenvError(
            f"cannot read {dot_git!r}: `git worktree repair` in the main worktree mends it"
        )
    git_dir = os.path.realpath(os.path.join(directory, pointer))
    if common := _common_dir(git_dir):
        return git_dir, common
    raise IsoenvError(
        f"{dot_git!r} points to {pointer!r}, which is no git directory: "
        "`git worktree repair` in the main worktree mends it"
    )


def _common_dir(git_dir: str) -> str | None:
    """Return what a git dir shares with other work trees, None when ``git_dir`` is none."""
    if not os.path.lexists(os.path.join(git_dir, "HEAD")):
        return None
    text = _read(os.path.join(git_dir, "commondir"))
    common = git_dir if text is None else os.path.realpath(os.path.join(git_dir, _pointer(text)))
    is_common = all(os.path.isdir(os.path.join(common, name)) for name in ("objects", "refs"))
    return common if is_common else None


def _main_common_dir(common: str) -> str:
    """Return the common dir that the main checkout has for the same repository.

    Another one exists for submodules only: a linked worktree keeps their git dirs to itself, in
    ``<common>/worktrees/NAME/modules``.
    """
    first, *rest = common.split("/modules/")
    real = main = first
    for part in rest:
        above, worktree = os.path.split(real)
        if os.path.basename(above) == "worktrees" and os.path.exists(f"{real}/commondir"):
            main = main.removesuffix(f"/worktrees/{worktree}")
        real, main = f"{real}/modules/{part}", f"{main}/modules/{part}"
    return main


def _is_bare(git_dir: str) -> bool:
    # `git sparse-checkout` moves core.bare to the second file. The last word counts.
    texts = (_read(f"{git_dir}/{name}") or b"" for name in ("config", "config.worktree"))
    section, answer = b"", False
    for line in b"\n".join(texts).lower().splitlines():
        setting = line.strip()
        if setting.startswith(b"["):
            section, _, setting = setting.partition(b"]")
        name, _, value = setting.partition(b"=")
        if section == b"[core" and name.strip() == b"bare":
            word = value.partition(b"#")[0].partition(b";")[0].strip(b' \t"')
            answer = word in (b"true", b"yes", b"on", b"1")
    return answer


def _read(path: str, folder: int | None = None, flags: int = READ_FLAGS) -> bytes | None:
    """Return what is in a regular file; None where there is none, or it is too long to be right."""
    try:
        with open(path, "rb", opener=lambda name, _: os.open(name, flags, dir_fd=folder)) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            text = file.read(LIMIT + 1)
    except OSError:
        return None
    return text if len(text) <= LIMIT else None


def _pointer(text: bytes) -> str:
    """Return the path that a file of git's names, empty where there can be none."""
    path = text.rstrip(b"\r\n")
    return "" if b"\0" in path or len(path) > PATH_LIMIT else os.fsdecode(path)


def back_pointer_holds(checkout: Checkout) -> bool:
    """Whether the git dir, which only its owner can write, knows of this work tree in turn.

    A forged ``.git`` file that points into somebody's repository fails this. So does one made by
    `git init --separate-git-dir`, which leaves no trace in the git dir. A plain directory has
    nothing to forge.
    """
    root, git_dir = checkout.root, checkout.git_dir
    if git_dir is None:
        return True
    if git_dir == os.path.join(root, ".git"):
        return checkout.is_main and os.path.isdir(git_dir)
    if os.path.exists(f"{git_dir}/commondir"):
        worktrees = os.path.dirname(git_dir)
        common = _main_common_dir(os.path.dirname(worktrees))
        is_inside = os.path.basename(worktrees) == "worktrees" and common == checkout.common_dir
        return is_inside and owner(checkout) == root
    return _main_common_dir(git_dir) == checkout.common_dir and _core_worktree(git_dir) == root


def owner(checkout: Checkout) -> str | None:
    """Return the directory that a linked worktree's git dir says it is for; None for others."""
    if checkout.git_dir is None:
        return None
    pointer = _pointer(_read(f"{checkout.git_dir}/gitdir") or b"")
    path, name = os.path.split(os.path.join(checkout.git_dir, pointer))
    return os.path.realpath(path) if name == ".git" else None


def _core_worktree(git_dir: str) -> str | None:
    """Return the work tree that the config of a submodule's git dir names."""
    # Its quoting is git's affair; the trust of a submodule is not asked at every prompt.
    try:
        from git import Git
        from git.exc import GitCommandError
    except ImportError:
        # GitPython cannot be imported where there is no git.
        return None

    for file in (f"{git_dir}/config.worktree", f"{git_dir}/config"):
        with contextlib.suppress(GitCommandError):
            value = Git(git_dir).execute(
                ["git", "config", "--file", file, "--null", "--get", "core.worktree"],
                stdout_as_string=False,
                strip_newline_in_stdout=False,
            )
            path = os.fsdecode(value.removesuffix(b"\0"))
            return os.path.realpath(os.path.join(git_dir, path))
    return None


def linked_worktrees(checkout: Checkout) -> list[Worktree]:
    """Return what `git worktree list` does: the main work tree, or bare repository, first.

    Read by hand, because git before 2.36 cannot list a path with a newline in it.
    """
    common = checkout.git_dir and _common_dir(checkout.git_dir)
    if not common:
        return []
    try:
        names = sorted(os.listdir(f"{common}/worktrees"))
    except OSError:
        names = []
    linked = [_linked(f"{common}/worktrees/{name}") for name in names]
    return [_main(checkout, common), *(worktree for worktree in linked if worktree)]


def _main(checkout: Checkout, common: str) -> Worktree:
    if _is_bare(common):
        return Worktree(common, common, bare=True)
    if checkout.git_dir == common:
        return Worktree(checkout.root, common)
    path, name = os.path.split(common)
    return Worktree(path if name == ".git" else _core_worktree(common) or common, common)


def _linked(git_dir: str) -> Worktree | None:
    pointer = _pointer(_read(f"{git_dir}/gitdir") or b"")
    if not pointer:
        return None
    dot_git = os.path.normpath(os.path.join(git_dir, pointer))
    reason = _read(f"{git_dir}/locked")
    locked = None if reason is None else os.fsdecode(reason.strip())
    prunable = locked is None and not os.path.lexists(dot_git)
    return Worktree(dot_git.removesuffix("/.git"), git_dir, locked, prunable)


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
    return _parse(_read("id", folder, READ_FLAGS | os.O_NOFOLLOW) or b"")


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
