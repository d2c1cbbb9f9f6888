"""The tables of the coordination database. A change of them is a new version."""

from __future__ import annotations

VERSION = 1

# What belongs to a session is deleted with it by hand, for cascades would take three times as
# long, and sessions have few indexes: each makes a clean-up dearer than the scans it saves.
TABLES = """
-- A live process that has registered itself. The first six columns after the state say which
-- process (isoenv.process.Identity); `beat` is CLOCK_MONOTONIC in ns, comparable within one boot.
CREATE TABLE session (
  id TEXT PRIMARY KEY,
  name TEXT UNIQUE,
  state TEXT NOT NULL,
  pid INTEGER NOT NULL,
  start INTEGER NOT NULL,
  inode INTEGER NOT NULL,
  boot TEXT NOT NULL,
  namespace INTEGER NOT NULL,
  host TEXT NOT NULL,
  project_key BLOB, -- NULL with the next three: in no instance
  project TEXT,
  slot INTEGER, -- NULL alone: in a project that has given it no slot
  instance TEXT,
  labels TEXT NOT NULL, -- a JSON object
  started_at REAL NOT NULL,
  beat INTEGER NOT NULL,
  beaten_at REAL NOT NULL,
  checked INTEGER NOT NULL -- when its process was last looked at: only the order counts
) WITHOUT ROWID;
CREATE INDEX session_checked ON session (checked);
CREATE TABLE metric (
  name TEXT NOT NULL,
  session_id TEXT NOT NULL,
  value REAL NOT NULL,
  PRIMARY KEY (name, session_id)
) WITHOUT ROWID;
CREATE INDEX metric_session ON metric (session_id);
CREATE TABLE agent (
  session_id TEXT NOT NULL,
  agent_id TEXT NOT NULL,
  type TEXT NOT NULL,
  started_at REAL NOT NULL,
  PRIMARY KEY (session_id, agent_id)
) WITHOUT ROWID;
CREATE TABLE message (
  id INTEGER PRIMARY KEY,
  sender TEXT NOT NULL, -- its name, or its id where it has none
  sender_id TEXT NOT NULL,
  body BLOB NOT NULL, -- UTF-8, lone surrogates included
  sent_at REAL NOT NULL,
  expires_at REAL NOT NULL
);
CREATE INDEX message_expires ON message (expires_at);
-- One for each that is to get the message, in the order they were sent: an id is never used
-- twice. `reader` has taken it and not acknowledged it yet.
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  message_id INTEGER NOT NULL,
  address BLOB NOT NULL,
  reader TEXT,
  taken_at REAL
);
CREATE INDEX delivery_address ON delivery (address, id);
CREATE INDEX delivery_reader ON delivery (reader) WHERE reader IS NOT NULL;
CREATE INDEX delivery_message ON delivery (message_id);
CREATE TRIGGER delivered AFTER DELETE ON delivery BEGIN
  DELETE FROM message WHERE id = old.message_id
    AND NOT EXISTS (SELECT 1 FROM delivery WHERE message_id = old.message_id);
END;
-- A lock that a session holds across commands. The row stays when it is free, for `token` never
-- goes back. `boot` and `expires`, in ns of CLOCK_MONOTONIC, say when its time is over.
CREATE TABLE lock (
  path TEXT PRIMARY KEY, -- of its files, below the directory of all locks
  name BLOB NOT NULL,
  project BLOB,
  token INTEGER NOT NULL,
  session_id TEXT REFERENCES session ON DELETE SET NULL,
  since REAL NOT NULL,
  boot TEXT NOT NULL,
  expires INTEGER -- NULL: with its session
) WITHOUT ROWID;
CREATE INDEX lock_session ON lock (session_id);
-- Who waits for messages right now: a byte into the pipe wakes it.
CREATE TABLE waiter (
  pipe BLOB PRIMARY KEY,
  session_id TEXT NOT NULL
) WITHOUT ROWID;
"""
