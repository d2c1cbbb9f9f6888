"""Send a message to sessions."""

from __future__ import annotations

import os
import sys

import click

from isoenv.cli import params, start
from isoenv.coordination import current, mailbox
from isoenv.errors import UsageError

# An hour, in seconds.
TTL = 3600.0


@click.command("send", context_settings={"ignore_unknown_options": True})
@click.argument("to", type=params.SessionParam())
@click.argument("text", required=False)
@click.option("--ttl", type=float, default=TTL, help="Seconds that it can be had; default: 3600.")
@params.session_option
def command(to: str, text: str | None, ttl: float, session: str | None) -> None:
    """Send TEXT, or what stands on standard input, to sessions.

    TO is the name or id of a session, an instance (`2`, `orienter:2`) or `everyone`. A message
    to a name that nobody has yet waits for a session of that name; one to an instance or to
    everyone goes to each session that lives now. At most 1 MiB.

    \b
    Example:
      isoenv send bot2 data_ready
      git diff | isoenv send reviewer -
      isoenv send everyone 'the database is being rebuilt' --ttl 60
    """
    if text in (None, "-"):
        text = _standard_input()
    caller = start.acting(session)
    reached = current.named_or_nameless(caller, session).send(to, str(text), ttl=ttl)
    if not reached:
        start.say(f"no session is {to} now: the message waits {ttl:g} s for one")


def _standard_input() -> str:
    if sys.stdin is None:
        raise UsageError("standard input is closed: give the text as an argument")
    # One byte more than is allowed: the message is refused, not cut.
    return os.fsdecode(sys.stdin.buffer.read(mailbox.LIMIT + 1))
