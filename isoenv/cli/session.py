"""Register processes as sessions, and look after them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from isoenv import liveness
from isoenv.cli import output, params, start
from isoenv.coordination import current, place, registering
from isoenv.coordination.records import STATES
from isoenv.coordination.store import open_store
from isoenv.errors import UsageError

if TYPE_CHECKING:
    from isoenv.coordination.records import Place, Record


@click.group("session")
def command() -> None:
    """Register processes as sessions: agent windows, bots, trainers.

    A session lives as long as its process. `--session` says which one is meant, else
    ISOENV_SESSION does.

    \b
    Example:
      export ISOENV_SESSION=$(isoenv session start --name trainer)
      isoenv session list
    """


@command.command("start")
@click.option("--name", help="A name that no other live session has.")
@click.option("--new", is_flag=True, help="Take the next free name where this one is held.")
@click.option("--pid", type=click.IntRange(1), help="The process it lives with; default: parent.")
@params.label_option
def start_one(name: str | None, pid: int | None, labels: dict[str, str], *, new: bool) -> None:
    """Register a process, and print the session's id.

    Nothing is exported: the id is for `--session`, or for ISOENV_SESSION.

    \b
    Example:
      isoenv session start --name trainer --label model=enigma
      isoenv session start --name bot1 --new --pid 4711
    """
    if new and name is None:
        raise UsageError("`--new` of which name? `isoenv session start --name bot1 --new`")
    caller = start.here()
    identity = registering.identify(liveness.parent() if pid is None else pid)
    where = place.find(caller.environ, caller.directory)
    record = registering.draft(identity, name, where, labels)
    store = open_store(caller.state)
    output.write(f"{registering.start(store, record, new=new).id}\n")


@command.command()
@params.session_option
def heartbeat(session: str | None) -> None:
    """Say that a session lives, to those who cannot see its process.

    Needed only between containers, or hosts: elsewhere the process itself is the proof.

    \b
    Example:
      isoenv session heartbeat
    """
    current.named(start.caller(), session).heartbeat()


@command.command()
@params.session_option
def end(session: str | None) -> None:
    """End a session, with its metrics, its directory and the messages to its id.

    Its process is left alone.

    \b
    Example:
      isoenv session end --session trainer
    """
    current.named(start.caller(), session).end()


@command.command("list")
@params.label_option
@params.json_option
def list_all(labels: dict[str, str], *, as_json: bool) -> None:
    """List the live sessions of this machine, or those with a label.

    \b
    Example:
      isoenv session list
      isoenv session list --label team=search --json
    """
    store = open_store(start.caller().state)
    found = [
        record
        for record in registering.live(store)
        if labels.items() <= dict(record.labels).items()
    ]
    if as_json:
        output.write_json({"sessions": [_described(record) for record in found]})
    elif not found:
        start.say("no sessions: `isoenv session start` registers one")
    else:
        headers = ["SESSION", "NAME", "STATE", "PID", "INSTANCE", "SINCE", "LABELS"]
        output.write_table(headers, [_row(record) for record in found])


@command.command()
@click.argument("file")
@params.session_option
def path(file: str, session: str | None) -> None:
    """Print the path of FILE in the session's own directory, which is gone with it.

    The directory is made, the file is not.

    \b
    Example:
      isoenv session path scratch/notes.txt
    """
    output.write(current.named(start.caller(), session).path(file) + "\n")


@command.command()
@click.argument("state", type=click.Choice(STATES))
@params.session_option
def state(state: str, session: str | None) -> None:
    """Say what a session is doing: ACTIVE, COMPLETING or IDLE.

    \b
    Example:
      isoenv session state IDLE
    """
    current.named(start.caller(), session).state = state


def _described(record: Record) -> dict[str, object]:
    where = record.place
    return {
        "id": record.id,
        "name": record.name,
        "state": record.state,
        "pid": record.process.pid,
        "host": record.process.host,
        "project": where.project.name if where else None,
        "slot": where.slot if where else None,
        "instance": where.name if where else None,
        "labels": dict(record.labels),
        "started_at": record.started_at,
    }


def _row(record: Record) -> list[str]:
    return [
        record.id,
        record.name or "-",
        record.state,
        str(record.process.pid),
        _instance(record.place),
        time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.started_at)),
        " ".join(f"{key}={value}" for key, value in record.labels.items()),
    ]


def _instance(where: Place | None) -> str:
    if where is None:
        return "-"
    if where.slot is None:
        return where.project.name
    return f"{where.project.name}:{where.slot}" + (f" {where.name}" if where.name else "")
