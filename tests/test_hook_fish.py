"""The hook in real fish: what a prompt changes, what it never changes, and what it costs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import pexpect
import pytest
import tomli_w

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Isoenv = Callable[..., subprocess.CompletedProcess[str]]
    MakeRepo = Callable[[str], Path]
    Git = Callable[..., str]

ROOT = Path(__file__).resolve().parents[1]
FILES = ("enter.fish", "record.fish", "hook.fish", "env.fish")

# The program that the hook runs: it counts, and does what the tests of failures ask for.
PROGRAM = """\
#!/bin/sh
echo "$*" >>{folder}/runs
[ "$1" = export ] && [ -e {folder}/slow ] && exec sleep 100000
[ "$1" = export ] && [ -e {folder}/failing ] && {{ echo 'isoenv: no luck' >&2; exit 1; }}
[ "$1" = export ] && [ -e {folder}/answer ] && exec cat {folder}/answer
PYTHONPATH={root} exec {python} -m isoenv "$@"
"""

# A prompt is followed by a command, as on a terminal. A `snap` is what a child process sees.
PRELUDE = """\
function prompt; emit fish_prompt; emit fish_preexec; end
function snap; command env -0 >$SNAPS/$argv[1]; end
"""

NASTY = (
    b"",
    b" ",
    b"two\nlines\n",
    b"\n",
    b"it's \"$HOME\" `id` $(id) (id) \\ \\\\ \\' ! !! * ? ~ {a,b} # ; & | < > % ^",
    b"-n",
    b"-",
    b"=",
    b"(",
    b"a\tb\x01\x1b[31m\x7f",
    "é🚒\u2028\uf600\ufffd".encode(),
    b"a\xffb\xc3",
    b"\x1f",
    b"\x1e\x1e0\x1e1\x1f\x1f",
    b"x" * 20000,
)


@dataclass
class Fish:
    """A fish with the hook, in a place where everything that it does leaves a trace."""

    folder: Path
    hook: str
    env_hook: str
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def program(self) -> Path:
        return self.folder / "it's a $bin/isoenv"

    @property
    def runs(self) -> list[str]:
        """The arguments of each run of the program."""
        file = self.folder / "runs"
        return file.read_text().splitlines() if file.exists() else []

    def run(
        self,
        script: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        argv: tuple[str, ...] = ("fish", "--no-config"),
    ) -> str:
        """Run a script after the hook; return what it and the hook said on standard error."""
        done = self.start(script, cwd, env, argv)
        assert done.returncode == 0, done.stderr
        assert done.stdout == b""
        return os.fsdecode(done.stderr)

    def start(
        self,
        script: str,
        cwd: Path,
        env: Mapping[str, str] | None = None,
        argv: tuple[str, ...] = ("fish", "--no-config"),
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a script after the hook."""
        environ = {**os.environ, **self.environ, **(env or {})}
        code = f"{PRELUDE}source {self.folder}/hook.fish; or exit\n{script}\nbuiltin true"
        return subprocess.run(
            [*argv, "-c", os.fsencode(code)], cwd=cwd, env=environ, capture_output=True, check=False
        )

    def snap(self, name: str) -> dict[bytes, bytes]:
        """Return the environment of a child at one moment."""
        content = (self.folder / "snaps" / name).read_bytes()
        cells = [cell.partition(b"=") for cell in content.split(b"\0")[:-1]]
        return {key: value for key, _, value in cells}


@pytest.fixture
def fish(tmp_path: Path) -> Fish:
    """A fish, its hook printed by the program itself."""
    folder = tmp_path / "fish"
    (folder / "snaps").mkdir(parents=True)
    made = Fish(folder, "", "", {"SNAPS": str(folder / "snaps")})
    made.environ["PROGRAM"] = str(made.program)
    made.program.parent.mkdir()
    made.program.write_text(
        PROGRAM.format(folder=quote(str(folder)), root=quote(str(ROOT)), python=sys.executable)
    )
    made.program.chmod(0o755)
    made.hook = printed(made.program)
    made.env_hook = printed(made.program, "--env")
    (folder / "hook.fish").write_text(made.hook)
    return made


def printed(program: Path, *options: str) -> str:
    """Return what `isoenv hook fish` prints when it was installed as this program."""
    code = "import sys; from isoenv.__main__ import main; sys.argv[0] = sys.argv.pop(1); main()"
    return subprocess.run(
        [sys.executable, "-c", code, str(program), "hook", "fish", *options],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        text=True,
    ).stdout


@dataclass
class Project:
    """What is written into isoenv.toml."""

    env: dict[str, str | bool] = field(default_factory=dict)
    path: tuple[str, ...] = ()
    variable: str | None = None

    @property
    def text(self) -> str:
        env = {
            name: value.replace("{", "{{").replace("}", "}}") if isinstance(value, str) else value
            for name, value in self.env.items()
        }
        config: dict[str, object] = {"env": env, "path": {"prepend": list(self.path)}}
        config["instance"] = {"variable": self.variable} if self.variable else {}
        return tomli_w.dumps(config)


@pytest.fixture
def configure(isoenv: Isoenv) -> Callable[[Path, Project], Path]:
    """Give a checkout its isoenv.toml, allowed and long enough ago to be sure of."""

    def configure(root: Path, project: Project) -> Path:
        (root / "isoenv.toml").write_text(project.text)
        age(root / "isoenv.toml", 1000)
        assert isoenv("allow", cwd=root).returncode == 0
        return root

    return configure


@pytest.fixture
def shop(make_repo: MakeRepo, configure: Callable[[Path, Project], Path]) -> Path:
    """A checkout that sets, replaces and unsets, with a directory five levels deep."""
    root = make_repo("shop")
    (root / "a/b/c/d/e").mkdir(parents=True)
    env: dict[str, str | bool] = {"FOO": "shop", "EMPTY": "", "LEGACY": False}
    return configure(root, Project(env, ("tools", ".venv/bin"), "SHOP_SLOT"))


@pytest.fixture
def blog(make_repo: MakeRepo, configure: Callable[[Path, Project], Path]) -> Path:
    """Another checkout, of another project."""
    return configure(make_repo("blog"), Project({"FOO": "blog", "BAR": "blog"}, ("bin",)))


def age(path: Path, seconds: int) -> None:
    """Make a file's time a whole number of seconds ago, and no whole second."""
    then = time.time_ns() - seconds * 1_000_000_000
    os.utime(path, ns=(then, then // 1000 * 1000 + 123))


def staying(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what a change of directory does not change."""
    return {k: v for k, v in environ.items() if k not in (b"PWD", b"OLDPWD")}


def ours(environ: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
    """Return what isoenv marks its environments with."""
    settings = (b"ISOENV_STATE_DIR", b"ISOENV_HOST_DIR", b"ISOENV_LOG")
    return {k: v for k, v in environ.items() if b"ISOENV_" in k and k not in settings}


# =============================================================================
#
# Loading and undoing.
#


def test_loads_on_the_way_in_and_leaves_nothing_on_the_way_out(fish: Fish, shop: Path) -> None:
    script = "snap before; cd shop/a; prompt; snap inside; cd ../..; prompt; snap after"
    said = fish.run(script, shop.parent, {"LEGACY": "old", "FOO": "mine"})
    inside = fish.snap("inside")
    assert inside[b"FOO"] == b"shop"
    assert inside[b"EMPTY"] == b""
    assert b"LEGACY" not in inside
    assert inside[b"ISOENV_ROOT"] == os.fsencode(shop)
    first = f"{shop}/tools:{shop}/.venv/bin:"
    assert inside[b"PATH"].startswith(os.fsencode(first))
    assert staying(fish.snap("after")) == staying(fish.snap("before"))
    assert said == "isoenv: shop/0 shop (+2 ~FOO ~PATH -LEGACY)\n"


def test_a_set_variable_comes_back_with_its_value_and_its_scope(fish: Fish, shop: Path) -> None:
    script = """
    set -g FOO 'not exported'; set -g LEGACY a 'b c' d; set -gx EMPTY one two
    cd shop; prompt; snap inside; cd ..; prompt; snap after
    set --show FOO LEGACY EMPTY >&2
    """
    said = fish.run(script, shop.parent)
    inside, after = fish.snap("inside"), fish.snap("after")
    assert inside[b"FOO"] == b"shop"
    assert b"not exported" not in b"".join(inside.values())
    assert b"FOO" not in after
    assert b"LEGACY" not in after
    assert after[b"EMPTY"] == b"one two"
    assert "$FOO: set in global scope, unexported, with 1 elements\n$FOO[1]: |not exported|" in said
    assert "$LEGACY: set in global scope, unexported, with 3 elements" in said
    assert "$EMPTY: set in global scope, exported, with 2 elements" in said


def test_universal_variables_are_hidden_and_never_touched(fish: Fish, shop: Path) -> None:
    script = """
    set -Ux FOO universal; set -Ux LEGACY universal
    cd shop; prompt; snap inside; set --show FOO LEGACY | grep universal >$SNAPS/inside.show
    set -Ux FOO changed
    cd ..; prompt; snap after; set --show FOO LEGACY >$SNAPS/after.show
    """
    # With its own configuration, for without it fish knows no universal variables.
    done = fish.start(script, shop.parent, argv=("fish",))
    assert done.returncode == 0, done.stderr
    assert fish.snap("inside")[b"FOO"] == b"shop"
    assert fish.snap("inside")[b"LEGACY"] == b""
    assert (fish.folder / "snaps/inside.show").read_text().count("|universal|") == 2
    assert fish.snap("after")[b"FOO"] == b"changed"
    assert fish.snap("after")[b"LEGACY"] == b"universal"
    assert "set in global" not in (fish.folder / "snaps/after.show").read_text()


def test_values_are_byte_exact(
    fish: Fish, make_repo: MakeRepo, configure: Callable[[Path, Project], Path]
) -> None:
    root = make_repo("bytes")
    texts = {f"V{n}": value.decode() for n, value in enumerate(NASTY) if is_text(value)}
    configure(root, Project(dict(texts)))
    old = {f"V{n}": os.fsdecode(value) for n, value in enumerate(reversed(NASTY))}
    old["MINE"] = "untouched \udcff"
    script = "snap before; cd bytes; prompt; snap inside; prompt; cd ..; prompt; snap after"
    fish.run(script, root.parent, old)
    inside, after = fish.snap("inside"), fish.snap("after")
    for name, value in texts.items():
        assert inside[name.encode()] == value.encode()
    for name, value in old.items():
        assert after[name.encode()] == os.fsencode(value)


def is_text(value: bytes) -> bool:
    """Whether TOML can say it."""
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize(
    "name",
    ["with space", "it's", '"double"', "$HOME", "new\nline", "end\n", "-n", "\\b", "é🚒", "*"],
)
def test_directories_may_have_any_name(
    fish: Fish, make_repo: MakeRepo, configure: Callable[[Path, Project], Path], name: str
) -> None:
    root = configure(make_repo(f"in/{name}/{name}"), Project({"FOO": "here"}, ("bin",)))
    (root / name).mkdir()
    script = "prompt; snap inside; prompt; cd /; prompt; snap after"
    said = fish.run(script, root / name)
    inside = fish.snap("inside")
    assert inside[b"ISOENV_ROOT"] == os.fsencode(root)
    assert inside[b"PATH"].startswith(os.fsencode(root) + b"/bin:")
    assert not ours(fish.snap("after"))
    assert b"FOO" not in fish.snap("after")
    assert said.count("\n") == 1
    assert len(fish.runs) == 1


def test_a_path_through_a_symbolic_link_is_the_same_checkout(fish: Fish, shop: Path) -> None:
    link = shop.parent / "link"
    link.symlink_to(shop / "a/b")
    outer = shop.parent / "outer"
    outer.symlink_to(shop.parent)
    script = f"""
    cd {shop}/a; prompt; snap first
    cd {link}/c; prompt; snap second
    cd {outer}/shop; prompt; snap third; test $PWD = {outer}/shop; or echo wrong >&2
    cd {outer}; prompt; snap fourth
    """
    assert fish.run(script, shop.parent).count("isoenv:") == 1
    for name in ("first", "second", "third"):
        assert fish.snap(name)[b"ISOENV_ROOT"] == os.fsencode(shop)
    assert not ours(fish.snap("fourth"))
    assert len(fish.runs) == 1


@pytest.mark.parametrize("before", [{}, dict.fromkeys(("FOO", "EMPTY", "LEGACY"), "before")])
def test_what_the_user_changes_after_loading_stays(
    fish: Fish, shop: Path, before: dict[str, str]
) -> None:
    script = """
    cd shop; prompt
    set -gx FOO edited; set -e EMPTY; set -gx LEGACY again
    cd ..; prompt; snap after
    """
    fish.run(script, shop.parent, before)
    after = fish.snap("after")
    assert after[b"FOO"] == b"edited"
    assert b"EMPTY" not in after
    assert after[b"LEGACY"] == b"again"
    assert not ours(after)


def test_path_is_undone_entry_by_entry(fish: Fish, shop: Path) -> None:
    script = f"""
    set -gx PATH /one {shop}/.venv/bin $PATH
    cd shop; prompt; snap inside
    set -gx PATH /first $PATH /last; set PATH (string match -v -- {shop}/tools $PATH)
    cd ..; prompt; snap after
    """
    base = os.environ["PATH"]
    fish.run(script, shop.parent, {"MANPATH": "/m:/n:"})
    inside, after = fish.snap("inside"), fish.snap("after")
    mine = f"/one:{shop}/.venv/bin:{base}"
    assert inside[b"PATH"] == os.fsencode(f"{shop}/tools:{shop}/.venv/bin:{mine}")
    assert after[b"PATH"] == os.fsencode(f"/first:{mine}:/last")
    assert after[b"MANPATH"] == b"/m:/n:"


def test_from_one_checkout_to_another_the_first_value_is_remembered(
    fish: Fish, shop: Path, blog: Path
) -> None:
    script = f"""
    cd {shop}; prompt; cd {blog}; prompt; snap blog; cd {shop}; prompt; snap shop
    cd ..; prompt; snap after
    """
    said = fish.run(script, shop.parent, {"FOO": "first"})
    inside = fish.snap("blog")
    assert inside[b"FOO"] == b"blog"
    assert b"EMPTY" not in inside
    assert os.fsencode(shop) not in inside[b"PATH"]
    assert b"BAR" not in fish.snap("shop")
    assert fish.snap("after")[b"FOO"] == b"first"
    assert fish.snap("after")[b"PATH"] == os.fsencode(os.environ["PATH"])
    assert said.splitlines() == [
        "isoenv: shop/0 shop (+2 ~FOO ~PATH)",
        "isoenv: blog/0 blog (+1 ~FOO ~PATH)",
        "isoenv: shop/0 shop (+2 ~FOO ~PATH)",
    ]


def test_the_nearest_base_wins_and_a_blocked_one_unloads_the_outer(
    fish: Fish,
    shop: Path,
    make_repo: MakeRepo,
    configure: Callable[[Path, Project], Path],
) -> None:
    configure(make_repo("shop/inner"), Project({"FOO": "inner"}))
    blocked = make_repo("shop/blocked")
    (blocked / "isoenv.toml").write_text("[env]\nFOO = 'blocked'\n")
    make_repo("shop/plain")
    script = """
    cd inner; prompt; snap inner; cd ../blocked; prompt; snap blocked
    cd ..; prompt; snap outer; cd plain; prompt; snap plain; cd ../a; prompt; snap again
    """
    said = fish.run(f"prompt; {script}", shop)
    assert fish.snap("inner")[b"FOO"] == b"inner"
    assert b"EMPTY" not in fish.snap("inner")
    for name in ("blocked", "plain"):
        assert b"FOO" not in fish.snap(name)
        assert not ours(fish.snap(name))
    assert fish.snap("outer")[b"FOO"] == fish.snap("again")[b"FOO"] == b"shop"
    assert said.count("is not allowed yet") == 1


def test_a_base_that_appears_nearer_or_vanishes_is_seen(fish: Fish, shop: Path) -> None:
    script = """
    cd a/b; prompt; snap outer; echo >../isoenv.toml; prompt; snap nearer
    rm ../isoenv.toml; prompt; snap back; mv ../../.git ../../away; rm ../../isoenv.toml
    prompt; snap none
    """
    fish.run(script, shop)
    assert fish.snap("outer")[b"FOO"] == fish.snap("back")[b"FOO"] == b"shop"
    assert b"FOO" not in fish.snap("nearer")
    assert not ours(fish.snap("none"))


# =============================================================================
#
# What is seen, what starts a process, and what does not.
#


def test_no_process_is_started_for_a_prompt_or_between_known_checkouts(
    fish: Fish, shop: Path, blog: Path
) -> None:
    log = fish.folder / "trace"
    script = f"""
    for d in {shop} {blog} {shop.parent}; cd $d; prompt; end
    command true
    for i in (builtin string split , 1,2,3,4,5)
        builtin cd {shop}/a/b/c/d/e; prompt; builtin cd {blog}; prompt
        builtin cd {shop.parent}; prompt; builtin cd {shop}; prompt
    end
    for d in {shop}/a/b/c/d/e {shop.parent}
        builtin cd $d
        for i in 1 2 3 4 5 6 7 8 9 10; for j in 1 2 3 4 5; prompt; end; end
    end
    command true
    """
    tracer = ("strace", "-f", "-e", "trace=process", "-o", str(log), "fish", "--no-config")
    fish.run(script, shop.parent, argv=tracer)
    traced = re.sub(r"\d+ <\.\.\. .*\n", "", log.read_text())
    _, between, _ = re.split(r'.*execve\("[^"]*/true".*\n', traced)
    # The tail of the first `true`, and the beginning of the second.
    started = re.findall(r"(?:v?fork|clone3?)\((?!.*CLONE_THREAD).*|execve\(.*", between)
    assert len(started) == 1
    assert len(fish.runs) == 2


@pytest.mark.parametrize("value", ["/elsewhere", False])
def test_a_checkout_that_sets_home_is_computed_once(  # noqa: PLR0913, PLR0917  # fixtures
    fish: Fish,
    blog: Path,
    home: Path,
    make_repo: MakeRepo,
    configure: Callable[[Path, Project], Path],
    value: str | bool,  # noqa: FBT001  # as in the file
) -> None:
    root = configure(make_repo("homely"), Project({"HOME": value}))
    script = f"""
    for d in {root} {blog} {root} {blog} {root}
        builtin cd $d; prompt; prompt; prompt
    end
    snap inside
    builtin cd {root.parent}; prompt
    snap outside
    """
    fish.run(script, root.parent)
    inside = None if value is False else os.fsencode(str(value))
    assert fish.snap("inside").get(b"HOME") == inside
    assert fish.snap("outside")[b"HOME"] == os.fsencode(home)
    assert len(fish.runs) == 2


def test_a_second_prompt_changes_nothing_and_says_nothing(fish: Fish, shop: Path) -> None:
    script = "prompt; snap one; prompt 2>$SNAPS/said; snap two; cd a; prompt 2>>$SNAPS/said"
    fish.run(script, shop)
    assert fish.snap("one") == fish.snap("two")
    assert (fish.folder / "snaps/said").read_text() == ""
    assert len(fish.runs) == 1


def test_an_edit_is_seen_at_the_next_prompt_even_in_the_same_second(
    fish: Fish, shop: Path, isoenv: Isoenv
) -> None:
    text = (shop / "isoenv.toml").read_text()
    for value in ("one", "two"):
        (shop / value).write_text(text.replace('"shop"', f'"{value}"'))
        shutil.copyfile(shop / value, shop / "isoenv.toml")
        assert isoenv("allow", cwd=shop).returncode == 0
    then = time.time_ns()
    os.utime(shop / "one", ns=(then, then + 1))
    os.utime(shop / "two", ns=(then, then))
    script = """
    prompt; mv one isoenv.toml; prompt; snap one
    mv two isoenv.toml; prompt; snap older; rm isoenv.toml; prompt; snap gone
    """
    fish.run(script, shop)
    assert fish.snap("one")[b"FOO"] == b"one"
    assert fish.snap("older")[b"FOO"] == b"two"
    assert b"FOO" not in fish.snap("gone")


def test_a_claim_in_another_terminal_is_seen(fish: Fish, shop: Path) -> None:
    script = (
        f"prompt; snap before; {sys.executable} -m isoenv claim 4 2>/dev/null; prompt; snap after"
    )
    fish.run(script, shop, {"PYTHONPATH": str(ROOT)})
    assert fish.snap("before")[b"SHOP_SLOT"] == b"0"
    assert fish.snap("after")[b"SHOP_SLOT"] == b"4"


def test_a_failure_is_not_tried_again_until_the_file_changes(fish: Fish, shop: Path) -> None:
    (fish.folder / "failing").touch()
    script = f"""
    prompt; prompt; prompt; snap failed; echo >>isoenv.toml; prompt; prompt
    cd ..; prompt; cd shop; prompt; prompt; rm {fish.folder}/failing; prompt; isoenv reload
    """
    said = fish.run(script, shop)
    assert not ours(fish.snap("failed"))
    assert fish.runs == ["export fish --hook"] * 4
    assert said.count("no luck") == 3


def test_a_failure_keeps_what_was_loaded(fish: Fish, shop: Path, blog: Path) -> None:
    (blog / "isoenv.toml").write_text("")
    script = f"""
    prompt; touch {fish.folder}/failing; cd {blog}; prompt; prompt; snap kept
    cd {shop}; prompt; snap back; cd ..; prompt; snap out
    """
    said = fish.run(script, shop)
    assert fish.snap("kept")[b"FOO"] == fish.snap("back")[b"FOO"] == b"shop"
    assert not ours(fish.snap("out"))
    assert said.count("no luck") == 1


def test_a_blocked_file_is_said_once_and_again_when_it_changes(
    fish: Fish, make_repo: MakeRepo
) -> None:
    root = make_repo("blocked")
    (root / "isoenv.toml").write_text("[env]\nEVIL = '1'\n")
    script = """
    prompt; prompt; cd ..; prompt; cd blocked; prompt; snap blocked
    echo '#' >>isoenv.toml; prompt; prompt; isoenv allow 2>/dev/null; prompt; snap allowed
    echo '#' >>isoenv.toml; prompt; prompt; snap changed
    """
    said = fish.run(script, root)
    assert said.count("is not allowed yet") == 2
    assert said.count("has changed") == 1
    assert b"EVIL" not in fish.snap("blocked")
    assert fish.snap("allowed")[b"EVIL"] == b"1"
    assert b"EVIL" not in fish.snap("changed")


def test_a_broken_file_is_said_once_and_loads_nothing(fish: Fish, shop: Path) -> None:
    script = "prompt; echo '[[[' >isoenv.toml; prompt; prompt; cd a; prompt; snap broken"
    said = fish.run(script, shop)
    assert said.count("\n") == 2
    assert not ours(fish.snap("broken"))


def test_a_linked_worktree_with_the_same_bytes_needs_no_allow(
    fish: Fish, shop: Path, git: Git, worktree: Callable[[Path, str], Path]
) -> None:
    git(shop, "add", "isoenv.toml")
    git(shop, "commit", "--quiet", "--message=configured")
    linked = worktree(shop, "linked")
    said = fish.run("prompt; snap linked; cd ../shop; prompt; snap main", linked)
    assert fish.snap("linked")[b"SHOP_SLOT"] == b"1"
    assert fish.snap("main")[b"SHOP_SLOT"] == b"0"
    assert [line.split(" (")[0] for line in said.splitlines()] == [
        "isoenv: shop/1 linked",
        "isoenv: shop/0 shop",
    ]


# =============================================================================
#
# Slots, pins, and shells inside of shells.
#


def test_the_users_own_slot_is_obeyed_and_given_back(fish: Fish, shop: Path) -> None:
    script = """
    prompt; set -gx SHOP_SLOT 3; prompt; snap three; set -gx SHOP_SLOT 5; prompt; snap five
    prompt; cd ..; prompt; snap out; cd shop; prompt; snap again; set -e SHOP_SLOT; prompt; snap own
    """
    fish.run(script, shop)
    assert fish.snap("three")[b"ISOENV_INSTANCE"] == b"3"
    assert fish.snap("five")[b"ISOENV_INSTANCE"] == b"5"
    assert fish.snap("out")[b"SHOP_SLOT"] == b"5"
    assert not ours(fish.snap("out"))
    assert fish.snap("again")[b"ISOENV_INSTANCE"] == b"5"
    assert fish.snap("own")[b"SHOP_SLOT"] == b"0"


def test_the_users_own_slot_is_seen_below_ours(
    fish: Fish, shop: Path, make_repo: MakeRepo, configure: Callable[[Path, Project], Path]
) -> None:
    other = configure(make_repo("other"), Project({"FOO": "other"}, variable="SHOP_SLOT"))
    script = f"""
    cd {other}; prompt; snap own; cd {shop}; prompt; cd ..; prompt
    set -gx SHOP_SLOT 3; cd {shop}; prompt; cd {other}; prompt; snap three
    """
    fish.run(script, shop.parent)
    assert fish.snap("own")[b"ISOENV_INSTANCE"] == b"0"
    assert fish.snap("three")[b"ISOENV_INSTANCE"] == b"3"
    assert fish.snap("three")[b"FOO"] == b"other"


@pytest.mark.parametrize("value", ["!", "-n", "(", "3 x"])
def test_a_slot_that_is_none_is_said_and_nothing_else(fish: Fish, shop: Path, value: str) -> None:
    script = f"prompt; set -gx SHOP_SLOT '{value}'; prompt; prompt; snap kept"
    said = fish.run(script, shop)
    assert said.count("\n") == 2
    assert "is no slot" in said
    assert fish.snap("kept")[b"FOO"] == b"shop"


def test_exec_of_a_number_stays_that_number(fish: Fish, shop: Path, isoenv: Isoenv) -> None:
    script = f"""
    {PRELUDE} source {fish.folder}/hook.fish
    snap start; prompt; snap here; cd a; prompt; snap below; cd ../..; prompt; snap outside
    cd shop; prompt; snap back
    """
    done = isoenv("exec", "3", "fish", "--no-config", "-c", script, cwd=shop, env=fish.environ)
    assert done.returncode == 0
    assert "isoenv:" not in done.stderr
    for name in ("start", "here", "below", "outside", "back"):
        assert fish.snap(name)[b"ISOENV_INSTANCE"] == b"3"
    assert len(fish.runs) == 1


def test_a_shell_inside_gives_back_what_the_outer_one_found(
    fish: Fish, shop: Path, isoenv: Isoenv
) -> None:
    script = f"""
    {PRELUDE} source {fish.folder}/hook.fish
    snap start; prompt; snap here; cd ..; prompt; snap out
    """
    env = {**fish.environ, "FOO": "before \xff", "LEGACY": "before\x1f\x1e", "EMPTY": "a\nb\n"}
    done = isoenv("exec", ".", "fish", "--no-config", "-c", script, cwd=shop, env=env)
    assert done.returncode == 0
    assert done.stderr == ""
    assert fish.snap("start")[b"FOO"] == b"shop"
    assert ours(fish.snap("start")) == ours(fish.snap("here"))
    assert fish.snap("start")[b"PATH"] == fish.snap("here")[b"PATH"]
    out = fish.snap("out")
    assert {name: os.fsdecode(out[name.encode()]) for name in env} == env
    assert out[b"PATH"] == os.fsencode(os.environ["PATH"])
    assert not ours(out)


def test_a_shell_inside_another_checkout_has_that_ones(
    fish: Fish, shop: Path, blog: Path, isoenv: Isoenv
) -> None:
    script = f"{PRELUDE} source {fish.folder}/hook.fish; cd {blog}; prompt; snap blog"
    done = isoenv("exec", ".", "fish", "--no-config", "-c", script, cwd=shop, env=fish.environ)
    assert done.stderr == "isoenv: blog/0 blog (+2 ~PATH)\n"
    assert fish.snap("blog")[b"FOO"] == b"blog"
    assert b"EMPTY" not in fish.snap("blog")


def test_a_child_keeps_an_override_and_mends_a_path_that_was_set_anew(
    fish: Fish, shop: Path
) -> None:
    child = f"fish --no-config -c '{PRELUDE} source {fish.folder}/hook.fish;"
    script = f"""
    set -g FOO hidden; prompt
    FOO=mine {child} prompt; snap override; cd ..; prompt; snap out'
    PATH={os.environ["PATH"]} {child} prompt; snap login'
    snap parent
    """
    said = fish.run(script, shop)
    assert fish.snap("override")[b"FOO"] == b"mine"
    assert fish.snap("out")[b"FOO"] == b"mine"
    assert fish.snap("login")[b"PATH"] == fish.snap("parent")[b"PATH"]
    assert b"hidden" not in b"".join(fish.snap("parent").values())
    assert not [name for name in fish.snap("parent") if name.startswith(b"__isoenv")]
    assert said.count("isoenv:") == 2


def test_what_another_shell_hid_is_unset(fish: Fish, shop: Path) -> None:
    cells = ["", "r=", "", str(shop), "FOO", "s=", "", "x", "BAR", "s-", "", "", "Z", "u-", "", ""]
    record = "".join(f"{cell}\x1f" for cell in cells)
    fish.run("prompt; snap out", shop.parent, {"__ISOENV_UNDO": record, "FOO": "x", "Z": "mine"})
    assert b"FOO" not in fish.snap("out")
    assert fish.snap("out")[b"Z"] == b"mine"


def test_entries_for_path_may_be_several(fish: Fish, shop: Path) -> None:
    fish.run("prompt; snap in", shop)
    environ = {os.fsdecode(k): os.fsdecode(v) for k, v in fish.snap("in").items()}
    entries = f"PATH\x1fp=\x1f\x1f{shop}/tools:{shop}/.venv/bin\x1f"
    assert entries in environ["__ISOENV_UNDO"]
    # As a shell writes them that puts one after the other in front.
    several = "".join(f"PATH\x1fp=\x1f\x1f{shop}/{name}\x1f" for name in (".venv/bin", "tools"))
    environ["__ISOENV_UNDO"] = environ["__ISOENV_UNDO"].replace(entries, several)
    environ["PATH"] += f":{shop}/tools"
    assert fish.run("prompt; snap in; cd ..; prompt; snap out", shop, environ) == ""
    assert fish.snap("in")[b"PATH"] == os.fsencode(environ["PATH"])
    assert fish.snap("out")[b"PATH"] == os.fsencode(f"{os.environ['PATH']}:{shop}/tools")


@pytest.mark.parametrize(
    "record", ["junk", "\x1fr=\x1f\x1f/x", "\x1fr=\x1f\x1f/x\x1fA B\x1fu=\x1f\x1f1\x1f", "\x1f" * 8]
)
def test_a_damaged_record_is_dropped_with_one_line(fish: Fish, shop: Path, record: str) -> None:
    script = "prompt; prompt; snap out; cd shop; prompt; snap in; cd ..; prompt; snap after"
    said = fish.run(script, shop.parent, {"__ISOENV_UNDO": record, "FOO": "kept"})
    assert said.count("the undo record is damaged") == 1
    assert said.count("\n") == 2
    assert fish.snap("out")[b"FOO"] == fish.snap("after")[b"FOO"] == b"kept"
    assert fish.snap("in")[b"FOO"] == b"shop"
    assert not ours(fish.snap("after"))


# =============================================================================
#
# The words of the user, and what belongs to the user.
#


def test_off_undoes_on_loads_and_reload_computes(fish: Fish, shop: Path) -> None:
    script = """
    prompt; isoenv off; or exit; snap off; prompt; cd a; prompt; snap still
    isoenv on; snap on; set -gx FOO edited; isoenv reload; snap reloaded; cd ../..; prompt; snap out
    """
    said = fish.run(script, shop)
    assert not ours(fish.snap("off"))
    assert staying(fish.snap("off")) == staying(fish.snap("still"))
    assert fish.snap("on")[b"FOO"] == fish.snap("reloaded")[b"FOO"] == b"shop"
    assert fish.snap("out")[b"FOO"] == b"edited"
    assert fish.runs == ["export fish --hook"] * 2
    assert said.count("isoenv:") == 2


def test_other_words_go_to_the_command_with_its_status(fish: Fish, shop: Path) -> None:
    done = fish.start("isoenv port nothing; echo $status; isoenv path; echo $status", shop)
    said = done.stdout.decode().splitlines()
    assert said[0] == "5"
    assert said[2] == "0"
    assert fish.runs == ["port nothing", "path"]


def test_the_line_is_what_isoenv_log_asks_for(fish: Fish, shop: Path, blog: Path) -> None:
    script = f"""
    for log in quiet brief diff
        set -g ISOENV_LOG $log; cd {shop}; prompt; cd {blog}; prompt; cd ..; prompt
    end
    """
    said = fish.run(script, shop.parent, {"LEGACY": "1", "BAR": "1"})
    assert said.splitlines() == [
        "isoenv: shop/0 shop (+3 ~PATH -LEGACY)",
        "isoenv: blog/0 blog (+1 ~BAR ~PATH)",
        "isoenv: shop/0 shop (+EMPTY +FOO +SHOP_SLOT ~PATH -LEGACY)",
        "isoenv: blog/0 blog (+FOO ~BAR ~PATH)",
        "isoenv: left blog/0 blog",
    ]


def test_nothing_is_said_in_a_command_substitution(fish: Fish, shop: Path) -> None:
    assert fish.run("set -l x (cd shop; prompt; snap in); prompt", shop.parent) == ""
    assert fish.snap("in")[b"FOO"] == b"shop"


def test_a_closed_standard_error_harms_nothing(fish: Fish, shop: Path) -> None:
    script = f"{PRELUDE} source {fish.folder}/hook.fish; prompt; snap in; cd ..; prompt; snap out"
    env = {**os.environ, **fish.environ}
    closing = f"exec fish --no-config -c {quote(script)} >&- 2>&-"
    done = subprocess.run(["sh", "-c", closing], cwd=shop, env=env, check=False)
    assert done.returncode == 0
    assert fish.snap("in")[b"FOO"] == b"shop"
    assert not ours(fish.snap("out"))


def test_no_name_is_left_but_its_own_and_handlers_are_untouched(fish: Fish, shop: Path) -> None:
    names = "begin; set --names --global; builtin functions --all --names; end"
    script = f"""
    function mine --on-event fish_prompt; end
    function on_int --on-signal USR1; end
    cd shop; functions cd >/dev/null; command true; {names} >$SNAPS/before
    prompt; cd a; prompt; {names} >$SNAPS/inside; cd ../..; prompt; {names} >$SNAPS/after
    builtin functions --handlers >$SNAPS/handlers
    """
    # Sourced already, so the hook's names are there: what matters is what a prompt adds.
    fish.run(script, shop.parent)
    before, inside, after = (
        set((fish.folder / "snaps" / name).read_text().split())
        for name in ("before", "inside", "after")
    )
    theirs = {"FOO", "EMPTY", "SHOP_SLOT"} | {
        f"ISOENV_{name}" for name in ("PROJECT", "INSTANCE", "NAME", "ROOT", "DIR")
    }
    drop = {"dirprev", "dirnext", "__fish_cd_direction"}
    assert {n for n in inside - before - theirs - drop if not n.startswith("__isoenv_")} == {
        "__ISOENV_UNDO",
        "__ISOENV_SLOT",
    }
    assert {n for n in after - before - drop if not n.startswith("__isoenv_")} == set()
    defined = re.findall(r"^ *function (\S+)", fish.hook, re.MULTILINE)
    assert [n for n in defined if not n.startswith("__isoenv_")] == ["_isoenv_hook", "isoenv"]
    handlers = (fish.folder / "snaps/handlers").read_text()
    assert "fish_prompt mine" in handlers
    assert "USR1 on_int" in handlers


def test_evaluated_twice_it_registers_once(fish: Fish, shop: Path) -> None:
    script = f"""
    prompt; source {fish.folder}/hook.fish; source {fish.folder}/hook.fish; prompt; snap in
    builtin functions --handlers >$SNAPS/handlers; cd ..; prompt; snap out
    """
    assert fish.run(script, shop).count("isoenv:") == 1
    handlers = (fish.folder / "snaps/handlers").read_text()
    assert sorted(re.findall(r"^\S+ (\S*isoenv\S*)", handlers, re.MULTILINE)) == [
        "__isoenv_at_cd",
        "__isoenv_at_command",
        "_isoenv_hook",
    ]
    assert fish.snap("in")[b"FOO"] == b"shop"
    assert not ours(fish.snap("out"))


def test_functions_of_the_user_and_odd_settings_change_nothing(fish: Fish, shop: Path) -> None:
    names = "cd contains count functions path printf source true false realpath pwd env emit cat"
    script = f"""
    set -g IFS ''
    set -g argv a b; set -g rest 1; set -g line 2; set -g directory /; set -g file x
    for name in {names}; function $name; echo shadowed >&2; return 9; end; end
    builtin cd shop; builtin emit fish_prompt; builtin emit fish_preexec; snap in
    builtin cd ..; builtin emit fish_prompt; builtin emit fish_preexec; snap out
    """
    said = fish.run(script, shop.parent, {"FOO": "before", "CDPATH": ".:/", "LEGACY": "1"})
    assert said == "isoenv: shop/0 shop (+2 ~FOO ~PATH -LEGACY)\n"
    assert fish.snap("in")[b"FOO"] == b"shop"
    assert fish.snap("out")[b"FOO"] == b"before"
    assert fish.snap("out")[b"LEGACY"] == b"1"


def test_managed_names_may_be_those_of_the_hooks_own_variables(
    fish: Fish, make_repo: MakeRepo, configure: Callable[[Path, Project], Path]
) -> None:
    names = sorted(
        set(re.findall(r"^ +(?:set -l|for) ([a-z]\w*)", fish.hook, re.MULTILINE))
        | set(re.findall(r"\?<([a-z]\w*)>", fish.hook))
        | set(re.findall(r"argument-names ([a-z]\w*)", fish.hook))
    )
    assert {"directory", "value", "entry", "rest", "plain"} < set(names)
    root = configure(make_repo("names"), Project({name: f"new\x1f {name}" for name in names}))
    old = {name: f"old\x1e {name}" for name in names[::2]}
    fish.run("cd names; prompt; snap in; prompt; cd ..; prompt; snap out", root.parent, old)
    for name in names:
        assert fish.snap("in")[name.encode()] == f"new\x1f {name}".encode()
        assert fish.snap("out").get(name.encode()) == (old[name].encode() if name in old else None)


ANSWER = """\
set -g __isoenv_root /x; set -g __isoenv_label x; set -g __isoenv_use all
set -g __isoenv_message ''; set -g __isoenv_direnv ''
function __isoenv_stale; false; end
function __isoenv_load
    __isoenv_set ISOENV_PROJECT x; __isoenv_set version 9; __isoenv_set FOO x
end
"""


def test_a_read_only_variable_is_left_alone_with_one_line(fish: Fish, shop: Path) -> None:
    (fish.folder / "answer").write_text(ANSWER)
    said = fish.run("prompt; prompt; snap in; cd ..; prompt; snap out", shop)
    assert said.splitlines() == [
        "isoenv: version is read-only in this fish: left alone",
        "isoenv: x (+1)",
    ]
    assert fish.snap("in")[b"FOO"] == b"x"
    assert b"FOO" not in fish.snap("out")


# =============================================================================
#
# What may be broken or gone.
#


def test_a_state_dir_that_cannot_be_written_costs_time_and_nothing_else(
    fish: Fish, shop: Path, blog: Path, tmp_path: Path
) -> None:
    # A file where the mirror of the paths would be: what is computed cannot be kept.
    (tmp_path / "state/t").write_text("")
    script = f"prompt; prompt; snap shop; cd {blog}; prompt; snap blog; cd ..; prompt; snap out"
    fish.run(script, shop)
    assert fish.snap("shop")[b"FOO"] == b"shop"
    assert fish.snap("blog")[b"FOO"] == b"blog"
    assert not ours(fish.snap("out"))
    assert len(fish.runs) == 2


def test_a_state_dir_that_is_no_directory_is_said_once(fish: Fish, shop: Path) -> None:
    env = {"ISOENV_STATE_DIR": "/dev/null/state"}
    said = fish.run("prompt; prompt; cd a; prompt; snap in; cd ../..; prompt", shop, env)
    assert said.count("\n") == 1
    assert not ours(fish.snap("in"))


def test_a_relative_state_dir_is_never_sourced(fish: Fish, shop: Path) -> None:
    planted = shop / f"state/t{shop}/@env.fish"
    planted.parent.mkdir(parents=True)
    planted.write_text(
        "set -gx EVIL 1; set -g __isoenv_root /; function __isoenv_stale; false; end"
    )
    fish.run("prompt; snap in", shop, {"ISOENV_STATE_DIR": "state"})
    assert b"EVIL" not in fish.snap("in")


def test_a_state_dir_removed_under_the_shell_is_made_again(
    fish: Fish, shop: Path, tmp_path: Path
) -> None:
    trust = tmp_path / "trust"
    shutil.copytree(tmp_path / "state/trust", trust)
    script = f"""
    prompt; rm -r {tmp_path}/state; prompt; prompt; snap blocked
    isoenv allow 2>/dev/null; prompt; snap again; cd ..; prompt; snap out
    """
    fish.run(script, shop)
    assert not ours(fish.snap("blocked"))
    assert fish.snap("again")[b"FOO"] == b"shop"
    assert not ours(fish.snap("out"))


def test_a_program_that_is_gone_is_said_once(fish: Fish, shop: Path, blog: Path) -> None:
    script = f"""
    prompt; rm $PROGRAM
    prompt; prompt; snap same; cd {blog}; prompt; prompt; snap kept; echo >>isoenv.toml; prompt
    cd {shop}; prompt; cd ..; prompt; snap out
    """
    said = fish.run(script, shop)
    assert said.count("is gone") == 1
    assert said.count("\n") == 2
    assert fish.snap("same")[b"FOO"] == fish.snap("kept")[b"FOO"] == b"shop"
    assert not ours(fish.snap("out"))


def test_a_checkout_deleted_under_the_shell_leaves_a_working_prompt(fish: Fish, shop: Path) -> None:
    script = "prompt; rm -r ../shop; prompt; prompt; snap in; cd /; prompt; snap out"
    assert fish.run(script, shop).count("\n") == 1
    assert fish.snap("in")[b"FOO"] == b"shop"
    assert not ours(fish.snap("out"))


def test_a_directory_deleted_under_the_shell_leaves_a_working_prompt(
    fish: Fish, shop: Path
) -> None:
    (shop / "gone").mkdir()
    script = "prompt; rmdir ../gone; prompt; touch ../isoenv.toml; prompt; prompt; snap in"
    assert fish.run(script, shop / "gone").count("\n") == 1
    assert fish.snap("in")[b"FOO"] == b"shop"


# =============================================================================
#
# direnv.
#

STAND_IN = "function __direnv_export_eval; end;"


def test_where_direnv_loads_isoenv_the_hook_does_not(fish: Fish, shop: Path, blog: Path) -> None:
    (blog / ".envrc").write_text("use isoenv\n")
    script = (
        f"prompt; cd {blog}; prompt; snap with; functions -e __direnv_export_eval; isoenv reload"
    )
    said = fish.run(f"{STAND_IN} {script}; snap without", shop)
    assert not ours(fish.snap("with"))
    assert b"FOO" not in fish.snap("with")
    assert fish.snap("without")[b"FOO"] == b"blog"
    assert said.count("isoenv:") == 2


def test_what_direnv_has_loaded_is_left_to_it(fish: Fish, shop: Path) -> None:
    env = {"DIRENV_DIR": f"-{shop}", "ISOENV_ROOT": str(shop), "FOO": "direnv's"}
    assert fish.run("prompt; prompt; snap in; cd ..; prompt; snap out", shop, env) == ""
    assert staying(fish.snap("in")) == staying(fish.snap("out"))
    assert fish.snap("in")[b"FOO"] == b"direnv's"


# =============================================================================
#
# The text of the hook, and the form without a prompt.
#


def test_the_text_is_formatted_and_parses() -> None:
    for name in FILES:
        path = ROOT / "shell" / name
        subprocess.run(["fish", "--no-execute", path], check=True)
        subprocess.run(["fish_indent", "--check", path], check=True)


@pytest.mark.parametrize("where", ["", "shop"])
def test_evaluating_it_says_nothing_and_succeeds(fish: Fish, shop: Path, where: str) -> None:
    for text in (fish.hook, fish.env_hook):
        for argv in (["fish", "--no-config"], ["fish", "--no-config", "--private"]):
            done = subprocess.run(
                [*argv, "-c", text],
                cwd=shop.parent / where,
                env={**os.environ, **fish.environ},
                capture_output=True,
                check=False,
            )
            assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_an_older_fish_is_told_and_left_alone(fish: Fish, shop: Path) -> None:
    (fish.folder / "hook.fish").write_text(fish.hook.replace("$version", "3.5.1"))
    said = fish.run("prompt; snap in; builtin functions --handlers >$SNAPS/handlers", shop)
    assert said == "isoenv: fish 3.5.1 is too old for the hook: 3.6 is the first that can\n"
    assert "isoenv" not in (fish.folder / "snaps/handlers").read_text()
    assert not ours(fish.snap("in"))


def test_without_a_prompt_it_loads_once_and_silently(
    fish: Fish, shop: Path, blog: Path, isoenv: Isoenv
) -> None:
    (fish.folder / "hook.fish").write_text(fish.env_hook)
    script = (
        "snap in; builtin functions --handlers >$SNAPS/handlers; functions -q isoenv; and echo x"
    )
    assert fish.run(script, shop / "a") == ""
    assert fish.snap("in")[b"FOO"] == b"shop"
    assert "isoenv" not in (fish.folder / "snaps/handlers").read_text()
    code = f"source {fish.folder}/hook.fish; cd {blog}; source {fish.folder}/hook.fish; snap blog"
    outside = f"cd /; source {fish.folder}/hook.fish; snap outside"
    argv = ("fish", "--no-config", "-c", f"{PRELUDE} {code}; {outside}")
    done = isoenv("exec", ".", *argv, cwd=shop, env=fish.environ)
    assert done.stderr == ""
    assert fish.snap("blog")[b"FOO"] == b"blog"
    assert b"EMPTY" not in fish.snap("blog")
    assert fish.snap("outside")[b"FOO"] == b"blog"
    assert len(fish.runs) == 2


# =============================================================================
#
# On a terminal.
#


@pytest.fixture
def terminal(fish: Fish) -> Iterator[Callable[..., pexpect.spawn[bytes]]]:
    """Start a fish on a terminal of its own; the tests wait for it as long as it takes."""
    opened: list[pexpect.spawn[bytes]] = []

    def terminal(cwd: Path, *options: str) -> pexpect.spawn[bytes]:
        prepared = f"""{PRELUDE}
        function fish_greeting; end; function fish_title; end
        function fish_prompt; echo '<prompt>'; end
        bind \\cx isoenv_test_jump; function isoenv_test_jump; cd {cwd.parent}/blog; end
        {fish.hook}"""
        shell = pexpect.spawn(
            "fish",
            ["--no-config", *options, "--init-command", prepared],
            cwd=str(cwd),
            env={**os.environ, **fish.environ, "TERM": "xterm"},
            timeout=None,
            dimensions=(50, 250),
        )
        opened.append(shell)
        shell.expect("<prompt>")
        return shell

    yield terminal
    for shell in opened:
        shell.close(force=True)


def ask(shell: pexpect.spawn[bytes], command: str) -> bytes:
    """Enter a command and wait until the next prompt is there; return what came before its end."""
    shell.sendline(f"{command}; echo done-(string length abc)")
    shell.expect("done-3")
    shown: bytes = shell.before
    shell.expect("<prompt>")
    return shown


@pytest.mark.parametrize("options", [(), ("--private",)])
def test_the_first_prompt_is_right(
    terminal: Callable[..., pexpect.spawn[bytes]], fish: Fish, shop: Path, options: tuple[str, ...]
) -> None:
    shell = terminal(shop / "a", *options)
    assert b"isoenv: shop/0 shop" in shell.before
    ask(shell, "snap first")
    assert fish.snap("first")[b"FOO"] == b"shop"
    ask(shell, "cd ../..")
    ask(shell, "snap out")
    assert not ours(fish.snap("out"))
    assert len(fish.runs) == 1


def test_status_and_pipestatus_are_the_users(
    terminal: Callable[..., pexpect.spawn[bytes]], shop: Path
) -> None:
    shell = terminal(shop)
    for directory in ("..", "shop", "a", "../.."):
        shell.sendline(f"cd {directory}; sh -c 'exit 3' | sh -c 'exit 7'")
        shell.expect("<prompt>")
        shell.sendline("echo ended-(string join - $status $pipestatus)")
        shell.expect(r"ended-(\d.*?)\r")
        assert shell.match[1] == b"7-3-7"
        shell.expect("<prompt>")


def test_a_directory_changed_by_a_key_counts_and_one_amid_a_line_does_not(
    terminal: Callable[..., pexpect.spawn[bytes]], fish: Fish, shop: Path, blog: Path
) -> None:
    shell = terminal(shop)
    ask(shell, f"cd {blog}; snap amid; cd {shop}")
    assert fish.snap("amid")[b"FOO"] == b"shop"
    assert len(fish.runs) == 1
    shell.send("\x18")
    assert b"isoenv: blog/0 blog" in ask(shell, "snap jumped")
    assert fish.snap("jumped")[b"FOO"] == b"blog"
    # Alt and the left arrow: back to where the shell was before.
    ask(shell, f"cd {shop}")
    shell.send("\x1b[1;3D")
    assert b"isoenv: blog/0 blog" in ask(shell, "snap arrow")
    assert fish.snap("arrow")[b"FOO"] == b"blog"
    ask(shell, f"set -g ISOENV_HOOK_CD 1; cd {shop}; snap wanted")
    assert fish.snap("wanted")[b"FOO"] == b"shop"


def test_a_completion_that_changes_the_directory_evaluates_nothing(
    terminal: Callable[..., pexpect.spawn[bytes]], fish: Fish, shop: Path, blog: Path
) -> None:
    shell = terminal(shop)
    ask(shell, f"complete -c foo -f -a '(cd {blog}; echo $FOO-completed; cd {shop})'")
    shell.send("foo \t")
    shell.expect(r"(shop|blog)-completed")
    assert shell.match[1] == b"shop"
    shell.send("\x15")
    ask(shell, "snap after")
    assert fish.snap("after")[b"FOO"] == b"shop"
    assert len(fish.runs) == 1


def test_an_interrupt_keeps_what_was_loaded_and_is_not_begun_again(
    terminal: Callable[..., pexpect.spawn[bytes]], fish: Fish, shop: Path, blog: Path
) -> None:
    shell = terminal(shop)
    ask(shell, "true")
    (fish.folder / "slow").touch()
    shell.sendline(f"cd {blog}")
    while len(fish.runs) < 2:
        time.sleep(0.01)
    shell.send("\x03")
    shell.expect("<prompt>")
    ask(shell, "snap kept")
    ask(shell, "snap still")
    assert fish.snap("kept")[b"FOO"] == fish.snap("still")[b"FOO"] == b"shop"
    assert len(fish.runs) == 2
    (fish.folder / "slow").unlink()
    ask(shell, "isoenv reload; snap blog")
    assert fish.snap("blog")[b"FOO"] == b"blog"
    assert len(fish.runs) == 3
