"""Shells that live as long as a measurement: one that is told what to do, and one on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shlex
import signal
import struct
import subprocess
import termios
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from shells import Shell

# A shell that says nothing for so long, in seconds, is broken.
PATIENCE = 60.0


class Session:
    """A shell without a prompt that evaluates a line at a time, with a tool's hook or none."""

    def __init__(
        self, shell: Shell, hook: str | None, directory: str, environ: Mapping[str, str]
    ) -> None:
        """Start it in a directory and let the hook run as it does before the first prompt."""
        self.shell = shell
        self.process = subprocess.Popen(
            [*shell.batch, shell.serve],
            cwd=directory,
            env=dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )
        self._unread = b""
        if hook:
            self.do(f"source {shlex.quote(hook)}")
        hooks = shell.prompt or self.do(shell.hooks).strip("; ") or ":"
        self.hooks = hooks
        self.prompt()

    def __enter__(self) -> Self:
        """Return the session itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """End the shell."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()

    def do(self, line: str) -> str:
        """Evaluate a line; return what it printed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(os.fsencode(line) + b"\n")
        while b"\0" not in self._unread:
            if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
                raise RuntimeError(f"{self.shell.name} does not answer {line!r}")
            read = os.read(self.process.stdout.fileno(), 1 << 16)
            if not read:
                raise RuntimeError(f"{self.shell.name} ended at {line!r}")
            self._unread += read
        answer, _, self._unread = self._unread.partition(b"\0")
        return os.fsdecode(answer)

    def prompt(self) -> None:
        """Come to a prompt."""
        self.do(self.hooks)

    def go(self, directory: str) -> None:
        """Type `cd`, and come to the next prompt."""
        self.do(self.going(directory))

    def going(self, directory: str) -> str:
        """Return the code of `go`."""
        return f"{self.shell.before}; cd {shlex.quote(directory)}; {self.hooks}"

    def value(self, name: str) -> str:
        """Return a variable as the shell has it."""
        return self.do(self.shell.show.format(name=name))

    def inherited(self, name: str) -> str:
        """Return a variable as a child has it."""
        return self.do(f"/bin/sh -c 'printf %s \"${{{name}-<unset>}}\"'")

    def define(self, name: str, body: str) -> None:
        """Define a function that does something as often as its argument says."""
        self.do(self.shell.repeat.format(name=name, body=body))

    def time(self, name: str, count: int) -> float:
        """Return the seconds of one turn of such a function."""
        start = time.perf_counter()
        self.do(f"{name} {count}")
        return (time.perf_counter() - start) / count


class Terminal:
    """An interactive shell on a pty, with a tool's hook or none."""

    def __init__(
        self, shell: Shell, hook: str | None, directory: str, environ: Mapping[str, str]
    ) -> None:
        """Start it and wait for its prompt."""
        self.shell = shell
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            os.chdir(directory)
            os.execvpe(  # noqa: S606  # becoming it is the job
                shell.interactive[0], list(shell.interactive), dict(environ)
            )
        size = struct.pack("HHHH", 24, 80, 0, 0)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, size)
        self._count = 0
        if hook:
            self._type(f" source {shlex.quote(hook)}")
        self._type(f" {shell.counting_prompt}")
        self._wait()

    def __enter__(self) -> Self:
        """Return the terminal itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Hang up."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.terminal)

    def press_enter(self) -> float:
        """Return the seconds from a newline to the next prompt."""
        start = time.perf_counter()
        self._type("")
        self._read_prompt()
        end = time.perf_counter()
        self._settle()
        return end - start

    def type(self, line: str) -> str:
        """Type a command; return all that the terminal shows up to the next prompt and after."""
        self._type(line)
        return self._wait()

    def _wait(self) -> str:
        return os.fsdecode(self._read_prompt() + self._settle())

    def _type(self, line: str) -> None:
        os.write(self.terminal, os.fsencode(line) + b"\r")

    def _read_prompt(self) -> bytes:
        seen = b""
        while True:
            if not select.select([self.terminal], [], [], PATIENCE)[0]:
                raise RuntimeError(f"{self.shell.name} shows no prompt: {seen[-500:]!r}")
            seen += os.read(self.terminal, 1 << 16)
            if self._is_newer(seen):
                return seen

    def _settle(self) -> bytes:
        """Read on until the shell is quiet: it may draw its prompt again."""
        seen = b""
        while select.select([self.terminal], [], [], 0.003)[0]:
            seen += os.read(self.terminal, 1 << 16)
        self._is_newer(seen)
        return seen

    def _is_newer(self, seen: bytes) -> bool:
        counts = [int(count) for count in re.findall(rb"<bench (\d+)>", seen)]
        newer = bool(counts) and max(counts) > self._count
        if newer:
            self._count = max(counts)
        return newer
