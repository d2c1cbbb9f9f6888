"""A lock of all hosts that share a PostgreSQL store, held by a connection of its own.

It stands above the lock of this host's kernel with its name, which has been taken before: so of
each host one process at most waits here for an exclusive lock, in the server's queue. It has

- the key ``lock``, held alone or shared by each holder;
- with slots the keys ``slot-N``, one for each holder, and ``slots`` for the one that counts them.
  The holders share ``lock``, so that an exclusive one keeps all of them out. Who gives a slot
  back wakes the one that counts; that looks again for those of killed holders;
- ``turn``, for who is next when a session that holds the lock across commands lets go.

How often the lock was had is counted in a row. A connection that was lost proves nothing: who has
the lock again, and finds the count as it was, has had it all the time.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from isoenv.coordination import host_lock_statements as statements
from isoenv.coordination import lock_files
from isoenv.coordination.store.postgres_line import RefusedError
from isoenv.coordination.store.postgres_locks import channel

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.coordination.sticky import HostObstacle
    from isoenv.coordination.store.postgres_line import Line, Row

# Seconds that is waited at least for what somebody has for a moment, on the way to another thing.
GRACE = 0.1
# Seconds after which who waits for a slot looks again for one whose holder was killed.
AGAIN = 1.0
# Seconds in which a connection of the server's ends that was told to.
ENDING = 2.0
LOCK, SLOTS, SLOT, TURN = "lock", "slots", "slot-", "turn"
NOT_AVAILABLE = "55P03"


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for, with ``mode``, ``slots`` and ``deadline`` as for the kernel's lock.

    ``record`` says for people who asks. ``is_counted`` is False for who only writes down that a
    session has the lock, which counts by itself. ``obstacle`` returns what keeps this process from
    a lock that it has: a session that holds it across commands.
    """

    path: str
    name: str
    project: str | None
    mode: str
    slots: int
    deadline: float | None
    record: str
    is_counted: bool
    obstacle: Callable[[], HostObstacle | None]


class TimeUpError(Exception):
    """The lock was not free in time."""


class Fate(Enum):
    """What has become of a lock whose connection was lost."""

    KEPT = "held by the new connection, and by nobody else in between"
    STILL = "held by the old connection, as the server says"
    GONE = "held by another, or it was in between"


class Hold:
    """A lock by its connection. ``token`` grows with each that has the lock alone.

    ``is_lost`` says that somebody else may have had it since.
    """

    def __init__(self, line: Line, request: Request) -> None:
        """Prepare; ``take`` waits for it."""
        self.line = line
        self.request = request
        self.token = 0
        self.is_lost = False
        self._turn = 0
        self._slot: int | None = None
        self._key = statements.key(request.path, LOCK)
        self._kind = "" if request.mode == lock_files.EXCLUSIVE else "_shared"

    def take(self) -> None:
        """Wait for the lock in turn.

        Raises TimeUpError, and what the connection does. Whoever fails closes that.
        """
        if obstacle := self._enter():
            self._outlast(obstacle)
        if self.request.mode == lock_files.SLOTTED:
            self._sit_down()

    def release(self) -> None:
        """Let go, and keep the connection."""
        if self._slot is None:
            self.line.ask("SELECT pg_advisory_unlock_all()")
        else:
            name = channel(self.request.path)
            self.line.ask("SELECT pg_advisory_unlock_all(), pg_notify($1, '')", name)

    def regain(self, line: Line, *, by_force: bool) -> Fate:
        """Have the lock by another connection, at once, unless somebody else had it in between.

        Where the old connection has it still it stays so, and ``by_force`` it is ended first:
        unless somebody waits, who would be faster.
        """
        pid, since = self.line.identity
        ((is_old, is_awaited),) = line.ask(statements.WHO, self._proof, pid, since)
        if is_old == "t":
            if not by_force:
                return Fate.STILL
            if is_awaited == "t":
                return Fate.GONE
            line.ask(statements.END, pid, since)
            _wait_for_end(line, pid, since)
        if not (self._has(line, self._key, self._kind) and self._has_slot(line)):
            return Fate.GONE
        rows = line.ask(statements.COUNTED, self.request.path, self._slot or 0)
        if not rows or self._was_had(rows[0]):
            line.ask("SELECT pg_advisory_unlock_all()")
            return Fate.GONE
        self._note(line)
        self.line = line
        return Fate.KEPT

    @property
    def _proof(self) -> int:
        """The key that nobody has but a holder."""
        if self.request.mode != lock_files.SLOTTED:
            return self._key
        return 0 if self._slot is None else self._slot_key(self._slot)

    # -- the way in ------------------------------------------------------------------------------

    def _enter(self) -> HostObstacle | None:
        """Take the key ``lock``, and let it go again where a session keeps this process out."""
        row = self._count(f"pg_try_advisory_lock{self._kind}({self._key})")
        if row[0] != "t":
            self._lock(self._key, self._kind)
            row = self._count("true")
        if row[3] is not None:
            if obstacle := self.request.obstacle():
                self._unlock(self._key, self._kind)
                return obstacle
            row = self._count("true")
        _, turn, token, _ = row
        self._turn, self.token = int(turn or 0), int(token or 0)
        return None

    def _count(self, attempt: str) -> Row:
        """Attempt to take the key, and count it as had; return whether, turn, token and session."""
        it = self.request
        is_alone = it.is_counted and it.mode == lock_files.EXCLUSIVE
        # Who is to have a slot is counted when it has that.
        is_counted = it.is_counted and it.mode != lock_files.SLOTTED
        ((*row,),) = self.line.ask(
            statements.take(attempt),
            *(it.path, it.mode, self._proof, it.record),
            *(statements.binary(it.name), it.project and statements.binary(it.project)),
            *(int(is_counted), int(is_alone)),
        )
        return (*row,)

    def _outlast(self, obstacle: HostObstacle) -> None:
        """Wait, in turn, until no session keeps this process out."""
        turn = statements.key(self.request.path, TURN)
        self._lock(turn)
        self.line.ask(f'LISTEN "{channel(self.request.path)}"')
        while True:
            try:
                while obstacle.is_there():
                    if self._left() == 0:
                        raise TimeUpError
                    obstacle.wait(self.line, self._left())
            finally:
                obstacle.close()
            again = self._enter()
            if again is None:
                break
            obstacle = again
        self.line.ask("UNLISTEN *")
        self._unlock(turn)

    def _sit_down(self) -> None:
        """Take a slot once fewer than the caller's number are held, whoever counted otherwise."""
        counting = statements.key(self.request.path, SLOTS)
        self._lock(counting)
        slot, is_listening = self._free_slot(), False
        while slot is None:
            left = self._left()
            if left == 0:
                raise TimeUpError
            if is_listening:
                self.line.hear(AGAIN if left is None else min(AGAIN, left))
            else:
                self.line.ask(f'LISTEN "{channel(self.request.path)}"')
                is_listening = True
            slot = self._free_slot()
        self._slot = slot
        ((turn, token),) = self.line.ask(statements.SIT, self.request.path, slot, self._proof)
        self._turn, self.token = int(turn or 0), int(token or 0)
        if is_listening:
            self.line.ask("UNLISTEN *")
        self._unlock(counting)

    def _free_slot(self) -> int | None:
        ((known,),) = self.line.ask(statements.KNOWN, self.request.path)
        slots = range(max(int(known or 0), self.request.slots))
        found = {int(key or 0) for (key,) in self.line.ask(statements.HELD)}
        free = [slot for slot in slots if self._slot_key(slot) not in found]
        if len(slots) - len(free) >= self.request.slots:
            return None
        # One that has lost its connection may just have it again.
        return next((slot for slot in free if self._has(self.line, self._slot_key(slot))), None)

    # -- keys ------------------------------------------------------------------------------------

    def _slot_key(self, slot: int) -> int:
        return statements.key(self.request.path, f"{SLOT}{slot}")

    def _lock(self, key: int, kind: str = "") -> None:
        left = self._left()
        limit = None if left is None else max(left, GRACE)
        milliseconds = 0 if limit is None else int(limit * 1000)
        patience = None if limit is None else limit + self.line.patience
        try:
            self.line.ask_within(patience, statements.WAIT.format(kind), milliseconds, key)
        except RefusedError as error:
            if error.sqlstate == NOT_AVAILABLE:
                raise TimeUpError from None
            raise

    def _unlock(self, key: int, kind: str = "") -> None:
        self.line.ask(f"SELECT pg_advisory_unlock{kind}($1::bigint)", key)

    def _left(self) -> float | None:
        deadline = self.request.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    # -- having it again ---------------------------------------------------------------------------

    def _has_slot(self, line: Line) -> bool:
        return self._slot is None or self._has(line, self._slot_key(self._slot))

    @staticmethod
    def _has(line: Line, key: int, kind: str = "") -> bool:
        return line.ask(f"SELECT pg_try_advisory_lock{kind}($1::bigint)", key) == [("t",)]

    def _was_had(self, row: Row) -> bool:
        """Whether somebody had the lock since, who could not have had it beside this holder."""
        turn, token, slot = (int(value or 0) for value in row)
        if self.request.mode == lock_files.EXCLUSIVE:
            return turn != self._turn
        # Others beside this one come and go.
        return token > self._turn or (self._slot is not None and slot != self._turn)

    def _note(self, line: Line) -> None:
        it = self.request
        line.ask(statements.NOTE, it.path, it.mode, self._proof, it.record)


def _wait_for_end(line: Line, pid: int, since: str) -> None:
    """Wait until a connection has ended that the server was told to end."""
    deadline = time.monotonic() + ENDING
    while line.ask(statements.IS_THERE, pid, since) and time.monotonic() < deadline:
        time.sleep(0.01)
