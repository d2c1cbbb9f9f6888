"""What is wrong in the shell that asks: its hook, what it inherited, what else manages it."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import TYPE_CHECKING

from isoenv import envdiff, paths, provenance
from isoenv.diagnosis.finding import Finding, several
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from isoenv.context import Caller

# SHELL:COUNT, which the hook's own `isoenv` function gives to `isoenv doctor`: how often the hook
# stands in PROMPT_COMMAND, precmd_functions or among fish's event handlers.
HOOK = "__ISOENV_HOOK"
# The largest record of another tool that is unpacked, in bytes.
RECORD_LIMIT = 1 << 22


def findings(caller: Caller, *, interactive: bool) -> Iterator[Finding]:
    """Look at the caller's shell; a missing hook is worth a word in an interactive one."""
    if interactive or HOOK in caller.environ:
        yield from _hook(caller.environ)
    yield from _foreign(caller)
    yield from _other_injectors(caller.environ)
    yield from _other_states(caller)


def _hook(environ: Mapping[str, str]) -> Iterator[Finding]:
    shell, _, count = environ.get(HOOK, "").partition(":")
    if not shell:
        yield Finding(
            "hook-missing",
            "this command was not called through a shell's hook",
            '`eval "$(isoenv hook bash)"` in ~/.bashrc; zsh and fish alike',
            harmless=True,
        )
    elif count == "0":
        yield Finding(
            "hook-lost",
            f"the hook of this {shell} is defined, but was taken out of its prompt",
            f"evaluate `isoenv hook {shell}` last in its rc file",
        )
    elif count != "1":
        yield Finding(
            "hook-doubled",
            f"the hook of this {shell} is registered {count} times",
            f"evaluate `isoenv hook {shell}` once",
        )


def _foreign(caller: Caller) -> Iterator[Finding]:
    """Find an environment that was computed for another checkout than this one."""
    if found := provenance.foreign(caller):
        yield Finding("foreign-environment", str(found), found.remedy)


def _other_injectors(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Find variables that isoenv has set and another tool has recorded as its own too."""
    try:
        entries = envdiff.loads(environ.get(envdiff.RECORD, ""))
    except ValueError:
        return
    ours = {entry.name for entry in entries if entry.name and not entry.name.startswith("__")}
    for tool, names in (
        ("direnv", ours & _direnv_names(environ.get("DIRENV_DIFF", ""))),
        ("mise", _mentioned(ours, environ.get("__MISE_DIFF", ""))),
    ):
        if names - {envdiff.PATH}:
            listed = ", ".join(sorted(names - {envdiff.PATH}))
            yield Finding(
                "two-injectors",
                f"{tool} and isoenv both manage {listed}",
                f"leave these to one of them: `use isoenv` in .envrc, or out of {tool}'s file",
            )


def _unpacked(record: str) -> bytes:
    """Return what direnv or mise has packed by zlib and base64, or nothing."""
    try:
        packed = base64.urlsafe_b64decode(record.replace("+", "-").replace("/", "_") + "===")
        return zlib.decompressobj().decompress(packed, RECORD_LIMIT)
    except (ValueError, zlib.error):
        return b""


def _direnv_names(record: str) -> set[str]:
    try:
        document = json.loads(_unpacked(record) or b"{}")
        return {name for side in ("p", "n") for name in document.get(side) or {}}
    except (AttributeError, TypeError, ValueError):
        return set()


def _mentioned(names: set[str], record: str) -> set[str]:
    """Return the names that stand in a record whose format is its tool's own."""
    content = _unpacked(record)
    return {name for name in names if name.encode() in content}


def _other_states(caller: Caller) -> Iterator[Finding]:
    """Find processes of this user whose isoenv would look into another state directory."""
    import psutil

    mine, host = os.path.realpath(caller.state), paths.host_dir(caller.environ)
    found: dict[str, list[str]] = {}
    for process in psutil.process_iter():
        try:
            if process.uids().real != os.getuid() or process.pid == os.getpid():
                continue
            environ = process.environ()
            if not {"ISOENV_ROOT", paths.STATE_SETTING} & environ.keys():
                continue
            state = os.path.realpath(paths.state_dir(environ))
            # Who has another directory of claims is a world of its own, such as a test.
            if state != mine and paths.host_dir(environ) == host:
                found.setdefault(state, []).append(f"{process.name()} (pid {process.pid})")
        except (psutil.Error, IsoenvError, OSError, ValueError):
            continue
    for state, users in found.items():
        more = f" and {several(len(users) - 1, 'other')}" if len(users) > 1 else ""
        yield Finding(
            "two-states",
            f"{users[0]}{more} would use the state directory {state}, and this is {mine}",
            f"set {paths.STATE_SETTING} alike for all shells, in ~/.profile, or nowhere",
            harmless=True,
            file=state,
        )
