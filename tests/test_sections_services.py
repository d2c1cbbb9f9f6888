"""What is wrong with services and databases: every message, whole, with its line and key."""

from __future__ import annotations

import pytest

from isoenv import presets
from isoenv.config import ConfigProblems, Layer, parse

# By what they are about: a text, and LINE: KEY: MESSAGE of everything that is wrong with it.
WRONG = {
    "services": (
        r"""
[services]
number = 3
[services.neither]
[services.both]
run = "x"
start = "y"
stop = "z"
[services.endless]
start = "x"
[services.stopped]
run = "x"
stop = "y"
[services.types]
run = 3
health = 3
start_timeout = "60"
requires = "b"
env = {}
[services.empty]
run = []
[services.blank]
run = ""
[services.first]
run = ["", "a"]
[services.words]
run = ["a", 3, "{print}", "\u0000"]
[services.fields]
start = "{port.web}"
stop = ["kill", "{env.GONE}"]
health = "tcp:{ports.wbe}"
start_timeout = 0
[services."a b"]
run = "x"
start_timeout = true
[services.logs]
run = "x"
start_timeout = inf
[env]
GONE = false
[ports]
web = 80
""",
        r"""
2: services.number: expected a table, got 3
3: services.neither: expected either `run` or `start` and `stop`, got neither
6: services.both.start: expected either `run` or `start` and `stop`, got both
8: services.endless: `stop` is missing: the command that ends what `start` began
12: services.stopped.stop: goes with `start`: a `run` process is ended by isoenv
14: services.types.run: expected a string or a list of strings, got 3
15: services.types.health: expected a string, got 3
16: services.types.start_timeout: expected seconds, more than 0 and at most 86400, got "60"
17: services.types.requires: expected a list of strings, got "b"
18: services.types.env: unknown key: expected `run`, `start`, `stop`, `health`, `start_timeout` or `requires`
20: services.empty.run: expected a command, got an empty one
22: services.blank.run: expected a string or a list of strings, got an empty one
24: services.first.run: expected a command, got an empty one
26: services.words.run: expected a list of strings, got 3
26: services.words.run: NUL in "\u0000": no variable and no path can hold it
26: services.words.run: no field `{print}` here: expected `{id}`, `{name}`, `{project}`, `{root}`, `{home}`, `{ports.NAME}` or `{env.NAME}`, and `{{` for a plain brace
28: services.fields.start: no field `{port.web}` here: did you mean `{ports.web}`?
29: services.fields.stop: `{env.GONE}` is unset by `GONE = false`
30: services.fields.health: no field `{ports.wbe}` here: did you mean `{ports.web}`?
31: services.fields.start_timeout: expected seconds, more than 0 and at most 86400, got 0
32: services."a b": expected a name that matches `[A-Za-z_][A-Za-z0-9_-]*`
34: services."a b".start_timeout: expected seconds, more than 0 and at most 86400, got true
35: services.logs: is an action of the command line: choose another name
37: services.logs.start_timeout: expected seconds, more than 0 and at most 86400, got inf
""",  # noqa: E501 - a message is one line
    ),
    "health": (
        r"""
[services.a]
run = "x"
health = "ftp://a"
start_timeout = nan
[services.b]
run = "x"
health = "tcp:0"
start_timeout = 86401
[services.c]
run = "x"
health = "tcp:65536"
[services.d]
run = "x"
health = "tcp:web"
[services.e]
run = "x"
health = "http:///health"
[services.f]
run = "x"
health = "http://{"
[services.g]
run = "x"
health = "tcp:99999999999999999999999999999999999999999999999999999999999999999"
""",
        r"""
3: services.a.health: expected `http://…`, `https://…` or `tcp:PORT`, got "ftp://a"
4: services.a.start_timeout: expected seconds, more than 0 and at most 86400, got nan
7: services.b.health: expected `http://…`, `https://…` or `tcp:PORT`, got "tcp:0"
8: services.b.start_timeout: expected seconds, more than 0 and at most 86400, got 86401
11: services.c.health: expected `http://…`, `https://…` or `tcp:PORT`, got "tcp:65536"
14: services.d.health: expected `http://…`, `https://…` or `tcp:PORT`, got "tcp:web"
17: services.e.health: expected `http://…`, `https://…` or `tcp:PORT`, got "http:///health"
20: services.f.health: `{` without `}`: `{{` is a plain brace
23: services.g.health: expected `http://…`, `https://…` or `tcp:PORT`, got "tcp:9999999999999999999999999999999999999999999999999999999…"
""",  # noqa: E501 - a message is one line
    ),
    "requires": (
        r"""
[services.api]
run = "x"
requires = ["db", "apy", "zzz", "a\nb"]
[services.db]
run = "x"
requires = ["cache"]
[services.cache]
run = "x"
requires = ["api"]
""",
        r"""
3: services.api.requires: no service `apy`: did you mean `api`?
3: services.api.requires: no service `zzz`: expected `api`, `db` or `cache`
3: services.api.requires: no service "a\nb": expected `api`, `db` or `cache`
3: services.api.requires: goes round in a circle: api requires db requires cache requires api
""",
    ),
    "self": (
        r"""
[services.api]
run = "x"
requires = ["api"]
""",
        r"""
3: services.api.requires: goes round in a circle: api requires api
""",
    ),
    "databases": (
        r"""
[databases]
text = "x"
[databases.none]
template = "{x.y}"
[databases.main]
url = 3
shared = 1
user = "y"
[databases.gone]
url = "{env.GONE}"
[databases."a/b"]
url = "x"
[limits]
agents = -1
tokens = true
text = "145"
[env]
GONE = false
""",
        r"""
2: databases.text: expected a table, got "x"
3: databases.none: `url` is missing: a postgresql:// or sqlite:/// address
4: databases.none.template: no field `{x.y}` here: expected `{id}`, `{name}`, `{project}`, `{root}` or `{home}`, and `{{` for a plain brace
6: databases.main.url: expected a string, got 3
7: databases.main.shared: expected true or false, got 1
8: databases.main.user: unknown key: expected `url`, `template` or `shared`
10: databases.gone.url: `{env.GONE}` is unset by `GONE = false`
11: databases."a/b": expected a name that matches `[A-Za-z_][A-Za-z0-9_-]*`
14: limits.agents: expected an integer of at least 0, got -1
15: limits.tokens: expected an integer of at least 0, got true
16: limits.text: expected an integer of at least 0, got "145"
""",  # noqa: E501 - a message is one line
    ),
}


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigProblems) as caught:
        parse([Layer("f", text)], presets.text)
    return [str(problem).removeprefix("f:") for problem in caught.value.problems]


@pytest.mark.parametrize("name", WRONG)
def test_every_problem_is_told_with_its_line_and_key(name: str) -> None:
    text, expected = WRONG[name]
    assert problems(text.removeprefix("\n")) == expected.strip("\n").split("\n")
