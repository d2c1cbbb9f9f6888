"""What a hook may lose or miss, tried for each tool in each shell: no claim without a run."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from figures import NOTHING, Table
from sessions import Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from shells import Shell
    from tools import Tool
    from world import World

UNSET = "<unset>"
AWKWARD = "first 'line' \"quoted\" $(id) `id` \\n !x é🚒 \n-second line\n\n"
RAW = b"a\xff\xc3(b"

# Each trial has a checkout of its own: what a tool remembers of one tells nothing of the next.
_numbers = count()


class Trial:
    """One tool in one shell, in a checkout whose file sets FOO=one and a PATH entry."""

    def __init__(self, world: World, tool: Tool, shell: Shell) -> None:
        """Make the checkout and trust its file."""
        self.world = world
        self.tool = tool
        self.shell = shell
        self.outside = world.directory("outside")
        number = next(_numbers)
        self.root = world.repository(f"trial-{number}/main", {tool.file: self.text("one")})
        self.file = Path(self.root, tool.file)
        # An old file, so that what is tried is not how young files are treated.
        os.utime(self.file, (time.time() - 3600,) * 2)
        self.trust(self.root)

    def text(self, value: str) -> str:
        """Return the text of a file that sets FOO."""
        return self.tool.spell({"FOO": value}, "bin")

    def trust(self, directory: str) -> None:
        """Trust the file of a directory."""
        self.world.run(self.tool.executable, self.tool.trust, cwd=directory)

    @contextmanager
    def session(self, **environ: str) -> Iterator[Session]:
        """Start the shell outside with the tool's hook."""
        hook = self.world.hook(self.tool, self.shell.name)
        given = {**self.world.environ, **environ}
        with Session(self.shell, hook, self.outside, given) as session:
            session.prompt()
            yield session

    def enter(self, session: Session) -> None:
        """Go into the checkout, where FOO is one, or else this is no trial."""
        session.go(self.root)
        session.prompt()
        if (value := session.inherited("FOO")) != "one":
            raise RuntimeError(f"{self.tool.name} in {self.shell.name} loads FOO={value!r}")

    def leave(self, session: Session) -> None:
        """Go outside."""
        session.go(self.outside)
        session.prompt()


def keeps_edit(trial: Trial) -> bool:
    """Keep the user's own edit of a loaded variable on leaving."""
    with trial.session() as session:
        trial.enter(session)
        session.do(trial.shell.set_exported.format(name="FOO", value="mine"))
        session.prompt()
        trial.leave(session)
        return session.inherited("FOO") == "mine"


def keeps_path(trial: Trial) -> bool:
    """Keep an entry that the user added to PATH meanwhile, and take its own out, on leaving."""
    with trial.session() as session:
        before = session.inherited("PATH")
        trial.enter(session)
        session.do(trial.shell.append_path.format(entry="/opt/mine"))
        session.prompt()
        trial.leave(session)
        return session.inherited("PATH") == f"{before}:/opt/mine"


def restores_unexported(trial: Trial) -> bool:
    """Restore a variable that was set but not exported, and still not exported."""
    with trial.session() as session:
        session.do(trial.shell.set_plain.format(name="FOO", value="mine"))
        trial.enter(session)
        trial.leave(session)
        return (session.value("FOO"), session.inherited("FOO")) == ("mine", UNSET)


def restores_exported(trial: Trial) -> bool:
    """Restore the value that an exported variable had before."""
    with trial.session(FOO="before") as session:
        trial.enter(session)
        trial.leave(session)
        return session.inherited("FOO") == "before"


def keeps_bytes(trial: Trial) -> bool:
    """Leave a variable of the user's that is not UTF-8 as it is, inside and afterwards."""
    with trial.session(RAW=os.fsdecode(RAW)) as session:
        trial.enter(session)
        inside = session.inherited("RAW")
        trial.leave(session)
        return inside == session.inherited("RAW") == os.fsdecode(RAW)


def restores_bytes(trial: Trial) -> bool:
    """Restore a variable that is not UTF-8 and that the checkout's file replaces."""
    with trial.session(FOO=os.fsdecode(RAW)) as session:
        trial.enter(session)
        trial.leave(session)
        return session.inherited("FOO") == os.fsdecode(RAW)


def exports_exactly(trial: Trial) -> bool:
    """Export quotes, newlines at the end, `$()`, backslashes and UTF-8 as they are written."""
    trial.file.write_text(trial.text(AWKWARD), encoding="utf-8")
    trial.trust(trial.root)
    with trial.session() as session:
        session.go(trial.root)
        session.prompt()
        return session.inherited("FOO") == AWKWARD


def sees_edit(trial: Trial) -> bool:
    """See an edit of the file at the next prompt, made in the second of the one before it."""
    with trial.session() as session:
        while True:
            # From the first tenth of a second, so that both are in it.
            time.sleep(1.01 - time.time() % 1)
            trial.file.write_text(trial.text("one"), encoding="utf-8")
            trial.enter(session)
            first = trial.file.stat().st_mtime
            trial.file.write_text(trial.text("two"), encoding="utf-8")
            if int(trial.file.stat().st_mtime) == int(first):
                break
            trial.leave(session)
        session.prompt()
        return session.inherited("FOO") != "one"


def sees_older(trial: Trial) -> bool:
    """See that an older file was moved to where the file was (`mv`)."""
    return _sees(trial, lambda older: older.rename(trial.file))


def sees_older_copy(trial: Trial) -> bool:
    """See that an older file was copied over the file with its time (`cp -p`)."""
    return _sees(trial, lambda older: shutil.copy2(older, trial.file))


def _sees(trial: Trial, replace: Callable[[Path], object]) -> bool:
    older = Path(f"{trial.file}.older")
    older.write_text(trial.text("two"), encoding="utf-8")
    os.utime(older, (time.time() - 7200,) * 2)
    with trial.session() as session:
        trial.enter(session)
        replace(older)
        session.prompt()
        return session.inherited("FOO") != "one"


def asks_again(trial: Trial) -> bool:
    """Set nothing of a file that changed after it was trusted."""
    with trial.session() as session:
        trial.file.write_text(trial.text("two"), encoding="utf-8")
        session.go(trial.root)
        session.prompt()
        return session.inherited("FOO") == UNSET


def trusts_worktree(trial: Trial) -> bool:
    """Trust the same file in a new linked worktree of the same repository."""
    root = trial.world.worktree(trial.root, "linked")
    with trial.session() as session:
        session.go(root)
        session.prompt()
        return session.inherited("FOO") == "one"


def asks_in_worktree(trial: Trial) -> bool:
    """Set nothing of a changed file in a new linked worktree of the same repository."""
    root = trial.world.worktree(trial.root, "linked")
    Path(root, trial.tool.file).write_text(trial.text("two"), encoding="utf-8")
    with trial.session() as session:
        session.go(root)
        session.prompt()
        return session.inherited("FOO") == UNSET


def keeps_trap(trial: Trial) -> bool | None:
    """Keep the user's INT trap at a prompt."""
    if trial.shell.name == "fish":
        return None
    with trial.session() as session:
        session.do("trap 'echo interrupted' INT")
        session.prompt()
        return "interrupted" in session.do("trap")


def starts_no_process(trial: Trial) -> bool | None:
    """Start no process at a prompt where nothing changed."""
    if shutil.which("strace") is None:
        return None
    with trial.session() as session:
        trial.enter(session)
        return not _processes(session)


def _processes(session: Session) -> int:
    """Return how many processes ten prompts start: the parent of all is asked by strace."""
    trace = ["strace", "-f", "-qq", "-e", "trace=fork,vfork,clone,clone3,execve"]
    with subprocess.Popen(
        [*trace, "-p", str(session.process.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as tracer:
        assert tracer.stderr is not None
        while not _is_traced(session.process.pid):
            time.sleep(0.01)
        for _ in range(10):
            session.prompt()
        tracer.terminate()
        lines = tracer.stderr.read().decode().splitlines()
    return sum("execve(" in line or "CLONE_THREAD" not in line for line in lines if "(" in line)


def _is_traced(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return "TracerPid:\t0" not in status


BEHAVIOURS: tuple[Callable[[Trial], bool | None], ...] = (
    starts_no_process,
    sees_edit,
    sees_older,
    sees_older_copy,
    keeps_edit,
    keeps_path,
    restores_exported,
    restores_unexported,
    keeps_bytes,
    restores_bytes,
    exports_exactly,
    keeps_trap,
    trusts_worktree,
    asks_in_worktree,
    asks_again,
)


def observe(world: World, tools: Sequence[Tool], shells: Sequence[Shell]) -> Table:
    """Try every behaviour with every tool in every shell."""
    table = Table(
        "Behaviours",
        "Each was tried here and now, in every shell that is named.",
        ["", *(tool.name for tool in tools)],
    )
    for behaviour in BEHAVIOURS:
        row = [(behaviour.__doc__ or "").rstrip(".")]
        for tool in tools:
            seen = {shell.name: behaviour(Trial(world, tool, shell)) for shell in shells}
            row.append(_told(seen))
        table.rows.append(row)
    return table


def _told(seen: Mapping[str, bool | None]) -> str:
    """Return one word where all shells agree; a shell that a behaviour says nothing of is out."""
    words = {name: "yes" if holds else "no" for name, holds in seen.items() if holds is not None}
    if not words:
        return NOTHING
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return ", ".join(f"{name} {word}" for name, word in words.items())
