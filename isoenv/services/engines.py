"""What compose has left in a container engine, of docker or of podman."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Sequence

CLIENTS = ("docker", "podman")
LABEL = "com.docker.compose.project"
WHERE = f"{LABEL}.working_dir"
# podman takes a `range` for one over all containers.
PORTS = "{{json .NetworkSettings.Ports}}"
# Seconds that an engine has to answer, and to remove what it is told to.
ANSWER, REMOVAL = 10.0, 60.0


@dataclass(frozen=True, slots=True)
class Compose:
    """A compose project that has containers: ``directory`` is that of its file, if known.

    ``ports`` are those of the host that its containers have.
    """

    client: str
    name: str
    directory: str
    containers: tuple[str, ...]
    ports: frozenset[int] = frozenset()


def engines() -> list[str]:
    """Return the clients whose engine answers."""
    found = [client for client in CLIENTS if shutil.which(client)]
    return [client for client in found if _ask(client, "ps", "--quiet") is not None]


def compose_projects(client: str) -> list[Compose]:
    """Return the compose projects that an engine has containers of."""
    ids = (_ask(client, "ps", "--all", "--quiet", "--filter", f"label={LABEL}") or "").split()
    if not ids:
        return []
    # What `ps --format` knows differs from one client to the other.
    fields = [f'{{{{index .Config.Labels "{label}"}}}}' for label in (LABEL, WHERE)]
    template = "\t".join(["{{.Id}}", *fields, PORTS])
    lines = (_ask(client, "inspect", "--format", template, *ids) or "").splitlines()
    projects: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for line in lines:
        container, name, directory, ports = line.split("\t")
        known = "" if directory == "<no value>" else directory
        projects.setdefault((name, known), []).append((container, ports))
    return [
        Compose(
            client,
            name,
            directory,
            tuple(container for container, _ in found),
            frozenset().union(*(_published(ports) for _, ports in found)),
        )
        for (name, directory), found in projects.items()
    ]


def _published(ports: str) -> set[int]:
    """Return the ports of the host in an engine's JSON: each port inside has a list, or null."""
    bindings = (json.loads(ports) or {}).values()
    return {int(binding["HostPort"]) for each in bindings for binding in each or ()}


def remove(project: Compose, *, volumes: bool) -> None:
    """Remove the containers and networks of a project, and its volumes where that is asked for."""
    _must(project, "rm", "--force", *project.containers)
    kinds = ("network", "volume") if volumes else ("network",)
    for kind in kinds:
        label = f"label={LABEL}={project.name}"
        names = (_ask(project.client, kind, "ls", "--quiet", "--filter", label) or "").split()
        if names:
            _must(project, kind, "rm", *names)


def _ask(client: str, *words: str) -> str | None:
    """Return what a client prints; None where no engine answers."""
    done = _run([client, *words], ANSWER)
    return done.stdout if done and done.returncode == 0 else None


def _must(project: Compose, *words: str) -> None:
    done = _run([project.client, *words], REMOVAL)
    if done is None or done.returncode:
        said = done.stderr.strip().splitlines() if done else []
        why = said[-1] if said else f"no answer within {REMOVAL:g} s"
        raise IsoenvError(f"`{project.client} {words[0]}` of {project.name}: {why}")


def _run(words: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(
            words,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            encoding="utf-8",
            errors="surrogateescape",
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
