"""Which slot and which ports a new lease gets: preference and checks in, a choice out.

Pure. What is taken, what a slot's ports are and what speaks against a port are parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    from isoenv.models import Port

HIGHEST_PORT = 65535
HIGHEST_SLOT = 9999
BLOCK = 10

# The bad ports of the Fetch standard (https://fetch.spec.whatwg.org/#port-blocking, July 2026):
# browsers refuse to open a URL with one of them.
_BLOCKED_BY_BROWSERS = (
    *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95),
    *(101, 102, 103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179),
    *(389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587),
    *(601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061),
    *(6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
)
_UNWISE: Mapping[int, str] = MappingProxyType(
    {
        **dict.fromkeys(_BLOCKED_BY_BROWSERS, "blocked by browsers"),
        46580: "kept for the user's SkyPilot API server",
        46590: "kept for SkyPilot's skylet",
        50011: "kept for the request queue of the user's SkyPilot API server",
    }
)
UNWISE: frozenset[int] = frozenset(_UNWISE)


@dataclass(frozen=True, slots=True)
class Skip:
    """Why a candidate was passed over; the port is ``reason``, as in "held by …".

    Of a block of ports ``slot`` and ``port_name`` are None.
    """

    slot: int | None
    port_name: str | None
    port: int
    reason: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A slot, its ports by name, and what was passed over on the way to it."""

    slot: int
    ports: Mapping[str, int]
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Clash:
    """Port ``name`` of ``slot`` is the same number as port ``other`` of slot 0."""

    name: str
    slot: int
    other: str
    port: int

    def __str__(self) -> str:
        """Say it in one line."""
        return f"`{self.name}` of slot {self.slot} is `{self.other}` of slot 0: {self.port}"


def cksum(data: bytes) -> int:
    """Return what the POSIX program ``cksum`` prints first for ``data``."""
    crc = 0
    # Bit by bit: the data are names, and a table would cost more to make than it saves.
    for byte in data + len(data).to_bytes((len(data).bit_length() + 7) // 8, "little"):
        crc ^= byte << 24
        for _ in range(8):
            crc = crc << 1 ^ (0x104C11DB7 if crc & 0x80000000 else 0)
    return crc ^ 0xFFFFFFFF


def preferred_slots(prefer: Literal["lowest", "cksum"], name: bytes, last: int) -> Iterator[int]:
    """Yield the slots 1 to ``last``, each once, in the order in which they are wanted."""
    start = cksum(name) % 9 + 1 if prefer == "cksum" else 1
    yield from range(start, last + 1)
    yield from range(1, min(start, last + 1))


def offset_ports(ports: Mapping[str, Port], stride: int, slot: int) -> dict[str, int]:
    """Return the ports of ``slot`` by name: base + slot * stride, above 65535 too."""
    return {name: port.base + slot * stride for name, port in ports.items()}


def last_slot(ports: Mapping[str, Port], stride: int) -> int:
    """Return the largest slot whose ports are all at most 65535; 9999 without ports."""
    if not ports:
        return HIGHEST_SLOT
    return (HIGHEST_PORT - max(port.base for port in ports.values())) // stride


def unwise(port: int) -> str | None:
    """Return why nobody should get ``port`` unasked, as in "blocked by browsers", or None."""
    return _UNWISE.get(port)


def choose(
    candidates: Iterable[int],
    taken: Container[int],
    ports_of: Callable[[int], Mapping[str, int]],
    conflict: Callable[[int], str | None],
) -> Choice:
    """Return the first candidate that is not taken and whose ports nothing speaks against.

    ``conflict`` says what a port is ("held by …"), or None. Raises IsoenvError with the counts
    when no candidate is left.
    """
    held = 0
    skipped: list[Skip] = []
    for slot in candidates:
        if slot in taken:
            held += 1
            continue
        ports = ports_of(slot)
        skip = next(_objections(slot, ports.items(), conflict), None)
        if skip is None:
            return Choice(slot, ports, tuple(skipped))
        skipped.append(skip)
    raise IsoenvError(_none_left(held, skipped))


def block_starts(bounds: tuple[int, int], preference: bytes) -> Iterator[int]:
    """Yield the first ports of all whole, aligned blocks within ``bounds``, both inclusive.

    The order begins at a hash of ``preference``, so that a lost registry is rebuilt alike.
    """
    from hashlib import sha256

    low, high = bounds
    first = -(-low // BLOCK) * BLOCK
    count = (high + 1 - first) // BLOCK
    wanted = int.from_bytes(sha256(preference).digest()[:8], "big")
    for step in range(count):
        yield first + (wanted + step) % count * BLOCK


def choose_block(
    starts: Iterable[int], conflict: Callable[[int], str | None]
) -> tuple[int, tuple[Skip, ...]]:
    """Return the first start whose ten ports nothing speaks against, and the blocks before it.

    Raises IsoenvError with the count when there is none.
    """
    skipped: list[Skip] = []
    for start in starts:
        ports = ((None, port) for port in range(start, start + BLOCK))
        skip = next(_objections(None, ports, conflict), None)
        if skip is None:
            return start, tuple(skipped)
        skipped.append(skip)
    if not skipped:
        raise IsoenvError(
            f"`range` has no room for a block of {BLOCK} ports: widen it in `isoenv.toml`"
        )
    raise IsoenvError(
        f"no block of {BLOCK} ports left in `range`: all {_reasons(skipped)}:"
        " `isoenv prune` gives back what is gone"
    )


def explain(skips: Iterable[Skip]) -> list[str]:
    """Return one line for each skip: which slot or block, which port, and why."""
    return [_line(skip) for skip in skips]


def formula_clashes(ports: Mapping[str, Port], stride: int, limit: int = 10) -> list[Clash]:
    """Return where slots of base + slot * stride run into each other, lowest slots first.

    A pair of ports that meets in slots 5 and 0 meets in 6 and 1 as well, and is named once. At
    most ``limit`` are returned.
    """
    last = last_slot(ports, stride)
    clashes = []
    for pair in combinations(ports.items(), 2):
        (name, low), (other, high) = sorted(pair, key=lambda item: item[1].base)
        slot, rest = divmod(high.base - low.base, stride)
        if rest == 0 and 0 < slot <= last:
            clashes.append(Clash(name, slot, other, high.base))
    return sorted(clashes, key=lambda clash: (clash.slot, clash.port))[:limit]


def _objections(
    slot: int | None,
    ports: Iterable[tuple[str | None, int]],
    conflict: Callable[[int], str | None],
) -> Iterator[Skip]:
    for name, port in ports:
        if not 1 <= port <= HIGHEST_PORT:
            yield Skip(slot, name, port, f"outside 1-{HIGHEST_PORT}")
        elif reason := unwise(port) or conflict(port):
            yield Skip(slot, name, port, reason)


def _none_left(held: int, skipped: Sequence[Skip]) -> str:
    total = held + len(skipped)
    if not total:
        return (
            f"no slot left: slot 1 has a port above {HIGHEST_PORT}:"
            " lower `stride` or the port in `isoenv.toml`"
        )
    if not skipped:
        return f"no slot left: all {total} are held: `isoenv prune` gives back what is gone"
    if not held:
        return f"no slot left: all {_reasons(skipped)}: `isoenv doctor` names what is in the way"
    are = "is" if held == 1 else "are"
    return (
        f"no slot left: {held} of {total} {are} held, {_reasons(skipped)}:"
        " `isoenv prune` gives back what is gone"
    )


def _reasons(skipped: Sequence[Skip]) -> str:
    """Return the count and the first reason: "2 skipped (port 80 of `web` is …, and 1 more)"."""
    first, count = skipped[0], len(skipped)
    whose = f" of `{first.port_name}`" if first.port_name is not None else ""
    more = f", and {count - 1} more" if count > 1 else ""
    return f"{count} skipped (port {first.port}{whose} is {first.reason}{more})"


def _line(skip: Skip) -> str:
    if skip.slot is not None:
        return f"slot {skip.slot} skipped: port {skip.port} ({skip.port_name}) is {skip.reason}"
    start = skip.port - skip.port % BLOCK
    return f"ports {start}-{start + BLOCK - 1} skipped: port {skip.port} is {skip.reason}"
