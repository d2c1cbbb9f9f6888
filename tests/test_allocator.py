from __future__ import annotations

import ast
import subprocess
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv import allocator
from isoenv.allocator import BLOCK, Choice, Clash, Skip
from isoenv.errors import IsoenvError
from isoenv.models import Port

# The seed of the Orient system: slot 0's ports, in its order.
ORIENT = {
    "nginx": 80,
    "whatsapp": 4097,
    "dashboard": 4098,
    "opencode": 4099,
    "vite": 5173,
    "postgres": 5432,
    "minio_api": 9000,
    "minio_console": 9001,
}

# https://fetch.spec.whatwg.org/#port-blocking, the first column of its table in July 2026.
BAD_PORTS = """
    0 1 7 9 11 13 15 17 19 20 21 22 23 25 37 42 43 53 69 77 79 87 95 101 102 103 104 109 110 111
    113 115 117 119 123 135 137 139 143 161 179 389 427 465 512 513 514 515 526 530 531 532 540
    548 554 556 563 587 601 636 989 990 993 995 1719 1720 1723 2049 3659 4045 4190 5060 5061 6000
    6566 6665 6666 6667 6668 6669 6679 6697 10080
"""


def ports(**bases: int) -> dict[str, Port]:
    return {name: Port(name, base, None) for name, base in bases.items()}


def free(_: int) -> None:
    return None


def choose_orient(taken: set[int]) -> Choice:
    bases = ports(**ORIENT)
    last = allocator.last_slot(bases, 1000)
    return allocator.choose(
        allocator.preferred_slots("lowest", b"", last),
        taken,
        lambda slot: allocator.offset_ports(bases, 1000, slot),
        free,
    )


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=700))
def test_cksum_is_that_of_the_program(data: bytes) -> None:
    printed = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout
    assert allocator.cksum(data) == int(printed.split()[0])


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 4294967295), (b"orienter", 1499298239), (b"\xff\x00\n", 1466344448)],
)
def test_cksum_never_changes(data: bytes, expected: int) -> None:
    assert allocator.cksum(data) == expected


@given(st.sampled_from(["lowest", "cksum"]), st.binary(max_size=20), st.integers(0, 60))
def test_every_slot_but_0_is_preferred_once(
    prefer: Literal["lowest", "cksum"], name: bytes, last: int
) -> None:
    slots = list(allocator.preferred_slots(prefer, name, last))
    assert sorted(slots) == list(range(1, last + 1))


def test_lowest_goes_upwards_from_1() -> None:
    assert list(allocator.preferred_slots("lowest", b"any", 4)) == [1, 2, 3, 4]


def test_cksum_starts_where_the_shell_formula_says_and_wraps() -> None:
    formula = 'echo $(($(echo -n "$1" | cksum | cut -d" " -f1) % 9 + 1))'
    for name in ("feature-auth", "fix-login", "a b", "größe"):
        shell = subprocess.run(
            ["bash", "-c", formula, "bash", name], capture_output=True, check=True
        )
        start = int(shell.stdout)
        slots = list(allocator.preferred_slots("cksum", name.encode(), 12))
        assert slots == [*range(start, 13), *range(1, start)]


def test_offset_ports_of_orient_are_those_of_its_table() -> None:
    bases = ports(**ORIENT)
    assert allocator.offset_ports(bases, 1000, 0) == ORIENT
    assert list(allocator.offset_ports(bases, 1000, 3).values()) == [
        *(3080, 7097, 7098, 7099, 8173, 8432, 12000, 12001)
    ]


def test_last_slot_is_the_last_whose_ports_exist() -> None:
    assert allocator.last_slot(ports(**ORIENT), 1000) == 56
    assert allocator.last_slot(ports(api=46580), 1) == 18955
    assert allocator.last_slot(ports(top=65535), 1) == 0
    assert allocator.last_slot({}, 1000) == 9999


def test_unwise_ports_are_the_blocked_ones_and_those_of_skypilot() -> None:
    blocked = {int(port) for port in BAD_PORTS.split()}
    assert blocked | {46580, 46590, 50011} == allocator.UNWISE
    assert {allocator.unwise(port) for port in blocked} == {"blocked by browsers"}
    assert allocator.unwise(46580) == "kept for the user's SkyPilot API server"
    assert allocator.unwise(46590) == "kept for SkyPilot's skylet"
    assert allocator.unwise(50011) == "kept for the request queue of the user's SkyPilot API server"
    assert allocator.unwise(46581) is None


def test_the_first_slot_that_is_not_taken_is_chosen() -> None:
    choice = choose_orient({1, 2})
    assert choice == Choice(3, allocator.offset_ports(ports(**ORIENT), 1000, 3), ())


def test_orient_has_room_for_55_slots() -> None:
    taken: set[int] = set()
    for _ in range(55):
        taken.add(choose_orient(taken).slot)
    assert taken == set(range(1, 57)) - {10}
    with pytest.raises(IsoenvError) as failure:
        choose_orient(taken)
    assert str(failure.value) == (
        "no slot left: 55 of 56 are held, 1 skipped (port 10080 of `nginx` is blocked by browsers):"
        " `isoenv prune` gives back what is gone"
    )
    assert failure.value.exit_code == 1


def test_a_skipped_slot_is_recorded_with_its_first_conflict() -> None:
    held = {1080: "held by python3 (pid 4711)", 5097: "held by node (pid 5)"}
    choice = allocator.choose(
        [1, 2, 3],
        {2},
        lambda slot: allocator.offset_ports(ports(nginx=80, bot=4097), 1000, slot),
        held.get,
    )
    assert choice.slot == 3
    assert choice.skipped == (Skip(1, "nginx", 1080, "held by python3 (pid 4711)"),)
    assert allocator.explain(choice.skipped) == [
        "slot 1 skipped: port 1080 (nginx) is held by python3 (pid 4711)"
    ]


def test_the_skylet_of_a_cluster_costs_the_tenth_sky_slot() -> None:
    choice = allocator.choose(
        range(10, 20),
        set(),
        lambda slot: allocator.offset_ports(ports(api=46580, queue=50011), 1, slot),
        free,
    )
    assert choice.slot == 11
    assert allocator.explain(choice.skipped) == [
        "slot 10 skipped: port 46590 (api) is kept for SkyPilot's skylet"
    ]


@pytest.mark.parametrize("port", [-5, 65536])
def test_a_port_that_does_not_exist_is_never_probed_nor_chosen(port: int) -> None:
    probed: list[int] = []
    with pytest.raises(IsoenvError, match=rf"\(port {port} of `web` is outside 1-65535\)"):
        allocator.choose([1], set(), lambda _: {"web": port}, probed.append)
    assert probed == []


def test_an_unwise_port_is_never_probed() -> None:
    probed: list[int] = []
    choice = allocator.choose(
        [1, 2], set(), lambda slot: {"web": {1: 6666, 2: 6670}[slot]}, probed.append
    )
    assert (choice.slot, probed) == (2, [6670])


@pytest.mark.parametrize(
    ("candidates", "taken", "message"),
    [
        (
            [],
            set(),
            (
                "no slot left: slot 1 has a port above 65535:"
                " lower `stride` or the port in `isoenv.toml`"
            ),
        ),
        ([1, 2], {1, 2}, "no slot left: all 2 are held: `isoenv prune` gives back what is gone"),
        (
            [1, 2],
            set(),
            (
                "no slot left: all 2 skipped (port 201 of `web` is in use, and 1 more):"
                " `isoenv doctor` names what is in the way"
            ),
        ),
        (
            [1, 2, 3],
            {1},
            (
                "no slot left: 1 of 3 is held, 2 skipped (port 202 of `web` is in use, and 1 more):"
                " `isoenv prune` gives back what is gone"
            ),
        ),
    ],
)
def test_no_slot_left_says_what_became_of_all_of_them(
    candidates: list[int], taken: set[int], message: str
) -> None:
    with pytest.raises(IsoenvError) as failure:
        allocator.choose(candidates, taken, lambda slot: {"web": 200 + slot}, lambda _: "in use")
    assert str(failure.value) == message


@given(st.integers(1, 65535), st.integers(1, 65535), st.binary(max_size=10))
def test_blocks_are_whole_aligned_and_inside(low: int, high: int, preference: bytes) -> None:
    starts = list(allocator.block_starts((low, high), preference))
    assert sorted(starts) == [
        start for start in range(0, 65536, BLOCK) if low <= start and start + BLOCK - 1 <= high
    ]


def test_the_default_range_has_1276_blocks_from_a_pinned_one_on() -> None:
    starts = list(allocator.block_starts((20000, 32759), b"orienter\x002"))
    assert len(starts) == len(set(starts)) == 1276
    assert starts[0] == 31710
    assert starts[: starts.index(20000)] == list(range(31710, 32760, 10))
    assert starts[-1] == 31710 - 10


def test_a_block_is_taken_only_when_all_ten_ports_are_free() -> None:
    held = {20009: "held by nc (pid 9)", 20010: "reserved for `web` of shop/3"}
    start, skipped = allocator.choose_block([20000, 20010, 20020, 20030], held.get)
    assert start == 20020
    assert allocator.explain(skipped) == [
        "ports 20000-20009 skipped: port 20009 is held by nc (pid 9)",
        "ports 20010-20019 skipped: port 20010 is reserved for `web` of shop/3",
    ]


def test_a_block_with_an_unwise_port_is_passed_over() -> None:
    start, skipped = allocator.choose_block([10080, 6660, 6560, 6570], free)
    assert start == 6570
    assert [skip.port for skip in skipped] == [10080, 6665, 6566]


def test_no_block_left_says_how_many_were_tried() -> None:
    with pytest.raises(IsoenvError) as failure:
        allocator.choose_block([20000, 20010], lambda _: "in use")
    assert str(failure.value) == (
        "no block of 10 ports left in `range`: all 2 skipped (port 20000 is in use, and 1 more):"
        " `isoenv prune` gives back what is gone"
    )


def test_a_range_without_a_whole_block_says_so() -> None:
    with pytest.raises(IsoenvError) as failure:
        allocator.choose_block(allocator.block_starts((20001, 20018), b""), free)
    assert str(failure.value) == (
        "`range` has no room for a block of 10 ports: widen it in `isoenv.toml`"
    )


def test_clashes_of_a_formula_are_spelled_out() -> None:
    clashes = allocator.formula_clashes(ports(api=8000, web=3000, admin=10000), 1000)
    assert [str(clash) for clash in clashes] == [
        "`api` of slot 2 is `admin` of slot 0: 10000",
        "`web` of slot 5 is `api` of slot 0: 8000",
        "`web` of slot 7 is `admin` of slot 0: 10000",
    ]
    assert allocator.formula_clashes(ports(api=8000, web=3000, admin=10000), 1000, limit=1) == [
        Clash("api", 2, "admin", 10000)
    ]


def test_a_stride_that_keeps_the_bases_apart_has_no_clashes() -> None:
    assert allocator.formula_clashes(ports(**ORIENT), 1000) == []
    assert allocator.formula_clashes(ports(web=3000, api=8000), 1001) == []


def test_slots_that_cannot_exist_do_not_clash() -> None:
    assert allocator.formula_clashes(ports(low=1000, high=61000), 1000) == []


@given(st.lists(st.integers(1, 65535), min_size=1, max_size=4, unique=True), st.integers(1, 5000))
def test_there_are_clashes_exactly_where_two_slots_share_a_port(
    bases: list[int], stride: int
) -> None:
    table = ports(**{f"p{index}": base for index, base in enumerate(bases)})
    seen: dict[int, int] = {}
    shared = False
    for slot in range(min(allocator.last_slot(table, stride), 3000) + 1):
        for port in allocator.offset_ports(table, stride, slot).values():
            shared |= seen.setdefault(port, slot) != slot
    clashes = allocator.formula_clashes(table, stride)
    assert bool([clash for clash in clashes if clash.slot <= 3000]) == shared
    for clash in clashes:
        assert allocator.offset_ports(table, stride, clash.slot)[clash.name] == clash.port
        assert table[clash.other].base == clash.port


def test_the_allocator_reads_nothing_of_the_machine() -> None:
    tree = ast.parse(Path(allocator.__file__).read_text(encoding="utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        )
    }
    assert modules == {
        *("__future__", "collections.abc", "dataclasses", "hashlib", "itertools", "types"),
        *("typing", "isoenv.errors", "isoenv.models"),
    }
