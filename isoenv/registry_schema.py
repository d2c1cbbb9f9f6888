"""The tables of the registry. A change of them is a new version."""

from __future__ import annotations

VERSION = 2

_VERSION_2 = """
-- One row. `revision` counts the transactions that have changed something: a registry with fewer
-- than its mirror has lost some. `maker` is the isoenv that made these tables or changed them
-- last, so that an older one can say which version it takes to read them.
CREATE TABLE registry (
  revision INTEGER NOT NULL,
  maker TEXT NOT NULL
);
-- Slots that were given back, and by whom. The clock can be set, so the time since this boot is
-- kept beside the time of day.
CREATE TABLE rest (
  project_id INTEGER NOT NULL REFERENCES project,
  slot INTEGER NOT NULL,
  token TEXT,
  time REAL NOT NULL,
  boot TEXT NOT NULL,
  uptime REAL NOT NULL,
  PRIMARY KEY (project_id, slot)
) WITHOUT ROWID;
-- Directories of instances: of those that hold a slot what isoenv has made outside the state
-- directory, of those that were pruned all that is left.
CREATE TABLE directory (
  project_id INTEGER NOT NULL REFERENCES project,
  slot INTEGER NOT NULL,
  path BLOB NOT NULL,
  PRIMARY KEY (project_id, slot, path)
) WITHOUT ROWID;
"""

TABLES = f"""
CREATE TABLE project (
  id INTEGER PRIMARY KEY,
  key BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL
);
-- An id is never used twice: who gives back what somebody else has given back meanwhile must not
-- hit the lease that came after it.
CREATE TABLE lease (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  project_id INTEGER NOT NULL REFERENCES project,
  slot INTEGER NOT NULL,
  name TEXT NOT NULL,
  token TEXT,
  root BLOB,
  git_dir BLOB,
  device TEXT, -- as text, because the kernel's are unsigned and SQLite's integers are not
  inode TEXT,
  created_at REAL NOT NULL,
  UNIQUE (project_id, slot),
  UNIQUE (project_id, name)
);
CREATE UNIQUE INDEX lease_token ON lease (token, project_id) WHERE token IS NOT NULL;
-- `shared`: somebody else has it too, and neither can be moved (slot 0, a number asked for).
CREATE TABLE reservation (
  lease_id INTEGER NOT NULL REFERENCES lease ON DELETE CASCADE,
  name TEXT NOT NULL,
  port INTEGER NOT NULL,
  shared INTEGER NOT NULL,
  PRIMARY KEY (lease_id, name)
) WITHOUT ROWID;
CREATE UNIQUE INDEX reservation_port ON reservation (port) WHERE NOT shared;
CREATE INDEX reservation_every_port ON reservation (port);
CREATE TABLE block (
  lease_id INTEGER NOT NULL REFERENCES lease ON DELETE CASCADE,
  number INTEGER NOT NULL,
  start INTEGER NOT NULL UNIQUE,
  PRIMARY KEY (lease_id, number)
) WITHOUT ROWID;
-- Where in an instance's blocks a service has its port. Only ever added to, so that a service
-- added later moves no other.
CREATE TABLE position (
  project_id INTEGER NOT NULL REFERENCES project,
  name TEXT NOT NULL,
  position INTEGER NOT NULL,
  PRIMARY KEY (project_id, name),
  UNIQUE (project_id, position)
) WITHOUT ROWID;
CREATE TABLE flag (
  lease_id INTEGER NOT NULL REFERENCES lease ON DELETE CASCADE,
  name TEXT NOT NULL,
  value INTEGER NOT NULL,
  PRIMARY KEY (lease_id, name)
) WITHOUT ROWID;
{_VERSION_2}
"""

# What leads from each version to the next one.
MIGRATIONS = {1: _VERSION_2}
# A database without one of these is no registry, whatever version it says it is.
FIRST_TABLES = {"project", "lease", "reservation", "block", "position", "flag"}
