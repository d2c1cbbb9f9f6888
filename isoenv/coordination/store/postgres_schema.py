"""The tables of the coordination database in PostgreSQL. A change of them is a new version."""

from __future__ import annotations

VERSION = 1
SCHEMA = "isoenv"

# Times are in seconds since the epoch by the server's clock, for those of hosts differ. Texts that
# are compared or sorted are so byte by byte, whatever the database's language.
TABLES = """
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
-- Locks are those of one machine's kernel, and so is what sessions hold of them.
CREATE TABLE lock (
  host TEXT NOT NULL,
  path TEXT NOT NULL,
  name BYTEA NOT NULL,
  project BYTEA,
  token BIGINT NOT NULL,
  session_id TEXT COLLATE "C" REFERENCES session ON DELETE SET NULL,
  since DOUBLE PRECISION NOT NULL,
  boot TEXT NOT NULL,
  expires BIGINT, -- in ns of CLOCK_MONOTONIC of that boot
  PRIMARY KEY (host, path)
);
CREATE INDEX lock_session ON lock (session_id);
CREATE TABLE version (version INTEGER NOT NULL);
"""
