"""From a configuration and an instance to its variables."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoenv import resolver
from isoenv.errors import NotFoundError
from isoenv.models import Config, Flag, Instance, Numbering, Port, Project

SHOP = Instance(
    Project("/code/shop/.git", "shop"),
    2,
    "feature",
    "/code/feature",
    "/state/shop/2",
    {"web": 5000, "db": 5001},
    {"LOUD": True},
)


def test_order_is_isoenvs_own_then_slot_ports_flags_dirs_env() -> None:
    config = Config(
        numbering=Numbering(variable="SHOP_SLOT"),
        ports={"web": Port("web", 3000, "WEB_PORT"), "db": Port("db", 3001, None)},
        flags={"LOUD": Flag("LOUD"), "FAST": Flag("FAST")},
        dirs={"DATA_DIR": "data/{id}"},
        env={"URL": "http://localhost:{ports.web}/{name}", "COPY": "{env.URL}", "OLD": False},
    )
    found = resolver.resolve(config, SHOP, "/home/me").variables
    assert list(found.items()) == [
        ("ISOENV_PROJECT", "shop"),
        ("ISOENV_INSTANCE", "2"),
        ("ISOENV_NAME", "feature"),
        ("ISOENV_ROOT", "/code/feature"),
        ("ISOENV_DIR", "/state/shop/2"),
        ("SHOP_SLOT", "2"),
        ("WEB_PORT", "5000"),
        ("LOUD", "true"),
        ("FAST", "false"),
        ("DATA_DIR", "/code/feature/data/2"),
        ("URL", "http://localhost:5000/feature"),
        ("COPY", "http://localhost:5000/feature"),
        ("OLD", None),
    ]


def test_every_field_is_filled_in() -> None:
    text = "{id} {name} {project} {root} {home} {ports.db} {dirs.D} {env.E} {env.LOUD} {{x}}"
    config = Config(
        ports={"db": Port("db", 1, "DB_PORT")},
        dirs={"D": "d"},
        flags={"LOUD": Flag("LOUD")},
        env={"E": "e", "ALL": text},
    )
    found = resolver.resolve(config, SHOP, "/home/me").variables["ALL"]
    assert found == "2 feature shop /code/feature /home/me 5001 /code/feature/d e true {x}"


def test_a_value_that_reads_as_a_template_is_filled_in_once() -> None:
    instance = replace(SHOP, name="{id}", root="/code/{home}")
    found = resolver.resolve(Config(env={"A": "{name} {root}"}), instance, "/home/me")
    assert found.variables["A"] == "{id} /code/{home}"


def test_paths_are_absolute_and_without_dots() -> None:
    config = Config(
        dirs={"A": "./a//b/", "B": "../b", "C": "{home}/c", "D": "/x/../../d", "E": "{dirs.A}/e"},
        path_prepend=(".venv/bin", "{home}/bin", "{dirs.A}"),
    )
    found = resolver.resolve(config, SHOP, "/home/me")
    assert found.dirs == {
        "A": "/code/feature/a/b",
        "B": "/code/b",
        "C": "/home/me/c",
        "D": "/d",
        "E": "/code/feature/a/b/e",
    }
    assert found.path_prepend == ("/code/feature/.venv/bin", "/home/me/bin", "/code/feature/a/b")
    root = resolver.resolve(Config(dirs={"A": "a"}), replace(SHOP, root="/"), "/")
    assert root.dirs == {"A": "/a"}


def test_a_main_checkout_that_is_left_alone_gets_no_variable_at_all() -> None:
    config = Config(numbering=Numbering(main="none"), env={"A": "a"}, dirs={"D": "d"})
    main = replace(SHOP, slot=0)
    found = resolver.resolve(config, main, "/home/me")
    assert (found.variables, found.dirs, found.path_prepend) == ({}, {}, ())
    assert resolver.resolve(config, SHOP, "/home/me").variables["A"] == "a"


def test_a_port_that_nobody_has_reserved_is_said() -> None:
    config = Config(env={"A": "{ports.new}"})
    with pytest.raises(NotFoundError, match=r"^no port new is reserved for shop/2 feature: `"):
        resolver.resolve(config, SHOP, "/home/me")


def test_urls_are_the_values_that_read_as_one() -> None:
    config = Config(env={"A": "http://x", "B": "http://", "C": "a b://c", "D": "git+ssh://h/p"})
    assert resolver.resolve(config, SHOP, "/").urls == {"A": "http://x", "D": "git+ssh://h/p"}


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:p@ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:pa/ss@host/db", "postgresql://me:***@host/db"),
        ("postgresql://me:12345@host/db", "postgresql://me:***@host/db"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("jdbc:postgresql://me:secret@host", "jdbc:postgresql://me:***@host"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:@host/db", "postgresql://me:@host/db"),
        ("http://localhost:3000/@vite/client", "http://localhost:3000/@vite/client"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://host/a:b@c", "http://host/a:b@c"),
        ("me:secret@host", "me:secret@host"),
        ("postgresql://host/db?password=secret", "postgresql://host/db?password=***"),
        ("postgresql:///db?user=me&password=a@b&x=1", "postgresql:///db?user=me&password=***&x=1"),
        ("postgresql://h:5432/d?sslpassword=a=b#c", "postgresql://h:5432/d?sslpassword=***"),
        ("postgresql://me:a@h/d?password=b@c", "postgresql://me:***@h/d?password=***"),
        ("postgresql://h/d?p%61ssword=secret", "postgresql://h/d?p%61ssword=***"),
        ("mysql://h/d?PASSWD=secret&ssl", "mysql://h/d?PASSWD=***&ssl"),
        ("postgresql://h/d?password=&passfile=/p", "postgresql://h/d?password=&passfile=/p"),
        ("is it?password=this", "is it?password=this"),
        ("", ""),
    ],
)
def test_a_password_in_a_url_is_masked(url: str, shown: str) -> None:
    assert resolver.mask(url) == shown


@given(st.binary(min_size=1).filter(lambda raw: b"\0" not in raw))
def test_bytes_that_are_not_utf8_survive(raw: bytes) -> None:
    root = os.fsdecode(b"/" + raw.replace(b"/", b"_"))
    config = Config(env={"A": "{root}"}, dirs={"D": "{root}/d"})
    found = resolver.resolve(config, replace(SHOP, root=root), "/home/me").variables
    assert os.fsencode(found["A"] or "") == os.fsencode(root)
    assert found["ISOENV_ROOT"] == root
