"""The environment of shells without a prompt: scripts and agents, in bash, zsh, dash, busybox."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoenv import envdiff, generated, launch, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from subprocess import CompletedProcess

    Env = Mapping[str, str | None]
    Isoenv = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]

SHOP = r"""
project = "shop"
[instance]
variable = "SHOP_SLOT"
[ports]
web = 8000
[env]
QUOTED = "it's; $HOME && \"x\" `id` é🚒 \\ * ?\n\n"
SEPARATED = "\u001f1\u001e0"
EMPTY = ""
EDITOR = false
[path]
prepend = ["tools", "more tools"]
"""
OTHER = """
project = "other"
[env]
QUOTED = "theirs"
EDITOR = "ted"
THEIRS = "1"
[path]
prepend = ["bin"]
"""

ENTRY = f"""#!{sys.executable}
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from isoenv.__main__ import main
main()
"""

# What some shell changes by itself, whatever it is told.
OF_SHELLS = {"_", "SHLVL", "OLDPWD", "LOGNAME"}


@dataclass(frozen=True)
class Startup:
    """A shell that reads a file at its start: by a variable, or because it is told to."""

    name: str
    argv: tuple[str, ...]
    read: bool = False

    def command(self, file: Path, script: str, *options: str) -> list[str]:
        """Return what runs a script in a shell that has read the file."""
        script = f'. "$0"; {script}' if self.read else script
        return [*self.argv, *options, "-c", script, str(file)]


STARTUPS = (
    Startup("bash", ("bash",)),
    Startup("zsh", ("zsh",)),
    Startup("dash", ("dash",), read=True),
    Startup("busybox", ("busybox", "sh"), read=True),
)


@pytest.fixture(params=STARTUPS, ids=lambda startup: startup.name)
def startup(request: pytest.FixtureRequest) -> Startup:
    """Each shell in turn."""
    startup: Startup = request.param
    return startup


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command and its entry point as an installer puts them, in an awkward place."""
    bin_dir = tmp_path_factory.mktemp("it's a bin")
    shutil.copy(ROOT / "shell/isoenv.sh", bin_dir / "isoenv")
    (bin_dir / "isoenv-python").write_text(ENTRY)
    (bin_dir / "isoenv-python").chmod(0o755)
    return bin_dir


@pytest.fixture
def isoenv_command(bin_dir: Path) -> Callable[..., str]:
    """Run the installed command, which must succeed, and return what it printed."""

    def isoenv_command(*words: str, cwd: Path, **env: str) -> str:
        argv = [str(bin_dir / "isoenv"), *words]
        done = subprocess.run(
            argv, cwd=cwd, env={**os.environ, **env}, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return os.fsdecode(done.stdout)

    return isoenv_command


@pytest.fixture
def file(home: Path, isoenv_command: Callable[..., str]) -> Path:
    """What `isoenv hook bash --env` prints, in place for each of the shells."""
    file = home / "it's env.sh"
    file.write_text(isoenv_command("hook", "bash", "--env", cwd=home))
    (home / ".zshenv").write_text(isoenv_command("hook", "zsh", "--env", cwd=home))
    return file


@pytest.fixture
def checkout(
    make_repo: Callable[[str], Path], isoenv_command: Callable[..., str]
) -> Callable[[str, str], Path]:
    """Make a configured and allowed checkout."""

    def checkout(name: str, text: str) -> Path:
        repo = make_repo(name)
        (repo / "isoenv.toml").write_text(text)
        (repo / "deep/below").mkdir(parents=True)
        isoenv_command("allow", cwd=repo)
        return repo

    return checkout


@pytest.fixture
def shop(checkout: Callable[[str, str], Path]) -> Path:
    """A configured checkout in a directory with a space."""
    return checkout("a shop", SHOP)


@pytest.fixture
def other(checkout: Callable[[str, str], Path]) -> Path:
    """Another one, that sets other things."""
    return checkout("other", OTHER)


@pytest.fixture
def start(startup: Startup, file: Path) -> Callable[..., str]:
    """Start a shell without a prompt in a directory: what its script prints, and nothing else."""

    def start(script: str, cwd: Path, *options: str, **laid_over: str | None) -> str:
        given = {**os.environ, "PWD": str(cwd), "EDITOR": "ed", "BASH_ENV": str(file), **laid_over}
        env = {name: value for name, value in given.items() if value is not None}
        argv = startup.command(file, script, *options)
        done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, check=False)
        assert (done.returncode, os.fsdecode(done.stderr)) == (0, "")
        return os.fsdecode(done.stdout)

    return start


Start = "Callable[..., str]"


def parsed(output: str) -> dict[str, str]:
    """The environment that `env -0` printed."""
    seen = dict(line.split("=", 1) for line in output.split("\0") if line)
    return {name: value for name, value in seen.items() if name not in OF_SHELLS}


def test_a_script_has_what_exec_gives(
    start: Callable[..., str], shop: Path, isoenv_command: Callable[..., str], file: Path
) -> None:
    environ = {"EDITOR": "ed", "BASH_ENV": str(file), "PWD": str(shop / "deep")}
    # At first Python computes it, then it is ready.
    cold = start("env -0", shop / "deep")
    expected = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop / "deep", **environ))
    assert parsed(cold) == expected
    assert parsed(start("env -0", shop / "deep")) == expected
    assert expected["SEPARATED"] == "\x1f1\x1e0"
    assert "EDITOR" not in expected


def test_a_second_shell_starts_no_process(
    startup: Startup, start: Callable[..., str], file: Path, shop: Path, tmp_path: Path
) -> None:
    start(":", shop)
    trace = tmp_path / "trace"
    link = tmp_path / "link"
    link.symlink_to(shop)
    argv = startup.command(file, 'echo "$WEB_PORT"')
    calls = "trace=fork,vfork,clone,clone3,execve"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), "-e", calls, *argv],
        cwd=link,
        env={**os.environ, "BASH_ENV": str(file), "PWD": str(link)},
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"8000\n", b"")
    started = [line for line in trace.read_text().splitlines() if "= -1" not in line]
    assert len(started) == 1, started


def test_a_script_in_another_checkout_than_its_parent(
    start: Callable[..., str], shop: Path, other: Path, isoenv_command: Callable[..., str]
) -> None:
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=other, EDITOR="ed"))
    inherited = {**parent, "PATH": f"/mine:{parent['PATH']}:/mine", "PWD": str(shop)}
    env = parsed(start("env -0", shop, **inherited))
    assert (env["ISOENV_PROJECT"], "THEIRS" in env, "EDITOR" in env) == ("shop", False, False)
    assert env["PATH"] == f"{shop}/tools:{shop}/more tools:/mine:{os.environ['PATH']}:/mine"
    back = parsed(start("env -0", other, **{**env, "PWD": str(other)}))
    assert (back["THEIRS"], back["EDITOR"], "WEB_PORT" in back) == ("1", "ted", False)
    kept = parsed(start("env -0", shop, **{**inherited, "THEIRS": "mine"}))
    assert kept["THEIRS"] == "mine"


def test_what_is_loaded_already_is_left_as_the_user_has_it(
    start: Callable[..., str], shop: Path, isoenv_command: Callable[..., str]
) -> None:
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop, EDITOR="ed"))
    parent |= {"PWD": str(shop), "QUOTED": "mine", "PATH": f"/mine:{parent['PATH']}"}
    del parent["EMPTY"]
    env = parsed(start("env -0", shop, EDITOR=None, **{**parent, "EMPTY": None}))
    env.pop("BASH_ENV")
    assert env == parent


def test_a_change_since_the_parent_was_started_is_seen(
    start: Callable[..., str], shop: Path, isoenv_command: Callable[..., str]
) -> None:
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop, EDITOR="ed"))
    for text in (SHOP.replace("8000", "8500"), SHOP.replace("web", "net"), SHOP + 'copy = ["x"]\n'):
        changed = text.replace('copy = ["x"]\n', "") + "# changed\n"
        (shop / "isoenv.toml").write_text(changed)
        isoenv_command("allow", cwd=shop)
        env = parsed(start("env -0", shop, **parent))
        assert env.get("WEB_PORT") == {"8500": "8500", "8000": "8000"}.get(
            "8500" if "8500" in text else "8000" if "web" in text else "none"
        )
        assert env.get("NET_PORT") == ("8000" if "net" in text else None)


def test_outside_of_any_checkout_all_stays(
    start: Callable[..., str], shop: Path, tmp_path: Path, isoenv_command: Callable[..., str]
) -> None:
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop, EDITOR="ed"))
    env = parsed(start("env -0", tmp_path, **{**parent, "PWD": str(tmp_path), "EDITOR": None}))
    env.pop("BASH_ENV")
    assert env == {**parent, "PWD": str(tmp_path)}
    assert "ISOENV_PROJECT" not in parsed(start("env -0", tmp_path))


def test_a_pin_is_kept_in_the_same_project_and_costs_one_start(
    startup: Startup, start: Callable[..., str], file: Path, shop: Path, bin_dir: Path
) -> None:
    show = 'echo "$ISOENV_INSTANCE $WEB_PORT"'
    env = {**os.environ, "BASH_ENV": str(file)}
    for _ in range(2):
        argv = [str(bin_dir / "isoenv"), "exec", "2", *startup.command(file, show)]
        done = subprocess.run(argv, cwd=shop, env=env, capture_output=True, check=False)
        assert (done.stdout, done.stderr) == (b"2 10000\n", b"")
    assert start(show, shop) == "0 8000\n"
    pinned = {"__ISOENV_PIN": "2:shop", "PATH": "/usr/bin:/bin"}
    assert start(show, shop, **pinned) == "2 10000\n"
    # The second time it is ready, and no Python is needed.
    python = bin_dir / "isoenv-python"
    python.rename(python.with_suffix(".gone"))
    no_globbing = "-F" if startup.name == "zsh" else "-f"
    try:
        assert start(show, shop, **pinned) == "2 10000\n"
        assert start(show, shop, no_globbing, **pinned) == "2 10000\n"
    finally:
        python.with_suffix(".gone").rename(python)


def test_the_users_own_slot_is_obeyed(start: Callable[..., str], shop: Path) -> None:
    start(":", shop)
    for name in ("ISOENV_INSTANCE", "SHOP_SLOT"):
        for _ in range(2):
            assert start('echo "$WEB_PORT"', shop, **{name: "3"}) == "11000\n"
    assert start('echo "$WEB_PORT"', shop) == "8000\n"


def test_a_blocked_checkout_unloads_the_outer_one(
    start: Callable[..., str], shop: Path, isoenv_command: Callable[..., str]
) -> None:
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop, EDITOR="ed"))
    inner = shop / "deep"
    (inner / "isoenv.toml").write_text('[env]\nQUOTED = "hostile"\n')
    for _ in range(2):
        env = parsed(start("env -0", inner, **{**parent, "PWD": str(inner), "__ISOENV_SLOT": "7"}))
        ours = {name for name in env if name.startswith("__ISOENV_")}
        assert not ({"QUOTED", "ISOENV_PROJECT"} | ours) & env.keys()
        assert env["EDITOR"] == "ed"


def test_a_repository_without_configuration_gets_nothing_but_keeps_what_exec_set(
    start: Callable[..., str],
    shop: Path,
    make_repo: Callable[[str], Path],
    isoenv_command: Callable[..., str],
) -> None:
    plain = make_repo("plain")
    outer = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop, EDITOR="ed"))
    assert "ISOENV_PROJECT" not in parsed(start("env -0", plain))
    assert "ISOENV_PROJECT" not in parsed(start("env -0", plain, **{**outer, "PWD": str(plain)}))
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=plain))
    for _ in range(2):
        env = parsed(start("env -0", plain, **{**parent, "PWD": str(plain)}))
        assert (env["ISOENV_PROJECT"], "__ISOENV_UNDO" in env) == ("plain", True)


def test_what_direnv_has_loaded_is_left_to_it(start: Callable[..., str], shop: Path) -> None:
    loaded = {"DIRENV_DIR": f"-{shop}", "ISOENV_ROOT": str(shop), "WEB_PORT": "1"}
    assert start('echo "$WEB_PORT ${__ISOENV_UNDO-none}"', shop, **loaded) == "1 none\n"


def test_a_record_that_is_malformed_is_dropped(start: Callable[..., str], shop: Path) -> None:
    for record in (
        "nonsense",
        "\x1fr=\x1f\x1f/x",
        "\x1fr=\x1f\x1f/x\x1fA;id\x1fu=\x1f\x1f1\x1fA\x1fu=\x1f\x1f1\x1f",
    ):
        env = parsed(start("env -0", shop, __ISOENV_UNDO=record, A="1"))
        assert (env["ISOENV_PROJECT"], env["A"]) == ("shop", "1")
        assert env["__ISOENV_UNDO"].startswith(f"\x1fr=\x1f\x1f{shop}\x1f")


def test_when_nothing_can_be_computed_what_was_inherited_stays(
    start: Callable[..., str],
    shop: Path,
    other: Path,
    bin_dir: Path,
    isoenv_command: Callable[..., str],
) -> None:
    parent = parsed(isoenv_command("exec", ".", "env", "-0", cwd=other, EDITOR="ed"))
    parent |= {"QUOTED": "mine", "PWD": str(shop)}
    shutil.rmtree(Path(paths.state_dir(os.environ), "t"))
    python = bin_dir / "isoenv-python"
    python.rename(python.with_suffix(".gone"))
    try:
        env = parsed(start("env -0", shop, **parent))
    finally:
        python.with_suffix(".gone").rename(python)
    env.pop("BASH_ENV")
    assert env == parent


# -- what it leaves alone -----------------------------------------------------------------------


@pytest.mark.parametrize("options", [["-eu"], ["-f"], ["-x"], ["-eufx"]])
def test_it_is_silent_under_any_options_and_changes_none(
    startup: Startup, start: Callable[..., str], shop: Path, options: list[str], tmp_path: Path
) -> None:
    if "x" in options[0] and startup.name != "bash":
        # The others trace the line, or the file of the system's, that leads to ours.
        options = ["-eu"]
    if startup.name == "zsh":
        # To zsh -f is something else.
        options = [option.replace("f", "F") for option in options]
    # The trace of the script itself is its own.
    quiet = "{ set +x; } 2>/dev/null; "
    plain = 'printf "%s|" "$-" "$PWD"; case $IFS in " \t\n"*) echo IFS;; esac; set -o'
    link = tmp_path / "link"
    link.symlink_to(shop)
    inside, outside = (
        start(quiet + plain.replace('"$PWD"', ""), cwd, *options) for cwd in (link, tmp_path)
    )
    assert inside == outside
    assert "|IFS\n" in inside
    assert start(f'{quiet}echo "$WEB_PORT"', link, *options) == "8000\n"
    assert start(
        f"{quiet}pwd; cd ..; pwd; cd - >/dev/null; pwd", link, *options, OLDPWD="/"
    ).splitlines() == [
        str(link),
        str(tmp_path),
        str(link),
    ]


def test_it_leaves_no_names(startup: Startup, start: Callable[..., str], shop: Path) -> None:
    functions = {"bash": "declare -F", "zsh": "functions"}.get(startup.name, ":")
    listed = start(f"set; {functions}", shop)
    names = {
        line.partition("=")[0].strip("'").split(" ")[0]
        for line in listed.splitlines()
        if "__isoenv" in line.partition("=")[0]
    }
    assert names <= {"declare"} | set()
    assert "__isoenv" not in "".join(names)


def test_a_value_that_is_not_exported_stays_out_of_childrens_sight(
    startup: Startup, start: Callable[..., str], file: Path, home: Path, shop: Path
) -> None:
    script = 'echo "${__isoenv_old_QUOTED-none}"; env -0'
    if startup.name == "zsh":
        with (home / ".zshenv").open("r+") as zshenv:
            text = zshenv.read()
            zshenv.seek(0)
            zshenv.write(f"QUOTED=secret\ntypeset -r EMPTY=mine\ntypeset -a THEIRS\n{text}")
    elif startup.name == "bash":
        file.write_text(f"QUOTED=secret\ndeclare -r EMPTY=mine\n{file.read_text()}")
    else:
        # These two cannot be asked what is exported.
        return
    old, _, listed = start(script, shop).partition("\n")
    assert old == "secret"
    assert "secret" not in listed
    env = parsed(listed)
    assert "\x1fQUOTED\x1fs=\x1f\x1fit's" in env["__ISOENV_UNDO"]
    assert "EMPTY" not in env


# -- whatever the environment is ------------------------------------------------------------------

NAMES = ["A", "B_2", "_c", "LANGUAGE", "HOME_OF"]
TEXT = st.text(st.sampled_from("a'\"\\\n *$:=\x01\x7f\x1e\x1f01\udcff"), max_size=6)
PATHS = st.lists(st.sampled_from(["/bin", "/x", "/x y", "", "/*"]), min_size=1).map(":".join)
SETS = st.dictionaries(st.sampled_from(NAMES), st.none() | TEXT, max_size=4)
PREPENDED = st.lists(st.sampled_from(["/x", "/x y", "/new", "/*"]), max_size=3, unique=True)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A directory that is a checkout to whoever looks at names alone, and the file in it."""
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        (base / "isoenv.toml").touch()
        text = (ROOT / "shell/env.sh").read_text()
        text = text.replace("@ISOENV@", "false").replace("@STATE@", "/nowhere")
        (base / "env.sh").write_text(text)
        (base / ".zshenv").write_text(text)
        yield base


@pytest.mark.parametrize("shell", STARTUPS, ids=lambda startup: startup.name)
@settings(max_examples=60, deadline=None)
@given(
    inherited=st.dictionaries(st.sampled_from(NAMES), TEXT),
    path=PATHS,
    before=st.none() | st.tuples(SETS, PREPENDED),
    edits=st.dictionaries(st.sampled_from(NAMES), st.none() | TEXT, max_size=2),
    after=st.tuples(SETS, PREPENDED),
)
def test_any_environment_is_changed_as_exec_would(  # noqa: PLR0913, PLR0917  # drawn
    base: Path,
    shell: Startup,
    inherited: dict[str, str],
    path: str,
    before: tuple[dict[str, str | None], list[str]] | None,
    edits: dict[str, str | None],
    after: tuple[dict[str, str | None], list[str]],
) -> None:
    state = base / "state"
    file = base / "env.sh"
    given = {
        **inherited,
        "PATH": path,
        "ISOENV_STATE_DIR": str(state),
        "PWD": str(base),
        "BASH_ENV": str(file),
        "ZDOTDIR": str(base),
        "HOME": str(base),
    }
    if before:
        given = envdiff.apply(given, before[0], tuple(before[1]), "/before")
    for name, value in edits.items():
        envdiff.put(given, name, value)
    # Without a PATH shells, and with an empty one the system's own zshenv, take another.
    if not launch.clean(given).get("PATH"):
        return
    ready = generated.Ready(
        root=str(base), label="", guards=[], watched={}, variables=after[0], path_prepend=after[1]
    )
    assert generated.publish(paths.generated_dir(str(state), str(base)), ready)
    argv = shell.command(file, "/usr/bin/env -0")
    argv[0] = str(shutil.which(argv[0]))
    done = subprocess.run(argv, cwd=base, env=given, capture_output=True, check=False)
    assert done.stderr == b""
    seen = parsed(os.fsdecode(done.stdout))
    assert seen == launch.environment(given, ready)


EDITS: tuple[dict[str, str | None], ...] = (
    {},
    {"WEB_PORT": "1"},
    {"QUOTED": None},
    {"EDITOR": "vi"},
    {"PATH": "/front"},
    {"SHOP_SLOT": "7"},
    {"__ISOENV_UNDO": None},
    {"__ISOENV_PIN": "0:shop"},
    {"EMPTY": None},
)


@pytest.mark.parametrize("before", ["nothing", "same", "brother", "other"])
def test_bash_gets_by_the_short_way_what_sh_gets_by_the_long_one(  # noqa: PLR0913, PLR0917  # fixtures
    file: Path,
    isoenv_command: Callable[..., str],
    shop: Path,
    other: Path,
    git: Callable[..., str],
    tmp_path: Path,
    before: str,
) -> None:
    git(shop, "add", ".")
    git(shop, "commit", "-qm", "x")
    git(shop, "worktree", "add", "-q", str(tmp_path / "brother"))
    environ: dict[str, str | None] = dict(os.environ)
    place = {"same": shop, "brother": tmp_path / "brother", "other": other}.get(before)
    for checkout in (shop, tmp_path / "brother", other):
        found = parsed(isoenv_command("exec", ".", "env", "-0", cwd=checkout))
        environ = found if checkout == place else environ
    long_way = tmp_path / "long"
    long_way.write_text(isoenv_command("hook", "zsh", "--env", cwd=tmp_path))
    for edit in EDITS:
        edited = environ | edit
        if "PATH" in edit:
            edited["PATH"] = f"{edit['PATH']}:{environ['PATH']}"
        given = {name: value for name, value in edited.items() if value is not None}
        assert started(file, shop, given) == started(long_way, shop, given), edit


def started(code: Path, cwd: Path, environ: dict[str, str]) -> tuple[bytes, object, object]:
    """What a bash that reads the code has, once all is ready: its complaints, its environment."""
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", "env -0"],
            cwd=cwd,
            env={**environ, "PWD": str(cwd), "BASH_ENV": str(code)},
            capture_output=True,
            check=True,
        )
    seen = parsed(os.fsdecode(done.stdout))
    del seen["BASH_ENV"]
    # The order of the entries is nobody's business.
    record = seen.pop("__ISOENV_UNDO", "")
    return done.stderr, seen, sorted(record.split("\x1f"))


def test_bash_goes_the_short_way_in_the_common_cases(
    file: Path,
    isoenv_command: Callable[..., str],
    shop: Path,
    git: Callable[..., str],
    tmp_path: Path,
) -> None:
    git(shop, "add", ".")
    git(shop, "commit", "-qm", "x")
    brother = tmp_path / "brother"
    git(shop, "worktree", "add", "-q", str(brother))
    clean = {name: value for name, value in os.environ.items() if name != "EDITOR"}
    loaded = parsed(isoenv_command("exec", ".", "env", "-0", cwd=shop, **clean))
    isoenv_command("exec", ".", "true", cwd=brother, **clean)
    text = file.read_text()
    file.write_text(
        text.replace('[ -n "$__isoenv_done" ] ||', '[ -n "$__isoenv_done" ] || echo long;', 1)
    )
    assert file.read_text() != text
    for environ, place in ((clean, shop), (loaded, shop), (loaded, brother), (clean, tmp_path)):
        done = subprocess.run(
            ["bash", "-c", 'echo "${ISOENV_ROOT-none}"; set | grep __isoenv'],
            cwd=place,
            env={**environ, "PWD": str(place), "BASH_ENV": str(file)},
            capture_output=True,
            check=False,
            text=True,
        )
        wanted = "none" if place == tmp_path else str(place)
        # Nothing but that: the long way was not gone, and no name of ours is left.
        names = [line for line in done.stdout.splitlines() if not line.startswith("BASH_EXEC")]
        assert names == [wanted]
