"""What is wrong in the shell that asks: its hook, what it inherited, what else manages it."""

from __future__ import annotations

import base64
import json
import os
import zlib
from typing import TYPE_CHECKING

from isoenv import checkout, envdiff, generated, launch, paths, scripts
from isoenv.diagnosis import Finding
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
    yield from _outdated(caller)


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
    root = caller.environ.get("ISOENV_ROOT")
    try:
        place = checkout.locate(caller.directory)
    except IsoenvError:
        return
    if root and place and place.base != root:
        slot = caller.environ.get("ISOENV_INSTANCE", "?")
        yield Finding(
            "foreign-environment",
            f"this environment was computed for {root} (slot {slot}), and this is {place.base}",
            "isoenv's commands do not use it; other programs do: `isoenv exec . COMMAND`",
        )


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


def _outdated(caller: Caller) -> Iterator[Finding]:
    base = launch.base_of(caller.directory)
    if base:
        file = f"{paths.generated_dir(caller.state, base)}/@env"
        written = _first_field(file)
        if written is not None and written != generated.FORMAT:
            yield Finding(
                "generated-outdated",
                f"{file} was written by {written!r}, this is {generated.FORMAT!r}",
                "`isoenv reload` writes it anew",
                harmless=True,
            )
    launcher = scripts.executable()
    if os.path.basename(launcher) == "isoenv" and scripts.is_outdated(launcher):
        yield Finding(
            "launcher-outdated",
            f"{launcher} is not the launcher of this version of isoenv",
            "install isoenv again: an editable install copies it once",
        )


def _first_field(file: str) -> str | None:
    try:
        with open(file, "rb") as stream:
            return os.fsdecode(stream.read(200).partition(b"\0")[0])
    except OSError:
        return None
