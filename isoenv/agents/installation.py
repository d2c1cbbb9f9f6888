"""Find, change and restore the settings files of Claude Code."""

from __future__ import annotations

import json
import os
import shlex
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from isoenv import checkout, context, files, paths, scripts
from isoenv.agents import settings
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from isoenv.context import Caller

LOCAL, USER, SHARED = "local", "user", "shared"
# The largest settings file, in bytes.
LIMIT = 1 << 22
# For a file that the whole team has: bash expands it, and who has no isoenv has no such file.
ANY_STATE = "${ISOENV_STATE_DIR:-${XDG_STATE_HOME:-$HOME/.local/state}/isoenv}"
_IF_THERE = "! command -v isoenv >/dev/null || isoenv"


@dataclass(frozen=True, slots=True)
class Plan:
    """A change of a settings file: None stands for a file that is not there.

    ``original`` is the content without anything of isoenv's. ``notes`` say what was left alone.
    """

    file: str
    before: bytes | None
    after: bytes | None
    original: bytes | None
    notes: list[settings.Note] = field(default_factory=list)

    @property
    def is_change(self) -> bool:
        """Whether there is anything to do."""
        return self.before != self.after


def file_of(caller: Caller, level: str) -> str:
    """Return the settings file of a level: the checkout's own, the team's, or the user's."""
    if level == USER:
        chosen = caller.environ.get("CLAUDE_CONFIG_DIR")
        return f"{os.path.abspath(chosen) if chosen else caller.home + '/.claude'}/settings.json"
    place = checkout.locate(caller.directory)
    if place is None:
        raise IsoenvError(
            f"{caller.directory} is in no checkout: `isoenv agent install claude --user` "
            "is for all of your projects"
        )
    name = "settings.json" if level == SHARED else "settings.local.json"
    return f"{place.checkout.root}/.claude/{name}"


def installing(caller: Caller, level: str) -> Plan:
    """Return what putting isoenv into the settings of a level changes."""
    file = file_of(caller, level)
    before = files.read(file, LIMIT)
    text = _text(file, before)
    try:
        after, notes = settings.install(text or "{}\n", _wanted(caller, level, file))
    except settings.SettingsError as fault:
        raise _refused(file, fault) from None
    if text and after == text:
        return Plan(file, before, before, before, notes)
    original = removing(caller, level).after if text else before
    return Plan(file, before, _bytes(before, after), original, notes)


def removing(caller: Caller, level: str) -> Plan:
    """Return what taking isoenv out of the settings of a level changes.

    Where nobody has touched the file since isoenv wrote it, it is again what it was, to the byte.
    """
    file = file_of(caller, level)
    before = files.read(file, LIMIT)
    record = _record(caller, file)
    if before is None or (record and before == record[1]):
        return Plan(file, before, record[0] if record and before else None, None)
    text = _text(file, before)
    if not text:
        return Plan(file, before, before, before)
    try:
        after = settings.uninstall(text)
    except settings.SettingsError as fault:
        raise _refused(file, fault) from None
    if record and record[0] is None and after != text and settings.is_empty(after):
        return Plan(file, before, None, None)
    return Plan(file, before, _bytes(before, after), None)


def apply(caller: Caller, plan: Plan) -> None:
    """Do what was planned, unless the file has changed meanwhile; remember how it was."""
    if files.read(plan.file, LIMIT) != plan.before:
        raise IsoenvError(f"{plan.file} has just changed: run the same command again")
    record = _record_file(caller, plan.file)
    if plan.after is None:
        _remove(plan.file)
    else:
        _make_directory(plan.file)
        files.replace(os.path.realpath(plan.file), plan.after)
    with suppress(FileNotFoundError):
        os.unlink(record)
    if plan.original is not None or plan.before is None:
        before, after = _spelled(plan.original), _spelled(plan.after)
        paths.make_private(os.path.dirname(record))
        content = json.dumps({"file": plan.file, "before": before, "after": after})
        files.replace(record, content.encode())


def is_ignored(file: str) -> bool:
    """Whether git leaves a new file out, or has no word in the matter."""
    import git

    try:
        repository = git.Repo(
            os.path.dirname(file), search_parent_directories=True, expand_vars=False
        )
        return bool(repository.ignored(file))
    except (git.InvalidGitRepositoryError, git.NoSuchPathError, git.GitCommandError, OSError):
        return True


def _wanted(caller: Caller, level: str, file: str) -> settings.Wanted:
    executable = shlex.quote(scripts.executable())
    env_file = paths.agent_env_file(caller.state)
    if level == SHARED:
        executable, env_file = _IF_THERE, paths.agent_env_file(ANY_STATE)
    return settings.Wanted(
        env_file,
        f"{executable} agent hook claude",
        f"{executable} statusline",
        _has_limit(caller),
        _taken(caller, file),
    )


def _has_limit(caller: Caller) -> bool:
    try:
        return "agents" in context.find(caller).config.limits
    except IsoenvError:
        return False


def _taken(caller: Caller, file: str) -> tuple[settings.Note, ...]:
    """Return what the user's own settings say of what these would be laid over."""
    own = file_of(caller, USER)
    if own == file:
        return ()
    try:
        text = _text(own, files.read(own, LIMIT))
        return tuple(settings.foreign(text or "{}", own))
    except (IsoenvError, settings.SettingsError):
        return ()


def _text(file: str, content: bytes | None) -> str:
    """Return settings as text, an empty one for none; a byte order mark is not part of it."""
    try:
        text = (content or b"").decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = (content or b"").count(b"\n", 0, error.start) + 1
        raise IsoenvError(f"{file}:{line}: not UTF-8: mend it, then try again") from None
    return text if text.strip() else ""


def _bytes(before: bytes | None, text: str) -> bytes:
    mark = "\ufeff" if before and before.startswith("\ufeff".encode()) else ""
    return (mark + text).encode()


def _refused(file: str, fault: settings.SettingsError) -> IsoenvError:
    return IsoenvError(f"{file}:{fault.line}: {fault}: mend it, then try again")


def _record_file(caller: Caller, file: str) -> str:
    return paths.agent_record_file(caller.state, file)


def _record(caller: Caller, file: str) -> tuple[bytes | None, bytes | None] | None:
    """Return what a settings file was before isoenv changed it and after, None if not known."""
    try:
        content = json.loads(files.read(_record_file(caller, file), 3 * LIMIT) or b"")
        before, after = content["before"], content["after"]
        return _unspelled(before), _unspelled(after)
    except (IsoenvError, AttributeError, KeyError, TypeError, ValueError):
        return None


def _spelled(content: bytes | None) -> str | None:
    return None if content is None else content.decode()


def _unspelled(text: str | None) -> bytes | None:
    return None if text is None else text.encode()


def _make_directory(file: str) -> None:
    try:
        os.makedirs(os.path.dirname(os.path.realpath(file)), exist_ok=True)
    except OSError as error:
        raise IsoenvError(f"cannot make {error.filename}: {files.reason(error)}") from None


def _remove(file: str) -> None:
    """Remove a file, and the directory that was made for it if nothing else is in it."""
    try:
        os.unlink(file)
    except OSError as error:
        raise IsoenvError(f"cannot remove {file}: {files.reason(error)}") from None
    with suppress(OSError):
        os.rmdir(os.path.dirname(file))
