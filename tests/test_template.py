"""The ``{field}`` grammar, and ``$NAME`` in rendered files."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv.template import expand, fields, substitute

NAMES = st.from_regex(r"[a-z]+(\.[A-Za-z_-]+)?", fullmatch=True)
PARTS = st.lists(st.tuples(st.just("text"), st.text()) | st.tuples(st.just("field"), NAMES))

VARIABLES = {b"PORT": b"8080", b"HOST": b"$PORT", b"EMPTY": b"", b"RAW": b"\xff\r\n\\1"}
IDENTIFIER = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_"


@settings(deadline=None)
@given(PARTS)
def test_fields_and_expand_undo_the_writing_of_a_template(parts: list[tuple[str, str]]) -> None:
    text = "".join(
        f"{{{part}}}" if kind == "field" else part.replace("{", "{{").replace("}", "}}")
        for kind, part in parts
    )
    assert fields(text) == tuple(part for kind, part in parts if kind == "field")
    expected = "".join(part.upper() if kind == "field" else part for kind, part in parts)
    assert expand(text, str.upper) == expected


@settings(deadline=None)
@given(st.text(alphabet="{}a.", max_size=12))
def test_a_template_has_fields_or_a_problem_and_never_anything_else(text: str) -> None:
    try:
        found = fields(text)
    except ValueError:
        return
    assert expand(text, lambda field: f"<{field}>").count("<") == len(found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a{b", "`{` without `}`: `{{` is a plain brace"),
        ("a}b", "`}` without `{`: `}}` is a plain brace"),
        ("{id}}", "`}` without `{`: `}}` is a plain brace"),
        ("{{id}", "`}` without `{`: `}}` is a plain brace"),
        ("{a{id}}", "`{` without `}`: `{{` is a plain brace"),
        ("a{}b", "`{}` is an empty field: `{{}}` is a plain pair of braces"),
    ],
)
def test_a_brace_that_means_nothing_is_an_error(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"^") as caught:
        fields(text)
    assert str(caught.value) == message


def test_braces_next_to_a_field_belong_to_whom_they_are_nearest() -> None:
    assert fields("{{{id}}}{{}}") == ("id",)
    assert expand("{{{id}}}{{}}", lambda field: f"<{field}>") == "{<id>}{}"


def test_what_a_field_expands_to_is_not_expanded_again() -> None:
    assert expand("{name}", lambda _: "{id} {{ $PORT \\1") == "{id} {{ $PORT \\1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"listen ${PORT};", b"listen 8080;"),
        (b"listen $PORT;", b"listen 8080;"),
        (b"$PORT$PORT${PORT}", b"808080808080"),
        (b"proxy_set_header Host $host;", b"proxy_set_header Host $host;"),
        (b"$PORTS ${PORTS} $PORT_ $PORT1", b"$PORTS ${PORTS} $PORT_ $PORT1"),
        (b"${PORT ${ PORT} ${PORT:-80} ${} $", b"${PORT ${ PORT} ${PORT:-80} ${} $"),
        (b"$$ $1 $? \\$ $-PORT", b"$$ $1 $? \\$ $-PORT"),
        (b"$$PORT", b"$8080"),
        (b"$PORT-$PORT.$PORT\xc3\xa9", b"8080-8080.8080\xc3\xa9"),
        (b"[$EMPTY]", b"[]"),
        (b"$HOST", b"$PORT"),
        (b"$RAW", b"\xff\r\n\\1"),
        (b"a\r\n$PORT\r\n\xff\0", b"a\r\n8080\r\n\xff\0"),
    ],
)
def test_only_variables_that_are_given_are_substituted(text: bytes, expected: bytes) -> None:
    assert substitute(text, VARIABLES) == expected


@settings(deadline=None)
@given(st.binary())
def test_without_variables_every_byte_stays(text: bytes) -> None:
    assert substitute(text, {}) == text


@settings(deadline=None)
@given(st.lists(st.sampled_from([*b"${}PORTS_1-\xff"]), max_size=30).map(bytes))
def test_substitution_does_what_a_reader_of_single_bytes_does(text: bytes) -> None:
    assert substitute(text, VARIABLES) == read_bytewise(text)


def read_bytewise(text: bytes) -> bytes:
    at, out = 0, b""
    while at < len(text):
        brace = text[at : at + 2] == b"${"
        start = end = at + 1 + brace
        while end < len(text) and text[end] in IDENTIFIER:
            end += 1
        name, closed = text[start:end], not brace or text[end : end + 1] == b"}"
        if text[at] == ord("$") and closed and name in VARIABLES:
            out += VARIABLES[name]
            at = end + brace
        else:
            out += text[at : at + 1]
            at += 1
    return out
