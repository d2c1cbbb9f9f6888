"""Where things live. The one place that reads the ``ISOENV_*`` settings.

Kept cheap to import: platformdirs is asked only where its answer differs from the two lines of
the XDG specification, that is, not on Linux.
"""

from __future__ import annotations

import os
import stat
import sys

from isoenv import envdiff
from isoenv.errors import IsoenvError

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping

CONFIG_NAME = "isoenv.toml"
LOCAL_CONFIG_NAME = "isoenv.local.toml"
STATE_SETTING = "ISOENV_STATE_DIR"
STORE_SETTING = "ISOENV_STORE"
# Emptied at each start on most systems, and so made anew; the last one is everywhere.
HOST_DIRS = ("/run/lock", "/tmp")  # noqa: S108  # nothing in it is trusted


def home(environ: Mapping[str, str]) -> str:
    """Return the user's home directory; cron and containers may lack ``HOME``.

    An environment that sets it has moved no state directory with it.
    """
    value = envdiff.own(environ, "HOME")
    if value and value.startswith("/"):
        return value.rstrip("/") or "/"
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:
        raise IsoenvError("HOME is not set and this user has no home: `export HOME=…`") from None


def state_dir(environ: Mapping[str, str]) -> str:
    """Return the directory of the registry, generated files and instance directories."""
    return _user_dir(environ, STATE_SETTING, "XDG_STATE_HOME", ".local/state", "state")


def config_dir(environ: Mapping[str, str]) -> str:
    """Return the directory of the user's own ``config.toml``."""
    return _user_dir(environ, None, "XDG_CONFIG_HOME", ".config", "config")


def host_dir(environ: Mapping[str, str]) -> str:
    """Return the directory of the host-wide claims.

    The default is one of the system's that all users see alike: root's, sticky, and for all.
    """
    if chosen := environ.get("ISOENV_HOST_DIR"):
        return _absolute("ISOENV_HOST_DIR", chosen)
    for_all = stat.S_IFDIR | 0o1777
    for directory in HOST_DIRS:
        try:
            status = os.lstat(directory)
        except OSError:
            continue
        if status.st_uid == 0 and status.st_mode & for_all == for_all:
            return directory
    return HOST_DIRS[-1]


def _absolute(setting: str, value: str) -> str:
    if not value.startswith("/"):
        raise IsoenvError(f"{setting}={value} is relative: `export {setting}=/…`")
    return value.rstrip("/") or "/"


def _user_dir(
    environ: Mapping[str, str], setting: str | None, xdg: str, below_home: str, kind: str
) -> str:
    if setting and (chosen := environ.get(setting)):
        return _absolute(setting, chosen)
    if sys.platform == "linux":
        value = (envdiff.own(environ, xdg) or "").strip()
        # The specification says to ignore relative values.
        # HOME is / for many a container's user.
        parent = value if value.startswith("/") else f"{home(environ).rstrip('/')}/{below_home}"
        return f"{parent.rstrip('/')}/isoenv"
    import platformdirs

    asked = platformdirs.user_state_dir if kind == "state" else platformdirs.user_config_dir
    return asked("isoenv", appauthor=False)


def registry_file(state: str) -> str:
    """Return the SQLite database of leases and reservations."""
    return f"{state}/registry.db"


def coordination_file(state: str) -> str:
    """Return the SQLite database of sessions, messages and metrics."""
    return f"{state}/coordination.db"


def store_url(environ: Mapping[str, str]) -> str | None:
    """Return the address of the database that several hosts share instead; None without one.

    It may hold a password: no message shows it.
    """
    value = environ.get(STORE_SETTING)
    if value and not value.startswith(("postgresql://", "postgres://")):
        raise IsoenvError(
            f"{STORE_SETTING} is no address of a PostgreSQL database:"
            f" `export {STORE_SETTING}=postgresql://USER@HOST/NAME`"
        )
    return value or None


def has_store(environ: Mapping[str, str], state: str) -> bool:
    """Whether there is a store of sessions to look into; looking would make one."""
    return bool(environ.get(STORE_SETTING)) or os.path.exists(coordination_file(state))


def session_dir(state: str, session_id: str) -> str:
    """Return the own directory of a session, which is gone with it."""
    return f"{state}/sessions/{session_id}"


def wake_dir(state: str) -> str:
    """Return where those who wait for messages have their pipes."""
    return f"{state}/wake"


def agent_env_file(state: str) -> str:
    """Return the file that BASH_ENV names in the shells of coding agents."""
    return f"{state}/bash-env.sh"


def agent_record_file(state: str, settings: str) -> str:
    """Return where it is kept what an agent's settings file was before isoenv changed it."""
    return f"{state}/agents/{_tag(settings)}.json"


def generated_dir(state: str, base: str) -> str:
    """Return where the ready environment of the checkout or subdirectory ``base`` is kept.

    The path is mirrored, not hashed: a shell can find it with builtins alone.
    """
    return f"{state}/t{base.rstrip('/')}"


def instance_dir(state: str, project_key: str, project_name: str, slot: int) -> str:
    """Return an instance's own directory, for projects that do not name one."""
    return f"{state}/instances/{_project(project_key, project_name)}/{slot}"


def locks_dir(state: str, project_key: str | None, project_name: str) -> str:
    """Return where the locks of a project are; without a key those of the machine."""
    # No project's: theirs end with a hyphen and a tag.
    scope = _project(project_key, project_name) if project_key else "machine"
    return f"{state}/locks/{scope}"


def services_dir(state: str, project_key: str, slot: int) -> str:
    """Return where the records of an instance's services are."""
    return f"{state}/services/{_tag(project_key)}.{slot}"


def notice_file(state: str, project_key: str, slot: int) -> str:
    """Return the file that is touched when the registry's word on an instance changes."""
    return f"{notices_dir(state)}/{_tag(project_key)}.{slot}"


def notices_dir(state: str) -> str:
    """Return where the notices of all instances are, named as the directories of their services."""
    return f"{state}/notices"


def _project(key: str, name: str) -> str:
    """Return a file name for a project: readable, and no other project's."""
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in name)
    return f"{safe[:48].lstrip('.') or 'project'}-{_tag(key)}"


def _tag(project_key: str) -> str:
    from hashlib import sha256

    return sha256(os.fsencode(project_key)).hexdigest()[:8]


def user_config_file(environ: Mapping[str, str]) -> str:
    """Return the user's own configuration file."""
    return f"{config_dir(environ)}/config.toml"


def touch(path: str) -> None:
    """Give a file the present time, and make it where it is missing."""
    make_private(os.path.dirname(path))
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
        os.utime(path)
    except OSError as error:
        raise IsoenvError(
            f"cannot touch {path}: {(error.strerror or str(error)).lower()}"
        ) from None


def make_private(directory: str) -> None:
    """Make ``directory`` and all that is missing above it, closed to other users."""
    if os.path.isdir(directory):
        return
    parent = os.path.dirname(directory)
    if parent != directory:
        make_private(parent)
    try:
        os.mkdir(directory, 0o700)
    except FileExistsError:
        if not os.path.isdir(directory):
            raise IsoenvError(f"{directory} is no directory: move it away") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        show = f"`ls -ld {parent}` and `df {parent}` show why"
        raise IsoenvError(f"cannot make {directory}: {reason}: {show}") from None
