"""From a directory to its checkout.

`locate` runs at every call, so it reads ``.git`` as git does, but without a git process. The
caller's ``GIT_DIR`` and ``GIT_WORK_TREE`` are not looked at, mount points bound nothing (the
shell hook cannot see them), and ``core.worktree`` moves no root: the root is where ``.git`` is.
"""

from __future__ import annotations

import contextlib
import os
import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import files
from isoenv.errors import IsoenvError, UsageError
from isoenv.models import Checkout

if TYPE_CHECKING:
    from collections.abc import Container

CONFIG_NAME = "isoenv.toml"
# Git's own limit for a `.git` file, in bytes; nothing that is read here is longer.
LIMIT = 1 << 20
PATH_LIMIT = 4096
# A pipe must not block.
READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


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


def locate(directory: str, *, is_real: bool = False) -> Place | None:
    """Return the checkout that ``directory`` is in, or None where there is no work tree.

    A path that ``is_real`` holds no symbolic links, as those of the registry. Raises IsoenvError
    when the directory is gone or its ``.git`` file is broken.
    """
    here, base = directory if is_real else _physical(directory), None
    while True:
        if base is None and os.path.isfile(f"{here}/{CONFIG_NAME}"):
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
        mode = os.lstat(dot_git).st_mode
        is_link = stat.S_ISLNK(mode)
        if is_link:
            mode = os.stat(dot_git).st_mode
    except OSError:
        return None
    if stat.S_ISDIR(mode):
        # ``directory`` is real already.
        git_dir = os.path.realpath(dot_git) if is_link else dot_git
        # Like git, go on upwards from a directory that merely has the name.
        return (git_dir, common) if (common := _common_dir(git_dir)) else None
    if not stat.S_ISREG(mode):
        return None
    text = read(dot_git) or b""
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
    if not os.path.lexists(f"{git_dir}/HEAD"):
        return None
    text = read(f"{git_dir}/commondir")
    common = git_dir if text is None else os.path.realpath(os.path.join(git_dir, _pointer(text)))
    is_common = os.path.isdir(f"{common}/objects") and os.path.isdir(f"{common}/refs")
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
    texts = (read(f"{git_dir}/{name}") or b"" for name in ("config", "config.worktree"))
    text = b"\n".join(texts).lower()
    section, answer = b"", False
    for line in text.splitlines() if b"bare" in text else ():
        setting = line.strip()
        if setting.startswith(b"["):
            section, _, setting = setting.partition(b"]")
        name, _, value = setting.partition(b"=")
        if section == b"[core" and name.strip() == b"bare":
            word = value.partition(b"#")[0].partition(b";")[0].strip(b' \t"')
            answer = word in (b"true", b"yes", b"on", b"1")
    return answer


def read(path: str, folder: int | None = None, flags: int = READ_FLAGS) -> bytes | None:
    """Return what is in a regular file; None where there is none, or it is too long to be right."""
    try:
        descriptor = os.open(path, flags, dir_fd=folder)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        text = files.contents(descriptor, status.st_size, LIMIT)
    except OSError:
        return None
    finally:
        os.close(descriptor)
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
    pointer = _pointer(read(f"{checkout.git_dir}/gitdir") or b"")
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
    pointer = _pointer(read(f"{git_dir}/gitdir") or b"")
    if not pointer:
        return None
    dot_git = os.path.normpath(os.path.join(git_dir, pointer))
    reason = read(f"{git_dir}/locked")
    locked = None if reason is None else os.fsdecode(reason.strip())
    prunable = locked is None and not os.path.lexists(dot_git)
    return Worktree(dot_git.removesuffix("/.git"), git_dir, locked, prunable)
