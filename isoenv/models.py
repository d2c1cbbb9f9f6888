"""The types that carry the design. Frozen, without behaviour beyond what follows from the fields.

Paths are ``str`` as ``os`` gives them (surrogateescape), so that any bytes survive.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Checkout:
    """A directory tree that work happens in.

    ``root`` is its top. ``git_dir`` is the directory that git keeps for this one work tree and
    ``common_dir`` the one it shares with the repository's other work trees; both are None for a
    plain directory. All are absolute, with symbolic links resolved.
    """

    root: str
    git_dir: str | None = None
    common_dir: str | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is no linked worktree of another checkout."""
        return self.git_dir == self.common_dir

    @property
    def token_file(self) -> str:
        """Where this checkout's identity is kept: its own git dir, or ``.isoenv`` without git."""
        return f"{self.git_dir}/isoenv/id" if self.git_dir else f"{self.root}/.isoenv/id"


@dataclass(frozen=True, slots=True)
class Project:
    """What several checkouts are checkouts of.

    ``key`` is the identity: the ``project`` of the configuration, else an absolute path. ``name``
    is what people read and type.
    """

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Port:
    """A named port: its value in slot 0, and the variable it is exported as, if any."""

    name: str
    base: int
    variable: str | None


@dataclass(frozen=True, slots=True)
class Flag:
    """A variable that is ``true`` or ``false``: by default in slot 0, and in the others."""

    name: str
    main: bool = False
    others: bool = False
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """Something that an instance runs.

    Either ``run``, a process that stays, or ``start`` and ``stop``, commands that return. A str
    is run by ``/bin/sh -c``, a tuple as it is. ``start_timeout`` is in seconds.
    """

    name: str
    run: str | tuple[str, ...] | None = None
    start: str | tuple[str, ...] | None = None
    stop: str | tuple[str, ...] | None = None
    health: str | None = None
    start_timeout: float = 60.0
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Database:
    """A database that each instance has; ``shared``: that all instances have together.

    ``url`` and ``template``, the database or the ``file:`` that a new one starts as, are
    templates in a Config and expanded in an Environment.
    """

    name: str
    url: str
    template: str | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Numbering:
    """The ``[instance]`` table: how slots are chosen and ports follow from them.

    ``main`` is 0, or "none" where the main checkout gets no environment at all. ``dir`` is a
    template for the instance's own directory; None puts it under the state directory.
    """

    variable: str | None = None
    prefer: Literal["lowest", "cksum"] = "lowest"
    ports: Literal["offset", "block"] = "offset"
    stride: int = 1000
    range: tuple[int, int] = (20000, 32759)
    main: Literal[0, "none"] = 0
    dir: str | None = None


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, valid configuration: presets, ``isoenv.toml`` and its local layer in one.

    ``env`` keeps the order of the file; False unsets the variable. ``sources`` are the files
    read, the strongest last, and ``preset`` the built-in start, if any.
    """

    project: str | None = None
    numbering: Numbering = Numbering()
    ports: Mapping[str, Port] = field(default_factory=dict)
    env: Mapping[str, str | Literal[False]] = field(default_factory=dict)
    dirs: Mapping[str, str] = field(default_factory=dict)
    path_prepend: tuple[str, ...] = ()
    setup_copy: tuple[str, ...] = ()
    setup_run: tuple[str, ...] = ()
    flags: Mapping[str, Flag] = field(default_factory=dict)
    templates: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, Service] = field(default_factory=dict)
    databases: Mapping[str, Database] = field(default_factory=dict)
    limits: Mapping[str, int] = field(default_factory=dict)
    preset: str | None = None
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """One isolated world of a project: the slot, and what an environment is computed from.

    ``root`` is the directory that relative paths start from: the checkout that holds the slot
    (or the directory of its ``isoenv.toml``). ``dir`` is the instance's own directory. ``ports``
    are the numbers reserved for it, by name.
    """

    project: Project
    slot: int
    name: str
    root: str
    dir: str
    ports: Mapping[str, int] = field(default_factory=dict)
    flags: Mapping[str, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Environment:
    """The variables of one instance, fully computed.

    ``variables`` is in order; None unsets. ``path_prepend`` are absolute directories. ``watched``
    are files beside the configuration that decided.
    """

    instance: Instance
    variables: Mapping[str, str | None] = field(default_factory=dict)
    path_prepend: tuple[str, ...] = ()
    dirs: Mapping[str, str] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    databases: Mapping[str, Database] = field(default_factory=dict)
    watched: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lease:
    """The registry's record that a checkout, or a bare number, holds a slot.

    ``token`` and what identifies the checkout are None for a number that no checkout holds.
    ``ports`` are the reservations by port name. ``created_at`` is in seconds since the epoch.
    """

    id: int
    project: Project
    slot: int
    name: str
    token: str | None = None
    root: str | None = None
    git_dir: str | None = None
    device: int | None = None
    inode: int | None = None
    created_at: float = 0.0
    ports: Mapping[str, int] = field(default_factory=dict)
