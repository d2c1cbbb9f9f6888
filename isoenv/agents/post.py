"""Messages for a session, handed to the model of its agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv.coordination import addresses

if TYPE_CHECKING:
    from isoenv.agents.claude import Event

# Characters: Claude Code cuts what a hook says at ten thousand.
ROOM = 8000


def deliver(event: Event) -> None:
    """Say what is waiting for the event's session; it counts as handed out once it is written."""
    session = event.session()
    assert session is not None  # noqa: S101  # registered by the call
    waiting = session.store.peek(addresses.all_of(session.record))
    room, fitting = ROOM, 0
    for message in waiting:
        room -= len(message.text) + len(message.sender)
        if room < 0:
            break
        fitting += 1
    if fitting:
        for message in session.receive(limit=fitting):
            event.context.append(f"isoenv: message from {message.sender}: {message.text}")
        event.afterwards(session.acknowledge)
    if len(waiting) > fitting:
        event.context.append(
            f"isoenv: {len(waiting) - fitting} more messages are waiting: "
            f"`isoenv receive --session {session.name}`"
        )
