"""How far apart the ports of neighbouring slots should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import allocator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.models import Port

STRIDES = (10, 100, 1000, 1100, 2000)
# The slots that have to work: few people run more at once.
SLOTS = 9
# Below, only root may listen; from the second on, Linux gives ports to outgoing connections.
PRIVILEGED, EPHEMERAL = 1024, 32768


def choose(ports: Mapping[str, Port]) -> tuple[int, str]:
    """Return the smallest stride at which the first nine slots work, and why it is that one."""
    reason = f"slots 0 to {SLOTS} stay clear of each other"
    flaws: dict[int, tuple[int, str]] = {}
    for stride in STRIDES:
        flaw = _flaw(ports, stride)
        if flaw is None:
            return stride, reason
        flaws[stride] = flaw
        reason = f"with {stride} {flaw[1]}"
    latest = max(flaws, key=lambda stride: flaws[stride][0])
    return latest, f"no stride is without a flaw; with this one {flaws[latest][1]}"


def _flaw(ports: Mapping[str, Port], stride: int) -> tuple[int, str] | None:
    """Return the first slot where something is wrong with a stride, and what it is."""
    first = next(iter(allocator.formula_clashes(ports, stride, limit=1)), None)
    for slot in range(1, SLOTS + 1):
        if first and first.slot == slot:
            return slot, str(first)
        for name, port in allocator.offset_ports(ports, stride, slot).items():
            if flaw := _place(ports[name].base, port):
                return slot, f"`{name}` of slot {slot} is {port}, {flaw}"
    return None


def _place(base: int, port: int) -> str | None:
    """Return why a port is no good place to be moved to."""
    if port > allocator.HIGHEST_PORT:
        return f"above {allocator.HIGHEST_PORT}"
    if port < PRIVILEGED:
        return f"below {PRIVILEGED}, where only root may listen"
    if base < EPHEMERAL <= port:
        return "where the kernel takes ports for outgoing connections"
    return None
