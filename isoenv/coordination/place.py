"""Which project and instance a session belongs to, and what an INSTANCE in an address means."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv import context, instances, leasing, paths, provenance
from isoenv.context import Caller
from isoenv.coordination.records import Place
from isoenv.errors import IsoenvError, NotFoundError
from isoenv.models import Project
from isoenv.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Mapping


def find(environ: Mapping[str, str], directory: str) -> Place | None:
    """Return the project and instance of a directory, or of the environment that is loaded there.

    Nothing is leased. A configuration that is broken, or none, is no project.
    """
    caller = Caller(directory, environ)
    loaded = _loaded(caller)
    if not os.path.exists(paths.registry_file(caller.state)):
        return loaded or _of_directory(caller, None)
    try:
        with Registry(caller.state) as registry:
            return _known(registry, caller, loaded) if loaded else _of_directory(caller, registry)
    except IsoenvError:
        return loaded


def _loaded(caller: Caller) -> Place | None:
    """Return the instance of the environment, unless it is that of another checkout."""
    environ = caller.environ
    project, slot = environ.get("ISOENV_PROJECT"), environ.get(instances.SLOT_VARIABLE, "")
    number = instances.number(slot)
    if not project or number is None:
        return None
    pinned, _, key = environ.get(instances.PIN, "").partition(":")
    name = environ.get("ISOENV_NAME")
    # In a checkout of another project it is that one's environment, perhaps of the same number.
    if pinned == slot and (key == project or key.startswith("/")):
        return Place(Project(key, project), number, name)
    return None if provenance.foreign(caller) else Place(Project(project, project), number, name)


def _known(registry: Registry, caller: Caller, loaded: Place) -> Place:
    """Return a loaded instance with its project as the registry knows it."""
    if loaded.project.key != loaded.project.name:
        return loaded
    root = caller.environ.get("ISOENV_ROOT")
    held = [
        lease
        for project in registry.projects(loaded.project.name)
        if (lease := registry.with_slot(project, loaded.slot or 0))
    ]
    for lease in sorted(held, key=lambda lease: lease.root != root):
        return Place(lease.project, lease.slot, lease.name)
    return loaded


def _of_directory(caller: Caller, registry: Registry | None) -> Place | None:
    try:
        here = context.find(caller)
        if here.checkout is None:
            return None
        lease = leasing.find(registry, here.claim) if registry else None
    except IsoenvError:
        return None
    if lease is None:
        return Place(here.project)
    return Place(lease.project, lease.slot, lease.name)


def instance(word: str, own: Place | None, state: str) -> Place:
    """Return what an INSTANCE means: ``2``, ``.``, ``project:2`` or ``project:name``.

    Raises NotFoundError for one that is not known.
    """
    project_name, colon, name = word.rpartition(":")
    if not colon or (own and project_name in (own.project.name, own.project.key)):
        if own is None:
            raise NotFoundError(
                f"{word} is an instance of which project? Outside of any: "
                f"`project:{word}`, such as `orienter:2`"
            )
        projects = [own.project]
    else:
        projects = [Project(project_name, project_name)]
        if os.path.exists(paths.registry_file(state)):
            with Registry(state) as registry:
                projects = registry.projects(project_name) or projects
    if len(projects) > 1:
        keys = ", ".join(project.key for project in projects)
        raise NotFoundError(
            f"{project_name} is the name of several projects: {keys}: use one of these"
        )
    slot = (own.slot if own else None) if name == "." else instances.number(name)
    if slot is None and os.path.exists(paths.registry_file(state)):
        with Registry(state) as registry:
            found = registry.with_name(projects[0], name)
        slot = found.slot if found else None
    if slot is None:
        raise NotFoundError(f"no instance {word}: `isoenv list --all` shows them")
    return Place(projects[0], slot)
