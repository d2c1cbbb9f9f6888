"""What is wrong with a configuration: every message, whole, with its line and key."""

from __future__ import annotations

import json

import pytest

from isoenv import presets
from isoenv.config import ConfigProblems, Layer, parse

# By what they are about: a text, and LINE: KEY: MESSAGE of everything that is wrong with it.
WRONG = {
    "top": (
        r"""
prots = 3
zzz = 1
extneds = "sky"
project = "a:b"
instance = []
ports = 3
[[env]]
A = "x"
""",
        r"""
1: prots: unknown key: did you mean `ports`?
2: zzz: unknown key: expected `project`, `extends`, `instance`, `ports`, `env`, `dirs`, `path`, `setup`, `flags`, `templates`, `services`, `databases` or `limits`
3: extneds: unknown key: did you mean `extends`?
4: project: expected at most 64 printable characters without `:` and `/`, and no number, got "a:b"
5: instance: expected a table, got []
6: ports: expected a table, got 3
7: env: expected a table, got a list
""",  # noqa: E501 - a message is one line
    ),
    "instance": (
        r"""
[instance]
variable = "A B"
prefer = "chksum"
ports = true
stride = 0
range = [1, 10]
main = false
dir = "~/x-{dirs.A}"
prefre = 1
[dirs]
A = "a"
""",
        r"""
2: instance.variable: no variable name: "A B": expected `[A-Za-z_][A-Za-z0-9_]*`
3: instance.prefer: expected "lowest" or "cksum", got "chksum"
4: instance.ports: expected "offset" or "block", got true
5: instance.stride: expected an integer from 1 to 65535, got 0
6: instance.range: expected two ports from 1 to 65535, at least 10 apart, such as [20000, 32759], got [1, 10]
7: instance.main: expected 0 or "none", got false
8: instance.dir: `~` is not expanded: `{home}/x-{dirs.A}`
8: instance.dir: no field `{dirs.A}` here: expected `{id}`, `{name}`, `{project}`, `{root}` or `{home}`, and `{{` for a plain brace
9: instance.prefre: unknown key: did you mean `prefer`?
""",  # noqa: E501 - a message is one line
    ),
    "ports": (
        r"""
[ports]
zero = 0
high = 65536
boolean = true
quoted = "80"
empty = {}
text = { base = "80" }
more = { base = 81, variabel = "X" }
true_variable = { base = 82, variable = true }
bad_variable = { base = 83, variable = "A-B" }
no_variable = { base = 84, variable = "" }
first = 80
second = { base = 80 }
third = 80
1st = 90
"x\ny" = { base = 91, variable = "TWICE" }
twice = { base = 92, variable = "TWICE" }
a-b = 93
a_b = 94
isoenv_web = 95
start = 1
stop = 2
status = 3
restart = 4
logs = 5
huge = { base = 0xffffffffffffffffffff }
""",
        r"""
2: ports.zero: expected an integer from 1 to 65535, got 0
3: ports.high: expected an integer from 1 to 65535, got 65536
4: ports.boolean: expected a port or a table such as { base = 80 }, got true
5: ports.quoted: expected a port or a table such as { base = 80 }, got "80"
6: ports.empty: `base` is missing: the port of slot 0
7: ports.text.base: expected an integer from 1 to 65535, got "80"
8: ports.more.variabel: unknown key: did you mean `variable`?
9: ports.true_variable.variable: expected a variable name or false, got true
10: ports.bad_variable.variable: no variable name: "A-B": expected `[A-Za-z_][A-Za-z0-9_]*`
11: ports.no_variable.variable: expected a variable name or false, got an empty one
13: ports.second.base: port 80 is already `first`: give each port its own
14: ports.third: port 80 is already `first`: give each port its own
15: ports.1st: expected a name that matches `[A-Za-z_][A-Za-z0-9_-]*`
16: ports."x\ny": expected a name that matches `[A-Za-z_][A-Za-z0-9_-]*`
17: ports.twice.variable: TWICE is already set by `ports."x\ny"`: set it once
19: ports.a_b: A_B_PORT is already set by `ports.a-b`: set it once
20: ports.isoenv_web: ISOENV_WEB_PORT is set by isoenv itself: choose another name
21: ports.start: is an action of the command line: choose another name
22: ports.stop: is an action of the command line: choose another name
23: ports.status: is an action of the command line: choose another name
24: ports.restart: is an action of the command line: choose another name
25: ports.logs: is an action of the command line: choose another name
26: ports.huge.base: expected an integer from 1 to 65535, got an enormous number
""",
    ),
    "env": (
        r"""
[env]
TRUE = true
NUMBER = 5
LIST = ["x"]
DATE = 1979-05-27
NUL = "a\u0000b"
A-B = "x"
"" = "x"
1A = "x"
"É" = "x"
UID = "1"
PATH = "x"
CDPATH = "x"
fish_user_paths = "x"
ISOENV_NAME = "x"
__ISOENV_X = false
EARLY = "{env.LATE}"
LATE = "x"
GONE = false
USES_GONE = "{env.GONE}"
SELF = "{env.SELF}:x"
TYPO = "{prots.web} {ID} { id }"
TABLE = "{web}"
JSON = '{"a": 1}'
OPEN = "{"
CLOSE = "}"
EMPTY = "{}"
NEWLINE = "{a\nb}"
LONG = "{xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx}"
WEB_PORT = "1"
DIR = "x"
FLAG = false
SLOT = "3"
[ports]
web = 80
[dirs]
DIR = "d"
[flags]
FLAG = {}
[instance]
variable = "SLOT"
""",
        r"""
2: env.TRUE: expected a string in quotes or false, got true
3: env.NUMBER: expected a string in quotes or false, got 5
4: env.LIST: expected a string in quotes or false, got ["x"]
5: env.DATE: expected a string in quotes or false, got 1979-05-27
6: env.NUL: NUL in "a\u0000b": no variable and no path can hold it
7: env.A-B: no variable name: "A-B": expected `[A-Za-z_][A-Za-z0-9_]*`
8: env."": no variable name: "": expected `[A-Za-z_][A-Za-z0-9_]*`
9: env.1A: no variable name: "1A": expected `[A-Za-z_][A-Za-z0-9_]*`
10: env."É": no variable name: "É": expected `[A-Za-z_][A-Za-z0-9_]*`
11: env.UID: is read-only in bash: choose another name
12: env.PATH: holds the user's own entries: use `prepend` of `[path]`
13: env.CDPATH: holds the user's own entries: choose another name
14: env.fish_user_paths: holds the user's own entries: use `prepend` of `[path]`
15: env.ISOENV_NAME: is set by isoenv itself: choose another name
16: env.__ISOENV_X: is set by isoenv itself: choose another name
17: env.EARLY: `{env.LATE}` is set further down: move it up
20: env.USES_GONE: `{env.GONE}` is unset by `GONE = false`
21: env.SELF: `{env.SELF}` is this variable itself: use an earlier one
22: env.TYPO: no field `{prots.web}` here: did you mean `{ports.web}`?
22: env.TYPO: no field `{ID}` here: expected `{id}`, `{name}`, `{project}`, `{root}`, `{home}`, `{ports.NAME}`, `{dirs.NAME}` or `{env.NAME}`, and `{{` for a plain brace
22: env.TYPO: no field `{ id }` here: did you mean `{id}`?
23: env.TABLE: no field `{web}` here: expected `{id}`, `{name}`, `{project}`, `{root}`, `{home}`, `{ports.NAME}`, `{dirs.NAME}` or `{env.NAME}`, and `{{` for a plain brace
24: env.JSON: no field `{"a": 1}` here: expected `{id}`, `{name}`, `{project}`, `{root}`, `{home}`, `{ports.NAME}`, `{dirs.NAME}` or `{env.NAME}`, and `{{` for a plain brace
25: env.OPEN: `{` without `}`: `{{` is a plain brace
26: env.CLOSE: `}` without `{`: `}}` is a plain brace
27: env.EMPTY: `{}` is an empty field: `{{}}` is a plain pair of braces
28: env.NEWLINE: no field "{a\nb}" here: expected `{id}`, `{name}`, `{project}`, `{root}`, `{home}`, `{ports.NAME}`, `{dirs.NAME}` or `{env.NAME}`, and `{{` for a plain brace
29: env.LONG: no field "{xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…" here: expected `{id}`, `{name}`, `{project}`, `{root}`, `{home}`, `{ports.NAME}`, `{dirs.NAME}` or `{env.NAME}`, and `{{` for a plain brace
30: env.WEB_PORT: is already set by `ports.web`: set it once
31: env.DIR: is already set by `dirs.DIR`: set it once
32: env.FLAG: is already set by `flags.FLAG`: set it once
33: env.SLOT: is already set by `instance.variable`: set it once
""",  # noqa: E501 - a message is one line
    ),
    "dirs": (
        r"""
[dirs]
EMPTY = ""
NONE = false
PWD = "x"
HOME_DIR = "~"
TILDE = "~/a\nb"
ENV = "{env.X}"
DIR = "{dirs.EMPTY}/b"
OPEN = "{"
[env]
X = "x"
""",
        r"""
2: dirs.EMPTY: expected a string, got an empty one
3: dirs.NONE: expected a string, got false
4: dirs.PWD: is read-only in fish: choose another name
5: dirs.HOME_DIR: `~` is not expanded: `{home}`
6: dirs.TILDE: `~` is not expanded: "{home}/a\nb"
7: dirs.ENV: no field `{env.X}` here: expected `{id}`, `{name}`, `{project}`, `{root}` or `{home}`, and `{{` for a plain brace
8: dirs.DIR: no field `{dirs.EMPTY}` here: expected `{id}`, `{name}`, `{project}`, `{root}` or `{home}`, and `{{` for a plain brace
9: dirs.OPEN: `{` without `}`: `{{` is a plain brace
""",  # noqa: E501 - a message is one line
    ),
    "flags": (
        r"""
[flags]
SHORT = true
NUMBER = { main = 1 }
BOTH = { exclusive = true, others = true }
UNKNOWN = { on = true }
"a b" = {}
""",
        r"""
2: flags.SHORT: expected a table such as { main = true }, got true
3: flags.NUMBER.main: expected true or false, got 1
4: flags.BOTH.others: true with `exclusive`, which is on in one instance only
5: flags.UNKNOWN.on: unknown key: expected `main`, `others` or `exclusive`
6: flags."a b": no variable name: "a b": expected `[A-Za-z_][A-Za-z0-9_]*`
""",
    ),
    "path": (
        r"""
[path]
append = "a"
prepend = [1, "", "a:b", "~/bin", "{env.GONE}", "{x.y}"]
[env]
GONE = false
[setup]
copy = ["../a", "/b", "a/../b", ".", "ok", "ok/.."]
run = "npm ci"
ran = 1
""",
        r"""
2: path.append: unknown key: did you mean `prepend`?
3: path.prepend: expected a list of strings, got 1
3: path.prepend: expected a list of strings, got an empty one
3: path.prepend: `:` in "a:b": make it two entries
3: path.prepend: `~` is not expanded: `{home}/bin`
3: path.prepend: `{env.GONE}` is unset by `GONE = false`
3: path.prepend: no field `{x.y}` here: expected `{id}`, `{name}`, `{project}`, `{root}` or `{home}`, and `{{` for a plain brace
7: setup.copy: expected a path inside the checkout, without `..`, got "../a"
7: setup.copy: expected a path inside the checkout, without `..`, got "/b"
7: setup.copy: expected a path inside the checkout, without `..`, got "a/../b"
7: setup.copy: expected a path inside the checkout, without `..`, got "."
7: setup.copy: expected a path inside the checkout, without `..`, got "ok/.."
8: setup.run: expected a list of strings, got "npm ci"
9: setup.ran: unknown key: did you mean `run`?
""",  # noqa: E501 - a message is one line
    ),
    "templates": (
        r"""
[templates]
"/a" = "b"
"../a" = "b"
"./" = "b"
"" = "b"
"a\u0000" = "b"
number = 3
absolute = "/b"
same = "same"
""",
        r"""
2: templates."/a": expected a path inside the checkout, without `..`, got "/a"
3: templates."../a": expected a path inside the checkout, without `..`, got "../a"
4: templates."./": expected a path inside the checkout, without `..`, got "./"
5: templates."": expected the path of a file, got an empty one
6: templates."a\u0000": NUL in "a\u0000": no variable and no path can hold it
7: templates.number: expected a string, got 3
8: templates.absolute: expected a path relative to the checkout, got "/b"
9: templates.same: is its own template: render it to another file
""",
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


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("12", '"12"'),
        ("\u0663", '"\u0663"'),
        ("a:b", '"a:b"'),
        ("a/b", '"a/b"'),
        (" a", '" a"'),
        ("a\tb", '"a\\tb"'),
        ("a\u202eb", '"a\\u202eb"'),
        ("x" * 65, f'"{"x" * 59}…"'),
    ],
)
def test_a_project_has_a_name_that_can_be_typed_and_shown(name: str, shown: str) -> None:
    rule = "at most 64 printable characters without `:` and `/`, and no number"
    expected = f"1: project: expected {rule}, got {shown}"
    assert problems(f"project = {json.dumps(name)}") == [expected]


@pytest.mark.parametrize("name", ["a", "x" * 64, "ünïcode name", "1a", "."])
def test_a_project_may_have_any_other_name(name: str) -> None:
    assert parse([Layer("f", f'project = "{name}"')], presets.text).project == name
