"""Real servers of the tests' own: started when first asked for, ended by pid."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import psycopg
import psycopg.sql
import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Process = subprocess.Popen[bytes]

PASSWORD = 'sesame & "open"/@:%\''  # noqa: S105  # what has to be quoted and must be seen nowhere
# Seconds in which a server starts on the slowest machine.
PATIENCE = 60
# How many ports are tried.
TRIES = 5

_CONFIG = """
fsync = off
full_page_writes = off
max_connections = 100
shared_buffers = 32MB
autovacuum = off
max_wal_size = 4GB
"""
_ACCESS = """
local all all trust
host all all 127.0.0.1/32 scram-sha-256
"""


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server: on TCP with the password of ``owner``, on its socket with none."""

    port: int
    socket: str

    def connect(self, database: str = "postgres", user: str = "postgres") -> psycopg.Connection:
        """Connect as an outsider, by default the superuser, past isoenv."""
        return psycopg.connect(
            host=self.socket, port=self.port, dbname=database, user=user, autocommit=True
        )

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement and return its rows, if it has any."""
        with self.connect(database) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def databases(self) -> set[str]:
        """Return the names of what is there, without what every server has."""
        rows = self.ask("SELECT datname FROM pg_database")
        return {str(name) for (name,) in rows} - {"postgres", "template0", "template1"}


def binaries() -> str | None:
    """Return where the server's programs are: Debian keeps them off PATH."""
    found = shutil.which("initdb")
    if found:
        return os.path.dirname(os.path.realpath(found))
    found_all = glob("/usr/lib/postgresql/*/bin/initdb")
    return os.path.dirname(max(found_all, key=_version)) if found_all else None


def _version(path: str) -> float:
    return float(path.split("/")[4])


def unprivileged() -> list[str]:
    """Return what a command begins with so that it does not run as root, which servers refuse."""
    if os.geteuid() != 0:
        return []
    user = pwd.getpwnam("nobody")
    return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]


def make_postgres(directory: str, settings: str = _CONFIG) -> None:
    """Make a server's data in a directory."""
    programs = binaries()
    assert programs is not None
    if os.geteuid() == 0:
        user = pwd.getpwnam("nobody")
        os.chown(directory, user.pw_uid, user.pw_gid)
    data = f"{directory}/data"
    subprocess.run(
        [
            *unprivileged(),
            f"{programs}/initdb",
            *("--pgdata", data, "--username=postgres", "--auth=trust", "--no-sync"),
        ],
        check=True,
        capture_output=True,
        cwd=directory,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    with open(f"{data}/postgresql.conf", "a", encoding="utf-8") as config:
        config.write(settings)
        config.write(f"listen_addresses = '127.0.0.1'\nunix_socket_directories = '{directory}'\n")
    Path(f"{data}/pg_hba.conf").write_text(_ACCESS, encoding="utf-8")


def start_postgres(
    directory: str, free_port: Callable[[], int], within: Sequence[str] = ()
) -> tuple[int, Process]:
    """Start the server of a directory on a free port; return the port and the process.

    Somebody else may be faster to take the port, and then it is another. ``within`` is what its
    command begins with.
    """
    for _ in range(TRIES):
        port = free_port()
        with open(f"{directory}/log", "wb") as log:
            server = subprocess.Popen(
                [
                    *within,
                    *unprivileged(),
                    *(f"{binaries()}/postgres", "-D", f"{directory}/data", "-p", str(port)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=directory,
                env={**os.environ, "LC_ALL": "C.UTF-8"},
            )
        deadline = time.monotonic() + PATIENCE
        while server.poll() is None and time.monotonic() < deadline:
            try:
                Postgres(port, directory).ask("SELECT 1")
            except psycopg.OperationalError:
                time.sleep(0.05)
            else:
                return port, server
        stop(server)
    text = Path(f"{directory}/log").read_text(encoding="utf-8")
    raise RuntimeError(f"the server does not start: {text}")


def stop(server: Process) -> None:
    """End a server, and whoever is connected to it."""
    server.send_signal(signal.SIGINT)
    try:
        server.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


@pytest.fixture(scope="session")
def postgres_server(free_port: Callable[[], int]) -> Iterator[Postgres]:
    """A server for this process of the tests, with the role ``owner`` that may make databases."""
    if binaries() is None:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing("PostgreSQL is not installed")
    # Neither below pytest's directory, which is closed to others, nor longer than a socket's path.
    with tempfile.TemporaryDirectory(prefix="isoenv-pg-", dir="/tmp") as directory:
        make_postgres(directory)
        port, server = start_postgres(directory, free_port)
        found = Postgres(port, directory)
        try:
            with found.connect() as connection:
                connection.execute("CREATE ROLE owner LOGIN CREATEDB")
                set_password = psycopg.sql.SQL("ALTER ROLE owner PASSWORD {}")
                connection.execute(set_password.format(psycopg.sql.Literal(PASSWORD)))
            yield found
        finally:
            stop(server)


@pytest.fixture
def postgres(postgres_server: Postgres) -> Iterator[Postgres]:
    """The server, without any database but its own before and after the test."""
    yield postgres_server
    for name in postgres_server.databases():
        identifier = psycopg.sql.Identifier(name)
        with postgres_server.connect() as connection:
            connection.execute(
                psycopg.sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(identifier)
            )
            connection.execute(psycopg.sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


@pytest.fixture
def postgres_database(postgres: Postgres) -> str:
    """The address of an empty database of ``owner``, with the password."""
    postgres.ask("CREATE DATABASE shared OWNER owner")
    return f"postgresql://owner:{quote(PASSWORD, safe='')}@127.0.0.1:{postgres.port}/shared"
