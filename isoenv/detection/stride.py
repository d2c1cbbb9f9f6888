"""How far apart the ports of neighbouring slots should be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv import allocator

if TYPE_CHECKING:
    from collections.abc import Mapping

    from isoenv.models import Port

STRIDES = (10, 100, 1000, 1100, 2000)
# Where none will do: the one that people expect.
LAST_RESORT = 1000
# The slots that have to work: few people run more at once.
SLOTS = 9
# Below, only root may listen; from the second on, Linux gives ports to outgoing connections.
PRIVILEGED, EPHEMERAL = 1024, 32768


def choose(ports: Mapping[str, Port]) -> tuple[int, str]:
    """Return the smallest stride at which the first nine slots work, and why it is that one."""
    reason = f"slots 0 to {SLOTS} stay clear of each other"
    for stride in STRIDES:
        objection = _objection(ports, stride)
        if objection is None:
            return stride, reason
        reason = f"with {stride} {objection}"
    objection = _objection(ports, LAST_RESORT)
    return LAST_RESORT, f"no stride is without a flaw; with this one {objection}"


def _objection(ports: Mapping[str, Port], stride: int) -> str | None:
    """Return what is wrong with a stride, in the first slot where something is."""
    for clash in allocator.formula_clashes(ports, stride, limit=1):
        if clash.slot <= SLOTS:
            return str(clash)
    for slot in range(1, SLOTS + 1):
        for name, port in allocator.offset_ports(ports, stride, slot).items():
            if flaw := _flaw(ports[name].base, port):
                return f"`{name}` of slot {slot} is {port}, {flaw}"
    return None


def _flaw(base: int, port: int) -> str | None:
    if port > allocator.HIGHEST_PORT:
        return f"above {allocator.HIGHEST_PORT}"
    if port < PRIVILEGED:
        return f"below {PRIVILEGED}, where only root may listen"
    if base < EPHEMERAL <= port:
        return "where the kernel takes ports for outgoing connections"
    return allocator.unwise(port)
