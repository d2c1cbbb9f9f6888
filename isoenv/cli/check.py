"""Say whether an isoenv.toml is right."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import click

from isoenv import allocator, checkout, config, context, files, ports, presets
from isoenv.cli import output, params, start
from isoenv.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from isoenv.models import Config

# No machine runs more instances of a project at once; what slots above do is no news.
REACH = 99


@dataclass(frozen=True, slots=True)
class Note:
    """Something to know that is no error; ``kind`` is stable for programs."""

    kind: Literal["clash", "ephemeral", "last"]
    message: str


@click.command("check")
@click.argument("file", required=False, type=click.Path(), metavar="[FILE]")
@params.json_option
def command(file: str | None, *, as_json: bool) -> int:
    """Say everything that is wrong with this checkout's isoenv.toml, each with file and line.

    Reads isoenv.toml and isoenv.local.toml over it, or FILE alone; needs no trust, because
    nothing is run. Notes are no errors: slots up to 99 whose ports meet those of slot 0 (they
    are skipped), and ports that the kernel may give away. The exit code is 1 when something is
    wrong.

    \b
    Example:
      isoenv check
      isoenv check --json templates/isoenv.toml
    """
    paths = [file] if file is not None else _own_files()
    found: Config | None = None
    problems: tuple[config.Problem, ...] = ()
    try:
        found = config.parse(_layers(paths), presets.text)
    except config.ConfigProblems as error:
        problems = error.problems
    kept = ports.ephemeral_range()
    notes = list(_notes(found, kept, ports.reserved_ports())) if found else []
    last = last_slot(found) if found else None
    if as_json:
        content = {
            "files": [output.clean(path) for path in paths],
            "problems": [asdict(problem) for problem in problems],
            "notes": [asdict(note) for note in notes],
            "last_slot": last,
        }
        output.write_json({"check": content})
    else:
        lines = [str(problem) for problem in problems]
        lines += [f"note: {note.message}" for note in notes]
        if found:
            lines.append(f"{' and '.join(paths)}: right, {_count(found)}, last slot {last}")
        output.write("".join(f"{output.clean(line)}\n" for line in lines))
    return 1 if problems else 0


def last_slot(of: Config) -> int:
    """Return the largest slot that can have ports."""
    numbering = of.numbering
    if numbering.ports == "offset" or not of.ports:
        return allocator.last_slot(of.ports, numbering.stride)
    needed = -(-len(of.ports) // allocator.BLOCK)
    return sum(1 for _ in allocator.block_starts(numbering.range, b"")) // needed


def _own_files() -> list[str]:
    """Return the files that configure the current directory, as people would name them."""
    caller = start.here()
    place = checkout.locate(caller.directory)
    base = place.base if place else caller.directory
    here = os.path.realpath(caller.directory)
    inside = f"{here}/".startswith(f"{base.rstrip('/')}/")
    found = [path for path in context.config_files(base) if os.path.lexists(path)]
    if not found:
        raise NotFoundError(f"no isoenv.toml in {base}: `isoenv init` writes one")
    return [os.path.relpath(path, here) if inside else path for path in found]


def _layers(paths: list[str]) -> list[config.Layer]:
    layers: list[config.Layer] = []
    problems: list[config.Problem] = []
    for path in paths:
        raw = files.read(path, config.LIMIT + 1)
        if raw is None:
            raise NotFoundError(f"no file {path}: `isoenv init` writes an isoenv.toml")
        try:
            layers.append(config.decode(path, raw))
        except config.ConfigProblems as error:
            problems += error.problems
    if problems:
        raise config.ConfigProblems(problems)
    return layers


def _notes(
    of: Config, ephemeral: tuple[int, int] | None, protected: Collection[int]
) -> Iterator[Note]:
    last = last_slot(of)
    if last == 0:
        highest = max(of.ports.values(), key=lambda port: port.base)
        text = f"no slot but 0: `{highest.name}` of slot 1 is above {allocator.HIGHEST_PORT}"
        yield Note("last", f"{text}: lower `stride` or the port")
    if of.numbering.ports == "block":
        return
    for clash in allocator.formula_clashes(of.ports, of.numbering.stride):
        if clash.slot <= REACH:
            yield Note("clash", f"{clash}: such slots are skipped")
    if ephemeral:
        yield from _ephemeral(of, min(last, REACH), ephemeral, protected)


def _ephemeral(
    of: Config, last: int, bounds: tuple[int, int], protected: Collection[int]
) -> Iterator[Note]:
    """Find the lowest slot with a port that the kernel may give to an outgoing connection."""
    for slot in range(1, last + 1):
        for name, port in allocator.offset_ports(of.ports, of.numbering.stride, slot).items():
            if bounds[0] <= port <= bounds[1] and port not in protected:
                text = f"`{name}` of slot {slot} is {port}, in the kernel's ephemeral range"
                remedy = "an outgoing connection may take it: `isoenv doctor` says what helps"
                yield Note("ephemeral", f"{text} {bounds[0]}-{bounds[1]}: {remedy}")
                return


def _count(of: Config) -> str:
    return f"{len(of.ports)} port{'' if len(of.ports) == 1 else 's'}"
