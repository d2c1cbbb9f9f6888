"""Whatever is written into a configuration: it is read, or its problems are told."""

from __future__ import annotations

import random

import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv import presets
from isoenv.config import ConfigProblems, Layer, Problem, parse

SNIPPETS = (
    *("[", "]", "{", "}", '"', "'", '"""', "=", ",", ".", "\n", "\r\n", "\\", "#", "\0", "é"),
    *("true", "-1", "0", "99999", "1e400", "nan", "0x" + "f" * 9000, "1979-05-27", "[[", "]]"),
    *("{id}", "{ports.web}", "{env.X}", "{}", "\\u0000", "\\n", "\\u2028", "extends = 'sky'\n"),
    *(
        "[ports]\n",
        "[env]\n",
        "[services.api]\n",
        "PATH = 'x'\n",
        "run = 'x'\n",
        "requires = ['a']",
    ),
)


@settings(deadline=None, max_examples=250)
@given(st.integers(min_value=0), st.integers(min_value=1, max_value=6))
def test_a_mutation_of_the_orient_file_is_read_or_is_a_config_error(seed: int, count: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - hypothesis chooses the seed
    text = presets.text("orient") or ""
    for _ in range(count):
        start = dice.randrange(len(text))
        end = start + dice.choice((0, 0, 1, 3, 20))
        piece = dice.choice((*SNIPPETS, text[end : end + dice.randrange(60)]))
        text = text[:start] + piece + text[end:]
    check(text)


WORDS = """
    base variable main others exclusive run start stop health start_timeout requires url template
    shared prepend copy prefer ports stride range dir project a b api web PORT UID A-B
"""
KEYS = st.sampled_from(WORDS.split())
SCALARS = st.one_of(
    *(st.booleans(), st.integers(), st.floats(), st.text(max_size=9), st.datetimes()),
    st.sampled_from(["{id}", "{env.a}", "{", "tcp:1", "http://x", "none", 80, 0]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
NAMES = """
    project extends instance ports env dirs path setup flags templates services databases limits
    unknown
"""
TABLES = st.sampled_from(NAMES.split())


@settings(deadline=None, max_examples=250)
@given(st.dictionaries(TABLES, VALUES | st.dictionaries(KEYS | st.text(max_size=3), VALUES)))
def test_any_values_in_the_tables_are_read_or_are_config_errors(data: dict[str, object]) -> None:
    check(tomli_w.dumps(data))


def check(text: str) -> None:
    found: tuple[Problem, ...] = ()
    try:
        parse([Layer("isoenv.toml", text)], presets.text)
    except ConfigProblems as error:
        found = error.problems
    for problem in found:
        assert str(problem).isprintable()
        assert len(str(problem)) < 900
        assert problem.file in ("isoenv.toml", "preset sky")
        assert problem.file != "isoenv.toml" or 1 <= problem.line <= text.count("\n") + 1
