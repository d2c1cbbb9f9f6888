"""The hook in real shells: bash and zsh; fish has a file of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import envdiff, scripts, shells
from isoenv.envdiff import RS, US

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).resolve().parents[1]
ENV = shutil.which("env") or "env"
# The names that differ between two `env` of one shell anyway.
PASSING = {"_", "PWD", "OLDPWD", "SHLVL", "LOGNAME"}
# What an interactive shell says of having no terminal.
NOISE = re.compile(r"bash: (cannot set terminal process group .*|no job control .*)|exit|")
ARGV = {
    "bash": ("bash", "--noprofile", "--norc", "--noediting", "-i"),
    "zsh": ("zsh", "-f", "-i", "+o", "prompt_sp", "+o", "prompt_cr"),
}
CONFIG = """\
[env]
GREETING = "hello from {name}"
EMPTY = ""
GONE = false
[path]
prepend = ["bin", "tools"]
"""


@dataclass(frozen=True)
class Done:
    """How a session went: its exit status, its lines, and what isoenv was started for."""

    status: int
    out: list[str]
    said: list[str]
    complaints: list[str]
    runs: list[str]


@dataclass(frozen=True)
class Session:
    """An interactive shell, without a terminal: each line of its input gets a prompt before it."""

    name: str
    place: Path
    command: Path

    @property
    def hook(self) -> str:
        """The hook as `isoenv hook` prints it."""
        spelling = shells.named(self.name)
        text = scripts.text(f"hook.{self.name}")
        text = text.replace("@ISOENV@", spelling.quote(str(self.command)))
        return text.replace("@STATE@", spelling.quote(str(self.place / "state")))

    def __call__(
        self,
        *lines: str,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        argv: tuple[str, ...] = (),
    ) -> Done:
        """Type the lines, after the one that evaluates the hook."""
        hook = self.place / f"hook.{self.name}"
        hook.write_text(self.hook)
        return self.bare(f'eval "$(cat {quoted(hook)})"', *lines, cwd=cwd, env=env, argv=argv)

    def bare(
        self,
        *lines: str,
        cwd: Path | None = None,
        env: Mapping[str, str | None] | None = None,
        argv: tuple[str, ...] = (),
    ) -> Done:
        """Type the lines alone."""
        runs = self.place / "runs"
        runs.unlink(missing_ok=True)
        given = {"PS1": "", "PS2": "", "T": str(self.place), **(env or {})}
        done = run(
            [*(argv or ARGV[self.name])],
            cwd=cwd or self.place,
            env=given,
            text="".join(f"{line}\n" for line in lines),
        )
        said, complaints = [], []
        for line in done.stderr.splitlines():
            if line.startswith("isoenv:"):
                said.append(line)
            elif not NOISE.fullmatch(line):
                complaints.append(line)
        started = runs.read_text().splitlines() if runs.exists() else []
        return Done(done.returncode, done.stdout.splitlines(), said, complaints, started)

    def environ(self, name: str) -> dict[str, str]:
        """The environment that a child of the shell wrote to ``$T/name`` with ``env -0``."""
        content = os.fsdecode((self.place / name).read_bytes()).split("\0")[:-1]
        found = dict(entry.split("=", 1) for entry in content)
        return {key: value for key, value in found.items() if key not in PASSING}


def run(
    argv: list[str], *, cwd: Path, env: Mapping[str, str | None], text: str
) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, **env}
    environ = {name: value for name, value in given.items() if value is not None}
    done = subprocess.run(
        argv, cwd=cwd, env=environ, input=os.fsencode(text), capture_output=True, check=False
    )
    stdout, stderr = os.fsdecode(done.stdout), os.fsdecode(done.stderr)
    return subprocess.CompletedProcess(argv, done.returncode, stdout, stderr)


def quoted(path: object) -> str:
    return shells.named("sh").quote(str(path))


@pytest.fixture(params=["bash", "zsh"])
def session(request: pytest.FixtureRequest, tmp_path: Path) -> Session:
    """Each shell that has this hook, with `isoenv` in front of PATH; its runs are counted."""
    command = tmp_path / "bin/isoenv"
    command.parent.mkdir()
    code = "import sys; sys.argv[0] = sys.argv.pop(1); from isoenv.__main__ import main; main()"
    command.write_text(
        f'#!/bin/sh\necho "$*" >>{quoted(tmp_path / "runs")}\n'
        f'PYTHONPATH={quoted(ROOT)} exec {quoted(sys.executable)} -P -c "{code}" "$0" "$@"\n'
    )
    command.chmod(0o755)
    name: str = request.param
    return Session(name, tmp_path, command)


def configure(root: Path, text: str = CONFIG) -> None:
    """Write an isoenv.toml, and allow it."""
    (root / "isoenv.toml").write_text(text)
    allow = [sys.executable, "-m", "isoenv", "allow"]
    done = run(allow, cwd=root, env={"PYTHONPATH": str(ROOT)}, text="")
    assert done.returncode == 0, done.stderr


@pytest.fixture
def shop(make_repo: Callable[[str], Path]) -> Path:
    """A configured and allowed checkout."""
    root = make_repo("shop")
    configure(root)
    return root


@pytest.fixture
def other(make_repo: Callable[[str], Path]) -> Path:
    """A second one, of another project."""
    root = make_repo("other")
    configure(root, '[env]\nGREETING = "other"\nOTHER = "1"\n')
    return root


# The behaviours that are worth having, in the order of the list they come from.


def test_entering_loads_and_leaving_leaves_nothing_of_ours(session: Session, shop: Path) -> None:
    done = session(
        "export GONE=there; env -0 >$T/before",
        "cd shop",
        "env -0 >$T/inside",
        "cd ..",
        "env -0 >$T/after",
    )
    inside, before = session.environ("inside"), session.environ("before")
    assert inside["GREETING"] == "hello from shop"
    assert inside["EMPTY"] == ""
    assert "GONE" not in inside
    assert inside["PATH"] == f"{shop}/bin:{shop}/tools:{before['PATH']}"
    assert inside["ISOENV_ROOT"] == str(shop)
    assert session.environ("after") == before
    assert done.said == ["isoenv: shop/0 shop (+2 ~PATH -GONE)"]
    assert (done.out, done.complaints, done.status) == ([], [], 0)


def test_a_prompt_at_which_nothing_changed_does_nothing(session: Session, shop: Path) -> None:
    done = session("env -0 >$T/first", ":", ":", "env -0 >$T/last", cwd=shop)
    assert session.environ("first") == session.environ("last")
    assert len(done.said) == len(done.runs) == 1


def test_prompts_and_changes_between_known_checkouts_start_no_process(
    session: Session, shop: Path, other: Path, make_repo: Callable[[str], Path], tmp_path: Path
) -> None:
    bare = make_repo("bare")
    (shop / "a/b").mkdir(parents=True)
    (tmp_path / "link").symlink_to(shop)
    places = [shop, other, bare, tmp_path, shop / "a/b", tmp_path / "link/a"]
    session(*(f"cd {place}" for place in places))
    trace = tmp_path / "trace"
    strace = ("strace", "-f", "-qq", "-e", "trace=clone,clone3,fork,vfork,execve", "-o", str(trace))
    lines = [f". $T/hook.{session.name}"]
    for place in [*places, *places, *places, *places[:2]]:
        lines += [f"cd {place}", *[":"] * 5, "echo ${GREETING-none}"]
    done = session.bare(*lines, argv=(*strace, *ARGV[session.name]))
    greetings = ["hello from shop", "other", "none", "none", *["hello from shop"] * 2]
    assert done.out == [*greetings * 3, *greetings[:2]]
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    assert [call for call in calls if "(" in call][1:] == []
    assert done.runs == []


@pytest.mark.parametrize("value", ['"{root}/home"', "false"])
def test_a_checkout_that_sets_home_is_computed_once(
    session: Session, shop: Path, other: Path, home: Path, value: str
) -> None:
    configure(shop, f'[env]\nHOME = {value}\nFROM = "{{home}}"\n')
    done = session(
        *(f"cd {shop}", ":", ":", f"cd {other}", ":", f"cd {shop}", ":", f"cd {other}"),
        *(f"cd {shop}", "echo $FROM ${HOME-}", "cd ..", "echo $HOME"),
    )
    inside = f"{home} {shop}/home" if "root" in value else str(home)
    assert done.out == [inside, str(home)]
    assert len(done.runs) == 2


def test_a_changed_home_of_the_user_is_seen_below_ours(
    session: Session, shop: Path, tmp_path: Path
) -> None:
    configure(shop, '[env]\nHOME = "{root}/home"\nFROM = "{home}"\n')
    done = session(
        *(f"cd {shop}", "echo $FROM", f"cd ..; export HOME={tmp_path}"),
        *(f"cd {shop}", "echo $FROM"),
    )
    assert done.out == [str(tmp_path / "home"), str(tmp_path)]
    assert len(done.runs) == 2


def test_an_edit_within_the_same_second_is_seen_at_the_next_prompt(
    session: Session, shop: Path, tmp_path: Path
) -> None:
    configure(shop, '[env]\nGREETING = "second"\n')
    (shop / "isoenv.toml").rename(tmp_path / "second")
    configure(shop, '[env]\nGREETING = "first"\n')
    os.utime(shop / "isoenv.toml", ns=(10**18, 10**18))
    os.utime(tmp_path / "second", ns=(10**18, 10**18 + 1))
    done = session("echo $GREETING", "cp -p $T/second isoenv.toml", "echo $GREETING", cwd=shop)
    assert done.out == ["first", "second"]
    assert len(done.runs) == 2


def test_a_watched_file_that_gets_older_goes_or_comes_is_seen(
    session: Session, shop: Path, tmp_path: Path
) -> None:
    configure(shop, '[env]\nGREETING = "old"\n')
    (shop / "isoenv.toml").rename(tmp_path / "old")
    configure(shop)
    os.utime(tmp_path / "old", ns=(1, 1))
    greeting = "echo ${GREETING-none} ${ISOENV_INSTANCE-}"
    done = session(
        greeting,
        "mv isoenv.toml $T/new; cp -p $T/old isoenv.toml",
        greeting,
        "rm isoenv.toml",
        greeting,
        "mv $T/new isoenv.toml",
        greeting,
        "echo ISOENV_INSTANCE=4 >.env",
        greeting,
        "rm .env",
        greeting,
        cwd=shop,
    )
    new = "hello from shop"
    assert done.out[:4] == [f"{new} 0", "old 0", "none", f"{new} 0"]
    assert done.out[4:] == [f"{new}-4 4", f"{new} 0"]


def test_what_fails_is_not_tried_again_before_something_changes(
    session: Session, shop: Path, other: Path, tmp_path: Path
) -> None:
    fails = session.command.with_name("fails")
    fails.write_text('#!/bin/sh\necho "$*" >>"$T/runs"; echo "isoenv: no luck" >&2; exit 1\n')
    fails.chmod(0o755)
    works = session.command.rename(session.command.with_name("works"))
    session.command.symlink_to(works)
    done = session(
        f"cd {other}",
        f"ln -sf {fails} {session.command}",
        f"cd {shop}",
        "mkdir -p sub; cd sub",
        "cd ..",
        "echo still $GREETING",
        "echo >>isoenv.toml",
        f"cd {other}",
        "echo $GREETING",
        cwd=tmp_path,
    )
    assert done.out == ["still other", "other"]
    assert done.said[1:] == ["isoenv: no luck"] * 2
    assert len(done.runs) == 3


def test_a_broken_file_is_said_once_and_again_after_it_changes(
    session: Session, shop: Path
) -> None:
    configure(shop, '[env]\nGREETING = "mended"\n')
    done = session(
        "cp isoenv.toml $T/good",
        "echo 'env = 1' >isoenv.toml",
        ":",
        "echo ${GREETING-none}; cd ..",
        "cd shop",
        "echo 'env = 1 ' >isoenv.toml",
        ":",
        "cp $T/good isoenv.toml",
        "echo $GREETING",
        cwd=shop,
    )
    assert done.out == ["none", "mended"]
    broken = [line for line in done.said if "isoenv.toml" in line]
    assert len(broken) == 2


@pytest.mark.parametrize("name", ["plain", 'it\'s; $HOME && "x" é🚒', "a\nb\\\b\r", "-e *[!a]"])
def test_values_and_directories_are_exact_to_the_byte(
    session: Session, make_repo: Callable[[str], Path], name: str
) -> None:
    controls = "".join(chr(code) for code in range(1, 128)) + "é🚒\u0085`id`$(id)!!\n\n"
    written = controls.replace("{", "{{").replace("}", "}}")
    escaped = "".join(f"\\U{ord(character):08x}" for character in written)
    root = make_repo(name) / os.fsdecode(b"\xff \xe9")
    root.mkdir()
    configure(root, f'[env]\nNASTY = "{escaped}"\nDASH = "-n"\nHERE = "{{root}}"\nOLD = "new"\n')
    old = os.fsdecode(bytes(range(1, 256)) + b"\xe9")
    done = session(
        "SHELL_ONLY=$OLD; env -0 >$T/before",
        'cd "$PLACE"',
        "env -0 >$T/inside",
        'cd "$T"',
        "env -0 >$T/after",
        env={"PLACE": str(root), "OLD": old},
    )
    inside, before = session.environ("inside"), session.environ("before")
    assert inside["NASTY"] == controls
    assert (inside["DASH"], inside["OLD"], before["OLD"]) == ("-n", "new", old)
    assert inside["HERE"] == inside["ISOENV_ROOT"] == str(root)
    entries = envdiff.loads(inside[envdiff.RECORD])
    assert envdiff.revert(inside, entries) == (before, [])
    assert session.environ("after") == before
    assert done.complaints == []
    assert not any(ord(character) < 32 for line in done.said for character in line)


def test_what_was_not_exported_comes_back_unexported_and_is_never_seen_by_children(
    session: Session, shop: Path
) -> None:
    # Both a variable that is set and one that is unset; the values are as bad as can be.
    secret = os.fsdecode(b"s3cret\xff" + f"{US}1{RS}0{RS}'\n".encode())
    done = session(
        "GREETING=$SECRET GONE=$SECRET; unset SECRET",
        f"cd {shop}",
        "env >$T/children",
        "cd ..",
        'printf %s "$GREETING" >$T/greeting; printf %s "$GONE" >$T/gone',
        "env -0 >$T/after",
        "typeset -p | grep -a __isoenv_old",
        env={"SECRET": secret},
    )
    assert b"s3cret" not in (session.place / "children").read_bytes()
    assert os.fsdecode((session.place / "greeting").read_bytes()) == secret
    assert os.fsdecode((session.place / "gone").read_bytes()) == secret
    assert not {"GREETING", "GONE"} & session.environ("after").keys()
    assert done.out == []
    assert done.said == ["isoenv: shop/0 shop (+1 ~GREETING ~PATH -GONE)"]


@pytest.mark.usefixtures("shop")
def test_edits_of_managed_variables_survive_leaving(session: Session) -> None:
    done = session(
        "export GREETING=before",
        "cd shop",
        "GREETING=mine GONE=mine; unset EMPTY",
        "cd ..",
        'echo "$GREETING $GONE ${EMPTY-unset}"',
    )
    assert done.out == ["mine mine unset"]


def test_edits_of_path_survive_leaving(session: Session, shop: Path) -> None:
    path = f"/first:{shop}/tools:{os.environ['PATH']}:{shop}/bin::"
    done = session(
        "cd shop",
        'PATH="/mine:$PATH:/last"',
        "cd ..",
        'echo "$PATH"',
        "cd shop",
        ":",
        "PATH=/only:/bin:/usr/bin",
        "cd ..",
        'echo "$PATH"',
        env={"PATH": path},
    )
    assert done.out == [f"/mine:{path}:/last", "/only:/bin:/usr/bin"]


def test_without_a_path_there_is_none_after_leaving(session: Session, shop: Path) -> None:
    done = session(
        "cd shop", "unset PATH", "cd ..", "cd shop", "echo $PATH", "cd ..", "echo ${PATH-none}"
    )
    assert done.out == [f"{shop}/bin:{shop}/tools", "none"]


def test_one_checkout_after_another_undoes_the_first_and_remembers_what_was_before(
    session: Session, shop: Path, other: Path
) -> None:
    done = session(
        "export GREETING=before GONE=there",
        f"cd {shop}",
        f"cd {other}",
        "env -0 >$T/inside",
        "cd ..",
        "echo $GREETING $GONE",
    )
    inside = session.environ("inside")
    assert (inside["GREETING"], inside["GONE"], inside["OTHER"]) == ("other", "there", "1")
    assert inside["ISOENV_ROOT"] == str(other)
    assert "EMPTY" not in inside
    assert str(shop) not in "".join(inside.values())
    assert done.out == ["before there"]


def test_the_nearest_checkout_wins(
    session: Session, shop: Path, make_repo: Callable[[str], Path]
) -> None:
    configure(make_repo("shop/vendor/inner"), '[env]\nGREETING = "inner"\n')
    (shop / "part").mkdir()
    configure(shop / "part", '[env]\nGREETING = "part"\n')
    done = session(
        *("cd shop/vendor/inner", "echo $GREETING ${EMPTY-none}", "cd ../..", "echo $GREETING"),
        *("cd part", "echo $GREETING", "cd ..", "mkdir new; cd new", "echo $GREETING"),
        *("git init -q", "echo ${GREETING-none}"),
    )
    hello = "hello from shop"
    assert done.out == ["inner none", hello, "part", hello, "none"]


@pytest.mark.usefixtures("shop")
def test_a_blocked_checkout_inside_a_loaded_one_unloads_it(
    session: Session, make_repo: Callable[[str], Path]
) -> None:
    inner = make_repo("shop/inner")
    (inner / "isoenv.toml").write_text('[env]\nGREETING = "hostile"\n')
    done = session("cd shop", "cd inner", "echo ${GREETING-none}", "cd ..", "echo $GREETING")
    assert done.out == ["none", "hello from shop"]
    assert done.said[1] == (
        f"isoenv: {inner}/isoenv.toml is not allowed yet: read it, then `isoenv allow`"
    )


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("child", ["bash", "zsh"])
def test_a_child_shell_takes_back_what_it_inherits(session: Session, child: str) -> None:
    inner = Session(child, session.place, session.command)
    (session.place / "inner-hook").write_text(inner.hook)
    (session.place / "inner").write_text(
        '. "$T/inner-hook"\necho "$GREETING"\ncd ..\nenv -0 >"$T/outside"\ncd shop\n'
        'echo "$GREETING ${GONE-unset}"\n'
    )
    done = session(
        "export EMPTY=full; GREETING=mine; env -0 >$T/before",
        "cd shop",
        f'{" ".join(ARGV[child])} <"$T/inner"',
        "cd ..",
        "echo $GREETING",
    )
    hello = "hello from shop"
    assert done.out == [hello, f"{hello} unset", "mine"]
    before = session.environ("before")
    assert session.environ("outside") == before
    assert (before["EMPTY"], "GREETING" in before) == ("full", False)
    assert done.said == [
        "isoenv: shop/0 shop (~EMPTY ~GREETING ~PATH)",
        "isoenv: shop/0 shop (+1 ~EMPTY ~PATH)",
    ]
    assert len(done.runs) == 1


@pytest.mark.usefixtures("shop")
def test_nothing_but_the_record_marks_a_loaded_shell(session: Session) -> None:
    session("cd shop", "env -0 >$T/inside", env={"__isoenv_base": None})
    names = {name for name in session.environ("inside") if "isoenv" in name.lower()}
    assert {name for name in names if name.startswith("__")} == {"__ISOENV_UNDO", "__ISOENV_SLOT"}
    assert not [name for name in names if name.startswith("__isoenv")]


def test_a_set_inherited_from_another_checkout_is_replaced(
    session: Session, shop: Path, other: Path
) -> None:
    foreign = envdiff.apply(os.environ, {"GREETING": "foreign", "LEFT": "1"}, ("/f",), str(other))
    done = session("echo $GREETING ${LEFT-none}; echo $PATH", cwd=shop, env=foreign)
    assert done.out == [
        "hello from shop none",
        f"{shop}/bin:{shop}/tools:{os.environ['PATH']}",
    ]


@pytest.mark.usefixtures("shop")
def test_the_next_prompt_function_sees_the_status_of_the_users_command(session: Session) -> None:
    show = {
        "bash": "PROMPT_COMMAND=$PROMPT_COMMAND';echo then $?'",
        "zsh": "precmd_functions+=(show); show() { echo then $?; }",
    }[session.name]
    done = session(show, "(exit 3)", "echo is $?", "cd shop && (exit 4)", "echo is $?")
    assert [line for line in done.out if line != "then 0"] == ["then 3", "is 3", "then 4", "is 4"]


def test_a_status_that_is_no_failure_does_not_end_a_strict_shell(session: Session) -> None:
    done = session("set -eu", "! true", "echo alive", "false && true", "echo alive")
    assert done.out == ["alive", "alive"]


@pytest.mark.usefixtures("shop")
def test_traps_options_and_separators_are_the_users(session: Session) -> None:
    state = {
        "bash": 'trap; set +o; shopt -p; echo "$IFS"; alias',
        "zsh": 'trap; setopt; unsetopt; echo "$IFS"; alias',
    }[session.name]
    debug = "trap : DEBUG;" if session.name == "bash" else ""
    done = session(
        "trap 'echo int' INT; trap 'echo bye' EXIT; trap 'echo usr' USR1; IFS=/x; set -u; " + debug,
        "alias cd='echo cd' eval='echo eval' export='echo export' local='echo local' test=false",
        f"show() {{ {state}; }}",
        'show >"$T/before"',
        "\\cd shop; kill -USR1 $$",
        'show >"$T/inside"; echo "$GREETING"',
        "\\cd ..",
        'show >"$T/after"; echo "${GREETING-none}"',
    )
    before = (session.place / "before").read_text()
    assert "USR1" in before
    assert (session.place / "inside").read_text() == before
    assert (session.place / "after").read_text() == before
    assert done.out == ["usr", "hello from shop", "none", "bye"]
    assert done.complaints == []


@pytest.mark.usefixtures("shop")
def test_functions_and_aliases_of_the_users_are_in_nobodys_way(session: Session) -> None:
    names = ["eval", "source", "export", "local", "typeset", "unset", "printf", "read", "set"]
    names += ["test", "print", "return", "emulate", "setopt", "break", "continue", "declare"]
    functions = [f"function {name} {{ \\builtin echo wrong {name}; }}" for name in names]
    aliases = [f"alias {name}='echo wrong {name}'" for name in [*names, "isoenv"]]
    command = f'builtin eval "$(command cat $T/hook.{session.name})"'
    done = session(*functions, *aliases, command, "cd shop", 'echo "$GREETING"', "cd ..", ":")
    assert done.out == ["hello from shop"]
    assert done.complaints == []


OPTIONS = {
    "bash": (
        "list() { while read name value; do echo $1 $name $value; done; };"  # noqa: ISC004  # one line of input
        "set -o | list set; shopt | list shopt",
        # Those that end or silence the shell, or change what is typed.
        {
            "noexec",
            "onecmd",
            "stdin",
            "emacs",
            "vi",
            "privileged",
            "verbose",
            "xtrace",
            "restricted_shell",
            "login_shell",
            "interactive_comments",
            "interactive-comments",
        },
    ),
    "zsh": (
        "for name in ${(ok)options}; do echo set $name $options[$name]; done",
        {
            "exec",
            "singlecommand",
            "onecmd",
            "stdin",
            "emacs",
            "vi",
            "privileged",
            "verbose",
            "xtrace",
            "restricted",
            "interactive",
        }
        | {"login", "shinstdin", "monitor", "zle", "printexitvalue", "sourcetrace", "promptcr"}
        | {"promptsp", "histverify", "continueonerror"},
    ),
}


@pytest.mark.usefixtures("shop")
def test_no_option_of_the_shell_disturbs_it(session: Session) -> None:
    listing, excluded = OPTIONS[session.name]
    options = [line.split() for line in session.bare(listing).out]
    options = [option for option in options if option[1] not in excluded]
    assert len(options) > 60
    lines = []
    for kind, name, value in options:
        flip = {"set": ("set +o", "set -o"), "shopt": ("shopt -u", "shopt -s")}[kind]
        there, back = flip if value == "on" else flip[::-1]
        lines += [
            *(f"{there} {name}", f'builtin eval "$(cat $T/hook.{session.name})"'),
            *("cd $T/shop", f'echo "{name} $GREETING"', "cd $T", f'echo "{name} ${{GREETING-}}"'),
            *(":", f"{back} {name}"),
        ]
    done = session(*lines)
    expected = [f"{name} {value}" for _, name, _ in options for value in ("hello from shop", "")]
    assert done.out == expected
    assert set(done.said) == {"isoenv: shop/0 shop (+2 ~PATH)"}
    assert done.complaints == []
    assert len(done.runs) == 1


def test_no_names_but_ours_are_left_in_the_shell(session: Session, shop: Path) -> None:
    names = {
        "bash": "compgen -A variable; compgen -A function",
        "zsh": "print -l ${(k)parameters} ${(k)functions}",
    }[session.name]
    empty = session.bare(f"{names} >$T/before", f"{names} >$T/before")
    done = session(f"cd {shop}", "cd ..", f"{names} >$T/after")
    assert empty.complaints == done.complaints == []
    before, after = (
        set((session.place / name).read_text().split()) for name in ("before", "after")
    )
    registered = {"PROMPT_COMMAND", "precmd_functions", "chpwd_functions", "isoenv"}
    ours = {name for name in after - before if not name.startswith(("__isoenv_", "_isoenv_hook"))}
    assert ours <= registered | {"BASH_LINENO", "FUNCNAME", "PIPESTATUS"}
    assert "_isoenv_hook" in after


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("before", ["unset", "one", "two", "other", "empty"])
def test_evaluated_twice_it_registers_once(session: Session, before: str) -> None:
    prepare, show = {
        "bash": (
            {
                "unset": "unset PROMPT_COMMAND",
                "one": "PROMPT_COMMAND='echo one'",
                "two": "PROMPT_COMMAND=('echo one' 'echo two')",
                "other": "PROMPT_COMMAND=([1]='echo two')",
                "empty": "PROMPT_COMMAND=()",
            },
            r'echo "${PROMPT_COMMAND[@]}" | grep -o _isoenv_hook',
        ),
        "zsh": (
            {
                "unset": "unset precmd_functions",
                "one": "precmd() { echo one; }",
                "two": "precmd_functions=(one two); one() { echo one; }; two() { echo two; }",
                "other": "precmd_functions=(two); two() { echo two; }",
                "empty": "precmd_functions=()",
            },
            "print -l $precmd_functions $chpwd_functions[2,-1] | grep _isoenv_hook",
        ),
    }[session.name]
    evaluate = f'eval "$(cat $T/hook.{session.name})"'
    done = session(prepare[before], evaluate, evaluate, "cd shop", show, "echo $GREETING")
    lines = Counter(done.out)
    assert (lines["_isoenv_hook"], lines["hello from shop"]) == (1, 1)
    seen = {"one": {"one"}, "two": {"one", "two"}, "other": {"two"}}.get(before, set())
    assert lines.keys() - {"_isoenv_hook", "hello from shop"} == seen
    assert done.complaints == []


def test_the_first_prompt_is_right_and_beginning_prints_nothing(
    session: Session, shop: Path, home: Path
) -> None:
    rc = home / {"bash": ".bashrc", "zsh": ".zshrc"}[session.name]
    rc.write_text(
        f'eval "$({session.command} hook {session.name} 2>&1)"\necho begun ${{GREETING-none}}\n'
    )
    interactive = {"bash": ("bash", "--noprofile", "--noediting", "-i"), "zsh": ("zsh", "-i")}
    done = session.bare("echo $GREETING", cwd=shop, argv=interactive[session.name])
    assert done.out == ["begun none", "hello from shop"]
    assert done.runs == [f"hook {session.name}", f"export {session.name} --hook"]
    assert len(done.said) == 1


@pytest.mark.usefixtures("shop")
def test_a_subshell_of_zsh_gets_the_environment_in_silence(session: Session) -> None:
    done = session("(cd shop && echo ${GREETING-none})", "echo ${GREETING-none}")
    inner = "hello from shop" if session.name == "zsh" else "none"
    assert done.out == [inner, "none"]
    assert done.said == []


@pytest.mark.usefixtures("shop")
def test_completion_changes_nothing(session: Session) -> None:
    done = session("typeset -A compstate", "x=$(cd shop && echo ${GREETING-none}); echo $x")
    assert done.out == ["none"]
    assert done.runs == []


def test_a_file_that_is_not_allowed_is_said_once_and_again_after_it_changes(
    session: Session, shop: Path
) -> None:
    done = session(
        *("cd shop", "echo '# more' >>isoenv.toml", ":", "echo ${GREETING-none}"),
        *("cd ..", "cd shop", ":", "echo '# more' >>isoenv.toml", ":", ":"),
        *("isoenv allow 2>/dev/null", "echo ${GREETING-none}"),
    )
    changed = f"isoenv: {shop}/isoenv.toml has changed: `isoenv allow` shows how, and allows it"
    assert done.said == [done.said[0], changed, changed, done.said[0]]
    assert done.out == ["none", "hello from shop"]


def test_denying_unloads_at_the_next_prompt(session: Session, shop: Path) -> None:
    deny = f"{session.command} deny 2>/dev/null"
    done = session(
        deny, "echo ${GREETING-none}", "cd ..", "cd shop", "echo ${GREETING-none}", cwd=shop
    )
    assert done.out == ["none", "none"]
    assert done.said[1:] == [
        f"isoenv: {shop}/isoenv.toml is denied: `isoenv allow` takes that back"
    ]


def test_a_new_worktree_with_the_same_file_loads_and_one_with_another_does_not(
    session: Session, shop: Path, git: Callable[..., str], worktree: Callable[[Path, str], Path]
) -> None:
    git(shop, "add", "isoenv.toml")
    git(shop, "commit", "-qm", "config")
    same, changed = worktree(shop, "same"), worktree(shop, "changed")
    with (changed / "isoenv.toml").open("a") as file:
        file.write("# more\n")
    done = session(f"cd {same}", "echo $GREETING", f"cd {changed}", "echo ${GREETING-none}")
    assert done.out == ["hello from same", "none"]


def test_a_directory_that_is_deleted_under_the_shell_changes_nothing(
    session: Session, shop: Path
) -> None:
    (shop / "a/b").mkdir(parents=True)
    done = session(
        *("cd shop/a/b", "rm -r ../../a", "echo $GREETING", "rm -rf ../..", f"rm -rf {shop}"),
        *("echo $GREETING", ":", 'cd "$T"', "echo ${GREETING-none}"),
    )
    assert done.out == ["hello from shop", "hello from shop", "none"]
    assert len(done.said) == 1
    assert done.status == 0


def test_without_the_executable_what_is_ready_loads_and_the_rest_is_said_once(
    session: Session, shop: Path, other: Path
) -> None:
    done = session(
        *(f"cd {shop}", "cd ..", f"rm {session.command}", f"cd {shop}", "echo $GREETING"),
        *(f"cd {other}", ":", "echo $GREETING", f"cd {shop}", f"cd {other}", "cd ..", ":"),
        "echo ${GREETING-none}",
    )
    assert done.out == ["hello from shop", "hello from shop", "none"]
    gone = f"isoenv: {session.command} is gone: install it again, or `isoenv off`"
    assert [line for line in done.said if "gone" in line] == [gone]
    assert done.complaints == []


def test_a_reader_that_goes_away_is_no_error(session: Session) -> None:
    done = session.bare(f"{session.command} hook {session.name} | true; echo done")
    assert done.out == ["done"]
    assert (done.said, done.complaints) == ([], [])


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("quiet", []),
        ("brief", ["isoenv: shop/0 shop (+2 ~PATH -GONE)"]),
        (
            "diff",
            [
                "isoenv: shop/0 shop (+EMPTY +GREETING ~PATH -GONE)",
                "isoenv: left shop/0 shop",
            ],
        ),
    ],
)
def test_the_line_is_as_long_as_is_asked_for(session: Session, log: str, said: list[str]) -> None:
    done = session("cd shop", "cd ..", ":", env={"ISOENV_LOG": log, "GONE": "there"})
    assert done.said == said


@pytest.mark.usefixtures("shop")
def test_a_closed_standard_error_is_no_error(session: Session) -> None:
    done = session("exec 2>&-", "cd shop", "echo $GREETING", "cd ..", "echo ${GREETING-none}")
    assert done.out == ["hello from shop", "none"]


def test_two_shells_that_are_first_in_two_worktrees_get_two_slots(
    session: Session, shop: Path, git: Callable[..., str], worktree: Callable[[Path, str], Path]
) -> None:
    git(shop, "add", "isoenv.toml")
    git(shop, "commit", "-qm", "config")
    roots = [worktree(shop, name) for name in ("one", "two", "three")]
    hook = session.place / f"hook.{session.name}"
    hook.write_text(session.hook)
    started = [
        subprocess.Popen(
            ARGV[session.name],
            cwd=root,
            env={**os.environ, "PS1": ""},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for root in roots
    ]
    text = f". {hook}\necho $ISOENV_INSTANCE\n".encode()
    for shell in started:
        assert shell.stdin is not None
        shell.stdin.write(text)
        shell.stdin.close()
    slots = []
    for shell in started:
        assert shell.stdout is not None
        slots.append(shell.stdout.read().strip())
        assert shell.wait() == 0
        shell.stdout.close()
    assert sorted(slots) == [b"1", b"2", b"3"]


def test_the_hook_is_clean_under_strict_options(session: Session) -> None:
    strict = {
        "bash": ("bash", "--noprofile", "--norc", "-euo", "pipefail", "-c"),
        "zsh": ("zsh", "-f", "-eu", "-c"),
    }[session.name]
    checked = [
        run([*strict, session.hook], cwd=session.place, env={}, text=""),
        run([session.name, "-n"], cwd=session.place, env={}, text=session.hook),
        run(
            [*strict, f"{session.hook}\n_isoenv_hook\ncd /\n_isoenv_hook"],
            cwd=ROOT,
            env={},
            text="",
        ),
    ]
    assert [(done.returncode, done.stdout, done.stderr) for done in checked[:2]] == [
        (0, "", "")
    ] * 2
    assert (checked[2].returncode, checked[2].stdout) == (0, "")


def test_shellcheck_finds_nothing_in_the_hook_of_bash() -> None:
    file = str(ROOT / "shell/hook.bash")
    done = run(["shellcheck", "--shell=bash", file], cwd=ROOT, env={}, text="")
    assert (done.returncode, done.stdout) == (0, "")


def test_isoenv_hook_prints_it_with_its_own_path(session: Session) -> None:
    done = run([str(session.command), "hook", session.name], cwd=session.place, env={}, text="")
    assert done.stdout == session.hook.replace(
        f"{session.place}/state", os.environ["XDG_STATE_HOME"] + "/isoenv"
    )


# The shell's own command, and what else is asked of a hook.


@pytest.mark.usefixtures("shop")
def test_off_on_and_reload_are_about_this_shell(session: Session) -> None:
    greeting = "echo ${GREETING-none}"
    done = session(
        *("cd shop", "isoenv off; echo $?", greeting, "cd ..", "cd shop", greeting),
        *("isoenv on; echo $?", greeting, "GREETING=edited", "isoenv reload; echo $?", greeting),
        *("cd ..", "isoenv reload; echo $?", greeting, "isoenv hook csh 2>/dev/null; echo $?"),
    )
    hello = "hello from shop"
    assert done.out == ["0", "none", "none", "0", hello, "0", hello, "0", "edited", "2"]
    assert done.runs == [f"export {session.name} --hook"] * 2 + ["hook csh"]
    assert len(done.said) == 2


def test_a_slot_of_the_users_own_is_obeyed_and_left_as_it_is(
    session: Session, shop: Path, other: Path
) -> None:
    configure(shop, CONFIG + "[instance]\nvariable = 'SHOP_SLOT'\n")
    slot = "echo ${ISOENV_INSTANCE-none} ${SHOP_SLOT-none}"
    done = session(
        *(
            f"cd {shop}",
            "cd ..",
            "export SHOP_SLOT=4",
            f"cd {shop}",
            slot,
            f"cd {other}",
            slot,
            "cd ..",
            slot,
        ),
        *("unset SHOP_SLOT", f"cd {shop}", slot, "ISOENV_INSTANCE=5", slot),
        *("unset ISOENV_INSTANCE", slot, "cd ..", slot),
        *("export SHOP_SLOT=0", f"cd {other}", slot, f"cd {shop}", slot),
    )
    assert done.out[:4] == ["4 4", "0 4", "none 4", "0 0"]
    assert done.out[4:] == ["5 5", "0 0", "none none", "0 0", "0 0"]


def test_a_slot_of_the_users_own_holds_from_one_checkout_to_the_next(
    session: Session, shop: Path, git: Callable[..., str], worktree: Callable[[Path, str], Path]
) -> None:
    configure(shop, CONFIG + "[instance]\nvariable = 'SHOP_SLOT'\n")
    git(shop, "add", "isoenv.toml")
    git(shop, "commit", "-qm", "config")
    linked = worktree(shop, "linked")
    slot = "echo ${ISOENV_INSTANCE-none}"
    done = session(
        *(f"cd {shop}", slot, f"cd {linked}", slot, "cd ..", "export SHOP_SLOT=5"),
        *(f"cd {shop}", slot, f"cd {linked}", slot, "SHOP_SLOT=1", slot, "unset SHOP_SLOT", slot),
    )
    assert done.out == ["0", "1", "5", "5", "1", "1"]


def test_an_instance_that_was_named_stays_in_checkouts_of_its_project(
    session: Session,
    shop: Path,
    other: Path,
    git: Callable[..., str],
    worktree: Callable[[Path, str], Path],
) -> None:
    git(shop, "add", "isoenv.toml")
    git(shop, "commit", "-qm", "config")
    linked = worktree(shop, "linked")
    slot = "echo ${ISOENV_INSTANCE-none} ${GREETING-none}\n"
    inner = f". $T/hook.{session.name}\n{slot}cd {linked}\n{slot}cd ..\n{slot}cd {shop}\n{slot}"
    inner += f"cd {other}\n{slot}cd {shop}\n{slot}"
    (session.place / "inner").write_text(inner)
    done = session(
        f"cd {shop}",
        slot.strip(),
        f"command isoenv exec 3 {' '.join(ARGV[session.name])} <$T/inner",
        slot.strip(),
        env={"PATH": f"{session.command.parent}:{os.environ['PATH']}"},
    )
    named = "3 hello from shop-3"
    own = "0 hello from shop"
    assert done.out == [own, *[named] * 4, "0 other", named, own]


def test_a_claim_in_another_terminal_is_seen_at_the_next_prompt(
    session: Session, shop: Path
) -> None:
    claim = f"{session.command} claim 7 2>/dev/null >&2"
    done = session("echo $ISOENV_INSTANCE", claim, "echo $ISOENV_INSTANCE", cwd=shop)
    assert done.out == ["0", "7"]


def test_a_reload_without_new_values_keeps_edits_and_says_nothing(
    session: Session, shop: Path
) -> None:
    done = session("GREETING=mine", "touch isoenv.toml", "echo $GREETING", cwd=shop)
    assert done.out == ["mine"]
    assert len(done.said) == 1
    assert len(done.runs) == 2


def test_a_symbolic_link_leads_to_the_checkout_behind_it(
    session: Session, shop: Path, other: Path, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(shop)
    (shop / "a").mkdir()
    where = 'echo "${GREETING-none} $PWD ${OLDPWD-none}"'
    done = session(
        *(f"cd {other}", "cd $T/link/a", where, f"ln -sfn {other} $T/link", where, "cd $T/link"),
        *(where, f"ln -sfn {shop} $T/link", "cd $T/link", where),
    )
    link = f"{tmp_path}/link"
    assert done.out == [
        f"hello from shop {link}/a {other}",
        f"hello from shop {link}/a {other}",
        f"other {link} {link}/a",
        f"hello from shop {link} {link}",
    ]
    assert done.complaints == []


def test_a_name_that_is_readonly_or_a_list_is_left_alone(session: Session, shop: Path) -> None:
    configure(shop, '[env]\nA = "1"\nB = "2"\nC = "3"\nD = "x"\nE = false\n')
    done = session(
        "readonly A=mine E=mine; B=(one two); typeset -i D=7",
        "cd shop",
        *['echo "$A ${B[*]} $C $D $E"', "cd ..", 'echo "$A ${B[*]} ${C-none} $D $E"'],
        *["cd shop", "cd .."],
    )
    assert done.out == ["mine one two 3 7 mine", "mine one two none 7 mine"]
    left = [f"isoenv: {name} is readonly or no plain variable here: left alone" for name in "ABDE"]
    assert [line for line in done.said if "alone" in line] == left
    assert done.complaints == []


@pytest.mark.parametrize("session", ["zsh"], indirect=True)
def test_unique_entries_of_a_path_in_zsh_are_not_lost(session: Session, shop: Path) -> None:
    path = f"/usr/bin:{shop}/bin:/bin"
    done = session(
        "typeset -U PATH path", "cd shop", "echo $PATH", "cd ..", "echo $PATH", env={"PATH": path}
    )
    assert done.out == [f"{shop}/bin:{shop}/tools:/usr/bin:/bin", f"{shop}/bin:/usr/bin:/bin"]


def test_where_direnv_loads_the_checkout_the_hook_does_not(
    session: Session, shop: Path, other: Path
) -> None:
    (shop / ".envrc").write_text("use isoenv\n")
    done = session(
        *("_direnv_hook() { :; }", f"cd {other}", "echo $GREETING", f"cd {shop}"),
        *(
            "echo ${GREETING-none}",
            "unset -f _direnv_hook",
            "cd ..",
            f"cd {shop}",
            "echo $GREETING",
        ),
    )
    assert done.out == ["other", "none", "hello from shop"]


def test_what_direnv_has_loaded_is_left_to_it(session: Session, shop: Path) -> None:
    loaded = {"DIRENV_DIR": f"-{shop}", "ISOENV_ROOT": str(shop), "GREETING": "of direnv"}
    done = session("echo $GREETING", "cd ..", "echo $GREETING", cwd=shop, env=loaded)
    assert done.out == ["of direnv", "of direnv"]
    assert done.said == []


def test_a_state_directory_that_goes_away_takes_the_trust_with_it_and_comes_back(
    session: Session, shop: Path
) -> None:
    done = session(
        *("cd shop", "rm -r $T/state", "echo ${GREETING-none}", ":", "isoenv allow 2>/dev/null"),
        *("echo $GREETING", "rm -r $T/state; isoenv allow 2>/dev/null", "echo $GREETING"),
    )
    assert done.out == ["none", "hello from shop", "hello from shop"]
    blocked = f"isoenv: {shop}/isoenv.toml is not allowed yet: read it, then `isoenv allow`"
    loaded = "isoenv: shop/0 shop (+2 ~PATH)"
    assert done.said == [loaded, blocked, loaded]
    assert done.complaints == []


def test_a_state_directory_that_cannot_be_made_is_said_once(
    session: Session, shop: Path, other: Path, tmp_path: Path
) -> None:
    done = session(
        *(f"cd {other}", f"mv $T/state $T/away; : >$T/state; cd {shop}", ":", ":"),
        *("echo $GREETING", "rm $T/state; mv $T/away $T/state", "isoenv list >/dev/null 2>&1"),
        "echo $GREETING",
        cwd=tmp_path,
    )
    assert done.out == ["other", "hello from shop"]
    assert len(done.said) == 3
    assert done.complaints == []


def test_where_nothing_can_be_published_the_code_is_used_once(
    session: Session, shop: Path, tmp_path: Path
) -> None:
    (tmp_path / "state/t").write_text("in the way\n")
    done = session(
        *(f"cd {shop}", ":", "echo $GREETING", "cd ..", "echo ${GREETING-none}", f"cd {shop}"),
        "echo $GREETING",
    )
    assert done.out == ["hello from shop", "none", "hello from shop"]
    assert done.runs == [f"export {session.name} --hook"] * 2
    assert (done.said, done.complaints) == (["isoenv: shop/0 shop (+2 ~PATH)"] * 2, [])


def test_a_shell_that_is_too_old_is_told_so(session: Session) -> None:
    version = {"bash": "BASH_VERSINFO[0]", "zsh": '"$ZSH_VERSION"'}[session.name]
    old = {"bash": "3", "zsh": "4.3"}[session.name]
    hook = session.hook.replace(version, old)
    show = {"bash": "echo ${PROMPT_COMMAND-none}", "zsh": "echo ${precmd_functions-none}"}
    (session.place / "old").write_text(hook)
    done = session.bare(". $T/old", show[session.name])
    assert done.out == ["none"]
    assert len(done.said) == 1
    assert "too old for the hook" in done.said[0]


def test_a_relative_state_directory_is_never_read_from(
    session: Session, shop: Path, tmp_path: Path
) -> None:
    planted = shop / f"state/t{shop}"
    planted.mkdir(parents=True)
    for name in ("@env.bash", "@env.sh"):
        (planted / name).write_text("touch $T/pwned\n")
    session("cd shop", ":", env={"ISOENV_STATE_DIR": "state"})
    assert not (tmp_path / "pwned").exists()


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    "record",
    [
        "garbage",
        f"{US}r={US}{US}/r",
        f"{US}r={US}{US}/r{US}A{US}x={US}{US}",
        f"{US}q={US}{US}/r{US}",
        f"A{US}u={US}{US}1{US}",
        f"{US}r={US}{US}/r{US}A{US}u?{US}{US}1{US}",
        f"{US}r={US}{US}/r{US}a[$(touch pwned)]{US}u={US}{US}1{US}",
        f"{US}r={US}{US}/r{US}A{US}u={US}{US}{RS}2{US}",
    ],
)
def test_a_damaged_record_is_dropped_with_one_line(
    session: Session, record: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="record"):
        envdiff.loads(record)
    done = session(
        "echo ${__ISOENV_UNDO-none} $A",
        ":",
        "cd shop",
        "echo $GREETING",
        "cd ..",
        "echo $A",
        env={"__ISOENV_UNDO": record, "A": "1"},
    )
    assert done.out == ["none 1", "hello from shop", "1"]
    assert done.said[0] == (
        "isoenv: the undo record is damaged: what was loaded before stays as it is"
    )
    assert len(done.said) == 2
    assert done.complaints == []
    assert not (tmp_path / "pwned").exists()


def test_the_record_of_another_program_is_read(session: Session, shop: Path) -> None:
    loaded = envdiff.apply(
        {**os.environ, "A": f"old{US}{RS}1", "KEPT": "old"},
        {"A": f"{RS}0{US}", "B": None, "C": "", "KEPT": "new"},
        ("/x", "/y"),
        "/gone",
    )
    done = session(
        'printf %s "$A" >$T/a; echo "${B-none} ${C-none} $KEPT"; echo "$PATH"',
        env={**loaded, "KEPT": "edited"},
    )
    assert (session.place / "a").read_text() == f"old{US}{RS}1"
    assert done.out == ["none none edited", os.environ["PATH"]]
    assert shop


@pytest.fixture
def branch(shop: Path, tmp_path: Path) -> Path:
    """A linked worktree of a checkout with awkward values."""
    controls = "".join(f"\\U{code:08x}" for code in (*range(1, 33), 39, 92, 127, 0x1F692))
    configure(shop, CONFIG.replace("[path]", f'NASTY = "{controls} {{root}}"\n[path]'))
    for args in (["add", "."], ["commit", "-qm", "x"], ["worktree", "add", "-q", "../branch"]):
        subprocess.run(["git", "-C", str(shop), *args], check=True)
    return tmp_path / "branch"


@pytest.mark.parametrize(
    "edit",
    [
        ":",
        "export GREETING=mine",
        "export GREETING=; unset EMPTY",
        "export GONE=back",
        "export -n GREETING",
        "declare -i ISOENV_INSTANCE",
        "shopt -s nocasematch; GREETING=${GREETING^^}",
        "PATH=$T/venv:$PATH",
        "PATH=${PATH#*:}",
        "export -n PATH",
        "readonly GREETING",
        "export __ISOENV_SLOT=7",
        "unset __ISOENV_UNDO",
        "export ISOENV_LOG=diff",
        "export ISOENV_LOG=quiet",
        "ISOENV_INSTANCE=5",
    ],
)
@pytest.mark.parametrize("session", ["bash"], indirect=True)
@pytest.mark.usefixtures("branch")
def test_bash_changes_at_once_just_as_it_does_step_by_step(
    session: Session, shop: Path, edit: str
) -> None:
    found = []
    for first in (":", "__isoenv_swap() { return 1; }"):
        places = ("$T/shop", "$T/branch", "$T/shop/sub", "$T")
        moves = [f"cd {place}; :" for place in places]
        dumps = [f"env -0 | sort -z >$T/{index}; declare -p PATH" for index in range(len(places))]
        (shop / "sub").mkdir(exist_ok=True)
        steps = [line for pair in zip(moves, dumps, strict=True) for line in pair]
        done = session("cd $T/branch", "cd $T/shop", first, edit, *steps[1:])
        environs = [session.environ(str(index)) for index in range(len(places))]
        found.append((done.out, done.said[-3:], done.complaints, done.status, environs))
    assert found[0] == found[1]


@pytest.mark.parametrize("session", ["bash"], indirect=True)
@pytest.mark.usefixtures("branch")
def test_bash_changes_between_untouched_environments_in_one_command(
    session: Session, tmp_path: Path
) -> None:
    slow = "eval \"$(declare -f __isoenv_undo | sed '2a echo slow')\""
    done = session(
        "env -0 >$T/before",
        "cd branch",
        "cd ../shop",
        slow,
        "cd ../branch",
        "env -0 >$T/there; echo there",
        "cd ..",
        "env -0 >$T/after",
    )
    assert done.out == ["there", "slow"]
    assert session.environ("there")["ISOENV_ROOT"] == str(tmp_path / "branch")
    assert session.environ("after") == session.environ("before")
    assert done.said[-1] == "isoenv: shop/1 branch (+3 ~PATH)"


@pytest.mark.parametrize(
    "spoil",
    ["cat /dev/zero >$T/small/full 2>/dev/null", "mount -o remount,ro $T/small"],
    ids=["full", "read-only"],
)
def test_a_state_directory_that_takes_no_more_leaves_a_working_prompt(
    session: Session, shop: Path, other: Path, make_repo: Callable[[str], Path], spoil: str
) -> None:
    configure(make_repo("unknown"))
    namespace = ("unshare", "--mount", *(("--map-root-user",) if os.getuid() else ()))
    (session.place / f"hook.{session.name}").write_text(session.hook)
    done = session.bare(
        "mkdir $T/small; mount -t tmpfs -o size=512k none $T/small; cp -a $T/state/. $T/small",
        f'eval "$(cat $T/hook.{session.name})"',
        f"cd {other}",
        f"cd {shop}",
        spoil,
        "echo $GREETING",
        f"cd {other}",
        "echo $GREETING",
        "touch isoenv.toml",
        *["echo $GREETING"] * 2,
        "cd ../unknown",
        *["echo $GREETING"] * 2,
        "cd ..",
        "echo ${GREETING-none}",
        argv=(*namespace, *ARGV[session.name]),
        env={"ISOENV_STATE_DIR": str(session.place / "small")},
    )
    # What is known is served as before; what cannot be computed leaves what was there.
    assert done.out == ["hello from shop", *["other"] * 5, "none"]
    loaded = ["isoenv: other/0 other (+2)", "isoenv: shop/0 shop (+2 ~PATH)"]
    assert done.said[:3] == [*loaded, loaded[0]]
    # One line at most for each of the two.
    assert 1 <= len(done.said[3:]) <= 2
    assert all("cannot" in line for line in done.said[3:])
    assert (done.complaints, done.status) == ([], 0)
