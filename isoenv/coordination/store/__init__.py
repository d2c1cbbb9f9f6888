"""Where sessions, messages and metrics are kept: what every store can do."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Protocol

    from isoenv.coordination.records import Claim, Message, Place, Record, Sum
    from isoenv.process import Identity

    # id, pid, start, inode, boot, namespace, host, beat, beaten_at
    Pulse = tuple[str, int, int, int, str, int, str, int, float]

    class Waiter(Protocol):
        """Wakes one reader when something is sent to its session."""

        def wait(self, timeout: float | None) -> bool:
            """Wait for a message that was sent since the waiter was made; False on time-out."""

        def close(self) -> None:
            """Wait no more."""

    class Store(Protocol):
        """What sessions, messages and metrics are built on.

        Each call is one transaction, seen wholly or not at all by all other processes, and is
        there for good when it returns. Raises IsoenvError where the store cannot be used.
        """

        state: str

        def close(self) -> None:
            """Close the store."""

        def start(self, record: Record, is_gone: Callable[[Pulse], bool], *, new: bool) -> Record:
            """Add a session. A name that another holds is an error, or with ``new`` made another.

            ``is_gone`` tells whether a session that holds the name is dead: it makes way. What
            was sent to its instance while that had no session is for the first that comes.
            """

        def begin(
            self, values: tuple[object, ...], is_gone: Callable[[Pulse], bool], *, new: bool
        ) -> str | None:
            """Add a session by the values of its columns, as ``start`` does; return its name."""

        def find(self, word: str) -> Record | None:
            """Return the session of that id or name."""

        def nameless(self, process: Identity) -> Record | None:
            """Return the session without a name of a process."""

        def brief(self, word: str) -> tuple[str, str | None] | None:
            """Return the id and the project's key of the session of that id or name."""

        def brief_nameless(self, pid: int, start: int) -> tuple[str, str | None] | None:
            """Return the same of the session without a name of a process that lives here."""

        def window(
            self, name: str, pid: int, start: int
        ) -> tuple[str, str, str | None, int | None, str | None] | None:
            """Return a process's session of that name, perhaps with a number behind it.

            That is its id, its name, and key, slot and name of its instance.
            """

        def of_process(self, pid: int, start: int) -> list[tuple[str, str]]:
            """Return the ids of a process's sessions, each with its labels as a JSON object."""

        def sessions(self) -> list[Record]:
            """Return all sessions, the oldest first, dead or alive."""

        def count(self, project_key: str | None = None) -> int:
            """Return how many sessions there are, or how many of a project."""

        def pulses(self, limit: int | None = None) -> list[Pulse]:
            """Return the sessions' processes: so many that were longest unchecked, or all."""

        def check_off(self, ids: Sequence[str]) -> None:
            """Put sessions at the end of the order of ``pulses``."""

        def remove(self, ids: Sequence[str]) -> None:
            """Remove sessions with all that is theirs, and wake who waits as one of them."""

        def beat(self, session_id: str) -> bool:
            """Record a heartbeat; False where there is no such session."""

        def set_state(self, session_id: str, state: str) -> bool:
            """Record what a session is doing; False where there is no such session."""

        def set_place(self, session_id: str, place: Place | None) -> bool:
            """Record where a session belongs now; False where there is no such session."""

        def set_metric(self, session_id: str, name: str, value: float) -> float | None:
            """Set a value and return it; None where there is no such session."""

        def add_metric(self, session_id: str, name: str, value: float) -> float | None:
            """Add to a value, 0 at first, and return the new one; None as above."""

        def metrics(self, session_id: str) -> dict[str, float]:
            """Return a session's values; ``agents`` with its live subagents."""

        def sums(self, project_key: str | None = None, slot: int | None = None) -> list[Sum]:
            """Return each metric over all sessions, or those of a project or an instance."""

        def total(self, name: str, project_key: str | None = None) -> float:
            """Return the total of one metric."""

        def agent_started(self, session_id: str, agent_id: str, kind: str) -> bool:
            """Record a subagent, once; False where there is no such session."""

        def agent_ended(self, session_id: str, agent_id: str) -> None:
            """Forget a subagent, if it is known."""

        def agents(self, session_id: str) -> dict[str, str]:
            """Return a session's live subagents, id -> type."""

        def send(self, sender: Record, address: bytes, body: bytes, ttl: float) -> int:
            """Send to an address and return how many sessions it reaches now, waking them."""

        def take(self, addresses: Sequence[bytes], reader: str, limit: int) -> list[Message]:
            """Hand out the oldest messages to a reader, who acknowledges or gives them back."""

        def forget_expired(self) -> None:
            """Delete the messages whose time is over."""

        def peek(self, addresses: Sequence[bytes]) -> list[Message]:
            """Return the messages that nobody has taken."""

        def acknowledge(self, reader: str) -> None:
            """Delete what a reader has taken."""

        def give_back(self, readers: Sequence[str]) -> None:
            """Let others take what these readers have taken and not acknowledged."""

        def readers(self, addresses: Sequence[bytes]) -> Mapping[str, float]:
            """Return who has taken and not acknowledged, and when in seconds since the epoch."""

        def take_lock(  # noqa: PLR0913, PLR0917  # what is written down
            self,
            path: str,
            name: str,
            project: str | None,
            session_id: str,
            ttl: float | None,
            is_free: Callable[[Claim], bool],
        ) -> Claim | None:
            """Give a lock to a session, unless another holds it that is not free; return who has.

            The token grows by it, unless the session has the lock already. None where there is no
            such session.
            """

        def free_lock(self, path: str, session_id: str) -> bool:
            """Give a lock back; False where the session does not hold it."""

        def claim(self, path: str) -> Claim | None:
            """Return who holds a lock."""

        def waiter(self, session_id: str) -> Waiter:
            """Return what wakes a reader; made before it looks, it misses nothing.

            Raises NotFoundError where there is no such session.
            """


def open_store(state: str, patience: float | None = None) -> Store:
    """Open the store: the machine's in the state directory, or the one that ISOENV_STORE names.

    ``patience`` is how many seconds each call waits for other processes; None is long enough.
    """
    import os

    from isoenv import paths

    if url := paths.store_url(os.environ):
        from isoenv.coordination.store.postgres import PostgresStore

        return (
            PostgresStore(state, url) if patience is None else PostgresStore(state, url, patience)
        )
    from isoenv.coordination.store.sqlite import SqliteStore

    return SqliteStore(state) if patience is None else SqliteStore(state, patience)
