"""Messages for a session, handed to the model of its agent."""

from __future__ import annotations

from isoenv.agents import sessions, surroundings

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.agents.claude import Event
    from isoenv.coordination.records import Message

# Characters: Claude Code cuts what a hook says at ten thousand.
ROOM = 8000


def deliver(event: Event) -> None:
    """Say what is waiting for the event's session; it counts as handed out once it is written."""
    where = surroundings.where_known(event)
    window = sessions.need(event, where)
    if where:
        # Not every change of its directory is said.
        sessions.move(window, where)
    addresses = window.addresses()
    # What a hook has taken that was killed is to be had again: it is not among the free ones.
    if not window.store.peek(addresses) and not window.store.readers(addresses):
        return
    from isoenv.coordination.mailbox import Mailbox

    record = window.store.find(window.id)
    assert record is not None  # noqa: S101  # it was there a moment ago
    mailbox = Mailbox(window.store, record)
    mailbox.receive(None, 0)
    waiting = mailbox.peek()
    fitting = _fitting(waiting)
    for message in mailbox.receive(None, fitting) if fitting else ():
        event.context.append(f"isoenv: message from {message.sender}: {message.text}")
    event.afterwards(mailbox.acknowledge, mailbox.give_back)
    if len(waiting) > fitting:
        event.context.append(
            f"isoenv: {len(waiting) - fitting} more messages are waiting: "
            f"`isoenv receive --session {window.name}`"
        )


def _fitting(waiting: Sequence[Message]) -> int:
    """Return how many of the messages, from the first on, there is room for."""
    room = ROOM
    for number, message in enumerate(waiting):
        room -= len(message.text) + len(message.sender)
        if room < 0:
            return number
    return len(waiting)
