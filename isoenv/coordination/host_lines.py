"""The connections of a process that have a lock of all hosts, or had one and can have the next."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from isoenv.coordination import host_lock_statements as statements
from isoenv.coordination import lock_record
from isoenv.coordination.host_lock import Fate, Hold, TimeUpError
from isoenv.coordination.store.postgres import PostgresStore
from isoenv.coordination.store.postgres_address import Address
from isoenv.coordination.store.postgres_database import PATIENCE
from isoenv.coordination.store.postgres_line import Line, LostError, RefusedError, SilentError
from isoenv.coordination.store.postgres_locks import FORGET
from isoenv.errors import IsoenvError
from isoenv.paths import STORE_SETTING

if TYPE_CHECKING:
    from isoenv.coordination.host_lock import Request

# Seconds for which a server that was lost is asked what has become of the lock, and in between.
RECOVERY, PAUSE = 12.0, 0.2
# So many connections without a lock are kept for the next one.
KEPT = 2

_idle: dict[str, list[Line]] = {}


def acquire(request: Request, url: str, state: str) -> Hold:
    """Wait for a lock of all hosts. Raises TimeUpError, and IsoenvError where none can be had."""
    address = Address(url)
    while True:
        kept = _idle.get(url)
        line = kept.pop() if kept else None
        is_new = line is None
        line = line or _opened(address, state, request.deadline)
        hold = Hold(line, request)
        try:
            hold.take()
        except LostError as error:
            line.close()
            if is_new:
                raise _unusable("lost the connection to", address, error) from None
            # It may have been lost long ago, as those beside it: a new one tells.
            _idle.pop(url)
        except (SilentError, RefusedError) as error:
            line.close()
            raise _unusable("cannot lock in", address, error) from None
        except (TimeUpError, IsoenvError):
            line.close()
            raise
        except BaseException:
            line.cancel()
            raise
        else:
            return hold


def release(hold: Hold) -> None:
    """Give a lock back. Raises IsoenvError where another may have had it meanwhile."""
    try:
        hold.release()
    except (LostError, SilentError):
        _settle(hold, is_over=True)
    kept = _idle.setdefault(hold.line.address.url, [])
    if len(kept) < KEPT:
        kept.append(hold.line)
    else:
        hold.line.close()


def check(hold: Hold) -> None:
    """Ask the server whether the lock is held. Raises IsoenvError where another may have had it."""
    if hold.is_lost:
        raise _lost(hold)
    try:
        hold.line.ask("SELECT 1")
    except (LostError, SilentError):
        _settle(hold, is_over=False)


def _settle(hold: Hold, *, is_over: bool) -> None:
    """Find out what has become of a lock whose connection does not answer, and have it again."""
    old = hold.line
    try:
        line, fate = _told(hold)
        if fate is Fate.STILL and is_over:
            line.ask(statements.END, *old.identity)
        elif fate is Fate.KEPT and is_over:
            hold.release()
    except (LostError, SilentError, RefusedError) as error:
        old.close()
        hold.is_lost = True
        raise _unusable(f"lost the lock {_name(hold)}: cannot ask", old.address, error) from None
    if fate is Fate.STILL and not is_over:
        line.close()
        return
    old.close()
    hold.line = line
    if fate is Fate.GONE:
        line.close()
        hold.is_lost = True
        raise _lost(hold)


def _told(hold: Hold) -> tuple[Line, Fate]:
    """Ask by a new connection, again and again while the server is away."""
    deadline = time.monotonic() + RECOVERY
    while True:
        line = None
        try:
            line = Line(hold.line.address, RECOVERY, hold.line.place)
            return line, hold.regain(line, by_force=False)
        except (LostError, SilentError, RefusedError):
            if line is not None:
                line.close()
            if time.monotonic() > deadline:
                raise
        time.sleep(PAUSE)


def _opened(address: Address, state: str, deadline: float | None) -> Line:
    """Return a new connection, to tables of this version."""
    left = PATIENCE if deadline is None else deadline - time.monotonic()
    patience = min(PATIENCE, max(0.0, left))
    try:
        line = Line(address, patience)
        if not line.is_usable:
            line.close()
            PostgresStore(state, address.url).close()
            line = Line(address, patience)
        line.ask(FORGET)
    except (LostError, SilentError, RefusedError) as error:
        raise _unusable("cannot use", address, error) from None
    return line


def _name(hold: Hold) -> str:
    return lock_record.printable(hold.request.name)


def _lost(hold: Hold) -> IsoenvError:
    where = hold.line.address.label
    return IsoenvError(
        f"lost the lock {_name(hold)}: the connection to {where} was lost, and "
        "another has had it: `isoenv lock list`"
    )


def _unusable(what: str, address: Address, error: Exception) -> IsoenvError:
    remedy = f"is `{STORE_SETTING}` right?" if _is_refused(error) else "once it runs, try again"
    return IsoenvError(f"{what} {address.label}: {error}: {remedy}")


def _is_refused(error: Exception) -> bool:
    """Whether a server is there, and says no."""
    return isinstance(error, RefusedError) or "FATAL" in str(error)


def _after_fork() -> None:
    # The lines themselves are left to the parent by their own module.
    _idle.clear()


os.register_at_fork(after_in_child=_after_fork)
