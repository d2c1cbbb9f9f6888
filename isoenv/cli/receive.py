"""Receive the messages of a session."""

from __future__ import annotations

import json
import math
import os
from typing import TYPE_CHECKING

import click

from isoenv.cli import output, params, start
from isoenv.coordination import current
from isoenv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.coordination.records import Message

TIMED_OUT = 75


@click.command("receive")
@click.option("--wait", metavar="S", type=float, help="Wait S seconds for the first one.")
@click.option("--follow", is_flag=True, help="Print each as it comes, until Ctrl-C.")
@click.option("--peek", is_flag=True, help="Show what is there, and leave it.")
@params.session_option
@params.json_option
def command(
    wait: float | None, session: str | None, *, follow: bool, peek: bool, as_json: bool
) -> int:
    """Print the messages to a session, the oldest first, each of them once.

    Several readers of one session share its messages. What a reader that is killed has not
    printed wholly is handed out again. 75: none came while it waited. With `--follow` the JSON
    is a line for each message.

    \b
    Example:
      isoenv receive --wait 30
      isoenv receive --session bot2 --follow
      isoenv receive --json
    """
    if peek and (follow or wait is not None):
        raise UsageError("`--peek` looks once: leave out `--wait` and `--follow`")
    handle = current.named_or_nameless(start.acting(session), session)
    if peek:
        _write(handle.peek(), as_json=as_json)
        return 0
    patience = math.inf if follow and wait is None else wait
    found = handle.receive(wait=patience)
    while follow and found:
        for message in found:
            _write([message], as_json=as_json, compact=True)
        handle.acknowledge()
        found = handle.receive(wait=patience)
    if not follow and (found or not wait):
        _write(found, as_json=as_json)
        handle.acknowledge()
    if not found and wait:
        start.say(f"no message in {wait:g} s: `isoenv receive --wait {2 * wait:g}` waits longer")
        return TIMED_OUT
    return 0


def _write(messages: Sequence[Message], *, as_json: bool, compact: bool = False) -> None:
    described = [
        {
            "id": message.id,
            "sender": message.sender,
            "sender_id": message.sender_id,
            "text": message.text,
            "sent_at": message.sent_at,
        }
        for message in messages
    ]
    if as_json and compact:
        envelope = {"version": output.ENVELOPE_VERSION, "messages": described}
        output.write(json.dumps(envelope) + "\n")
    elif as_json:
        output.write_json({"messages": described})
    elif output.is_terminal():
        for message in messages:
            text = "\n".join(map(output.clean, message.text.split("\n")))
            output.write(f"{output.clean(message.sender)}: {text}\n")
    else:
        output.write_bytes(b"".join(_encoded(message.text) + b"\n" for message in messages))


def _encoded(text: str) -> bytes:
    """Return the bytes that were sent; half of a surrogate pair as what it would be in UTF-8."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
