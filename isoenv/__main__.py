"""The entry point: a warm call first, else the commands; an error becomes one line and a code."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False  # importing typing costs a warm exec more than all of this
if TYPE_CHECKING:
    from typing import NoReturn

    from isoenv.context import Caller

# What a shell says of a command that Ctrl-C has ended.
INTERRUPTED = 130


def main() -> None:
    """Run isoenv with the arguments of this process."""
    arguments = sys.argv[1:]
    if arguments[:1] == ["exec"] and not os.environ.get("_ISOENV_COMPLETE"):
        _exec(arguments[1:])
    if arguments[:1] == ["export"] and arguments[2:] == ["--hook"]:
        _export_for_hook(arguments[1])
        return
    if arguments[:1] == ["api"] and arguments[-1] == "status":
        _status(arguments[1:-1])
    if arguments[:1] == ["statusline"] and not os.environ.get("_ISOENV_COMPLETE"):
        _statusline(arguments[1:])
    if arguments == ["agent", "hook", "claude"]:
        agent_hook()
        return
    _run()


def _status(instance: list[str]) -> None:
    """Answer `api [INSTANCE] status` from what is on record, and end; return where in doubt."""
    from isoenv import quick

    if os.environ.get("_ISOENV_COMPLETE") or sys.stdout is None or os.isatty(1):
        return
    with _OneLine():
        answer = quick.status(os.environ, instance)
        if answer is None:
            return
        _print(answer[0])
    sys.exit(answer[1])


def _exec(arguments: list[str]) -> None:
    """Become the command of ``exec INSTANCE [--] CMD…``, at best from what is ready.

    Returns where an option of ours, or nothing to run, is for the command proper to judge. Even
    a first `exec` in a new checkout goes without click, which would be a third of its time.
    """
    instance, *command = arguments or [""]
    command = command[1:] if command[:1] == ["--"] else command
    if not instance or not command or instance.startswith("-") or command[0].startswith("-"):
        return
    from isoenv import launch
    from isoenv.errors import IsoenvError

    program = command[0].rpartition("/")[2]
    try:
        ready = launch.warm(os.environ, program) if instance == "." else None
    except IsoenvError:
        ready = None
    if ready is not None:
        launch.become(command, launch.environment(os.environ, ready))
    from isoenv import running

    with _OneLine():
        running.run(_caller(program), instance, command)


def _export_for_hook(shell: str) -> None:
    """Print the code that a shell's hook evaluates: without click, for a prompt waits for it."""
    from isoenv import entering

    with _OneLine():
        _print(entering.hook_code(_caller(), shell))


def _statusline(arguments: list[str]) -> None:
    """Print the status line: without click, for it is asked for several times a second.

    Returns where an option is for the command proper to judge.
    """
    options: dict[str, str | bool] = {}
    rest = iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in ("--shared", "--project") and not equals:
            options[name[2:]] = True
        elif name in ("--compact", "--json") and not equals and "style" not in options:
            options["style"] = name[2:]
        elif name in ("--format", "--session"):
            given = value if equals else next(rest, None)
            if not given:
                return
            options["template" if name == "--format" else "session"] = given
        else:
            return
    from isoenv.coordination import glance

    with _OneLine():
        line = glance.line(os.environ, glance.read_input(), **options)  # type: ignore[arg-type]
        _print(f"{line}\n")
        # Ending at once is a tenth of the whole.
        os._exit(0)


def agent_hook() -> None:
    """Act on an event of Claude Code: without click, and without ever failing the agent's work."""
    from isoenv.agents import claude

    try:
        given = _input(claude.LIMIT)
        problem = claude.run(os.environ, given, _write)
    except Exception as error:  # noqa: BLE001  # whatever it is, the agent has to go on
        problem = f"{type(error).__name__}: {error}"
    except KeyboardInterrupt:
        problem = None
    if problem:
        _say(f"isoenv: {problem}".replace("\n", "\\n"))
    if sys.stderr is not None:
        sys.stderr.flush()
    # Ending at once is a tenth of the whole.
    os._exit(0)


def _input(limit: int) -> bytes:
    """Read standard input to its end, but keep no more than one byte above the limit."""
    if sys.stdin is None:
        return b""
    given, descriptor = b"", sys.stdin.fileno()
    while chunk := os.read(descriptor, 1 << 16):
        if len(given) <= limit:
            given += chunk
    return given


def _write(text: str) -> None:
    rest = memoryview(os.fsencode(text))
    while rest:
        rest = rest[os.write(1, rest) :]


def _print(text: str) -> None:
    from isoenv.errors import IsoenvError

    if sys.stdout is None:
        raise IsoenvError("cannot write to standard output: it is closed")
    try:
        _write(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IsoenvError(f"cannot write to standard output: {reason}") from None


def _caller(program: str | None = None) -> Caller:
    from isoenv.context import Caller
    from isoenv.errors import IsoenvError

    try:
        directory = os.getcwd()
    except OSError:
        raise IsoenvError("the current directory is gone: `cd` somewhere else") from None
    return Caller(directory, os.environ, lambda line: _say(f"isoenv: {line}"), program)


class _OneLine:
    """Turn what goes wrong into one line and an exit code."""

    def __enter__(self) -> None:
        """Begin; contextlib would cost a warm exec its import."""

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: object
    ) -> None:
        """End the process, unless nothing went wrong or it has ended itself."""
        from isoenv.errors import IsoenvError

        if isinstance(error, IsoenvError):
            _fail(str(error), error.exit_code)
        if isinstance(error, KeyboardInterrupt):
            sys.exit(INTERRUPTED)
        if isinstance(error, BrokenPipeError):
            # The reader has gone; so do we, without Python's own complaint at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        if isinstance(error, UnicodeEncodeError):
            shown = error.object[error.start : error.end].encode("ascii", "backslashreplace")
            said = f"the encoding {error.encoding} has no {shown.decode('ascii')}"
            _fail(f"{said}: `export PYTHONUTF8=1`", 1)
        if isinstance(error, OSError):
            reason = (error.strerror or str(error)).lower()
            _fail(f"{error.filename}: {reason}" if error.filename else reason, 1)


def _run() -> None:
    import click

    from isoenv.cli import group

    with _OneLine():
        try:
            code = group.main(prog_name="isoenv", standalone_mode=False)
        except click.exceptions.Abort:
            sys.exit(INTERRUPTED)
        except click.ClickException as error:
            error.show()
            sys.exit(error.exit_code)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    _say(f"isoenv: {message}")
    sys.exit(code)


def _say(line: str) -> None:
    if sys.stderr is None:
        return
    sys.stderr.write(os.fsencode(f"{line}\n").decode("utf-8", "backslashreplace"))


if __name__ == "__main__":
    main()
