"""Watch over the lock of all hosts that a command has inherited, beside it.

The command and what it has started keep the connection open, and so the server gives them the
lock exactly as long as they live. But none of them would notice that the server has closed it.
A process of its own does: it asks the server at intervals, has a lost lock again where nobody had
it in between, and ends the command where that cannot be. It ends with the last that has the lock.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from isoenv import process
from isoenv.coordination import host_lines, lock_ending, lock_record
from isoenv.coordination.host_lock import Fate
from isoenv.coordination.store.postgres_line import (
    Line,
    LostError,
    RefusedError,
    SilentError,
    StoppedError,
)
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable

    from isoenv.coordination.host_lock import Hold

# Seconds between two questions to the server. With the time for an answer, the one for having the
# lock again and the one for ending the command it has to be less than what the server waits for.
INTERVAL = 5.0
# How long an old connection that is silent is waited for between two attempts at a new one.
LISTENING = 1.0
# What one of those attempts may take.
ATTEMPT = 3.0
# What ends a terminal's or a service's processes is not meant for the one that watches.
IGNORED = (
    *(signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE),
    *(signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGUSR1, signal.SIGUSR2),
)
SHOWN = 80


class Watch:
    """The watching process, as the one sees it that has the lock and will become the command.

    ``lifeline`` is to be inherited by the command: its last copy is the end of the watching.
    """

    def __init__(self, lifeline: int, told: int) -> None:
        """Take the ends of two pipes: open while the lock is had, and while it is watched."""
        self.lifeline = lifeline
        self._told = told

    def stop(self) -> None:
        """Let the lock go, for there is no command; return when that is done."""
        os.close(self.lifeline)
        while os.read(self._told, 1):
            pass
        os.close(self._told)


def start(hold: Hold, command: str, say: Callable[[str], object]) -> Watch:
    """Watch over a lock from now on, in a process that goes on with its connection.

    ``say`` writes a line to standard error. Raises IsoenvError where there can be no process.
    """
    leader = process.myself()
    stop, lifeline = os.pipe()
    told, tell = os.pipe()
    hold.line.detach()
    try:
        child = os.fork()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IsoenvError(f"cannot watch the lock {hold.request.name}: {reason}") from None
    if child == 0:
        # Twice, for a child that it does not know of could be waited for by the command.
        with suppress(OSError):
            if os.fork() == 0:
                _Watcher(hold, command, say, leader, stop, tell).run()
        os._exit(0)
    os.waitpid(child, 0)
    os.close(stop)
    os.close(tell)
    if not os.read(told, 1):
        raise IsoenvError(f"cannot watch the lock {hold.request.name}: its process has ended")
    return Watch(lifeline, told)


class _Watcher:
    def __init__(  # noqa: PLR0913, PLR0917  # what it goes on with
        self,
        hold: Hold,
        command: str,
        say: Callable[[str], object],
        leader: process.Identity,
        stop: int,
        tell: int,
    ) -> None:
        self._hold = hold
        self._command = command
        self._say = say
        self._leader = leader
        self._stop = stop
        self._tell = tell
        # Until when a line about a lost lock has its reader: no pipe is kept open for longer.
        self._ends = [os.pidfd_open(leader.pid)] if hasattr(os, "pidfd_open") else []

    def run(self) -> NoReturn:
        """Watch until nobody has the lock any more."""
        try:
            self._settle_down()
            self._watch()
        except (StoppedError, KeyboardInterrupt):
            os._exit(0)
        except BaseException:  # noqa: BLE001  # a copy of the process must end here
            os._exit(1)
        os._exit(0)

    def _settle_down(self) -> None:
        """Keep nothing of what this process was started with but what it needs."""
        os.setsid()
        for number in IGNORED:
            signal.signal(number, signal.SIG_IGN)
        os.chdir("/")
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        kept = {0, 1, 2, self._hold.line.connection.fileno(), self._stop, self._tell, *self._ends}
        for low, high in _gaps(sorted(kept)):
            os.closerange(low, high)
        self._hold.line.stop = self._stop
        os.write(self._tell, b".")

    def _watch(self) -> None:
        while True:
            is_dead, reason = False, ""
            try:
                self._hold.line.hear(INTERVAL, *self._ends)
                self._hold.line.ask("SELECT 1")
                self._leave_stderr()
                continue
            except LostError as error:
                is_dead, reason = True, str(error)
            except (SilentError, RefusedError) as error:
                reason = str(error)
            if not self._is_had_again(is_dead=is_dead):
                self._end(reason)
                return

    def _leave_stderr(self) -> None:
        """Close it once the command has ended, whose it was: what that has left may live on."""
        for descriptor in self._ends:
            if _is_readable(descriptor, 0):
                self._ends.clear()
                os.close(descriptor)
                os.dup2(0, 2)

    def _is_had_again(self, *, is_dead: bool) -> bool:
        """Whether the lock is held after all, by the old connection or by a new one."""
        old = self._hold.line
        deadline = time.monotonic() + host_lines.RECOVERY
        while (left := deadline - time.monotonic()) > 0:
            try:
                if not is_dead and self._answers(old):
                    return True
            except LostError:
                is_dead = True
            # As long as there is time the old connection may come back, which the command has too.
            fate = self._moved(left, by_force=is_dead or left < host_lines.RECOVERY / 3)
            if fate is Fate.KEPT:
                old.abandon()
                return True
            if fate is Fate.GONE:
                return False
        return False

    @staticmethod
    def _answers(line: Line) -> bool:
        try:
            line.answer(LISTENING)
        except (SilentError, RefusedError):
            return False
        return True

    def _moved(self, left: float, *, by_force: bool) -> Fate | None:
        """Try to have the lock by a new connection; None where the server cannot be asked."""
        old, line = self._hold.line, None
        try:
            line = Line(old.address, min(left, ATTEMPT), old.place, self._stop)
            fate = self._hold.regain(line, by_force=by_force)
        except (LostError, SilentError, RefusedError, IsoenvError):
            fate = None
            self._pause()
        if line is not None and fate is not Fate.KEPT:
            line.close()
        return fate

    def _pause(self) -> None:
        if _is_readable(self._stop, host_lines.PAUSE):
            raise StoppedError

    def _end(self, reason: str) -> None:
        """End all that has the lock, and say so."""
        name = lock_record.printable(self._hold.request.name)
        command = lock_record.printable(self._command)
        shown = f"{command[:SHOWN]}…" if len(command) > SHOWN else command
        where = self._hold.line.address.label
        lock_ending.end(
            self._stop,
            self._leader,
            lambda: self._say(
                f"lost the lock {name}: the connection to {where}: {reason}: {shown} was ended"
            ),
        )


def _is_readable(descriptor: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(timeout * 1000))


def _gaps(kept: list[int]) -> list[tuple[int, int]]:
    """Return the ranges of descriptors between those that are kept, as os.closerange takes them."""
    limit = os.sysconf("SC_OPEN_MAX")
    ends = [-1, *kept, limit]
    return [(low + 1, high) for low, high in itertools.pairwise(ends) if low + 1 < high]
