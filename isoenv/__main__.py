"""The entry point: a warm call first, else the commands; an error becomes one line and a code."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> None:
    """Run isoenv with the arguments of this process."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["exec"] and not os.environ.get("_ISOENV_COMPLETE"):
        _exec_warm(arguments[1:])
    if arguments[:1] == ["export"] and arguments[2:] == ["--hook"]:
        _export_for_hook(arguments[1])
        return
    _run()


def _exec_warm(arguments: list[str]) -> None:
    """Become the command of ``exec . CMD…`` when its environment is ready; else return."""
    if arguments[:1] != ["."]:
        return
    command = arguments[2:] if arguments[1:2] == ["--"] else arguments[1:]
    # An option of ours, or nothing to run: for the command proper to judge.
    if not command or command[0].startswith("-"):
        return
    from isoenv import launch
    from isoenv.errors import IsoenvError

    try:
        ready = launch.warm(os.environ)
    except IsoenvError:
        return
    if ready is not None:
        launch.become(command, launch.environment(os.environ, ready))


def _export_for_hook(shell: str) -> None:
    """Print the code that a shell's hook evaluates: without click, for a prompt waits for it."""
    from isoenv import entering
    from isoenv.context import Caller
    from isoenv.errors import IsoenvError

    try:
        caller = Caller(os.getcwd(), os.environ, lambda line: _say(f"isoenv: {line}"))
        code = os.fsencode(entering.hook_code(caller, shell))
    except IsoenvError as error:
        _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        _fail(str(error), 1)
    sys.stdout.buffer.write(code)
    sys.stdout.buffer.flush()


def _run() -> None:
    import click

    from isoenv.cli import group
    from isoenv.errors import IsoenvError

    try:
        code = group.main(prog_name="isoenv", standalone_mode=False)
    except IsoenvError as error:
        _fail(str(error), error.exit_code)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # The reader has gone; so do we, without Python's own complaint at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    _say(f"isoenv: {message}")
    sys.exit(code)


def _say(line: str) -> None:
    sys.stderr.write(os.fsencode(f"{line}\n").decode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    main()
