"""Become a service: the child of shell/supervise.sh, on its way to the service's own command.

Python, because no shell undoes what it has ignored or keeps every variable; and only until the
command takes its place, which keeps the process and so its identity.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import asdict

from isoenv import launch, process
from isoenv.errors import IsoenvError
from isoenv.services import record

# What a shell gives as the exit status of a command that it cannot run.
CANNOT = 126


def main(place: str, run: str) -> None:
    """Write down who this is, then become what ``start.ID`` says."""
    try:
        parent = process.identify(os.getppid())
        os.setsid()
        _reset_signals()
        path = f"{place}/start.{run}"
        with open(path, encoding="ascii") as file:
            start = json.load(file)
        os.unlink(path)
        me = process.myself()
        fields = {name: str(value) for name, value in asdict(me).items()}
        if parent:
            fields |= {"parent": str(parent.pid), "parent_start": str(parent.start)}
        record.write(place, record.Record({**start["fields"], **fields}))
        os.chdir(start["directory"])
        # The lock goes with it.
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    except (OSError, IsoenvError) as error:
        sys.stderr.write(f"isoenv: {error}\n")
        sys.exit(CANNOT)
    launch.become(start["argv"], start["environ"])


def _reset_signals() -> None:
    """Undo what the shell, or who started isoenv, has ignored or blocked."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
