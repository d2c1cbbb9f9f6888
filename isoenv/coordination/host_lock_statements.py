"""What a lock of all hosts asks the PostgreSQL server, and what its parts are called there."""

from __future__ import annotations

from hashlib import sha256

_ADVISORY = """
locktype = 'advisory' AND objsubid = 1
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_KEY = "(classid::bigint << 32 | objid::bigint)"

# $1 path, $2 mode, $3 the key that proves it, $4 the record.
NOTE = """
INSERT INTO lock_record (backend, path, mode, proof, asked_at, about)
VALUES (pg_backend_pid(), $1, $2, $3::bigint, extract(epoch FROM clock_timestamp()), $4)
ON CONFLICT (backend) DO UPDATE SET path = excluded.path, mode = excluded.mode,
  proof = excluded.proof, asked_at = excluded.asked_at, about = excluded.about
"""
# $5 name, $6 project, $7 whether it counts, $8 whether as one that has the lock alone. What a
# session has across commands it has counted itself.
_COUNT = """
INSERT INTO lock AS old (path, name, project, turn, token)
SELECT $1, $5::bytea, $6::bytea, $7::int, $8::int FROM taken WHERE had
ON CONFLICT (path) DO UPDATE SET
  turn = old.turn + CASE WHEN old.session_id IS NULL THEN $7::int ELSE 0 END,
  token = CASE WHEN old.session_id IS NULL AND $8::int = 1 THEN old.turn + 1 ELSE old.token END
RETURNING turn, token, session_id
"""
WAIT = "SELECT set_config('lock_timeout', $1, false), pg_advisory_lock{}($2::bigint)"
KNOWN = "SELECT coalesce(array_length(slots, 1), 0) FROM lock WHERE path = $1"
HELD = f"SELECT {_KEY} FROM pg_locks WHERE {_ADVISORY} AND granted"  # noqa: S608  # of constants
# $1 path, $2 slot, $3 its key.
SIT = """
WITH noted AS (UPDATE lock_record SET proof = $3::bigint WHERE backend = pg_backend_pid())
UPDATE lock SET turn = turn + 1, slots[$2::int + 1] = turn + 1 WHERE path = $1
RETURNING turn, token
"""
COUNTED = "SELECT turn, token, slots[$2::int + 1] FROM lock WHERE path = $1"
_BACKEND = "pid = $2::int AND backend_start = $3::timestamptz"
# $1 key, $2 and $3 a connection: whether it has the key, and whether others wait for that.
WHO = f"""
SELECT bool_or(granted AND {_BACKEND}), bool_or(NOT granted)
FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE {_ADVISORY} AND {_KEY} = $1::bigint
"""  # noqa: S608  # of constants
# $1 and $2 a connection.
_THERE = "FROM pg_stat_activity WHERE pid = $1::int AND backend_start = $2::timestamptz"
IS_THERE = f"SELECT 1 {_THERE}"
END = f"SELECT pg_terminate_backend(pid) {_THERE}"


def take(attempt: str) -> str:
    """Return what takes a key by an expression, and counts and records that if it is had."""
    return f"""
WITH taken AS MATERIALIZED (SELECT set_config('lock_timeout', '0', false), {attempt} AS had),
noted AS ({NOTE}), counted AS ({_COUNT})
SELECT had, turn, token, session_id FROM taken LEFT JOIN counted ON true
"""  # noqa: S608  # of constants and of the caller's


def key(path: str, part: str) -> int:
    """Return the number that the server knows a part of a lock by."""
    digest = sha256(f"isoenv {part} {path}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def binary(text: str) -> str:
    """Return any text as PostgreSQL writes bytes."""
    return "\\x" + text.encode("utf-8", "surrogateescape").hex()
