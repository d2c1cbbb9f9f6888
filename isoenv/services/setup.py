"""The ``[setup]`` of a new instance: files copied, commands run, each step once.

What has been done is on record, so that after a failure the next try goes on with the step that
failed. A step that is new in the configuration is one that has not been done.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv import files, paths
from isoenv.errors import IsoenvError
from isoenv.services import locks, record
from isoenv.services.failure import ServiceError, describe_exit

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from isoenv.instances import Selected
    from isoenv.registry import Registry

# Seconds that one setup waits for another of the same instance.
PATIENCE = 3600.0
COPY, RUN = "copy", "run"
# What a shell adds to the number of a signal.
SIGNALLED = 128


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do: COPY a file, or RUN a command."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Setup:
    """What is to be done once for an instance.

    ``owner`` is the checkout's token: another checkout in the same slot is a new instance.
    ``source`` is the main checkout that files are copied from, None where there is none.
    """

    title: str
    place: str
    owner: str
    root: str
    source: str | None
    environ: Mapping[str, str]
    steps: tuple[Step, ...]


def of(selected: Selected, registry: Registry, environ: Mapping[str, str], root: str) -> Setup:
    """Return the setup of an instance."""
    here, lease = selected.context, selected.lease
    copied = (Step(COPY, name) for name in here.config.setup_copy)
    commands = (Step(RUN, text) for text in here.config.setup_run)
    place = record.directory(here.caller.state, here.project.key, selected.slot)
    return Setup(
        f"{here.project.name}/{selected.slot}",
        place,
        (lease.token if lease else None) or "-",
        root,
        _source(selected, registry),
        environ,
        (*copied, *commands),
    )


def _source(selected: Selected, registry: Registry) -> str | None:
    """Return the main checkout: that of slot 0, else the main worktree."""
    here = selected.context
    main = registry.with_slot(here.project, 0)
    if main and main.root and os.path.isdir(main.root):
        return main.root
    found, base = here.checkout, here.base
    if found is None or base is None or found.is_main or not found.common_dir:
        return None
    if os.path.basename(found.common_dir) != ".git":
        return None
    top = os.path.dirname(found.common_dir)
    return os.path.normpath(f"{top}/{os.path.relpath(base, found.root)}")


def missing(setup: Setup) -> list[Step]:
    """Return the steps that have not been done yet."""
    done = _done(setup)
    return [step for step in setup.steps if _key(step) not in done]


def run(setup: Setup, tell: Callable[[str], None]) -> int:
    """Do what has not been done; ``tell`` is told of each step. Returns how many that were.

    Raises ServiceError where a step fails; those before it are not done again.
    """
    if not setup.steps:
        return 0
    with locks.hold(f"{setup.place}/@setup", f"the setup of {setup.title}", PATIENCE):
        steps = missing(setup)
        for step in steps:
            number = f"setup {setup.steps.index(step) + 1}/{len(setup.steps)}"
            if step.kind == COPY:
                tell(f"{number}: {_copy(setup, step.text)}")
            else:
                tell(f"{number}: {step.text}")
                _run(setup, step.text)
            _note(setup, step)
        return len(steps)


def _copy(setup: Setup, name: str) -> str:
    """Copy one file or directory from the main checkout, and return what there is to say."""
    if setup.source is None or os.path.realpath(setup.source) == os.path.realpath(setup.root):
        return f"{name} is the main checkout's own"
    source, target = f"{setup.source}/{name}", f"{setup.root}/{name}"
    if os.path.lexists(target):
        return f"{name} is there already"
    if not os.path.lexists(source):
        return f"no {name} in {setup.source} to copy"
    temporary = f"{target}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        if os.path.isdir(source) and not os.path.islink(source):
            shutil.copytree(source, temporary, symlinks=True)
        else:
            shutil.copy2(source, temporary, follow_symlinks=False)
        os.rename(temporary, target)
    except OSError as error:
        with suppress(OSError):
            if os.path.isdir(temporary):
                shutil.rmtree(temporary)
            else:
                os.unlink(temporary)
        raise ServiceError(f"cannot copy {source} to {target}: {files.reason(error)}") from None
    return f"copied {name} from {setup.source}"


def _run(setup: Setup, command: str) -> None:
    """Run a command with its output where people see it, and programs do not read it."""
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=setup.root,
            env=dict(setup.environ),
            stdin=subprocess.DEVNULL,
            stdout=2,
            check=False,
        )
    except OSError as error:
        raise IsoenvError(
            f"cannot run `{command}` in {setup.root}: {files.reason(error)}"
        ) from None
    if done.returncode:
        status = done.returncode
        how = describe_exit(status if status > 0 else SIGNALLED - status)
        raise ServiceError(
            f"`{command}` in {setup.root} ended with {how}: `isoenv setup` goes on with it"
        )


def _key(step: Step) -> bytes:
    return os.fsencode(f"{step.kind} {step.text}")


def _done(setup: Setup) -> set[bytes]:
    content = files.read(f"{setup.place}/@setup/done", 1 << 20) or b""
    owner, *steps = content.split(b"\0")
    return set(steps) if owner == os.fsencode(setup.owner) else set()


def _note(setup: Setup, step: Step) -> None:
    done = sorted(_done(setup) | {_key(step)})
    paths.make_private(f"{setup.place}/@setup")
    record.replace(
        f"{setup.place}/@setup/done", b"\0".join([os.fsencode(setup.owner), *filter(None, done)])
    )
