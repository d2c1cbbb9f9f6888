"""What belongs into the settings of Claude Code, put in and taken out again.

Text in, text out: what is not isoenv's stays as it is, byte for byte.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from isoenv.agents import edits, jsonc

BASH_ENV, STATUS_LINE = "BASH_ENV", "statusLine"
# The last part of the file that BASH_ENV names: by it isoenv's own value is known.
ENV_FILE = "bash-env.sh"
# What the hook is called for. WorktreeCreate and WorktreeRemove are left out: a hook of the first
# name takes the place of git, and where one of the second leaves a worktree, Claude Code keeps it.
EVENTS = (
    "SessionStart",
    "UserPromptSubmit",
    "CwdChanged",
    "SubagentStart",
    "SubagentStop",
    "SessionEnd",
)
# Where an agent starts another; older versions call the tool Task.
POOL_EVENT, POOL_MATCHER = "PreToolUse", "Task|Agent"
# Seconds; unasked, all hooks of SessionEnd together get 1.5.
TIMEOUT = 10

_HOOK = re.compile(r"(?:^|[\s/|])isoenv'? agent hook claude$")
_OWN_STATUS_LINE = re.compile(r"(?:^|[\s/|])isoenv'? statusline$")
# With whatever the user has made of it.
_WITH_STATUS_LINE = re.compile(r"\bisoenv'? statusline\b")


class SettingsError(ValueError):
    """Settings that cannot be changed: ``line``, from 1, holds something unexpected."""

    def __init__(self, line: int, message: str) -> None:
        """Keep where it is and what is wrong with it."""
        super().__init__(message)
        self.line = line


@dataclass(frozen=True, slots=True)
class Note:
    """Something of the user's own that stays: what it is, its value, and the file it is in.

    ``file`` is None for the settings themselves.
    """

    name: str
    value: str = ""
    file: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be in the settings.

    ``env_file`` is the value of BASH_ENV; ``taken`` is what another settings file of the user's
    already sets, and these would be laid over.
    """

    env_file: str
    hook: str
    status_line: str
    pool: bool = False
    taken: tuple[Note, ...] = ()

    @property
    def groups(self) -> dict[str, dict[str, object]]:
        """The entry for each event."""
        hook = {"type": "command", "command": self.hook, "timeout": TIMEOUT}
        groups: dict[str, dict[str, object]] = {event: {"hooks": [hook]} for event in EVENTS}
        if self.pool:
            groups[POOL_EVENT] = {"matcher": POOL_MATCHER, "hooks": [hook]}
        return groups


def install(text: str, wanted: Wanted) -> tuple[str, list[Note]]:
    """Return the text with all that is wanted in it, and what was left as the user has it.

    What an older version has put in is replaced. Raises SettingsError.
    """
    _check(text)
    own = foreign(text)
    here = {note.name for note in own}
    notes = [*own, *(note for note in wanted.taken if note.name not in here)]
    taken = [note.name for note in notes]
    text = _put_bash_env(text, wanted, taken)
    text = _put_hooks(text, wanted)
    text = _put_status_line(text, wanted, taken)
    if _value(text, "disableAllHooks"):
        notes.append(Note("disableAllHooks", "true"))
    return text, notes


def uninstall(text: str) -> str:
    """Return the text without what ``install`` puts in. Raises SettingsError."""
    _check(text)
    for event in _value(text, "hooks") or ():
        text = _without_hooks(text, event)
    if is_bash_env(_value(text, "env", BASH_ENV)):
        text = _without(text, ("env", BASH_ENV))
    if is_status_line(_value(text, STATUS_LINE)):
        text = edits.remove(text, (STATUS_LINE,))
    return text


def is_bash_env(value: object) -> bool:
    """Whether a value of BASH_ENV is one of isoenv's."""
    return isinstance(value, str) and value.endswith(f"/{ENV_FILE}")


def is_status_line(value: object) -> bool:
    """Whether a status line is exactly isoenv's, not one that the user has made of it."""
    command = value.get("command") if isinstance(value, dict) else None
    return isinstance(command, str) and bool(_OWN_STATUS_LINE.search(command))


def is_empty(text: str) -> bool:
    """Whether nothing is in the settings, not even a comment."""
    return "".join(text.split()) == "{}"


def foreign(text: str, file: str | None = None) -> list[Note]:
    """Return what settings have of their own where isoenv would put something."""
    _check(text)
    root, found = jsonc.parse(text), []
    bash_env, status_line = _value(text, "env", BASH_ENV), root.member(STATUS_LINE)
    if bash_env is not None and not is_bash_env(bash_env):
        found.append(Note(BASH_ENV, str(bash_env), file))
    if status_line and not _WITH_STATUS_LINE.search(_command(status_line.value)):
        found.append(Note(STATUS_LINE, _command(status_line.value), file))
    return found


def _put_bash_env(text: str, wanted: Wanted, taken: list[str]) -> str:
    found = _value(text, "env", BASH_ENV)
    if BASH_ENV in taken or found == wanted.env_file:
        return text
    return edits.put(text, ("env", BASH_ENV), wanted.env_file)


def _put_hooks(text: str, wanted: Wanted) -> str:
    groups = wanted.groups
    for event in _value(text, "hooks") or ():
        ours = [group for group, _ in _own_hooks(text, event)]
        present = _value(text, "hooks", event)
        if ours and [present[index] for index in ours] != [groups.get(event)]:
            text = _without_hooks(text, event)
    for event, group in groups.items():
        if not _own_hooks(text, event):
            text = edits.append(text, ("hooks", event), group)
    return text


def _put_status_line(text: str, wanted: Wanted, taken: list[str]) -> str:
    ours = {"type": "command", "command": wanted.status_line, "padding": 0}
    node = jsonc.parse(text).member(STATUS_LINE)
    if STATUS_LINE in taken or (node and (node.value == ours or not is_status_line(node.value))):
        return text
    return edits.put(text, (STATUS_LINE,), ours)


def _command(status_line: object) -> str:
    """Return the command of a status line, or what stands in its place."""
    command = status_line.get("command") if isinstance(status_line, dict) else None
    return str(status_line if command is None else command)


def _own_hooks(text: str, event: str) -> list[tuple[int, int]]:
    """Return where isoenv's own commands are among an event's groups: group, position in it."""
    return [
        (index, position)
        for index, group in enumerate(_value(text, "hooks", event) or ())
        for position, hook in enumerate(group.get("hooks") or ())
        if isinstance(hook, dict) and _HOOK.search(str(hook.get("command")))
    ]


def _without_hooks(text: str, event: str) -> str:
    """Take isoenv's commands out of an event, with each container that is empty by that."""
    for index, position in reversed(_own_hooks(text, event)):
        path = ("hooks", event, index)
        if len(_value(text, *path, "hooks")) > 1:
            text = edits.remove(text, (*path, "hooks", position))
        else:
            text = _without(text, path)
    return text


def _without(text: str, path: tuple[str | int, ...]) -> str:
    """Take an entry out, and what is empty then around it."""
    text = edits.remove(text, path)
    while len(path) > 1 and not _value(text, *path[:-1]):
        path = path[:-1]
        text = edits.remove(text, path)
    return text


def _value(text: str, *path: str | int) -> Any:  # noqa: ANN401  # what JSON holds
    found: Any = jsonc.parse(text).value
    for step in path:
        if isinstance(step, str):
            found = found.get(step) if isinstance(found, dict) else None
        else:
            found = found[step]
        if found is None:
            return None
    return found


def _check(text: str) -> None:
    """Raise SettingsError unless what is to be changed has the form it should have."""
    try:
        root = jsonc.parse(text)
    except jsonc.JsonError as fault:
        raise SettingsError(fault.line, str(fault)) from None
    if not root.is_object:
        raise _fault(text, root, "the settings", "an object")
    for name in ("env", "hooks"):
        node = root.member(name)
        if node and not node.is_object:
            raise _fault(text, node, name, "an object")
    hooks = root.member("hooks")
    for entry in (hooks.entries if hooks else None) or ():
        if not isinstance(entry.node.value, list):
            raise _fault(text, entry.node, f"hooks.{entry.name}", "an array")
        for item in entry.node.entries or ():
            commands = item.node.member("hooks")
            if not item.node.is_object or (commands and not isinstance(commands.value, list)):
                raise _fault(text, item.node, f"hooks.{entry.name}", "an array of matchers")


def _fault(text: str, node: jsonc.Node, name: str, expected: str) -> SettingsError:
    return SettingsError(text.count("\n", 0, node.start) + 1, f"{name} should be {expected}")
