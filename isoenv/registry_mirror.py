"""The registry as text beside it, from which it is rebuilt when it is lost.

One line for each row of each table, ``CHECKSUM<tab>TABLE<tab>COLUMN=VALUE…``, the first with the
revision of the registry that was written down. Each line stands for itself: what is torn or
damaged costs that line, and NULL is left out.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

HEADER = "isoenv-mirror"
# The tables that say something about the database file itself.
OWN = "registry"
# The longest first line, in bytes.
HEAD = 100
# Whatever the locale of who reads it, and whatever the bytes of a path.
TEXT = ("utf-8", "surrogateescape")

Row = tuple[str, "Mapping[str, str]"]


def file_of(registry: str) -> str:
    """Return where the mirror of a registry file is."""
    return f"{registry.removesuffix('.db')}.txt"


def write(registry: str, connection: sqlite3.Connection) -> None:
    """Replace the mirror by what the database holds now.

    Runs after the commit, while nobody else can write. A mirror that cannot be written stays as
    it is: the lease counts, and the next one brings the mirror up to date.
    """
    path = file_of(registry)
    temporary = f"{path}.new"
    with contextlib.suppress(OSError, sqlite3.Error):
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(temporary, flags, 0o600), "wb") as file:
                file.write(dumps(connection))
                file.flush()
                os.fsync(file.fileno())
            os.rename(temporary, path)
        except (OSError, sqlite3.Error):
            os.unlink(temporary)


def revision(registry: str) -> int | None:
    """Return the revision that the mirror was written from, None where it does not say."""
    try:
        with open(file_of(registry), "rb") as file:
            head = file.read(HEAD)
    except OSError:
        return None
    return _revision(head.partition(b"\n")[0])


def read(registry: str) -> list[Row]:
    """Return the rows that the mirror holds, in the order of their tables."""
    try:
        with open(file_of(registry), "rb") as file:
            return list(loads(file.read()))
    except OSError:
        return []


def dumps(connection: sqlite3.Connection) -> bytes:
    """Return the text of all tables."""
    (number,) = connection.execute("SELECT revision FROM registry").fetchone()
    lines = [f"{HEADER}\trevision={number}"]
    for table in _columns(connection):
        cursor = connection.execute(f"SELECT * FROM {table}")  # noqa: S608  # a table of the schema
        names = [column[0] for column in cursor.description]
        for row in cursor:
            fields = (
                f"{name}={_escape(value)}"
                for name, value in zip(names, row, strict=True)
                if value is not None
            )
            lines.append("\t".join((table, *fields)))
    return b"".join(map(_sealed, lines))


def loads(text: bytes) -> Iterator[Row]:
    """Yield the rows of a text; lines that are not whole are passed over."""
    for line in text.split(b"\n"):
        body = _unsealed(line)
        if body is not None:
            table, *fields = body.split("\t")
            pairs = (field.partition("=") for field in fields)
            yield table, {name: _unescape(value) for name, _, value in pairs}


def restore(connection: sqlite3.Connection, rows: list[Row]) -> None:
    """Insert the rows into an empty registry, inside a transaction.

    What the tables have no place for, because another version wrote it or a line is missing, is
    passed over.
    """
    known = _columns(connection)
    for table, values in rows:
        names = [name for name in values if name in known.get(table, {})]
        if not names:
            continue
        given = [
            values[name].encode(*TEXT) if known[table][name] == "BLOB" else values[name]
            for name in names
        ]
        places = ", ".join("?" * len(names))
        sql = f"INSERT OR IGNORE INTO {table} ({', '.join(names)}) VALUES ({places})"  # noqa: S608  # known names
        # A row of a lease that is not there, or a text that is no Unicode.
        with contextlib.suppress(sqlite3.IntegrityError, UnicodeEncodeError):
            connection.execute(sql, given)


def _columns(connection: sqlite3.Connection) -> dict[str, dict[str, str]]:
    """Return the tables, those first that others refer to, and the types of their columns."""
    rows = connection.execute(
        "SELECT tables.name, columns.name, columns.type FROM sqlite_master AS tables"
        " JOIN pragma_table_info(tables.name) AS columns"
        " WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%' AND tables.name <> ?"
        " ORDER BY tables.rowid",
        (OWN,),
    )
    found: dict[str, dict[str, str]] = {}
    for table, name, kind in rows:
        found.setdefault(table, {})[name] = kind
    return found


def _revision(line: bytes) -> int | None:
    head, _, number = (_unsealed(line) or "").partition("\trevision=")
    return int(number) if head == HEADER and number.isdecimal() else None


def _sealed(body: str) -> bytes:
    content = body.encode(*TEXT)
    return b"%08x\t%s\n" % (zlib.crc32(content), content)


def _unsealed(line: bytes) -> str | None:
    checksum, _, content = line.partition(b"\t")
    return content.decode(*TEXT) if checksum == b"%08x" % zlib.crc32(content) else None


def _escape(value: object) -> str:
    text = value.decode(*TEXT) if isinstance(value, bytes) else str(value)
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _unescape(text: str) -> str:
    parts = text.split("\\\\")
    return "\\".join(part.replace("\\t", "\t").replace("\\n", "\n") for part in parts)
