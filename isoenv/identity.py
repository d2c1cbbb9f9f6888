"""Whether a checkout is the one that a lease was given to.

A checkout is known by the token in its own git dir, with the inode of that directory beside it in
the registry: what is moved keeps its lease, what is copied or made again gets another.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from isoenv import tokens
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.models import Checkout, Lease, Project
    from isoenv.registry import Registry


def is_same_project(known: Project, asked: Project) -> bool:
    """Whether it is the same project, perhaps one known by a path that has changed since."""
    if known.key == asked.key:
        return True
    paths = known.key.startswith("/") and asked.key.startswith("/")
    return paths and known.key.partition("//")[2] == asked.key.partition("//")[2]


def is_copy(lease: Lease, place: Checkout) -> bool:
    """Whether ``place`` carries the token of another checkout that still exists.

    A copy (`cp -a`) has the token and another inode, while the old git dir is where it was. When
    the old one is gone, the checkout was moved to another file system.
    """
    directory = place.git_dir or place.root
    status = os.stat(directory)
    if (status.st_dev, status.st_ino) == (lease.device, lease.inode):
        return False
    # Some file systems have another device number after a reboot.
    if lease.git_dir is None or lease.git_dir == directory:
        return False
    return tokens.is_gone(lease.git_dir, lease.device, lease.inode) is False


def is_gone(lease: Lease) -> bool:
    """Whether the checkout of a lease is proven gone."""
    return bool(lease.git_dir and tokens.is_gone(lease.git_dir, lease.device, lease.inode))


def refuse_copied_pointer(place: Checkout) -> None:
    """Refuse a directory whose ``.git`` file leads into the git dir of another checkout."""
    owner = _owner(place)
    if owner and os.path.exists(owner) and not os.path.samefile(owner, place.root):
        raise IsoenvError(
            f"{place.root}/.git belongs to {owner}: `git worktree add` makes a checkout of its own"
        )


def _owner(place: Checkout) -> str | None:
    """Return the directory that a git dir says it is for, where it does."""
    if place.git_dir is None:
        return None
    directory, name = os.path.split(place.git_dir)
    if name == ".git":
        return directory
    try:
        with open(f"{place.git_dir}/gitdir", "rb") as file:
            pointer = os.fsdecode(file.read().removesuffix(b"\n"))
    except OSError:
        return None
    return os.path.dirname(os.path.join(place.git_dir, pointer))


def is_copied(registry: Registry, place: Checkout, token: tokens.Token) -> bool:
    """Whether ``place`` has the token of a checkout that holds leases somewhere else."""
    return any(is_copy(lease, place) for lease in registry.with_token(token.value))


def own_token(registry: Registry, place: Checkout) -> tokens.Token:
    """Return a token that is the checkout's alone: its own, or a fresh one that replaces a copy."""
    token = tokens.mint(place)
    return tokens.fresh_token() if is_copied(registry, place, token) else token


def write_entry(place: Checkout, token: tokens.Token, lease: Lease) -> None:
    """Let a checkout remember its token, and the slot and the name that it holds."""
    entries = {**token.entries, lease.project.key: (lease.slot, lease.name)}
    if entries != token.entries:
        tokens.write_token(place, replace(token, entries=entries))


def drop_entry(place: Checkout, lease: Lease) -> None:
    """Let the checkout that held a lease forget its slot, if it is that checkout still."""
    token = tokens.read_token(place)
    if token and token.value == lease.token and lease.project.key in token.entries:
        entries = {key: at for key, at in token.entries.items() if key != lease.project.key}
        tokens.write_token(place, replace(token, entries=entries))
