"""The installed command, a sh script: what it serves itself is what Python would have done."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
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
LAUNCHER = ROOT / "shell/isoenv.sh"

SHELLS = {
    "dash": [str(shutil.which("dash"))],
    "bash": [str(shutil.which("bash")), "--posix"],
    "ksh": [str(shutil.which("ksh"))],
    "busybox": [str(shutil.which("busybox")), "sh"],
}
# What some shell changes by itself in the environment of the command that it becomes.
OF_SHELLS = {"_", "A__z", "SHLVL"}

SHOP = r"""
project = "shop"
[instance]
variable = "SHOP_SLOT"
[ports]
web = 8000
[env]
QUOTED = "it's; $HOME && \"x\" `id` é🚒 \\ * ?"
LINES_OF = "\na\n\n"
CONTROL = "\u0001\u007f\t"
EMPTY = ""
EDITOR = false
ABSENT = false
HOUSE = "{home}"
[dirs]
DATA_DIR = "data/{id}"
[path]
prepend = ["tools", "more tools"]
"""

# The entry point beside the script, which says in the file $ASKED that it was asked.
ENTRY = f"""#!{sys.executable}
import os, sys
sys.path.insert(0, {str(ROOT)!r})
if "ASKED" in os.environ:
    open(os.environ["ASKED"], "a").write("python ")
from isoenv.__main__ import main
main()
"""

Outcome = tuple[int, dict[str, str] | str, str]


def environment(laid_over: Env) -> dict[str, str]:
    """The environment of the test with this laid over it; None takes a variable out."""
    given = {**os.environ, **laid_over}
    return {name: value for name, value in given.items() if value is not None}


def run(argv: list[str], cwd: Path, env: Env) -> Outcome:
    """Run a command: its status, its output (a dict where it is that of `env -0`), its errors."""
    # PWD and OLDPWD as a shell would have left them; a caller may take them out again.
    env = environment({"PWD": str(cwd), "OLDPWD": "/", **env})
    # Pipes of bytes: text mode would turn a carriage return into a newline.
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, check=False)
    output = os.fsdecode(done.stdout)
    if "\0" not in output:
        return done.returncode, output, os.fsdecode(done.stderr)
    seen = dict(line.split("=", 1) for line in output.split("\0") if line)
    kept = {name: value for name, value in seen.items() if name not in OF_SHELLS | {"ASKED"}}
    return done.returncode, kept, os.fsdecode(done.stderr)


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command and its entry point as an installer puts them."""
    bin_dir = tmp_path_factory.mktemp("bin dir")
    shutil.copy(LAUNCHER, bin_dir / "isoenv")
    (bin_dir / "isoenv-python").write_text(ENTRY)
    (bin_dir / "isoenv-python").chmod(0o755)
    return bin_dir


@pytest.fixture
def shop(make_repo: Callable[[str], Path], isoenv: Isoenv) -> Path:
    """A configured main checkout with a command of its own, in a directory with a space."""
    shop = make_repo("a shop")
    (shop / "isoenv.toml").write_text(SHOP)
    (shop / "tools").mkdir()
    (shop / "deep/below").mkdir(parents=True)
    for name, line in (
        ("tool", "#!/bin/sh\n"),
        ("plain", ""),
        ("export", "#!/bin/sh\n"),
        ("-c", "#!/bin/sh\n"),
    ):
        tool = shop / "tools" / name
        tool.write_text(f'{line}echo "{name} of $ISOENV_NAME: $*"\nexit 3\n')
        tool.chmod(0o755)
    (shop / "tools/data").write_text("no command\n")
    assert isoenv("allow", cwd=shop).returncode == 0
    return shop


@pytest.fixture
def other(make_repo: Callable[[str], Path], isoenv: Isoenv) -> Path:
    """A checkout of another project that sets other things."""
    other = make_repo("other")
    (other / "isoenv.toml").write_text(
        'project = "other"\n[env]\nQUOTED = "theirs"\nEDITOR = "ted"\nTHEIRS = "1"\n'
        '[path]\nprepend = ["bin"]\n'
    )
    assert isoenv("allow", cwd=other).returncode == 0
    return other


@pytest.fixture
def ways(bin_dir: Path, tmp_path: Path) -> Callable[..., Outcome]:
    """Make a call in every way there is and return its outcome, which is the same in all.

    ``by`` says who must have served it where it was warm: the script itself, or Python.
    """
    asked = tmp_path / "asked"
    python = str(bin_dir / "isoenv-python")

    def ways(
        *words: str, cwd: Path, env: Env | None = None, by: str = "script", exact: bool = True
    ) -> Outcome:
        given = {"EDITOR": "ed", **(env or {}), "ASKED": str(asked)}
        shutil.rmtree(paths.state_dir(os.environ) + "/t", ignore_errors=True)
        cold = run([python, *words], cwd, given)
        assert run([python, *words], cwd, given) == cold, "warm Python"
        if by == "python":
            # There is something ready, and it is not for this call.
            run([python, "exec", ".", "true"], cwd, {"EDITOR": "ed"})
        # Python's own part is the same below each shell, and slow.
        for name in SHELLS if by == "script" else ("dash", "bash"):
            argv = SHELLS[name]
            asked.unlink(missing_ok=True)
            served = run([*argv, str(bin_dir / "isoenv"), *words], cwd, given)
            # Where `exact` is false the statements may come in another order.
            assert difference(arranged(served, exact), arranged(cold, exact)) == "", name
            assert ("python" if asked.exists() else "script") == by, name
        return cold

    return ways


def arranged(outcome: Outcome, exact: bool) -> Outcome:  # noqa: FBT001  # one caller
    status, output, errors = outcome
    if exact or isinstance(output, dict):
        return outcome
    return status, "".join(sorted(output.split(";\n"))), errors


def difference(one: Outcome, two: Outcome) -> str:
    """What differs, the variables of an environment alone by name; nothing where they agree."""
    if not (isinstance(one[1], dict) and isinstance(two[1], dict)):
        return "" if one == two else f"{one} != {two}"
    items = sorted(one[1].items() ^ two[1].items())
    return "".join(map(repr, items)) + (one[2] if one[::2] != two[::2] else "")


@pytest.fixture
def loaded(bin_dir: Path) -> Callable[[Path], dict[str, str]]:
    """What a command inherits in a checkout."""

    def loaded(checkout: Path) -> dict[str, str]:
        argv = [str(bin_dir / "isoenv-python"), "exec", ".", "env", "-0"]
        status, env, errors = run(argv, checkout, {"EDITOR": "ed"})
        assert (status, errors) == (0, "")
        assert isinstance(env, dict)
        del env["PWD"]
        return {name: value for name, value in env.items() if os.environ.get(name) != value}

    return loaded


# -- exec: the environment --------------------------------------------------------------------

ENV = ("exec", ".", "env", "-0")


def test_a_clean_environment(ways: Callable[..., Outcome], shop: Path) -> None:
    status, env, errors = ways(*ENV, cwd=shop)
    assert (status, errors) == (0, "")
    assert isinstance(env, dict)
    assert env["QUOTED"] == 'it\'s; $HOME && "x" `id` é🚒 \\ * ?'
    assert env["LINES_OF"] == "\na\n\n"
    assert env["PATH"] == f"{shop}/tools:{shop}/more tools:{os.environ['PATH']}"
    assert "EDITOR" not in env
    assert ways("exec", ".", "--", "env", "-0", cwd=shop) == (0, env, "")


GIVEN: dict[str, Env] = {
    "empty values": {"QUOTED": "", "EMPTY": "", "EDITOR": ""},
    "any bytes": {"QUOTED": "\udcff'\n\n", "DATA_DIR": "*", "MINE": "\x01\x7f\udc80\r\n"},
    "no editor": {"EDITOR": None},
    "no PATH entries but an empty one": {"PATH": f":{os.environ['PATH']}:"},
    "no OLDPWD": {"OLDPWD": None},
    "an empty record": {"__ISOENV_UNDO": ""},
    "variables of a hook that the user's set -a exported": {"__isoenv_unrelated": "1"},
    "home in the state directory": {"XDG_STATE_HOME": "/nowhere"},
    "its own slot": {"ISOENV_INSTANCE": "0", "__ISOENV_SLOT": "0"},
    "its own slot unset": {"__ISOENV_SLOT": ""},
    "odd settings of shells": {"PS3": "x", "CDPATH": "/", "ENV": "/nonexistent", "MAIL": "m"},
}


@pytest.mark.parametrize("env", GIVEN.values(), ids=GIVEN)
def test_what_was_there_before(ways: Callable[..., Outcome], shop: Path, env: Env) -> None:
    ways(*ENV, cwd=shop, env=env)


DOUBTS: dict[str, Env] = {
    "a slot asked for": {"ISOENV_INSTANCE": "3"},
    "a slot asked for by the project's variable": {"SHOP_SLOT": "2"},
    "a pin": {"__ISOENV_PIN": "4:shop"},
    "a separator in a former value": {"QUOTED": "a\x1fb"},
    "an escape in a former value": {"EDITOR": "a\x1eb"},
    "a record cut off": {"__ISOENV_UNDO": "\x1fr=\x1f\x1f/x"},
    "a record with a cell too few": {"__ISOENV_UNDO": "\x1fr=\x1f\x1f/x\x1fA\x1fu=\x1f\x1f"},
    "a record of nonsense": {"__ISOENV_UNDO": "nonsense"},
    "a record with a wrong kind": {"__ISOENV_UNDO": "\x1fr=\x1f\x1f/x\x1fA\x1fz=\x1f\x1f1\x1f"},
    "a record with a name that is none": {
        "__ISOENV_UNDO": "\x1fr=\x1f\x1f/x\x1fA;B\x1fu=\x1f\x1f1\x1f"
    },
    "a record with an escape": {"__ISOENV_UNDO": "\x1fr=\x1f\x1f/x\x1e1\x1f"},
    "a record of what shells set": {"__ISOENV_UNDO": "\x1fr=\x1f\x1f/x\x1fIFS\x1fu=\x1f\x1f1\x1f"},
    "a relative home": {"HOME": "home", "ISOENV_STATE_DIR": None, "XDG_STATE_HOME": None},
}


@pytest.mark.parametrize("env", DOUBTS.values(), ids=DOUBTS)
def test_every_doubt_is_left_to_python(ways: Callable[..., Outcome], shop: Path, env: Env) -> None:
    ways(*ENV, cwd=shop, env=env, by="python")


def test_a_record_of_the_same_checkout_is_undone_first(
    ways: Callable[..., Outcome], shop: Path, loaded: Callable[[Path], dict[str, str]]
) -> None:
    inherited = loaded(shop)
    _, env, _ = ways(*ENV, cwd=shop, env={**inherited, "EDITOR": None})
    assert isinstance(env, dict)
    assert env["__ISOENV_UNDO"] == inherited["__ISOENV_UNDO"]


def test_a_record_of_another_checkout_is_undone_first(
    ways: Callable[..., Outcome], shop: Path, other: Path, loaded: Callable[[Path], dict[str, str]]
) -> None:
    inherited = loaded(other)
    assert inherited["THEIRS"] == "1"
    _, env, _ = ways(*ENV, cwd=shop, env=inherited)
    assert isinstance(env, dict)
    assert "THEIRS" not in env
    assert "__ISOENV_UNDO" in env


def test_a_home_that_the_checkout_sets_moves_no_state(
    bin_dir: Path, make_repo: Callable[[str], Path], home: Path, tmp_path: Path
) -> None:
    shop = make_repo("homely")
    (shop / "isoenv.toml").write_text(
        '[ports]\nweb = 3210\n[env]\nHOME = "{root}/home"\nXDG_STATE_HOME = "{root}/state"\n'
        'XDG_CONFIG_HOME = "{root}/config"\nFROM = "{home}"\n'
    )
    (shop / "home").mkdir()
    asked = tmp_path / "asked"
    given = dict.fromkeys(("ISOENV_STATE_DIR", "XDG_STATE_HOME", "XDG_CONFIG_HOME"))
    env = {**given, "ASKED": str(asked), "PATH": f"{bin_dir}:{os.environ['PATH']}"}
    assert run([str(bin_dir / "isoenv"), "allow"], shop, env)[0] == 0
    inside = 'isoenv port web; isoenv list | wc -l; echo "$HOME $FROM"'
    printed = f"3210\n2\n{shop}/home {home}\n"
    command = [str(bin_dir / "isoenv"), "exec", "."]
    assert run([*command, "sh", "-c", inside], shop, env) == (0, printed, "")
    assert run([*command, "isoenv", "exec", ".", "sh", "-c", inside], shop, env)[1] == printed
    asked.unlink()
    assert run([*command, "isoenv", "exec", ".", "true"], shop, env) == (0, "", "")
    assert not asked.exists()
    assert sorted(os.listdir(shop)) == [".git", "README", "home", "isoenv.toml"]
    assert os.listdir(shop / "home") == []


def test_what_the_user_has_changed_since_is_kept(
    ways: Callable[..., Outcome], shop: Path, other: Path, loaded: Callable[[Path], dict[str, str]]
) -> None:
    inherited = loaded(other)
    path = inherited["PATH"]
    first = path.partition(":")[0]
    for changed in (
        {"THEIRS": "mine", "PATH": f"/mine::{path}:/mine:"},
        {"THEIRS": None, "EDITOR": None, "PATH": f"/mine:{first}:{path}"},
        {"THEIRS": "", "PATH": path.partition(":")[2], "ISOENV_PROJECT": "mine"},
        {"PATH": first + ":" + os.environ["PATH"] + ":" + first, "__ISOENV_SLOT": "7"},
    ):
        ways(*ENV, cwd=shop, env={**inherited, **changed})


def test_the_directory_is_physical_to_the_command_and_as_given_to_the_child(
    ways: Callable[..., Outcome], shop: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link"
    link.symlink_to(shop / "deep")
    for cwd in (shop / "deep/below", link / "below"):
        _, env, _ = ways(*ENV, cwd=cwd)
        assert isinstance(env, dict)
        assert (env["PWD"], env["OLDPWD"]) == (str(cwd), "/")
        assert env["ISOENV_ROOT"] == str(shop)


def test_names_that_a_shell_sets_itself_are_left_to_python(
    ways: Callable[..., Outcome], shop: Path, isoenv: Isoenv
) -> None:
    names = ["ENV", "HOSTNAME", "OPTARG", "PS1", "SHELL", "TERM", "TMOUT"]
    for name in names:
        (shop / "isoenv.toml").write_text(f'project = "shop"\n[env]\nA = "1"\n{name} = "7"\n')
        assert isoenv("allow", cwd=shop).returncode == 0
        ways(*ENV, cwd=shop, env={name: None}, by="python")


@pytest.mark.parametrize("name", SHELLS)
def test_every_name_that_a_shell_sets_itself_is_known(name: str) -> None:
    function = LAUNCHER.read_text().partition("__isoenv_is_special() {")[2].partition("\n}\n")[0]
    # The variables of a shell that was given none, in itself and in what it becomes.
    probe = "set; exec env"
    listed = subprocess.check_output([*SHELLS[name], "-c", probe], env={}, text=True)
    names = {line.partition("=")[0] for line in listed.splitlines() if "=" in line}
    check = f"is_special() {{{function}\n}}\nfor n do is_special $n || echo $n; done"
    argv = ["dash", "-c", check, "sh", *(n for n in names - OF_SHELLS if n.isidentifier())]
    assert subprocess.check_output(argv, text=True) == ""


# -- exec: the command ------------------------------------------------------------------------


def test_the_command_is_looked_up_in_the_new_path(ways: Callable[..., Outcome], shop: Path) -> None:
    assert ways("exec", ".", "tool", "a b", "", cwd=shop) == (3, "tool of a shop: a b \n", "")
    assert ways("exec", ".", "./tools/tool", cwd=shop) == (3, "tool of a shop: \n", "")
    assert ways("exec", ".", "plain", "--", cwd=shop) == (3, "plain of a shop: --\n", "")


def test_a_program_with_the_name_of_a_builtin_is_run(
    ways: Callable[..., Outcome], shop: Path
) -> None:
    assert ways("exec", ".", "export", "A=1", cwd=shop) == (3, "export of a shop: A=1\n", "")
    assert ways("exec", ".", "true", "--version", cwd=shop)[1] != ""
    for name in ("cd", "set", ":", "__isoenv_load"):
        assert ways("exec", ".", name, cwd=shop, by="python")[0] == 127


def test_what_cannot_be_run_is_said_by_python(ways: Callable[..., Outcome], shop: Path) -> None:
    for words, status in (
        (["nosuch"], 127),
        (["./nosuch"], 127),
        (["isoenv.toml/x"], 127),
        (["data"], 126),
        (["./tools"], 126),
        ([""], 127),
        ([], 2),
        (["--"], 2),
        (["--", "-x"], 127),
        (["--", "-c", "true"], 3),
        (["--nosuch"], 127),
    ):
        assert ways("exec", ".", *words, cwd=shop, by="python")[0] == status


def test_the_command_keeps_the_process_its_input_and_its_end(bin_dir: Path, shop: Path) -> None:
    subprocess.run([bin_dir / "isoenv", "exec", ".", "true"], cwd=shop, check=True)
    for argv in SHELLS.values():
        process = subprocess.Popen(
            [*argv, str(bin_dir / "isoenv"), "exec", ".", "sh", "-c", "cat; echo $$; kill -9 $$"],
            cwd=shop,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        output, _ = process.communicate(b"\0\xff\n")
        assert (output, process.returncode) == (b"\0\xff\n%d\n" % process.pid, -9)


def test_a_repository_without_configuration_is_served_but_for_sky(
    ways: Callable[..., Outcome], make_repo: Callable[[str], Path], tmp_path: Path, bin_dir: Path
) -> None:
    repo = make_repo("plain")
    ways(*ENV, cwd=repo)
    for name in ("sky", "skylight"):
        (tmp_path / name).write_text('#!/bin/sh\necho "$ISOENV_PROJECT"\n')
        (tmp_path / name).chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    for argv in SHELLS.values():
        command = [*argv, str(bin_dir / "isoenv"), "exec", "."]
        # What is ready for the repository is not for SkyPilot, to which a main checkout is nothing.
        assert run([*command, "skylight"], repo, env) == (0, "plain\n", "")
        assert run([*command, "sky"], repo, env) == (0, "\n", "")
        assert run([*command, "--", str(tmp_path / "sky")], repo, env) == (0, "\n", "")


def test_outside_any_checkout_and_untrusted(
    ways: Callable[..., Outcome], shop: Path, tmp_path: Path
) -> None:
    assert ways(*ENV, cwd=tmp_path, by="python")[0] != 0
    with (shop / "isoenv.toml").open("a") as file:
        file.write("# one byte\n")
    assert ways(*ENV, cwd=shop, by="python")[0] == 4


# -- exec: whatever the environment is ----------------------------------------------------------

NAMES = ["A", "B_2", "_c", "PATH", "LANGUAGE", "HOME_OF"]
TEXT = st.text(
    st.sampled_from(["a", "'", '"', "\\", "\n", " ", "*", "$", ":", "=", "\x01", "\x7f", "\udcff"]),
    max_size=6,
)
PATHS = st.lists(st.sampled_from(["/bin", "/x", "/x y", "", "/*"]), min_size=1).map(":".join)
ENVIRONMENTS = st.dictionaries(st.sampled_from([n for n in NAMES if n != "PATH"]), TEXT)
SETS = st.dictionaries(
    st.sampled_from([n for n in NAMES if n != "PATH"]), st.none() | TEXT, max_size=4
)
PREPENDED = st.lists(st.sampled_from(["/x", "/x y", "/new", "/*"]), max_size=3, unique=True)


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A directory that is a checkout to whoever looks at names alone."""
    with tempfile.TemporaryDirectory() as base:
        Path(base, "isoenv.toml").touch()
        yield Path(base)


@pytest.mark.parametrize("argv", SHELLS.values(), ids=SHELLS)
@settings(max_examples=60, deadline=None)
@given(
    inherited=ENVIRONMENTS,
    path=PATHS,
    before=st.none() | st.tuples(SETS, PREPENDED),
    edits=st.dictionaries(st.sampled_from(NAMES), st.none() | TEXT, max_size=2),
    after=st.tuples(SETS, PREPENDED),
)
def test_any_environment_is_changed_as_python_would(  # noqa: PLR0913, PLR0917  # drawn
    base: Path,
    bin_dir: Path,
    argv: list[str],
    inherited: dict[str, str],
    path: str,
    before: tuple[dict[str, str | None], list[str]] | None,
    edits: dict[str, str | None],
    after: tuple[dict[str, str | None], list[str]],
) -> None:
    state = base / "state"
    given = {**inherited, "PATH": path, "ISOENV_STATE_DIR": str(state), "PWD": str(base)}
    if before:
        given = envdiff.apply(given, before[0], tuple(before[1]), "/before")
    for name, value in edits.items():
        # An unset PATH is not what shells take it for.
        envdiff.put(given, name, value if name != "PATH" else f"{given['PATH']}:{value or ''}")
    ready = generated.Ready(
        root=str(base), label="", guards=[], watched={}, variables=after[0], path_prepend=after[1]
    )
    expected = launch.environment(given, ready)
    if "PATH" not in launch.clean(given):
        return
    assert generated.publish(paths.generated_dir(str(state), str(base)), ready)
    command = [*argv, str(bin_dir / "isoenv"), *ENV[:2]]
    done = subprocess.run(
        [*command, "/usr/bin/env", "-0"], cwd=base, env=given, capture_output=True, check=False
    )
    lines = os.fsdecode(done.stdout).split("\0")
    seen = dict(line.split("=", 1) for line in lines if line)
    for name in OF_SHELLS:
        seen.pop(name, None)
    assert seen == expected, done.stderr


# -- export -----------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_export_prints_the_same_statements(
    ways: Callable[..., Outcome],
    shop: Path,
    other: Path,
    loaded: Callable[[Path], dict[str, str]],
    shell: str,
) -> None:
    elsewhere = loaded(other)
    twice = {"PATH": f"{shop}/tools:{os.environ['PATH']}:{shop}/tools:{shop}/more tools"}
    for env in ({}, twice, loaded(shop), elsewhere, {**elsewhere, "THEIRS": "mine"}):
        status, _, errors = ways("export", shell, cwd=shop, env=env, exact=False)
        assert (status, errors) == (0, "")
        ways("export", shell, "--no-diff", cwd=shop, env=env)


def test_a_shell_that_fails_in_the_middle_of_an_export_can_undo_the_first_half(
    shop: Path, bin_dir: Path
) -> None:
    command = [str(bin_dir / "isoenv"), "export", "bash"]
    printed = [str(run(command, shop, {"EDITOR": "ed"})[1]) for _ in range(2)]
    # From Python, and from the script itself.
    assert sorted(printed[0].split(";\n")) == sorted(printed[1].split(";\n"))
    for statements in printed:
        assert statements.startswith("export __ISOENV_UNDO=")
        assert statements.endswith("unset -v EDITOR;\n")


def test_what_export_prints_brings_a_shell_there_and_back(
    shop: Path, other: Path, bin_dir: Path
) -> None:
    command = bin_dir / "isoenv"
    script = r"""
        cd "$2"; eval "$("$1" export bash)"; cd "$3"; eval "$("$1" export bash)"
        THEIRS=mine; cd "$2"; eval "$("$1" export bash)"; env -0
    """
    for _ in range(2):
        argv = ["bash", "-euc", script, "bash", str(command), str(shop), str(other)]
        status, env, errors = run(argv, shop, {"EDITOR": "ed"})
        assert (status, errors) == (0, "")
    # The second time all were ready: the same, without Python.
    straight = run([str(command), *ENV], shop, {"EDITOR": "ed", "THEIRS": "mine"})
    assert difference(straight, (0, env, "")) == "('OLDPWD', '/')" + f"('OLDPWD', {str(other)!r})"


def test_other_forms_of_export_are_left_to_python(ways: Callable[..., Outcome], shop: Path) -> None:
    for words, status in (
        (["fish"], 0),
        (["bash", "."], 0),
        (["bash", "--no-diff", "."], 0),
        (["bash", ""], 2),
        (["tcsh"], 2),
        ([], 2),
    ):
        assert ways("export", *words, cwd=shop, by="python")[0] == status


@pytest.mark.parametrize("name", ["dash", "ksh"])
def test_every_change_of_an_input_is_seen(
    shop: Path, bin_dir: Path, tmp_path: Path, isoenv: Isoenv, name: str
) -> None:
    command = [*SHELLS[name], str(bin_dir / "isoenv"), "exec", ".", "sh", "-c"]
    command += ['echo "$WEB_PORT $QUOTED"']
    asked = tmp_path / "asked"

    def served(port: int, quoted: str, by: str) -> None:
        asked.unlink(missing_ok=True)
        # An output with a NUL is what `run` takes for an environment.
        assert run(command, shop, {"ASKED": str(asked)}) == (0, f"{port} {quoted}\n", "")
        assert ("python" if asked.exists() else "script") == by

    config = SHOP.replace(SHOP[SHOP.index("QUOTED") : SHOP.index("LINES_OF")], 'QUOTED = "one"\n')
    for word in ("one", "two", "six"):
        (shop / "isoenv.toml").write_text(config.replace("one", word))
        assert isoenv("allow", cwd=shop).returncode == 0
        served(8000, word, "python")
        served(8000, word, "script")
    (shop / "isoenv.local.toml").write_text('[env]\nQUOTED = "own"\n')
    assert isoenv("allow", cwd=shop).returncode == 0
    served(8000, "own", "python")
    served(8000, "own", "script")
    (shop / "isoenv.local.toml").unlink()
    served(8000, "six", "python")
    (shop / ".env").write_text("SHOP_SLOT=4\n")
    served(12000, "six", "python")
    (shop / ".env").unlink()
    served(8000, "six", "python")
    assert isoenv("claim", "5", cwd=shop).returncode == 0
    served(13000, "six", "python")
    served(13000, "six", "script")
    shutil.rmtree(shop / "data")
    served(13000, "six", "python")
    assert isoenv("deny", cwd=shop).returncode == 0
    assert run(command, shop, {})[0] == 4


def test_completion_is_left_to_python(bin_dir: Path, shop: Path) -> None:
    env = {"_ISOENV_COMPLETE": "bash_complete", "COMP_WORDS": "isoenv export ", "COMP_CWORD": "2"}
    subprocess.run([bin_dir / "isoenv", "exec", ".", "true"], cwd=shop, check=True)
    done = run([str(bin_dir / "isoenv"), "export", "bash"], shop, env)
    assert "plain,zsh" in str(done[1])


# -- what it starts and what it trusts ----------------------------------------------------------


def test_a_warm_call_starts_no_process(bin_dir: Path, shop: Path, tmp_path: Path) -> None:
    command = str(bin_dir / "isoenv")
    subprocess.run([command, "exec", ".", "true"], cwd=shop, check=True)
    link = tmp_path / "link"
    link.symlink_to(shop)
    for argv in SHELLS.values():
        for words in (["exec", ".", "true"], ["export", "bash"], ["export", "zsh", "--no-diff"]):
            trace = ["strace", "-f", "-qq", "-o", str(tmp_path / "trace")]
            trace += ["-e", "trace=fork,vfork,clone,clone3,execve"]
            run([*trace, *argv, command, *words], link, {})
            calls = (tmp_path / "trace").read_text().splitlines()
            started = [call for call in calls if "execve" not in call or "= 0" in call]
            assert len(started) == (2 if words[0] == "exec" else 1), calls


def test_code_of_another_version_is_not_used(
    ways: Callable[..., Outcome], shop: Path, bin_dir: Path, tmp_path: Path
) -> None:
    expected = ways(*ENV, cwd=shop)
    code = Path(paths.generated_dir(paths.state_dir(os.environ), str(shop)), "@env.sh")
    content = code.read_text()
    assert content.startswith(f"# {generated.FORMAT}\n")
    code.write_text(content.replace(generated.FORMAT, generated.FORMAT + "1", 1) + "exit 9\n")
    asked = tmp_path / "asked"
    asked.unlink(missing_ok=True)
    env = {"EDITOR": "ed", "ASKED": str(asked)}
    assert run([str(bin_dir / "isoenv"), *ENV], shop, env) == expected
    assert asked.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_code_of_another_user_is_not_run(shop: Path, bin_dir: Path) -> None:
    command = [str(bin_dir / "isoenv"), "exec", ".", "true"]
    assert run(command, shop, {})[0] == 0
    code = Path(paths.generated_dir(paths.state_dir(os.environ), str(shop)), "@env.sh")
    code.write_text(code.read_text() + "exit 9\n")
    assert run(command, shop, {})[0] == 9
    os.chown(code, 12345, 12345)
    assert run(command, shop, {})[0] == 0


def test_output_that_cannot_be_written_is_one_line(bin_dir: Path, shop: Path) -> None:
    command = [str(bin_dir / "isoenv"), "export", "bash"]
    assert run(command, shop, {})[0] == 0
    for argv in SHELLS.values():
        for more in ([], ["--no-diff"]):
            with open("/dev/full", "wb") as full:
                done = subprocess.run(
                    [*argv, *command, *more],
                    cwd=shop,
                    stdout=full,
                    stderr=subprocess.PIPE,
                    check=False,
                )
            said = b"isoenv: cannot write to standard output\n"
            assert (done.returncode, done.stderr) == (1, said), argv


def test_a_missing_entry_point_is_said(tmp_path: Path) -> None:
    shutil.copy(LAUNCHER, tmp_path / "isoenv")
    status, output, errors = run([str(tmp_path / "isoenv"), "list"], tmp_path, {})
    assert (status, output, errors.count("\n")) == (1, "", 1)
    assert f"no isoenv-python beside {tmp_path}/isoenv" in errors


def test_it_finds_its_entry_point_through_links_of_links(bin_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "a\nb").mkdir()
    (tmp_path / "relative").symlink_to(os.path.relpath(bin_dir / "isoenv", tmp_path))
    (tmp_path / "a\nb/absolute").symlink_to(tmp_path / "relative")
    (tmp_path / "a\nb/last\n").symlink_to("absolute")
    for argv in SHELLS.values():
        for link in ("relative", "a\nb/absolute", "a\nb/last\n"):
            done = run([*argv, str(tmp_path / link), "--version"], tmp_path, {"PATH": "/nowhere"})
            assert done[0] == 0, done
    done = run(["./last\n", "--version"], tmp_path / "a\nb", {})
    assert done[0] == 0, done


def test_the_script_is_clean() -> None:
    done = run(["shellcheck", "--shell=sh", str(LAUNCHER)], ROOT, {})
    assert done == (0, "", "")
    assert os.access(LAUNCHER, os.X_OK)
    assert LAUNCHER.read_text().startswith("#!/bin/sh\n")
