"""The lines of keys, against a scanner that asks tomllib after every line."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv import positions as module
from isoenv.positions import positions

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = '''\
# a comment with [brackets] and "quotes
project = "orienter" # [not.a.table]

[instance]
range = [
  20000, # the [first
  32759,
]
[ports]
web = { base = 80, variable = "HTTP_PORT" }
"minio api" = 9000
a.b."c d" = 1

[env]
TEXT = """
[env]
NAME = "x"
\\""" ""\\
"""
LITERAL = \'\'\'
[x]'\'\'\'
AFTER = "]"
[[services]]
run = [["a]"], ['b['], """[
"""]
  [ "quoted . table" . inner ]
\tlast = 1'''


def test_each_key_has_the_line_of_its_statement() -> None:
    assert positions(TEXT) == {
        ("project",): 2,
        ("instance",): 4,
        ("instance", "range"): 5,
        ("ports",): 9,
        ("ports", "web"): 10,
        ("ports", "web", "base"): 10,
        ("ports", "web", "variable"): 10,
        ("ports", "minio api"): 11,
        ("ports", "a"): 12,
        ("ports", "a", "b"): 12,
        ("ports", "a", "b", "c d"): 12,
        ("env",): 14,
        ("env", "TEXT"): 15,
        ("env", "LITERAL"): 20,
        ("env", "AFTER"): 22,
        ("services",): 23,
        ("services", "run"): 24,
        ("quoted . table",): 26,
        ("quoted . table", "inner"): 26,
        ("quoted . table", "inner", "last"): 27,
    }


def test_lines_that_end_in_crlf_have_the_same_numbers() -> None:
    assert positions(TEXT.replace("\n", "\r\n")) == positions(TEXT)


@pytest.mark.parametrize("text", ["", "\n", "# only\n#comments", "\r\n\r\n"])
def test_a_text_without_keys_has_no_positions(text: str) -> None:
    assert positions(text) == {}


def test_a_path_that_is_named_again_keeps_its_first_line() -> None:
    text = "[a.b]\nc = 1\n[a]\nd = 1\n[[e]]\nf = 1\n[[e]]\nf = 2\n"
    assert positions(text)["a",] == 1
    assert positions(text)["e", "f"] == 6


def test_each_statement_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    loads = tomllib.loads
    monkeypatch.setattr(module.tomllib, "loads", lambda text: parsed.append(text) or loads(text))
    long = "a = [\n" + '"]", # ]\n' * 2000 + ']\nb = """\n' + "]\n" * 2000 + '"""\n[c]\nd = 1\n'
    assert positions(long) == {("a",): 1, ("b",): 2003, ("c",): 4005, ("c", "d"): 4006}
    assert sum(map(len, parsed)) < len(long)


SPACE = st.sampled_from(["", " ", "\t", "  "])
END = st.sampled_from(["\n", "\r\n", " # ]'\"\n", "\n\n", "\n# [x]\r\n"])
NASTY = st.text(alphabet="[]{}#'\"\\\nab=. ,\u00e9", max_size=12)


def quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.replace("\n", "\\n")


STRINGS = st.one_of(
    NASTY.map(quoted),
    NASTY.map(lambda text: f"'{text.translate({39: None, 10: None})}'"),
    NASTY.map(lambda text: '"""' + text.replace("\\", "\\\\").replace('"""', "") + '"""'),
    NASTY.map(lambda text: "'''" + text.replace("'''", "") + "'''"),
)
LISTS = st.lists(STRINGS, max_size=3).map(lambda items: "[\n" + " ,# ]\n".join(items) + "\n]")
TABLES = st.lists(STRINGS, max_size=2).map(
    lambda items: "{" + ", ".join(f"t{n} = {item}" for n, item in enumerate(items)) + "}"
)
VALUES = st.one_of(STRINGS, LISTS, TABLES, st.just("[[1, 2], []]"), st.just("2020-01-01 10:00:00"))
KEYS = st.one_of(st.sampled_from(["a", "b-c", "9"]), NASTY.map(quoted))
PATHS = st.lists(KEYS, min_size=1, max_size=3)
STATEMENTS = st.one_of(
    st.builds("{}{}{}={}{}{}".format, SPACE, PATHS.map(" . ".join), SPACE, SPACE, VALUES, END),
    st.builds("{}[{}{}]{}".format, SPACE, PATHS.map(".".join), SPACE, END),
    st.builds("{}[[{}]]{}".format, SPACE, PATHS.map(".".join), END),
    END,
)


@settings(deadline=None, max_examples=300)
@given(st.lists(STATEMENTS, max_size=12))
def test_lines_are_those_of_a_scanner_that_asks_tomllib_after_every_line(pieces: list[str]) -> None:
    text = ""
    for piece in pieces:
        try:
            tomllib.loads(text + piece)
        except tomllib.TOMLDecodeError:
            continue
        text += piece
    assert positions(text) == scan(text)


def scan(text: str) -> dict[tuple[str, ...], int]:
    found: dict[tuple[str, ...], int] = {}
    prefix: tuple[str, ...] = ()
    lines, start = text.split("\n"), 0
    while start < len(lines):
        end = start + 1
        while (keys := loaded("\n".join(lines[start:end]))) is None:
            end += 1
        header = lines[start].strip().startswith("[")
        paths = list(walk(keys, () if header else prefix))
        prefix = paths[-1] if header else prefix
        found = dict.fromkeys(paths, start + 1) | found
        start = end
    return found


def loaded(text: str) -> dict[str, object] | None:
    try:
        # A line that has lost its newline may end in half of a CRLF.
        return tomllib.loads(text + "\n")
    except tomllib.TOMLDecodeError:
        return None


def walk(value: object, prefix: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, child in value.items() if isinstance(value, dict) else ():
        yield (*prefix, key)
        yield from walk(child, (*prefix, key))
