"""A database from a file of SQL: by psql, because dumps hold its commands and COPY data."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from typing import TYPE_CHECKING

from isoenv import files
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.databases.address import Postgres

# `pg_dump --create` leads to another database, perhaps the very one that the dump is of.
_CONNECT = re.compile(rb"\\(?:c|connect)\b")
# libpq's name of a parameter -> the variable for it, so that nothing secret is an argument.
_SECRETS = {"password": "PGPASSWORD"}
# Lines of psql's complaints that are shown.
SHOWN = 20


def load(place: Postgres, database: str, path: str, say: Callable[[str], None]) -> None:
    """Run a file in a database; raises IsoenvError with what psql says at the first error."""
    _check(path)
    from psycopg import conninfo, pq

    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    given = {name: value for name, value in place.parameters.items() if name in known}
    given["application_name"] = f"isoenv psql {os.path.basename(path)}"
    target = conninfo.make_conninfo("", **given, dbname=database)
    environ = {
        **os.environ,
        **{_SECRETS[name]: value for name, value in place.secrets.items() if name in _SECRETS},
    }
    argv = ["psql", "-X", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-d", target, "-f", path]
    with tempfile.TemporaryFile() as said:
        try:
            done = subprocess.run(
                argv,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=said,
                check=False,
            )
        except FileNotFoundError:
            raise IsoenvError("psql is missing: `apt-get install postgresql-client`") from None
        said.seek(0)
        lines = said.read().decode("utf-8", "replace").splitlines()
    for line in lines[:SHOWN]:
        say(place.hide(line))
    if len(lines) > SHOWN:
        say(f"… and {len(lines) - SHOWN} lines more")
    if done.returncode:
        raise IsoenvError(
            f"psql ended with {done.returncode} on {path}, so {place} was not made: "
            "its errors are above"
        )


def _check(path: str) -> None:
    """Refuse a file that cannot be read, and one that leads out of the database it is run in."""
    try:
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, 1):
                if line.startswith(b"\\") and _CONNECT.match(line):
                    raise IsoenvError(
                        f"{path}:{number}: {os.fsdecode(line.strip())} leads to another database: "
                        "`pg_dump` without --create makes one that does not"
                    )
    except OSError as error:
        raise IsoenvError(f"cannot read {path}: {files.reason(error)}: see `template`") from None
