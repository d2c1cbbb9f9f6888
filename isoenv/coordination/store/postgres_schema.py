"""The tables of the coordination database in PostgreSQL. A change of them is a new version."""

from __future__ import annotations

VERSION = 2
SCHEMA = "isoenv"

# Times are in seconds since the epoch by the server's clock, for those of hosts differ. Texts that
# are compared or sorted are so byte by byte, whatever the database's language.

# What version 2 has brought: locks of all hosts.
LOCKS = """
-- A lock of all hosts: its row stays when it is free, for `turn` and `token` never go back. `path`
-- is the project and the name; `turn` is raised by each that takes the lock, of any kind; `token`
-- is the turn of the last one that has had it alone, `slots` are those of the last on each slot.
CREATE TABLE lock (
  path TEXT COLLATE "C" PRIMARY KEY,
  name BYTEA NOT NULL,
  project BYTEA,
  turn BIGINT NOT NULL,
  token BIGINT NOT NULL,
  slots BIGINT[] NOT NULL DEFAULT '{}',
  -- The session that holds it across commands, since when and until when.
  session_id TEXT COLLATE "C" REFERENCES session ON DELETE SET NULL,
  since DOUBLE PRECISION,
  expires DOUBLE PRECISION
);
CREATE INDEX lock_session ON lock (session_id);
-- Who holds a lock or waits for one, for people: what pg_locks says of the backend and of the key
-- `proof` is the truth. Locks do not survive a crash of the server, and no more need these rows.
CREATE UNLOGGED TABLE lock_record (
  backend INTEGER PRIMARY KEY,
  path TEXT COLLATE "C" NOT NULL,
  mode TEXT NOT NULL,
  proof BIGINT NOT NULL,
  asked_at DOUBLE PRECISION NOT NULL,
  about TEXT NOT NULL
);
"""
TABLES = f"""
CREATE SCHEMA IF NOT EXISTS isoenv;
CREATE SEQUENCE checked;
CREATE TABLE session (
  id TEXT COLLATE "C" PRIMARY KEY,
  name TEXT COLLATE "C" UNIQUE,
  state TEXT NOT NULL,
  pid BIGINT NOT NULL,
  start BIGINT NOT NULL,
  inode BIGINT NOT NULL,
  boot TEXT NOT NULL,
  namespace BIGINT NOT NULL,
  host TEXT NOT NULL,
  project_key BYTEA,
  project TEXT,
  slot BIGINT,
  instance TEXT,
  labels TEXT NOT NULL,
  started_at DOUBLE PRECISION NOT NULL,
  beat BIGINT NOT NULL,
  beaten_at DOUBLE PRECISION NOT NULL,
  checked BIGINT NOT NULL DEFAULT nextval('checked')
);
CREATE INDEX session_checked ON session (checked);
CREATE INDEX session_process ON session (pid, start);
CREATE TABLE metric (
  name TEXT COLLATE "C" NOT NULL,
  session_id TEXT COLLATE "C" NOT NULL REFERENCES session ON DELETE CASCADE,
  value DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (name, session_id)
);
CREATE INDEX metric_session ON metric (session_id);
CREATE TABLE agent (
  session_id TEXT COLLATE "C" NOT NULL REFERENCES session ON DELETE CASCADE,
  agent_id TEXT COLLATE "C" NOT NULL,
  type TEXT NOT NULL,
  started_at DOUBLE PRECISION NOT NULL,
  PRIMARY KEY (session_id, agent_id)
);
CREATE TABLE message (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  sender TEXT NOT NULL,
  sender_id TEXT NOT NULL,
  body BYTEA NOT NULL,
  sent_at DOUBLE PRECISION NOT NULL,
  expires_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX message_expires ON message (expires_at);
CREATE TABLE delivery (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  message_id BIGINT NOT NULL REFERENCES message ON DELETE CASCADE,
  address BYTEA NOT NULL,
  reader TEXT,
  taken_at DOUBLE PRECISION
);
CREATE INDEX delivery_address ON delivery (address, id);
CREATE INDEX delivery_reader ON delivery (reader) WHERE reader IS NOT NULL;
CREATE INDEX delivery_message ON delivery (message_id);
{LOCKS}
CREATE TABLE version (version INTEGER NOT NULL);
"""
