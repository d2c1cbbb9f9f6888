"""Send and receive as one session."""

from __future__ import annotations

import os
import time
from contextlib import closing
from typing import TYPE_CHECKING

from isoenv import liveness, process
from isoenv.coordination import addresses, place, reaping, registering
from isoenv.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from isoenv.coordination.records import Message, Record
    from isoenv.coordination.store import Store

# The longest message, in bytes of UTF-8.
LIMIT = 1 << 20
# More messages than there are.
ALL = 1 << 62
# Seconds after which a reader that cannot be seen is taken for dead.
PATIENCE = 600.0
# While others have taken messages and not acknowledged them, how often to see whether they live.
INTERVAL = 1.0


class Mailbox:
    """The messages of one session, as one reader of perhaps several."""

    def __init__(self, store: Store, record: Record) -> None:
        """Open it; nothing is taken yet."""
        self._store = store
        self._record = record
        self._addresses = addresses.all_of(record)
        self._reader: str | None = None
        self._pid = 0

    def send(self, to: str, text: str, ttl: float) -> int:
        """Send, and return how many sessions it reaches now."""
        body = text.encode("utf-8", "surrogatepass")
        if len(body) > LIMIT:
            raise UsageError(
                f"the message has {len(body)} bytes, {LIMIT} are the most: "
                "send the path of a file, such as `isoenv session path FILE` prints"
            )
        if not 0 < ttl < float("inf"):
            raise UsageError(f"a time to live of {ttl:g} s is none: `--ttl 3600` is an hour")
        return self._store.send(self._record, self._address(to), body, ttl)

    def _address(self, to: str) -> bytes:
        if registering.is_id(to):
            return addresses.of_session(registering.named(self._store, to).id)
        if to == addresses.EVERYONE:
            reaping.reap(self._store)
            return addresses.TO_EVERYONE
        if ":" in to or to.isdecimal() or to == ".":
            meant = place.instance(to, self._record.place, self._store.state)
            # A message to the dead would be lost; with none alive it waits for the next.
            reaping.reap(self._store)
            return addresses.of_instance(meant.project.key, meant.slot or 0)
        registering.check_name(to)
        return addresses.of_name(to)

    def receive(self, wait: float | None, limit: int | None) -> list[Message]:
        """Acknowledge what was taken before, and take what is there; wait for it if asked to."""
        self.acknowledge()
        most = ALL if limit is None else limit
        found = self._take(most)
        if found or not wait or wait <= 0:
            return found
        deadline = time.monotonic() + wait
        with closing(self._store.waiter(self._record.id)) as waiter:
            while not (found := self._take(most)):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                if self._others():
                    left = min(left, INTERVAL)
                if waiter.wait(None if left == float("inf") else left):
                    self._require()
        return found

    def _require(self) -> None:
        if self._store.find(self._record.id) is None and not self._store.peek(self._addresses):
            raise NotFoundError(f"session {self._record.title} has ended meanwhile")

    def _take(self, limit: int) -> list[Message]:
        gone = [reader for reader, taken_at in self._others().items() if _is_gone(reader, taken_at)]
        if gone:
            self._store.give_back(gone)
        return self._store.take(self._addresses, self._own(), limit)

    def _others(self) -> dict[str, float]:
        """Return the other readers that have taken something and not acknowledged it."""
        found = dict(self._store.readers(self._addresses))
        found.pop(self._own(), None)
        return found

    def _own(self) -> str:
        """Return who reads: this process, told from a parent that has forked."""
        if self._reader is None or self._pid != os.getpid():
            self._pid = os.getpid()
            it = process.myself()
            fields = (it.pid, it.start, it.inode, it.boot, it.namespace, os.urandom(4).hex())
            self._reader = " ".join(map(str, (*fields, it.host)))
        return self._reader

    def peek(self) -> list[Message]:
        """Return the messages that nobody has taken."""
        return self._store.peek(self._addresses)

    def acknowledge(self) -> None:
        """Delete what was taken."""
        if self._reader is not None and self._pid == os.getpid():
            self._store.acknowledge(self._reader)

    def give_back(self) -> None:
        """Let others take what was taken."""
        if self._reader is not None and self._pid == os.getpid():
            self._store.give_back([self._reader])


def _is_gone(reader: str, taken_at: float) -> bool:
    pid, start, inode, boot, namespace, _, host = reader.split(" ", 6)
    dead = liveness.is_dead(int(pid), int(start), int(inode), boot, int(namespace), host)
    return time.time() - taken_at > PATIENCE if dead is None else dead
