from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from isoenv.envdiff import (
    RECORD,
    RS,
    US,
    Entry,
    apply,
    changes,
    diff,
    dumps,
    loads,
    revert,
    root_of,
    summary,
)
from isoenv.shells import named

if TYPE_CHECKING:
    from random import Random

ENV = shutil.which("env") or "env"
PROPERTY = settings(deadline=None, database=None)

VALUES = st.one_of(
    st.sampled_from(["", US, RS, RS + "0", RS + "1", RS + RS + "01", "x\x1fy\x1e1", "a\n"]),
    st.binary(max_size=8).map(lambda value: os.fsdecode(value.replace(b"\0", b"\x1f"))),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
NAMES = st.sampled_from(["A", "B", "C", "PORT", "ISOENV_INSTANCE", "_x9", "LC_ALL"])
# Entries that meet: in front of PATH, in it, twice, empty, and one the beginning of another.
DIRS = st.sampled_from(["/a", "/a/b", "/b", "", os.fsdecode(b"/\xff"), "/c\x1f\x1e"])
PATHS = st.none() | st.lists(DIRS, min_size=1, max_size=6).map(":".join)
PREPENDS = st.lists(DIRS.filter(bool), max_size=3).map(tuple)
SETS = st.dictionaries(NAMES, st.none() | VALUES)


@st.composite
def environs(draw: st.DrawFn) -> dict[str, str]:
    """An environment in which some names are those of the set, and PATH is anything."""
    environ = draw(st.dictionaries(NAMES | st.just("%%odd name"), VALUES))
    path = draw(PATHS)
    return environ if path is None else {**environ, "PATH": path}


def taken_back(environ: dict[str, str]) -> tuple[dict[str, str], list[str]]:
    return revert(environ, loads(environ[RECORD]))


@PROPERTY
@given(environs(), SETS, PREPENDS, VALUES)
def test_revert_gives_back_exactly_what_was(
    before: dict[str, str], variables: dict[str, str | None], prepend: tuple[str, ...], root: str
) -> None:
    after = apply(before, variables, prepend, root)
    assert taken_back(after) == (before, [])
    assert root_of(loads(after[RECORD])) == root


@PROPERTY
@given(environs(), SETS, PREPENDS)
def test_apply_sets_what_is_asked_and_leaves_the_rest(
    before: dict[str, str], variables: dict[str, str | None], prepend: tuple[str, ...]
) -> None:
    untouched = dict(before)
    after = apply(before, variables, prepend, "/r")
    assert before == untouched
    assert {name: after.get(name) for name in variables} == variables
    rest = before.keys() - variables.keys() - {"PATH"}
    assert {name: after[name] for name in rest} == {name: before[name] for name in rest}
    assert after.keys() - before.keys() <= {*variables, "PATH", RECORD}
    path = [*prepend, *([before["PATH"]] if "PATH" in before else [])]
    assert after.get("PATH") == (":".join(path) if path else None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "/a:/b"),
        ("", "/a:/b:"),
        (":", "/a:/b::"),
        ("/x::/y", "/a:/b:/x::/y"),
        ("/a", "/a:/b:/a"),
    ],
)
def test_each_kind_of_path_is_told_apart(before: str | None, after: str) -> None:
    environ = {} if before is None else {"PATH": before}
    applied = apply(environ, {}, ("/a", "/b"), "/r")
    assert applied["PATH"] == after
    assert taken_back(applied) == (environ, [])


@PROPERTY
@given(environs(), SETS, SETS)
def test_what_the_user_changed_since_is_left_alone(
    before: dict[str, str], variables: dict[str, str | None], edits: dict[str, str | None]
) -> None:
    after = apply(before, variables, (), "/r")
    for name, value in edits.items():
        after.pop(name, None)
        after |= {} if value is None else {name: value}
    reverted, kept = taken_back(after)
    changed = [name for name in variables if edits.get(name, variables[name]) != variables[name]]
    assert kept == changed
    theirs = {
        name: value for name, value in edits.items() if name in changed or name not in variables
    }
    wanted: dict[str, str | None] = {**before, **theirs}
    assert reverted == {name: value for name, value in wanted.items() if value is not None}


@PROPERTY
@given(st.lists(DIRS), PREPENDS, st.data())
def test_path_entries_that_the_user_added_stay_where_they_are(
    base: list[str], prepend: tuple[str, ...], data: st.DataObject
) -> None:
    assume(base)
    after = apply({"PATH": ":".join(base)}, {}, prepend, "/r")
    entries = [*((entry, True) for entry in prepend), *((entry, False) for entry in base)]
    for added in data.draw(st.lists(st.sampled_from(["/u", "/u/v", "/u"]), max_size=4)):
        entries.insert(data.draw(st.integers(0, len(entries))), (added, False))
    after["PATH"] = ":".join(entry for entry, _ in entries)
    wanted = ":".join(entry for entry, is_ours in entries if not is_ours)
    assert taken_back(after) == ({"PATH": wanted}, [])


@PROPERTY
@given(st.lists(DIRS), PREPENDS, st.randoms(use_true_random=False), st.integers(0, 3))
def test_a_path_that_the_user_reordered_loses_each_entry_of_ours_once(
    base: list[str], prepend: tuple[str, ...], random: Random, removed: int
) -> None:
    after = apply({"PATH": ":".join(base)}, {}, prepend, "/r")
    entries = after["PATH"].split(":")
    random.shuffle(entries)
    entries = entries[removed:]
    assume(entries)
    after["PATH"] = ":".join(entries)
    reverted, kept = taken_back(after)
    left = Counter(entries) - Counter(prepend)
    path = reverted.get("PATH")
    assert (Counter(path.split(":")) if path is not None else Counter()) == left
    assert kept == []


@pytest.mark.parametrize("path", [None, "", "/usr/bin"])
def test_a_path_that_the_user_replaced_is_left_alone(path: str | None) -> None:
    after = apply({"PATH": "/bin"}, {}, ("/a",), "/r")
    del after["PATH"]
    theirs = {} if path is None else {"PATH": path}
    assert taken_back({**after, **theirs}) == (theirs, [])


def test_a_variable_that_was_equal_already_stays() -> None:
    before = {"PORT": "80"}
    after = apply(before, {"PORT": "80", "GONE": None}, (), "/r")
    assert loads(after[RECORD])[1:] == (
        Entry("PORT", "x=", "80", "80"),
        Entry("GONE", "u-", "", ""),
    )
    assert taken_back(after) == (before, [])


def test_a_variable_kept_in_the_shell_alone_is_unset_in_another_process() -> None:
    entries = (Entry("", "r=", "", "/r"), Entry("A", "s=", "", "1"), Entry("B", "s-", "", ""))
    assert revert({"A": "1", "C": "3"}, entries) == ({"C": "3"}, [])
    assert revert({"A": "2", "B": "2"}, entries) == ({"A": "2", "B": "2"}, ["A", "B"])


def test_internal_variables_go_whatever_they_hold() -> None:
    after = apply({"__ISOENV_WAS": "1"}, {"__ISOENV_PIN": "3", "__ISOENV_WAS": "2"}, (), "/r")
    edited = {**after, "__ISOENV_PIN": "4", "__ISOENV_WAS": "5"}
    assert taken_back(edited) == ({"__ISOENV_WAS": "1"}, [])


def test_the_number_that_the_user_chose_since_is_the_users() -> None:
    after = apply({}, {"ISOENV_INSTANCE": "2", "ISOENV_ROOT": "/r"}, (), "/r")
    assert taken_back({**after, "ISOENV_INSTANCE": "3"}) == (
        {"ISOENV_INSTANCE": "3"},
        ["ISOENV_INSTANCE"],
    )


def test_the_record_is_what_the_shells_read() -> None:
    after = apply({"A": "old", "B": "1"}, {"A": "new", "B": None, "C": "c"}, ("/x", "/y"), "/r")
    assert after[RECORD].replace(US, "|") == (
        "|r=||/r|A|x=|old|new|B|x-|1||C|u=||c|PATH|p=||/x:/y|"
    )
    assert dumps([Entry("A", "x=", "\x1e", "\x1f1")]) == "A\x1fx=\x1f\x1e0\x1f\x1e11\x1f"


@PROPERTY
@given(environs(), SETS, PREPENDS, VALUES)
def test_a_record_survives_writing_and_reading(
    before: dict[str, str], variables: dict[str, str | None], prepend: tuple[str, ...], root: str
) -> None:
    record = apply(before, variables, prepend, root)[RECORD]
    assert dumps(loads(record)) == record
    assert record.count(US) == 4 * len(loads(record))


RECORDS = st.lists(
    st.sampled_from(
        ["", "A", "r=", "x=", "u-", "s=", "p=", "/r", US, US, US, RS, RS + "1", "\0", "é"]
    ),
    max_size=24,
).map("".join)


@PROPERTY
@given(RECORDS | st.text(), environs())
@example("", {})
@example(US * 4, {})
def test_any_text_is_a_record_or_a_value_error(record: str, environ: dict[str, str]) -> None:
    try:
        entries = loads(record)
    except ValueError:
        return
    assert dumps(entries) == record
    reverted, kept = revert(environ, entries)
    assert {*reverted, *kept} <= {*environ, *(entry.name for entry in entries)}


@PROPERTY
@given(environs(), SETS, st.data())
def test_a_record_that_is_cut_off_is_a_value_error_or_a_shorter_record(
    before: dict[str, str], variables: dict[str, str | None], data: st.DataObject
) -> None:
    record = apply(before, variables, (), "/r")[RECORD]
    cut = record[: data.draw(st.integers(0, len(record) - 1))]
    try:
        entries = loads(cut)
    except ValueError:
        return
    assert dumps(entries) == cut


IMPOSSIBLE = """
    |r=||/r |x=|a|b A-B|x=|a|b $(id)|u-|| é|x=|a|b A|x|a|b A|y=|a|b A|p-|| A|u=|a|b A|s=|a|b
    PATH|p=|a|b A|x-|a|b A|x=|a\0|b A|x=|a|b|c A|x=|a\x1e|b A|x=|a\x1e2|b
"""


@pytest.mark.parametrize("entry", IMPOSSIBLE.split())
def test_an_impossible_entry_is_refused_without_showing_its_values(entry: str) -> None:
    root = dumps([Entry("", "r=", "", "/r")])
    with pytest.raises(ValueError, match="undo record") as error:
        loads(root + entry.replace("|", US) + US)
    assert "'b'" not in str(error.value)


@pytest.mark.parametrize("record", ["", "A|x=|a|b|", "|r=|x|/r|", "|r=||/r", "|r=||/r|A"])
def test_a_record_begins_with_the_root_and_ends_with_a_cell(record: str) -> None:
    with pytest.raises(ValueError, match="undo record"):
        loads(record.replace("|", US))


@PROPERTY
@given(environs(), environs())
def test_changes_lead_from_one_environment_to_the_other(
    before: dict[str, str], after: dict[str, str]
) -> None:
    steps = changes(before, after)
    reached = dict(before)
    for name, value in steps:
        assert before.get(name) != value
        reached.pop(name, None)
        reached |= {} if value is None else {name: value}
    assert reached == after
    assert steps == changes(dict(reversed(before.items())), dict(reversed(after.items())))


def test_the_record_is_set_first_and_unset_last() -> None:
    environ = {"B": "1", "Z": "1"}
    after = apply(environ, {"A": "1", "B": None, "Z": None, "z": "1"}, (), "/r")
    names = [RECORD, "A", "z", "B", "Z"]
    assert [name for name, _ in changes(environ, after)] == names
    assert [name for name, _ in changes(after, environ)] == ["B", "Z", "A", "z", RECORD]


@pytest.mark.parametrize(
    ("before", "after", "short", "long"),
    [
        ({}, {}, "", ""),
        ({"A": "1"}, {"A": "1", "ISOENV_NAME": "x", RECORD: "y"}, "", ""),
        ({"PATH": "/b"}, {"PATH": "/a:/b", "B": "", "A": ""}, "(+2 ~PATH)", "+A +B ~PATH"),
        (
            {"FOO": "1", "PATH": "1"},
            {"BAR": "1", "PATH": "2"},
            "(+1 ~PATH -FOO)",
            "+BAR ~PATH -FOO",
        ),
        (dict.fromkeys("ABC", "1"), {}, "(-A -B -C)", "-A -B -C"),
        (dict.fromkeys("ABCD", "1"), dict.fromkeys("ABCD", "2"), "(~4)", "~A ~B ~C ~D"),
    ],
)
def test_a_summary_counts_what_is_new_and_names_what_was_there(
    before: dict[str, str], after: dict[str, str], short: str, long: str
) -> None:
    assert (summary(before, after), diff(before, after)) == (short, long)


SHELLS = {"bash": ["bash", "--norc"], "zsh": ["zsh", "-f"], "fish": ["fish", "-N"], "sh": ["dash"]}


def step(shell: str, before: dict[str, str], after: dict[str, str], cwd: Path) -> dict[str, str]:
    """Let the shell go from one environment to the other; return what its children see."""
    spell = named(shell)
    lines = [
        spell.unset(name) if value is None else spell.export(name, value)
        for name, value in changes(before, after)
    ]
    (cwd / "lines").write_bytes(os.fsencode("\n".join(lines)))
    script = f". ./lines; exec '{ENV}' -0"
    argv = [*SHELLS[shell], "-c", script]
    done = subprocess.run(argv, cwd=cwd, env=before, capture_output=True, check=True)
    assert done.stderr == b""
    printed = os.fsdecode(done.stdout).split("\0")[:-1]
    # What a shell sets for itself.
    own = {"PWD", "OLDPWD", "SHLVL", "_", "HOME", "LOGNAME", "USER", "TERM"}
    return {
        name: value for name, value in (line.split("=", 1) for line in printed) if name not in own
    }


@pytest.mark.parametrize("second", SHELLS)
@pytest.mark.parametrize("first", SHELLS)
def test_one_shell_takes_back_what_another_applied(first: str, second: str, tmp_path: Path) -> None:
    programs = [Path(shutil.which(name) or name) for name, *_ in SHELLS.values()]
    path = ":".join(dict.fromkeys(str(program.parent) for program in programs))
    nasty = os.fsdecode(b"'\n\x1f\x1e1\xff\\\x01$(id)\n")
    before = {"PATH": f"{path}:/x y", "OLD": nasty, "GONE": "", "EMPTY": "", "LC_ALL": "C.UTF-8"}
    variables = {"OLD": "new", "GONE": None, "EMPTY": nasty, "NEW": nasty}
    applied = apply(before, variables, ("/it's; a dir", "/b"), f"/r{nasty}")
    seen = step(first, before, applied, tmp_path)
    assert seen == applied
    seen["PATH"] = f"/mine:{seen['PATH']}"
    reverted, kept = taken_back(seen)
    assert kept == []
    assert step(second, seen, reverted, tmp_path) == {**before, "PATH": f"/mine:{path}:/x y"}
