"""What a hook costs: at a prompt where nothing changed, on a terminal, between checkouts."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from typing import TYPE_CHECKING

from figures import NOTHING, Figure, Table, added, figure, interleave, text, times, verdict
from sessions import Session, Terminal
from world import PATH_ENTRY, variables

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shells import Shell
    from tools import Tool
    from world import World

PLAIN = "plain"
# A sample is so long, in seconds, that reading its start and its end from a pipe is no part of it.
SAMPLE = 0.03

PROMPT_GOALS = {"bash": 20, "zsh": 20, "fish": 10}
TERMINAL_GOALS = {"bash": 15, "zsh": 15, "fish": 15}
CHANGE_GOALS = {"bash": 15, "zsh": 15, "fish": 8}


class Place:
    """The world as hooks see it: two checkouts, a directory outside, and the tools compared."""

    def __init__(
        self,
        world: World,
        tools: Sequence[Tool],
        shells: Sequence[Shell],
        checkouts: tuple[str, str],
        sample: float,
    ) -> None:
        """Keep them; a sample is to take so many seconds."""
        self.sample = sample
        self.shells = shells
        self.world = world
        self.tools = tools
        self.checkouts = checkouts
        self.outside = world.directory("notes/2026")

    def sessions(self, shell: Shell, stack: ExitStack) -> dict[str, Session]:
        """Start a session without a hook, and one for each tool, outside."""
        found = {}
        for name, hook in self._hooks(shell):
            session = Session(shell, hook, self.outside, self.world.environ)
            found[name] = stack.enter_context(session)
        return found

    def terminals(self, shell: Shell, directory: str, stack: ExitStack) -> dict[str, Terminal]:
        """Start a terminal without a hook, and one for each tool."""
        found = {}
        for name, hook in self._hooks(shell):
            terminal = Terminal(shell, hook, directory, self.world.environ)
            found[name] = stack.enter_context(terminal)
        return found

    def _hooks(self, shell: Shell) -> list[tuple[str, str | None]]:
        tools = [(tool.name, self.world.hook(tool, shell.name)) for tool in self.tools]
        return [(PLAIN, None), *tools]

    def go(self, sessions: Mapping[str, Session], slot: int) -> None:
        """Let every session go to a checkout, and see that its environment is there."""
        for name, session in sessions.items():
            session.go(self.checkouts[slot])
            session.prompt()
            if name != PLAIN:
                check(session, name, slot, self.checkouts[slot])

    def forget(self, name: str) -> None:
        """Let isoenv, if that is the name, know nothing of the second checkout."""
        for tool in self.tools:
            if tool.name == name == "isoenv":
                self.world.run(tool.executable, "release", cwd=self.checkouts[1])
                ready = self.world.home / ".local" / "state" / "isoenv" / "t"
                shutil.rmtree(ready, ignore_errors=True)

    def leave(self, sessions: Mapping[str, Session]) -> None:
        """Let every session go outside, and see that nothing is left."""
        for name, session in sessions.items():
            session.go(self.outside)
            session.prompt()
            if (value := session.value("POSTGRES_DB")) != "<unset>":
                raise RuntimeError(f"{name} in {session.shell.name} leaves POSTGRES_DB={value}")


def check(session: Session, name: str, slot: int, checkout: str) -> None:
    """See that what is timed is the real thing."""
    for variable, expected in variables(slot).items():
        if (value := session.inherited(variable)) != expected:
            raise RuntimeError(
                f"{name} in {session.shell.name}: {variable} is {value} instead of {expected}"
            )
    if f"{checkout}/{PATH_ENTRY}" not in session.inherited("PATH").split(":"):
        raise RuntimeError(f"{name} in {session.shell.name}: PATH lacks {checkout}/{PATH_ENTRY}")


def measure_prompts(place: Place, rounds: int) -> Table:
    """Measure the hook function alone, in a loop, inside a checkout and outside."""
    table = _table(
        place,
        "The hook function at a prompt where nothing changed",
        "Per call, in a loop in the shell itself. " + _explain(rounds),
        ["shell", "where"],
    )
    for shell in place.shells:
        with ExitStack() as stack:
            sessions = place.sessions(shell, stack)
            hooked = {name: it for name, it in sessions.items() if name != PLAIN}
            for session in hooked.values():
                session.define("bench_prompt", session.hooks)
            for where in ("inside", "outside"):
                if where == "inside":
                    place.go(sessions, 0)
                else:
                    place.leave(sessions)
                found = _loop(place, hooked, "bench_prompt", rounds)
                table.rows.append(
                    [shell.name, where, *_compare(place, found, PROMPT_GOALS[shell.name])]
                )
    return table


def measure_changes(place: Place, rounds: int) -> Table:
    """Measure `cd` from one known checkout to another with all that the hook does about it."""
    table = _table(
        place,
        "From one known checkout to another",
        "Per change: `cd` and the next prompt; plain is `cd` without any hook. " + _explain(rounds),
        ["shell", PLAIN],
    )
    for shell in place.shells:
        with ExitStack() as stack:
            sessions = place.sessions(shell, stack)
            place.go(sessions, 0)
            place.go(sessions, 1)
            for session in sessions.values():
                body = "; ".join(session.going(checkout) for checkout in place.checkouts)
                session.define("bench_change", body)
            both = _loop(place, sessions, "bench_change", rounds)
            found = {name: Figure(it.median / 2, it.p10 / 2) for name, it in both.items()}
            # What was timed last is seen to have happened.
            for name in found:
                if name != PLAIN:
                    check(sessions[name], name, 1, place.checkouts[1])
            row = _compare(place, found, CHANGE_GOALS[shell.name])
            table.rows.append([shell.name, text(found[PLAIN]), *row])
    return table


def measure_terminals(place: Place, rounds: int) -> Table:
    """Measure what a hook adds to the time from a newline to the next prompt on a real pty."""
    table = _table(
        place,
        "Added time per prompt on a terminal",
        "From a newline to the next prompt on a pty, less that of a shell without a hook (plain)"
        " in the same round. " + _explain(rounds),
        ["shell", "where", PLAIN],
    )
    for shell in place.shells:
        for where, directory in (("inside", place.checkouts[0]), ("outside", place.outside)):
            with ExitStack() as stack:
                terminals = place.terminals(shell, directory, stack)
                samples = _press(terminals, rounds)
            found = {
                name: added(taken, samples[PLAIN]) if name != PLAIN else figure(taken)
                for name, taken in samples.items()
            }
            row = _compare(place, found, TERMINAL_GOALS[shell.name])
            table.rows.append([shell.name, where, text(found[PLAIN]), *row])
    return table


def measure_first_loads(place: Place, rounds: int) -> Table:
    """Measure the load of a checkout that isoenv has never seen, lease and all."""
    table = _table(
        place,
        "A first, cold load",
        "`cd` into a checkout that holds no lease and has no generated file. direnv and mise keep"
        " nothing: every load is their first. " + _explain(rounds),
        ["shell", PLAIN],
        goal=False,
    )
    for shell in place.shells:
        with ExitStack() as stack:
            sessions = place.sessions(shell, stack)

            samples = _load(place, sessions, rounds)
            for name, session in sessions.items():
                if name != PLAIN:
                    check(session, name, 1, place.checkouts[1])
            found = {name: figure(taken) for name, taken in samples.items()}
            table.rows.append([shell.name, text(found[PLAIN]), *_compare(place, found, None)])
    return table


def _press(terminals: Mapping[str, Terminal], rounds: int) -> dict[str, list[float]]:
    def press(name: str) -> float:
        return terminals[name].press_enter()

    interleave(terminals, press, 5)
    return interleave(terminals, press, rounds)


def _load(place: Place, sessions: Mapping[str, Session], rounds: int) -> dict[str, list[float]]:
    for session in sessions.values():
        session.define("bench_load", session.going(place.checkouts[1]))

    def load(name: str) -> float:
        session = sessions[name]
        session.go(place.outside)
        place.forget(name)
        return session.time("bench_load", 1)

    return interleave(sessions, load, rounds)


def _explain(rounds: int) -> str:
    return f"Median (p10) of {rounds} rounds."


def _table(
    place: Place, title: str, note: str, columns: Sequence[str], *, goal: bool = True
) -> Table:
    names = [tool.name for tool in place.tools]
    ratios = [f"{name} / isoenv" for name in names if name != "isoenv"]
    labels = len([column for column in columns if column != PLAIN])
    header = [*columns, *names, *ratios, *(["goal"] if goal else [])]
    return Table(title, note, header, labels=labels)


def _loop(
    place: Place, sessions: Mapping[str, Session], function: str, rounds: int
) -> dict[str, Figure]:
    """Time a turn of a function in each session."""
    counts = {name: _enough(it, function, place.sample) for name, it in sessions.items()}

    def time(name: str) -> float:
        return sessions[name].time(function, counts[name])

    samples = interleave(sessions, time, rounds)
    return {name: figure(taken) for name, taken in samples.items()}


def _enough(session: Session, function: str, sample: float) -> int:
    """Return how many turns take about as long as a sample."""
    count = 1
    while (taken := session.time(function, count) * count) < sample / 2:
        count *= 2 if taken > sample / 8 else 4
    return count


def _compare(place: Place, found: Mapping[str, Figure], goal: float | None) -> list[str]:
    """Return the figures of the tools, how they compare with isoenv's, and the verdict."""
    ours = found.get("isoenv")
    others = [tool.name for tool in place.tools if tool.name != "isoenv"]
    cells = [text(found.get(tool.name)) for tool in place.tools]
    cells += [times(found.get(name), ours) for name in others]
    if goal is not None:
        cells.append(verdict(found.get("direnv"), ours, goal) if ours else NOTHING)
    return cells
