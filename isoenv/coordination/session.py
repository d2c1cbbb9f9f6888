"""A session: one live process that has registered itself, and what it can do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from isoenv import paths, process
from isoenv.coordination import heartbeat, place, reaping, registering
from isoenv.coordination.mailbox import Mailbox
from isoenv.coordination.metrics import Metrics
from isoenv.coordination.records import STATES
from isoenv.coordination.store import open_store
from isoenv.errors import IsoenvError, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from isoenv.coordination.lock import Lock
    from isoenv.coordination.records import Message, Record
    from isoenv.coordination.store import Store


class Handle:
    """What can be done with, and as, a session that is registered."""

    def __init__(self, store: Store, record: Record) -> None:
        """Act as the session of ``record``, which neither begins nor ends by that."""
        self._store = store
        self._record = record
        self.metrics = Metrics(store, record.id)
        self._mailbox = Mailbox(store, record)
        self._has_ended = False

    def __repr__(self) -> str:
        """Return how to find it."""
        return f"<{type(self).__name__} {self._record.title}>"

    @property
    def id(self) -> str:
        """The session's id, ``YYYYMMDD_HHMMSS_PID_xxxxxxxx``."""
        return self._record.id

    @property
    def name(self) -> str | None:
        """The session's name, which no other live session has; None for a nameless one."""
        return self._record.name

    @property
    def record(self) -> Record:
        """What the store knew of the session when it was registered or looked up."""
        return self._record

    @property
    def state(self) -> str:
        """ACTIVE, COMPLETING or IDLE. Raises NotFoundError once the session has ended."""
        return self._current().state

    @state.setter
    def state(self, state: str) -> None:
        if state not in STATES:
            raise UsageError(f"{state} is no state of a session: `{'`, `'.join(STATES)}`")
        if not self._store.set_state(self.id, state):
            raise _ended(self._record)

    def heartbeat(self) -> None:
        """Say that the session lives, to those who cannot see its process.

        Raises NotFoundError once the session has ended.
        """
        if not self._store.beat(self.id):
            raise _ended(self._record)

    def path(self, file: str) -> str:
        """Return the path of a file in the session's own directory, which is made here.

        The directory is gone with the session.
        """
        if not file or file.startswith("/") or ".." in file.split("/"):
            raise UsageError(f"{file} leaves the session's directory: name a path inside it")
        self._current()
        found = f"{paths.session_dir(self._store.state, self.id)}/{file}"
        paths.make_private(os.path.dirname(found))
        return found

    def send(self, to: str, text: str, *, ttl: float = 3600.0) -> int:
        """Send to a session's name or id, an instance (``2``, ``project:2``), or ``everyone``.

        Returns how many sessions it reaches now; one to a name waits for a session of that name.
        It can be had for ``ttl`` seconds. Raises UsageError for more than 1 MiB of UTF-8.
        """
        return self._mailbox.send(to, text, ttl)

    def receive(self, *, wait: float | None = None, limit: int | None = None) -> list[Message]:
        """Return the messages to this session, the oldest first, at most ``limit`` of them.

        With ``wait``, wait so many seconds for the first one (``math.inf``: for ever). Each is
        handed out once. It is acknowledged by the next ``receive``, by ``acknowledge()`` and when
        the session ends; the messages of a process that is killed before are handed out again.
        """
        return self._mailbox.receive(wait, limit)

    def acknowledge(self) -> None:
        """Say that what ``receive`` returned is done, and need not be handed out again."""
        self._mailbox.acknowledge()

    def peek(self) -> list[Message]:
        """Return the messages that nobody has taken, and leave them."""
        return self._mailbox.peek()

    def agent_started(self, agent_id: str, kind: str = "") -> None:
        """Count a subagent among ``agents`` until it ends; one that is known is counted once."""
        if not self._store.agent_started(self.id, _plain(agent_id), _plain(kind)):
            raise _ended(self._record)

    def agent_ended(self, agent_id: str) -> None:
        """Count a subagent no more; one that is not known is none."""
        self._store.agent_ended(self.id, _plain(agent_id))

    def agents(self) -> dict[str, str]:
        """Return the live subagents, id -> type."""
        return self._store.agents(self.id)

    def end(self) -> None:
        """End the session; twice is once."""
        if self._has_ended:
            return
        self._has_ended = True
        self._mailbox.acknowledge()
        reaping.remove(self._store, [self.id])
        self.close()

    def close(self) -> None:
        """Close the store, without ending the session."""
        self._store.close()

    def _current(self) -> Record:
        found = self._store.find(self.id)
        if found is None:
            raise _ended(self._record)
        return found


class Session(Handle):
    """A live process, known to all others of this machine by an id and perhaps a name.

    It ends with ``with``, with ``end()``, or by itself when its process does, also when that is
    killed: its metrics, its directory and the messages to its id are gone with it.
    """

    def __init__(
        self,
        name: str | None = None,
        *,
        new: bool = False,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Register this process. ``labels`` are for people and programs that look for sessions.

        Raises IsoenvError where a live session has the name; with ``new`` the next free one is
        taken instead, ``bot1-2``.
        """
        store = open_store(paths.state_dir(os.environ))
        where = place.find(os.environ, _directory())
        record = registering.draft(process.myself(), name, where, labels)
        super().__init__(store, registering.start(store, record, new=new))
        self._owner = os.getpid()
        self._beats = heartbeat.keep(store, self.id)

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_exception: object) -> None:
        """End the session. After an error, messages handed out last go back to be had again."""
        if self._owner != os.getpid():
            # A forked child leaves its parent's session alone.
            return
        if kind is not None:
            self._mailbox.give_back()
        self.end()

    def lock(
        self, name: str, *, timeout: float | None = None, shared: bool = False, slots: int = 1
    ) -> Lock:
        """Return a lock to use in ``with``, which raises LockTimeout after ``timeout`` seconds.

        It is one of the project of the current directory, outside any of the machine. None waits
        for ever. It is free once the process is gone, however that ends. See ``Lock``.
        """
        from isoenv.coordination.lock import Lock

        return Lock(name, timeout=timeout, shared=shared, slots=slots, session=self.name or self.id)

    def end(self) -> None:
        """End the session; twice is once."""
        if self._beats:
            self._beats.stop()
        super().end()


def _ended(record: Record) -> IsoenvError:
    return NotFoundError(f"session {record.title} has ended: `isoenv session start` starts one")


def _plain(text: str) -> str:
    """Return text that every store can hold."""
    return os.fsencode(text).decode("utf-8", "backslashreplace").replace("\0", "\\0")


def _directory() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"
