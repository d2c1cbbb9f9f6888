"""URLs of databases, the names in them, and whether each instance has its own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoenv import presets
from isoenv.config import ConfigProblems, Layer, parse
from isoenv.databases import address, marks, naming
from isoenv.databases.address import Postgres, Sqlite
from isoenv.models import Instance, Project
from isoenv.resolver import resolve

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]

SERVER = {"host": "h", "port": "5433", "user": "u"}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@h:5433/n", Postgres("n", SERVER, {"password": "p"})),
        ("postgres://u:p@h:5433/n", Postgres("n", SERVER, {"password": "p"})),
        ("postgresql+asyncpg://u:p@h:5433/n", Postgres("n", SERVER, {"password": "p"})),
        ("postgresql://h/n", Postgres("n", {"host": "h"})),
        ("postgresql:///n", Postgres("n")),
        ("postgresql:///n?host=/run/pg&port=1", Postgres("n", {"host": "/run/pg", "port": "1"})),
        ("postgresql://%2Frun%2Fpg/n", Postgres("n", {"host": "/run/pg"})),
        ("postgresql://u@[::1]:1/n", Postgres("n", {"user": "u", "host": "::1", "port": "1"})),
        ("postgresql://a:1,b/n", Postgres("n", {"host": "a,b", "port": "1,"})),
        ("postgresql://h/it%27s%20%22n%22", Postgres('it\'s "n"', {"host": "h"})),
        ("postgresql://h/n@home", Postgres("n@home", {"host": "h"})),
        (
            "postgresql://u:p%2F%40@h/n",
            Postgres("n", {"host": "h", "user": "u"}, {"password": "p/@"}),
        ),
        ("postgresql://u:p/w@h/n", Postgres("n", {"host": "h", "user": "u"}, {"password": "p/w"})),
        ("postgresql://u:p@w@h/n", Postgres("n", {"host": "h", "user": "u"}, {"password": "p@w"})),
        ("postgresql://h/n?password=p", Postgres("n", {"host": "h"}, {"password": "p"})),
        ("sqlite:///data/app.db", Sqlite("data/app.db")),
        ("sqlite:////data/app.db", Sqlite("/data/app.db")),
        ("sqlite+aiosqlite:///a%20b.db?mode=ro", Sqlite("a%20b.db")),
    ],
)
def test_a_url_is_read_as_libpq_and_sqlalchemy_read_it(url: str, expected: object) -> None:
    assert address.parse(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        "mysql://u:sesame@h/n",
        "postgresql://u:sesame@h",
        "postgresql://u:sesame@h/",
        "postgresql://u:sesame@h:port/n",
        "postgresql://sesame",
        "postgresql:sesame",
        "postgresql://u:sesame@h/n%00",
        "sqlite://sesame",
        "sqlite:///:memory:",
        "sqlite:///",
        "sqlite:///sesame/",
        "sqlite:///file:sesame?mode=memory",
        "sesame",
        "",
    ],
)
def test_a_url_without_a_database_is_refused_without_being_shown(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(?!.*sesame)") as caught:
        address.parse(url)
    assert "\n" not in str(caught.value)


@given(st.text())
def test_any_text_is_a_place_or_refused(text: str) -> None:
    for url in (text, f"postgresql://{text}", f"postgresql://u:p@h/{text}", f"sqlite:///{text}"):
        try:
            place = address.parse(url)
        except ValueError:
            continue
        assert "\n" not in repr(place.identity)


def test_a_secret_is_neither_shown_nor_left_in_a_message() -> None:
    place = address.parse("postgresql://u:se%20same@h/n?sslpassword=open")
    assert isinstance(place, Postgres)
    assert "se same" not in f"{place} {place!r} {place.identity}"
    assert place.hide("both 'se same' and open") == "both '***' and ***"


def test_what_a_url_leaves_out_is_filled_from_the_variables_of_the_instance() -> None:
    place = address.parse("postgresql://h/n")
    assert isinstance(place, Postgres)
    found = place.filled({"PGPORT": "6432", "PGHOST": "other", "PGPASSWORD": "p", "PGUSER": None})
    assert found == Postgres("n", {"host": "h", "port": "6432"}, {"password": "p"})


def test_relative_paths_begin_at_the_checkouts_root() -> None:
    assert Sqlite("a/../b/./c.db").at("/top/") == Sqlite("/top/b/c.db")
    assert Sqlite("/a//b.db").at("/root") == Sqlite("/a/b.db")


@pytest.mark.parametrize("name", ["x" * 63, "é" * 31, ""])
def test_a_name_that_fits_stays(name: str) -> None:
    assert naming.cut(name) == name


@given(st.sets(st.text("aé🚒\udc80", min_size=16, max_size=80), min_size=2))
def test_names_that_are_cut_fit_and_never_meet(names: set[str]) -> None:
    found = {naming.cut(name) for name in names}
    assert len(found) == len(names)
    assert all(len(name.encode("utf-8", "surrogateescape")) <= naming.LONGEST for name in found)
    temporary = {naming.unfinished(name) for name in names}
    assert len(temporary) == len(names)
    assert all(len(name) <= naming.LONGEST for name in temporary)
    assert len({naming.lock_key(name) for name in names}) == len(names)
    assert all(-(1 << 63) <= naming.lock_key(name) < 1 << 63 for name in names)


def test_a_mark_says_whose_a_database_is_and_is_told_from_other_comments() -> None:
    mine = marks.mark("/a\udc80", "2", "main of shop/2 \udc80")
    assert marks.read(str(mine)) == mine
    assert str(mine).encode()
    assert mine.is_of(marks.mark("/a\udc80", "2", "renamed"))
    for other in (marks.mark("/b", "2", "x"), marks.mark("/a\udc80", "0", "x")):
        assert not mine.is_of(other)
    for text in (None, "", "isoenv", "isoenv: mine", f" {mine}"):
        assert marks.read(text) is None


def instance(slot: int, name: str) -> Instance:
    ports = {"postgres": 5432 + slot * 1000}
    return Instance(Project("shop", "shop"), slot, name, f"/{slot}", "/d", ports)


def test_the_program_reads_the_name_that_was_cut() -> None:
    config = parse(
        [
            Layer(
                "f",
                'env.DB = "app_{name}"\nenv.URL = "postgresql://u@h/{env.DB}?x=1"\n'
                'env.NAME = "{name}"\n'
                'databases.main = { url = "{env.URL}" }\n',
            )
        ],
        presets.text,
    )
    long = "feature-" * 12
    found = [resolve(config, instance(slot, f"{long}{slot}"), "/home") for slot in (1, 2)]
    names = [one.variables["DB"] for one in found]
    assert len(set(names)) == 2
    for one, name in zip(found, names, strict=True):
        assert name is not None
        assert re.fullmatch(r"app_feature-[a-z-]*_[0-9a-f]{12}", name)
        assert len(name) == naming.LONGEST
        assert one.variables["URL"] == one.databases["main"].url == f"postgresql://u@h/{name}?x=1"
        assert one.urls["URL"] == one.variables["URL"]
        assert one.variables["NAME"] == one.instance.name
    assert resolve(config, instance(3, "short"), "/home").variables["DB"] == "app_short"


SAME = (
    "databases.main.url: is the same database for every instance: "
    "put `{id}` or `{name}` into its name, or say `shared = true`"
)


def problems(text: str) -> list[str]:
    try:
        parse([Layer("f", text)], presets.text)
    except ConfigProblems as error:
        return [re.sub(r"^f:\d+: ", "", str(problem)) for problem in error.problems]
    return []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/app_{id}",
        "postgresql://h/app_{name}",
        "postgresql://h:{ports.postgres}/app",
        "postgresql://h-{id}/app",
        "postgresql:///app",  # PGPORT is the instance's
        "sqlite:///app.db",
        "sqlite:///{dirs.DATA}/app.db",
        "sqlite:////var/app-{id}.db",
        "sqlite:///{env.DATA_FILE}",
    ],
)
def test_a_url_that_carries_the_instance_is_right(url: str) -> None:
    text = (
        f'databases.main = {{ url = "{url}" }}\n'
        'ports.postgres = { base = 5432, variable = "PGPORT" }\n'
        'dirs.DATA = "data"\nenv.DATA_FILE = "{dirs.DATA}/{id}"\n'
    )
    assert problems(text) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h/app",
        "postgresql://h:5432/app?application_name=app-{id}",
        "postgresql://user_{id}@h/app",
        "sqlite:////var/app.db",
        "sqlite:///{home}/app.db",
    ],
)
def test_a_url_that_is_the_same_for_all_is_refused_unless_it_is_shared(url: str) -> None:
    assert problems(f'databases.main = {{ url = "{url}" }}') == [SAME]
    assert problems(f'databases.main = {{ url = "{url}", shared = true }}') == []


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        (
            'url = "mysql://u:sesame@h/{id}"',
            "url: expected `postgresql://…/NAME`, `sqlite:///PATH` or `sqlite:////PATH`",
        ),
        (
            'url = "postgresql://h/{id}", template = "postgresql://u:sesame@h/0"',
            "template: expected the name of a database or `file:seed.sql`, got a URL",
        ),
        (
            'url = "postgresql://h/{id}", template = "file:"',
            "template: no file behind `file:`: expected `file:seed.sql`",
        ),
    ],
)
def test_what_is_no_database_is_told_without_its_password(entries: str, expected: str) -> None:
    assert problems(f"databases.main = {{ {entries} }}") == [f"databases.main.{expected}"]


def test_allow_and_check_refuse_a_database_that_all_instances_share(
    repo: Path, isoenv: Isoenv
) -> None:
    (repo / "isoenv.toml").write_text(
        '[databases.main]\nurl = "postgresql://u:sesame@localhost/app"\n'
    )
    for command in ("allow", "check"):
        done = isoenv(command, cwd=repo, trusted=False)
        assert done.returncode == 1
        assert f"isoenv.toml:2: {SAME}" in done.stdout + done.stderr
        assert "sesame" not in done.stdout + done.stderr
    (repo / "isoenv.toml").write_text(
        '[databases.main]\nurl = "postgresql://u:sesame@localhost/app_{id}"\n'
    )
    for command in ("allow", "check"):
        assert isoenv(command, cwd=repo, trusted=False).returncode == 0
