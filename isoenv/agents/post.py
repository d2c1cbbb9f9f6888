"""Messages for a session, handed to the model of its agent."""

from __future__ import annotations

from isoenv.agents import sessions, surroundings

TYPE_CHECKING = False  # importing typing costs an agent's every event more than all of this
if TYPE_CHECKING:
    from isoenv.agents.claude import Event

# Characters: Claude Code cuts what a hook says at ten thousand.
ROOM = 8000


def deliver(event: Event) -> None:
    """Say what is waiting for the event's session; it counts as handed out once it is written."""
    where = surroundings.where_known(event)
    window = sessions.need(event, where)
    if where:
        # Not every change of its directory is said.
        sessions.move(window, where)
    waiting = window.store.peek(window.addresses())
    if not waiting:
        return
    room, fitting = ROOM, 0
    for message in waiting:
        room -= len(message.text) + len(message.sender)
        if room < 0:
            break
        fitting += 1
    if fitting:
        from isoenv.coordination.mailbox import Mailbox

        record = window.store.find(window.id)
        assert record is not None  # noqa: S101  # it was there a moment ago
        mailbox = Mailbox(window.store, record)
        for message in mailbox.receive(None, fitting):
            event.context.append(f"isoenv: message from {message.sender}: {message.text}")
        event.afterwards(mailbox.acknowledge)
    if len(waiting) > fitting:
        event.context.append(
            f"isoenv: {len(waiting) - fitting} more messages are waiting: "
            f"`isoenv receive --session {window.name}`"
        )
