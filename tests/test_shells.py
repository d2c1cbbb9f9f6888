from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest
import shellingham
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isoenv.errors import UsageError
from isoenv.shells import DOTENV, SHELLS, detect, named

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ROOT = Path(__file__).resolve().parents[1]
ENV = shutil.which("env") or "env"
PRINTF = shutil.which("printf") or "printf"

COMMANDS = {
    "bash": ("bash", "--noprofile", "--norc", "-eu", "-o", "pipefail", "-c"),
    "zsh": ("zsh", "-f", "-eu", "-o", "pipefail", "-c"),
    "fish": ("fish", "--no-config", "-c"),
    "sh": ("dash", "-eu", "-c"),
}
EVAL = 'eval "$(cat lines)"'
EVALUATE = {"bash": EVAL, "zsh": EVAL, "fish": "source lines", "sh": EVAL}
# What a user may have set that changes how words are read.
OPTIONS = {
    "bash": 'set -fkH -o posix; shopt -s extglob; IFS="=\' ";',
    "zsh": 'setopt rcquotes extendedglob magicequalsubst globsubst ksharrays; IFS="= ";',
    "fish": "set -g IFS '=';",
    "sh": 'set -f; IFS="=\' ";',
}
EVERY = pytest.mark.parametrize("name", SHELLS)
POSIX = pytest.mark.parametrize("name", ["bash", "zsh", "sh"])

WORDS = r"""
    ' '' a'b 'a' " "it's" \ \\ a\ \' '\ \n $(id) ${HOME} $HOME `id` $'x' ! !! !x! - -n -- ~ ~/x a:~
    = =ls == := # a#b * ? [a] {a,b} (a) %self %1 ^a^b & | ; <> a;b&c a=b a:b::c: : {0}%s /x/$z é 🚒
"""
BLANKS = "| |\n|a\n|\n\n|a\r\nb\r|\t x \t|-e x|a #b|a\n!x|\\\n|\u2028|\x85|\xa0|" + "x " * 3000
CONTROLS = "\x01|\x01\x01|\x7f|a\x7f\x01b|\x02\x1b[31m|'\x01\x7f\\\x01|\x1c\x1d\x1e\x1f"
# Among them code points that fish keeps for itself.
UNICODE = "e\u0301|\u200f|\ufeff|\ue000|\uf600|\uf6ff|\ufdd0|\ufdef|\uffff|\U0010ffff"
NOT_UTF8 = os.fsdecode(b"\xff|\xfe\xff|\xc3|\xc3'|\xe2\x82\\|\xed\xa0\x80|\xf4\x90\x80\x80")
NASTY = [*WORDS.split(), *f"{BLANKS}|{CONTROLS}|{UNICODE}|{NOT_UTF8}".split("|")]

SPECIAL = [*"'\"\\$`!\n\r \t-~=#*%{}();&\x01\x7f\x1e\x1f", "$(", "''", "\\'", "é", "🚒"]
VALUES = st.one_of(
    st.lists(st.sampled_from(SPECIAL), max_size=12).map("".join),
    st.binary(max_size=12).map(lambda value: os.fsdecode(value.replace(b"\0", b"\1"))),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
)
BATCHES = st.lists(VALUES, min_size=100, max_size=150)
# A shell runs once an example, and its file is written anew each time.
PROPERTY = settings(
    max_examples=6, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)


def run(name: str, script: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
    """What the script prints in the shell, in its strictest mode and without a complaint."""
    argv = [*COMMANDS[name], script]
    environ = {**os.environ, **(env or {})}
    done = subprocess.run(argv, cwd=cwd, env=environ, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b""), done
    return os.fsdecode(done.stdout)


def variables(printed: str) -> dict[str, str]:
    """The variables that ``env -0`` printed."""
    return dict(line.split("=", 1) for line in printed.split("\0")[:-1])


def write(lines: Iterable[str], cwd: Path) -> None:
    (cwd / "lines").write_bytes(os.fsencode("".join(f"{line}\n" for line in lines)))


def numbered(values: Iterable[str]) -> dict[str, str]:
    return {f"ISOENV_TEST_{index}": value for index, value in enumerate(values)}


def evaluate(
    name: str,
    wanted: Mapping[str, str],
    cwd: Path,
    *,
    before: str = "",
    env: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Let the shell evaluate the exports, and return what a child process sees of them."""
    write((named(name).export(*item) for item in wanted.items()), cwd)
    seen = variables(run(name, f"{before} {EVALUATE[name]}; exec '{ENV}' -0", cwd, env))
    return {key: value for key, value in seen.items() if key in wanted}


@EVERY
@pytest.mark.parametrize("locale", ["C.UTF-8", "C"])
def test_nasty_values_reach_child_processes_byte_for_byte(
    name: str, locale: str, tmp_path: Path
) -> None:
    wanted = numbered(NASTY)
    assert evaluate(name, wanted, tmp_path, env={"LC_ALL": locale}) == wanted


@EVERY
def test_options_of_the_user_change_no_value(name: str, tmp_path: Path) -> None:
    wanted = numbered(NASTY)
    assert evaluate(name, wanted, tmp_path, before=OPTIONS[name]) == wanted


@EVERY
@PROPERTY
@given(values=BATCHES)
def test_any_value_reaches_child_processes_byte_for_byte(
    name: str, tmp_path: Path, values: list[str]
) -> None:
    wanted = numbered(values)
    assert evaluate(name, wanted, tmp_path) == wanted


@EVERY
def test_a_quoted_word_is_one_argument(name: str, tmp_path: Path) -> None:
    words = [*NASTY, "if", "end", "alias"]
    quoted = " ".join(map(named(name).quote, words))
    write([f"'{PRINTF}' '%s\\0' {quoted}"], tmp_path)
    assert run(name, EVALUATE[name], tmp_path) == "".join(f"{word}\0" for word in words)


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_an_interactive_shell_expands_nothing(name: str, tmp_path: Path) -> None:
    wanted = numbered(NASTY)
    write((named(name).export(*item) for item in wanted.items()), tmp_path)
    flags = {"bash": ["--norc"], "zsh": ["-f"], "fish": ["--no-config"]}[name]
    terminal = pexpect.spawn(
        name, [*flags, "-i"], cwd=tmp_path, env={**os.environ, "TERM": "dumb"}, timeout=None
    )
    terminal.sendline(EVALUATE[name])
    terminal.sendline(f"'{ENV}' -0 >seen; exit")
    terminal.expect(pexpect.EOF)
    terminal.close()
    seen = variables(os.fsdecode((tmp_path / "seen").read_bytes()))
    assert {key: seen.get(key) for key in wanted} == wanted


@EVERY
def test_an_assigned_variable_is_in_the_shell_and_not_in_its_children(
    name: str, tmp_path: Path
) -> None:
    wanted = numbered(NASTY)
    write((named(name).assign(*item) for item in wanted.items()), tmp_path)
    words = " ".join(f'"${key}"' for key in wanted)
    script = f"{EVALUATE[name]}; '{PRINTF}' '%s\\0' {words}; '{ENV}' -0"
    exported_before = dict.fromkeys(wanted, "exported before")
    printed = run(name, script, tmp_path, exported_before).split("\0", len(wanted))
    assert printed[:-1] == list(wanted.values())
    assert not wanted.keys() & variables(printed[-1]).keys()


@EVERY
def test_unset_takes_a_variable_and_only_that(name: str, tmp_path: Path) -> None:
    function = "function NOPE; echo kept; end" if name == "fish" else "NOPE() { echo kept; }"
    write([SHELLS[name].unset("GIVEN"), SHELLS[name].unset("NOPE"), "NOPE"], tmp_path)
    printed = run(name, f"{function}; {EVALUATE[name]}; '{ENV}' -0", tmp_path, {"GIVEN": "x"})
    assert printed.startswith("kept\n")
    assert "GIVEN" not in variables(printed.removeprefix("kept\n"))


@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_number_goes_into_a_variable_declared_an_integer(name: str, tmp_path: Path) -> None:
    wanted = {"PORT": "8080", "OTHER": "-1"}
    assert evaluate(name, wanted, tmp_path, before="typeset -i PORT OTHER;") == wanted


def test_zsh_keeps_a_variable_tied_to_its_array(tmp_path: Path) -> None:
    shell = named("zsh")
    lines = [shell.export("LIBS", "/a:/b c"), shell.export("PATH", "/usr/bin:/bin:/x y")]
    write(
        [*lines, "print -r -l -- $libs $path", shell.assign("LIBS", "/d"), "print $libs"], tmp_path
    )
    printed = run("zsh", f"typeset -T LIBS libs; {EVALUATE['zsh']}", tmp_path)
    assert printed.splitlines() == ["/a", "/b c", "/usr/bin", "/bin", "/x y", "/d"]


@pytest.mark.parametrize("flag", ["", "--path", "--unpath"])
def test_fish_leaves_lists_at_colons_as_they_are(flag: str, tmp_path: Path) -> None:
    values = ["", ":", "a", "a:b", "a::b:", ":a b:'c':", "\x1e:\x1f", "a:a"]
    wanted = {f"TEST_{index}_PATH": value for index, value in enumerate(values)}
    wanted |= {"MANPATH": "/a::/b:", "LD_LIBRARY_PATH": ":/a"}
    before = f"for name in {' '.join(wanted)}; set -gx {flag} $name 1 2; end;"
    assert evaluate("fish", wanted, tmp_path, before=before) == wanted


@pytest.mark.parametrize(
    ("path", "seen"), [("/x:/usr/bin:/y z:/x", None), ("/a::/bin", "/a:.:/bin"), ("", ".")]
)
def test_fish_writes_the_current_directory_into_path_as_a_dot(
    path: str, seen: str | None, tmp_path: Path
) -> None:
    assert evaluate("fish", {"PATH": path}, tmp_path) == {"PATH": seen or path}


@POSIX
@PROPERTY
@given(values=BATCHES)
def test_a_shell_reads_a_dotenv_file_byte_for_byte(
    name: str, tmp_path: Path, values: list[str]
) -> None:
    wanted = numbered([*values, *NASTY])
    write((DOTENV.export(*item) for item in wanted.items()), tmp_path)
    seen = variables(run(name, f"set -a; . ./lines; exec '{ENV}' -0", tmp_path))
    assert {key: seen.get(key) for key in wanted} == wanted


@pytest.mark.parametrize(
    ("value", "line"),
    [
        ("8080", "X=8080"),
        ("postgresql://a:b@localhost:1/c", "X=postgresql://a:b@localhost:1/c"),
        ("", "X="),
        ('two words, "$HOME"\n', "X='two words, \"$HOME\"\n'"),
        ("it's", 'X="it\'s"'),
        ("C:\\new", 'X="C:\\\\new"'),
        ("'$a`\"", 'X="\'\\$a\\`\\""'),
        ("=ls", "X='=ls'"),
    ],
)
def test_a_dotenv_line_is_as_plain_as_its_value_allows(value: str, line: str) -> None:
    assert DOTENV.export("X", value) == line


def test_a_dotenv_file_says_what_is_unset_in_a_comment() -> None:
    assert DOTENV.unset("X") == "# X is unset"


@pytest.mark.parametrize("name", ["", "1A", "A B", "A;id", "A-B", "Ä", "A\n", "$A", "A="])
@pytest.mark.parametrize("shell", [*SHELLS.values(), DOTENV], ids=lambda shell: shell.name)
def test_what_is_no_name_is_refused(shell: object, name: str) -> None:
    for spell in (shell.export, shell.assign):
        with pytest.raises(ValueError, match="not the name of a variable"):
            spell(name, "x")
    with pytest.raises(ValueError, match="not the name of a variable"):
        shell.unset(name)


@pytest.mark.parametrize("shell", [*SHELLS.values(), DOTENV], ids=lambda shell: shell.name)
def test_a_value_with_nul_is_refused(shell: object) -> None:
    with pytest.raises(ValueError, match="NUL"):
        shell.export("X", "a\0b")


@pytest.mark.parametrize("name", ["zsh", "fish", "bash"])
def test_detect_finds_the_shell_above(name: str, tmp_path: Path) -> None:
    code = "from isoenv.shells import detect; print(detect())"
    # The second command keeps the shell from replacing itself by the first.
    script = f"'{sys.executable}' -c '{code}'; true"
    assert run(name, script, tmp_path, {"PYTHONPATH": str(ROOT)}) == f"{name}\n"


def test_detect_refuses_a_shell_without_support(tmp_path: Path) -> None:
    code = "from isoenv.shells import detect; detect()"
    script = f"'{sys.executable}' -c '{code}' 2>&1 | tail -n 1"
    said = run("sh", script, tmp_path, {"PYTHONPATH": str(ROOT)})
    remedy = "name the one you use, as in `isoenv hook bash`"
    assert said == f"isoenv.errors.UsageError: no support for the shell 'dash'; {remedy}\n"


def test_detect_gives_the_remedy_where_there_is_no_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise shellingham.ShellDetectionFailure

    monkeypatch.setattr(shellingham, "detect_shell", fail)
    with pytest.raises(UsageError, match=r"no shell found .* `isoenv hook bash`"):
        detect()


def test_an_unknown_shell_is_wrong_usage_and_lists_the_known() -> None:
    with pytest.raises(UsageError, match="'tcsh'; name one of bash, zsh, fish, sh"):
        named("tcsh")


def test_importing_the_shells_and_the_undo_record_costs_no_other_module() -> None:
    code = (
        "import sys, isoenv; before = set(sys.modules); import isoenv.shells, isoenv.envdiff;"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    shells = ["", ".base", ".fish", ".posix"]
    assert done.stdout.split() == ["isoenv.envdiff", *(f"isoenv.shells{name}" for name in shells)]
