"""What the seed describes: a few files for each instance, written beside and renamed."""

from __future__ import annotations

import json
import os
import time
import uuid
from pathlib import Path


class SeedFiles:
    """Instances as files in one directory: a lock, a counter, metrics and a state for each."""

    def __init__(self, directory: str) -> None:
        """Use a directory."""
        self.directory = Path(directory)
        (self.directory / "instances").mkdir(parents=True, exist_ok=True)

    @staticmethod
    def new_id() -> str:
        """Return an id of the seed's form."""
        return f"{time.strftime('%Y%m%d_%H%M%S')}_{os.getpid()}_{uuid.uuid4().hex[:8]}"

    def register(self, instance: str, beat: float | None = None) -> None:
        """Write the lock file of an instance."""
        content = {"instance_id": instance, "pid": os.getpid(), "heartbeat": beat or time.time()}
        self._write(self._lock(instance), json.dumps(content))

    def update(self, instance: str, agents: int) -> None:
        """Count agents as the seed does: the counter, and the metrics and the state after it."""
        counter, metrics, state = self._files(instance)
        self._write(counter, str(agents))
        self._write(metrics, json.dumps({"agents": agents, "timestamp": time.time()}))
        self._write(state, json.dumps({"state": "ACTIVE", "agents": agents}))

    def count(self, instance: str) -> int:
        """Return the agents of one instance."""
        return int(self._files(instance)[0].read_text())

    def total(self) -> int:
        """Return the agents of all instances."""
        total = 0
        for lock in (self.directory / "instances").glob("instance_*.lock"):
            instance = json.loads(lock.read_text())["instance_id"]
            total += json.loads(self._files(instance)[1].read_text())["agents"]
        return total

    def clean_up(self, max_age: float = 3600) -> int:
        """Remove the instances whose heartbeat is old; return how many these were."""
        removed = 0
        for lock in (self.directory / "instances").glob("instance_*.lock"):
            content = json.loads(lock.read_text())
            if time.time() - content["heartbeat"] > max_age:
                for file in (*self._files(content["instance_id"]), lock):
                    file.unlink(missing_ok=True)
                removed += 1
        return removed

    def _lock(self, instance: str) -> Path:
        return self.directory / "instances" / f"instance_{instance}.lock"

    def _files(self, instance: str) -> tuple[Path, Path, Path]:
        return (
            self.directory / f"agent_usage_counter_{instance}.txt",
            self.directory / f"realtime_metrics_{instance}.json",
            self.directory / f"statusline_state_{instance}.json",
        )

    @staticmethod
    def _write(file: Path, content: str) -> None:
        beside = file.with_name(f"{file.name}.{os.getpid()}.tmp")
        beside.write_text(content)
        beside.rename(file)
