"""What the commands print, how they end, and what bad input leaves as it was."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pexpect
import pytest

from isoenv import paths

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess
    from typing import BinaryIO

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
project = "shop"
[instance]
variable = "SHOP_SLOT"
stride = 1000
[ports]
web = {base}
[env]
WEB_URL = "http://localhost:{{ports.web}}"
DATABASE_URL = "postgresql://me:secret@localhost/shop_{{id}}"
LEGACY = false
[dirs]
DATA_DIR = "data/{{id}}"
[path]
prepend = ["bin"]
[flags]
LOUD = {{ main = true, exclusive = true }}
[templates]
"out.conf" = "in.conf"
"""


@pytest.fixture
def base(free_port: Callable[[], int]) -> int:
    return free_port()


@pytest.fixture
def shop(
    make_repo: Callable[[str], Path], base: int, git: Callable[..., str], isoenv: Isoenv
) -> Path:
    """A main checkout that holds slot 0."""
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG.format(base=base))
    (repo / "in.conf").write_text("listen $WEB_PORT;\n")
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=configured")
    assert isoenv("show", cwd=repo).returncode == 0
    return repo


@pytest.fixture
def feature(shop: Path, worktree: Worktree, isoenv: Isoenv) -> Path:
    """A linked worktree that holds slot 1."""
    root = worktree(shop, "feature")
    assert isoenv("claim", "1", cwd=root).returncode == 0
    return root


def outcome(done: CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def listing(*directories: Path) -> dict[str, bytes | None]:
    """Every path below, with what is in it; of the registry, what it says."""
    found: dict[str, bytes | None] = {}
    for directory in directories:
        for path in sorted(directory.rglob("*")):
            if path.name.startswith("registry.db") and path.name != "registry.db":
                continue
            plain = path.is_file() and path.name != "registry.db"
            found[str(path)] = path.read_bytes() if plain else None
    return found


def rows(state: Path) -> list[str]:
    """All that the registry holds."""
    with sqlite3.connect(state / "registry.db") as connection:
        return list(connection.iterdump())


# -- show, port, path, list ------------------------------------------------------------------


def test_show_prints_a_table_with_passwords_masked(shop: Path, isoenv: Isoenv, base: int) -> None:
    done = isoenv("show", cwd=shop)
    own = json.loads(isoenv("show", "--json", cwd=shop).stdout)["env"]["ISOENV_DIR"]
    table = f"""\
VARIABLE         VALUE
ISOENV_PROJECT   shop
ISOENV_INSTANCE  0
ISOENV_NAME      shop
ISOENV_ROOT      {shop}
ISOENV_DIR       {own}
SHOP_SLOT        0
WEB_PORT         {base}
LOUD             true
DATA_DIR         {shop}/data/0
WEB_URL          http://localhost:{base}
DATABASE_URL     postgresql://me:***@localhost/shop_0
LEGACY           (unset)
PATH             {shop}/bin:…
"""
    assert outcome(done) == (0, table, "")
    assert isoenv("show", "--reveal", cwd=shop).stdout == table.replace("***", "secret")


def test_show_as_json_has_the_shape_of_version_1(
    shop: Path, feature: Path, isoenv: Isoenv, base: int
) -> None:
    done = isoenv("show", "feature", "--format", "json", cwd=shop)
    found = json.loads(done.stdout)
    assert found == {
        "version": 1,
        "project": "shop",
        "slot": 1,
        "name": "feature",
        "root": str(feature),
        "trusted": True,
        "env": found["env"],
        "ports": {"web": base + 1000},
        "dirs": {"DATA_DIR": f"{feature}/data/1"},
        "urls": {
            "WEB_URL": f"http://localhost:{base + 1000}",
            "DATABASE_URL": "postgresql://me:secret@localhost/shop_1",
        },
        "flags": {"LOUD": False},
    }
    assert found["env"]["DATABASE_URL"] == "postgresql://me:secret@localhost/shop_1"
    assert found["env"]["LEGACY"] is None
    assert isoenv("show", "1", "--json", cwd=shop).stdout == done.stdout


def test_show_as_shell_code_says_what_exec_does(shop: Path, isoenv: Isoenv) -> None:
    shown = isoenv("show", "--format", "bash", cwd=shop).stdout
    script = f'{shown}\nprintf \'%s\\n\' "$WEB_PORT" "$DATABASE_URL" "${{LEGACY-unset}}" "$PATH"'
    env = {"PATH": "/usr/bin:/bin", "LEGACY": "x"}
    sourced = subprocess.run(
        ["/bin/bash", "-c", script], capture_output=True, text=True, check=True, env=env
    ).stdout.splitlines()
    assert sourced[1:3] == ["postgresql://me:secret@localhost/shop_0", "unset"]
    assert sourced[3] == f"{shop}/bin:{os.environ['PATH']}"


def test_list_names_what_there_is_and_marks_what_is_gone(
    shop: Path, feature: Path, isoenv: Isoenv, base: int, git: Callable[..., str]
) -> None:
    assert isoenv("exec", "5", "true", cwd=shop).returncode == 0
    before = json.loads(isoenv("list", "--json", cwd=shop).stdout)
    assert before["version"] == 1
    main, linked, bare = before["instances"]
    shown = json.loads(isoenv("show", "--json", cwd=shop).stdout)
    del shown["version"], shown["env"]
    assert main == shown | {"services": [], "sessions": 0, "gone": False}
    assert (linked["slot"], linked["root"], linked["gone"]) == (1, str(feature), False)
    assert (bare["slot"], bare["name"], bare["root"]) == (5, "shop-5", None)

    git(shop, "worktree", "remove", "--force", str(feature))
    listed = isoenv("list", cwd=shop)
    assert listed.returncode == 0
    urls = "http://localhost:{} postgresql://me:***@localhost/shop_{}"
    lines = [" ".join(line.split()) for line in listed.stdout.splitlines()]
    assert lines == [
        "SLOT NAME CHECKOUT SERVICES PORTS URLS",
        f"0 shop {shop} - web={base} {urls.format(base, 0)}",
        f"1 feature {feature} (gone) - web={base + 1000}",
        f"5 shop-5 - - web={base + 5000} {urls.format(base + 5000, 5)}",
    ]
    found = json.loads(isoenv("list", "--json", cwd=shop).stdout)["instances"]
    assert [(row["slot"], row["gone"]) for row in found] == [(0, False), (1, True), (5, False)]


@pytest.mark.parametrize("broken", ["syntax", "directory", "pipe"])
def test_one_broken_checkout_does_not_hide_the_others(
    shop: Path, feature: Path, isoenv: Isoenv, base: int, broken: str
) -> None:
    file = feature / "isoenv.toml"
    file.unlink()
    if broken == "syntax":
        file.write_text("= broken")
    elif broken == "directory":
        file.mkdir()
    else:
        os.mkfifo(file)
    done = isoenv("list", "--json", cwd=shop)
    assert outcome(done)[::2] == (0, "")
    _, row = json.loads(done.stdout)["instances"]
    assert (row["slot"], row["ports"], row["trusted"]) == (1, {"web": base + 1000}, False)
    assert isoenv("list", "--all", cwd=feature).returncode == 0


def test_list_shows_all_projects_and_says_which_ports_meet(
    shop: Path, make_repo: Callable[[str], Path], isoenv: Isoenv, base: int
) -> None:
    other = make_repo("other")
    (other / "isoenv.toml").write_text(f'project = "other"\n[ports]\nhttp = {base}\n')
    assert isoenv("show", cwd=other).returncode == 0
    done = isoenv("list", "--all", cwd=shop)
    lines = [line.split()[:3] for line in done.stdout.splitlines()]
    assert lines == [["PROJECT", "SLOT", "NAME"], ["other", "0", "other"], ["shop", "0", "shop"]]
    said = f"isoenv: port {base} is reserved by other/0 other (http) and shop/0 shop (web)\n"
    assert done.stderr == said
    assert isoenv("list", cwd=shop).stderr == said
    found = json.loads(isoenv("doctor", "--json", cwd=shop).stdout)["doctor"]
    assert [(row["kind"], row["harmless"]) for row in found if row["kind"] == "clash"] == [
        ("clash", True)
    ]


def test_an_empty_list_says_what_to_do(tmp_path: Path, isoenv: Isoenv) -> None:
    said = "isoenv: no instances yet: `isoenv claim` takes a slot for this checkout\n"
    assert outcome(isoenv("list", cwd=tmp_path)) == (0, "", said)
    assert json.loads(isoenv("list", "--json", cwd=tmp_path).stdout) == {
        "version": 1,
        "instances": [],
    }


def test_control_characters_do_not_reach_the_terminal(
    make_repo: Callable[[str], Path], isoenv: Isoenv
) -> None:
    repo = make_repo("a\x1b[31m\nb")
    assert isoenv("claim", cwd=repo).stderr.count("\n") == 1
    for command in ("show", "list"):
        done = isoenv(command, cwd=repo)
        assert done.returncode == 0
        assert r"a\x1b[31m\nb" in done.stdout
        assert "\x1b" not in done.stdout + done.stderr
    raw = isoenv("show", "--format", "bash", cwd=repo).stdout
    assert f"ISOENV_ROOT='{repo}'" in raw


def on_terminal(shop: Path, *args: str, **env: str) -> pexpect.spawn[str]:
    given = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **env}
    argv = ["-m", "isoenv", *args]
    return pexpect.spawn(
        sys.executable, argv, cwd=str(shop), env=given, encoding="utf-8", timeout=None
    )


@pytest.mark.parametrize(
    ("env", "styled"), [({}, True), ({"NO_COLOR": "1"}, True), ({"TERM": "dumb"}, False)]
)
def test_a_terminal_gets_a_table_with_style(
    shop: Path, base: int, env: dict[str, str], *, styled: bool
) -> None:
    text = on_terminal(shop, "list", COLUMNS="200", **env).read()
    assert ("\x1b[1m" in text) == styled
    assert f"web={base}" in text
    assert "\x1b[3" not in text if "NO_COLOR" in env else True


def test_a_list_does_without_sessions_whose_store_cannot_be_used(
    shop: Path, base: int, isoenv: Isoenv
) -> None:
    env = {"ISOENV_STORE": "postgresql://me@127.0.0.1:1/none"}
    done = isoenv("list", cwd=shop, env=env)
    assert done.returncode == 0
    assert f"web={base}" in done.stdout
    (line,) = done.stderr.splitlines()
    assert line.startswith("isoenv: cannot use 127.0.0.1:1/none: ")


def test_a_narrow_terminal_cuts_no_port_in_two(shop: Path, base: int) -> None:
    text = on_terminal(shop, "list", COLUMNS="44").read()
    assert f"web={base}" in text


def test_a_watched_list_stays_live_until_it_is_interrupted(shop: Path, isoenv: Isoenv) -> None:
    watch = on_terminal(shop, "list", "--watch", COLUMNS="200")
    watch.expect("SLOT")
    assert isoenv("claim", "--name", "renamed", cwd=shop).returncode == 0
    watch.expect("renamed")
    watch.sendintr()
    watch.read()
    watch.close()
    assert watch.exitstatus == 130


# -- bad input ---------------------------------------------------------------------------------

WRONG = [
    (["nosuch"], 2, "No such command 'nosuch': `isoenv --help` lists them"),
    (["shwo"], 2, "No such command 'shwo': did you mean `show`?"),
    (["show", "--frmat", "json"], 2, "No such option"),
    (["show", "--format", "yaml"], 2, "'yaml' is not one of"),
    (["show", "1", "2"], 2, "unexpected extra argument"),
    (["show", ""], 2, "it is empty: `.` is the instance of the current directory"),
    (["exec", "", "true"], 2, "it is empty"),
    (["exec"], 2, "Missing argument 'INSTANCE'"),
    (["exec", "."], 2, "Missing argument"),
    (["exec", ".", "--"], 2, "no command to run: `isoenv exec 2 COMMAND`"),
    (["exec", "-x", ".", "true"], 2, "No such option"),
    (["-C", "nosuch", "show"], 2, "Directory 'nosuch' does not exist"),
    (["-C", "in.conf", "show"], 2, "'in.conf' is a file"),
    (["path", "../x"], 2, "../x leaves the instance's directory"),
    (["path", "/x"], 2, "/x leaves the instance's directory"),
    (["export", "tcsh"], 2, "'tcsh' is not one of"),
    (["completion", "tcsh"], 2, "'tcsh' is not one of"),
    (["list", "--watch", "--json"], 2, "`--watch` is for people"),
    (["claim", "feature"], 2, "feature is no slot: `isoenv claim 3 --name feature`"),
    (["claim", "--name", "7"], 2, "numbers are slots"),
    (["claim", "--name", "a/b"], 2, "'a/b'"),
    (["claim", "--name", ""], 2, "''"),
    (["claim", "99"], 2, "slot 99 has no port for web"),
    (["show", "99"], 2, "slot 99 has no port for web"),
    (["exec", "99", "true"], 2, "slot 99 has no port for web"),
    (["show", "nosuch"], 5, "no instance nosuch of shop: `isoenv list` shows them"),
    (["exec", "nosuch", "true"], 5, "no instance nosuch of shop"),
    (["export", "bash", "nosuch"], 5, "no instance nosuch of shop"),
    (["show", "nosuch:1"], 5, "no project nosuch: `isoenv list --all` shows them"),
    (["port", "nosuch"], 5, "no port nosuch: isoenv.toml has web"),
    (["release", "7"], 5, "nobody holds slot 7 of shop: `isoenv list`"),
    (["enable", "NOSUCH"], 5, "no flag NOSUCH: isoenv.toml has LOUD"),
    (["disable", "NOSUCH", "."], 5, "no flag NOSUCH: isoenv.toml has LOUD"),
    (["enable", "LOUD", "7"], 5, "nobody holds slot 7 of shop: `isoenv exec 7 …` takes it"),
    (["render", "nosuch"], 5, "no template for nosuch: isoenv.toml has out.conf"),
    (["init"], 1, "isoenv.toml exists: edit it, or remove it first"),
]


@pytest.mark.parametrize("code", [1, 2, 5])
def test_bad_input_is_one_clear_line_and_changes_nothing(
    shop: Path, tmp_path: Path, isoenv: Isoenv, code: int
) -> None:
    state = tmp_path / "state"
    before = listing(shop, state), rows(state)
    for args, said in [(args, said) for args, expected, said in WRONG if expected == code]:
        done = isoenv(*args, cwd=shop)
        assert (done.returncode, done.stdout) == (code, ""), args
        assert said in done.stderr.splitlines()[-1], args
        assert (listing(shop, state), rows(state)) == before, args


@pytest.mark.parametrize(
    "args", [["port", "nosuch"], ["enable", "NOSUCH"], ["render", "nosuch"], ["show", "nosuch"]]
)
def test_bad_input_leases_nothing_for_a_new_checkout(
    shop: Path, worktree: Worktree, tmp_path: Path, isoenv: Isoenv, args: list[str]
) -> None:
    root, state = worktree(shop, "fresh"), tmp_path / "state"
    assert isoenv("list", cwd=root).returncode == 0
    before = listing(shop, root, state), rows(state)
    assert isoenv(*args, cwd=root).returncode == 5
    assert (listing(shop, root, state), rows(state)) == before


def break_file(file: Path, how: str) -> None:
    file.unlink()
    if how == "directory":
        file.mkdir()
    elif how == "pipe":
        os.mkfifo(file)
    elif how == "loop":
        file.symlink_to(file.name)
    elif how == "latin-1":
        file.write_bytes(b'project = "caf\xe9"\n')
    else:
        file.write_text({"syntax": "= x\n", "key": "prot = 1\n", "large": "#" * (2 << 20)}[how])


@pytest.mark.parametrize("how", ["directory", "pipe", "loop", "latin-1", "syntax", "key", "large"])
def test_a_config_that_cannot_be_read_is_one_line_that_names_it(
    shop: Path, tmp_path: Path, isoenv: Isoenv, how: str
) -> None:
    file, state = shop / "isoenv.toml", tmp_path / "state"
    break_file(file, how)
    before = sorted(listing(shop, state)), rows(state)
    for args in (["show"], ["exec", ".", "true"], ["claim", "3"], ["export", "bash", "2"]):
        done = isoenv(*args, cwd=shop)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.startswith("isoenv: ")
        assert str(file) in done.stderr
    assert (sorted(listing(shop, state)), rows(state)) == before


def test_a_broken_config_makes_no_state_at_all(repo: Path, tmp_path: Path, isoenv: Isoenv) -> None:
    (repo / "isoenv.toml").write_text("prot = 1\n")
    before = listing(tmp_path)
    for args in (["show"], ["exec", ".", "true"], ["list"]):
        done = isoenv(*args, cwd=repo)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("how", ["directory", "pipe", "loop", "latin-1", "syntax", "key"])
def test_a_user_config_that_cannot_be_read_is_one_line_that_names_it(
    shop: Path, home: Path, isoenv: Isoenv, how: str
) -> None:
    file = home / ".config/isoenv/config.toml"
    file.parent.mkdir(parents=True)
    file.touch()
    break_file(file, how)
    done = isoenv("show", cwd=shop)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert str(file) in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('preset = "nosuch"', ':1: preset: expected "orient" or "sky", got "nosuch"'),
        ("# x\npreset = []", ':2: preset: expected "orient" or "sky", got []'),
        ('[projects.shop]\npreset = "x"', ':2: projects.shop.preset: expected "orient" or "sky"'),
        ("[projects]\nshop = 1", ":2: projects.shop: expected a table, got 1"),
        ("[projects.shop]\nprest = 1", ":2: projects.shop.prest: unknown key"),
        ("presets = 1", ":1: presets: unknown key: did you mean `preset`?"),
    ],
)
def test_a_wrong_user_config_names_line_and_key(
    tmp_path: Path, home: Path, isoenv: Isoenv, text: str, said: str
) -> None:
    file = home / ".config/isoenv/config.toml"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    done = isoenv("show", "1", cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"isoenv: {file}{said}")


def test_a_preset_of_the_users_config_is_for_a_machine_or_a_project(
    make_repo: Callable[[str], Path], home: Path, isoenv: Isoenv
) -> None:
    file = home / ".config/isoenv/config.toml"
    file.parent.mkdir(parents=True)
    shop, other = make_repo("shop"), make_repo("other")
    file.write_text('[projects.shop]\npreset = "orient"\n')
    assert isoenv("port", "nginx", "2", cwd=shop).stdout == "2080\n"
    assert isoenv("port", "nginx", "2", cwd=other).returncode == 5
    file.write_text(f'preset = "orient"\n[projects."{other}"]\npreset = "sky"\n')
    assert isoenv("port", "nginx", "2", cwd=shop).stdout == "2080\n"
    assert isoenv("port", "api", "2", cwd=other).stdout == "46582\n"


# -- a hostile machine --------------------------------------------------------------------------


def process(
    args: list[str],
    cwd: Path,
    stdout: int | BinaryIO | None = subprocess.PIPE,
    prepare: Callable[[], None] | None = None,
) -> CompletedProcess[bytes]:
    """Run isoenv with a standard output of the test's choice; ``prepare`` runs in the child."""
    return subprocess.run(
        [sys.executable, "-m", "isoenv", *args],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=stdout,
        stderr=subprocess.PIPE,
        preexec_fn=prepare,
        check=False,
    )


def fill_the_disk() -> None:
    """Let no file grow, as on a full disk; the reason reads "file too large"."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


PRINTING = [
    ["show"],
    ["show", "--format", "json"],
    ["show", "--format", "bash"],
    ["list"],
    ["port", "web"],
    ["path", "x"],
    ["export", "bash"],
    ["doctor"],
    ["completion", "bash"],
    ["hook", "bash"],
    ["statusline"],
    ["export", "bash", "--hook"],
]


@pytest.mark.parametrize("args", PRINTING, ids=" ".join)
def test_a_full_or_closed_standard_output_is_one_line(shop: Path, args: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = process(args, shop, full)
    said = b"isoenv: cannot write to standard output: no space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)
    done = process(args, shop, None, lambda: os.close(1))
    said = b"isoenv: cannot write to standard output: it is closed\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("args", [["exec", ".", "true"], ["show"], ["statusline"]])
def test_what_the_encoding_cannot_spell_is_said_in_one_line(
    make_repo: Callable[[str], Path], isoenv: Isoenv, args: list[str]
) -> None:
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text('[env]\nA = "größe"\n')
    assert isoenv("allow", cwd=repo).returncode == 0
    env = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = isoenv(*args, cwd=repo, env=env, trusted=False)
    shown = "\\xf6\\xdf" if args != ["statusline"] else "\\U0001f7e2"
    said = f"isoenv: the encoding ascii has no {shown}: `export PYTHONUTF8=1`\n"
    assert outcome(done) == (1, "", said)


def test_a_reader_that_has_gone_is_no_news(shop: Path) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = process(["show"], shop, pipe)
    assert (done.returncode, done.stderr) == (1, b"")


@pytest.mark.parametrize("args", [["show", "nosuch"], ["claim", "--name", "x"], ["nosuch"]])
def test_a_closed_standard_error_changes_no_exit_code(shop: Path, args: list[str]) -> None:
    expected = process(args, shop).returncode
    assert process(args, shop, prepare=lambda: os.close(2)).returncode == expected


def test_a_current_directory_that_is_gone_is_said(
    shop: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir "{gone}" && exec "{sys.executable}" -m isoenv "$@"'
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    for args in (["show"], ["exec", ".", "true"], ["exec", "2", "true"], ["claim"]):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", "-c", script, "sh", *args],
            cwd=gone, env=environ, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == "isoenv: the current directory is gone: `cd` somewhere else\n"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", script, "sh", "-C", str(shop), "path"],
        cwd=gone, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert isoenv("--version", cwd=shop).returncode == 0


def test_without_home_the_users_directory_of_the_system_counts(
    shop: Path, isoenv: Isoenv, base: int
) -> None:
    done = isoenv("port", "web", cwd=shop, env={"HOME": None})
    assert outcome(done) == (0, f"{base}\n", "")
    assert isoenv("port", "web", cwd=shop, env={"HOME": "relative"}).stdout == f"{base}\n"
    assert paths.state_dir({"HOME": "/"}) == "/.local/state/isoenv"


def test_a_state_directory_that_cannot_be_is_said(
    shop: Path, tmp_path: Path, isoenv: Isoenv
) -> None:
    done = isoenv("show", cwd=shop, env={"ISOENV_STATE_DIR": "state"})
    said = "isoenv: ISOENV_STATE_DIR=state is relative: `export ISOENV_STATE_DIR=/…`\n"
    assert outcome(done) == (1, "", said)
    assert not (shop / "state").exists()
    (tmp_path / "file").write_text("theirs")
    for directory in (tmp_path / "file", tmp_path / "file/below"):
        done = isoenv("show", cwd=shop, env={"ISOENV_STATE_DIR": str(directory)}, trusted=False)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert f"{tmp_path}/file is no directory" in done.stderr
    assert (tmp_path / "file").read_text() == "theirs"


@pytest.mark.parametrize(
    "args", [["claim", "3"], ["exec", "2", "true"], ["enable", "LOUD"], ["release"]]
)
def test_a_full_disk_is_one_line_and_nothing_is_half_done(
    shop: Path, tmp_path: Path, args: list[str]
) -> None:
    state = tmp_path / "state"
    before = rows(state)
    done = process(args, shop, prepare=fill_the_disk)
    assert done.returncode == 1
    assert done.stdout == b""
    assert done.stderr.startswith(b"isoenv: ")
    assert done.stderr.count(b"\n") == 1
    assert rows(state) == before
    assert process(args, shop).returncode == 0


# -- prune, doctor, help -------------------------------------------------------------


def test_prune_frees_what_is_gone_and_nothing_else(
    shop: Path, feature: Path, isoenv: Isoenv, git: Callable[..., str], base: int
) -> None:
    shown = json.loads(isoenv("show", "--json", cwd=feature).stdout)
    own = Path(shown["env"]["ISOENV_DIR"])
    own.mkdir(parents=True)
    assert outcome(isoenv("prune", cwd=shop)) == (0, "", "isoenv: nothing is gone\n")
    git(shop, "worktree", "remove", "--force", str(feature))
    title = f"shop/1 feature ({feature})"
    done = isoenv("prune", "--dry-run", "--purge", cwd=shop)
    assert done.returncode == 0
    # Where no engine answers that is said in front of it.
    assert done.stderr.endswith(f"isoenv: would free {title}\nisoenv: would remove {own}\n")
    assert own.exists()
    done = isoenv("prune", "--purge", cwd=shop)
    assert done.returncode == 0
    assert done.stderr.endswith(f"isoenv: freed {title}\nisoenv: removed {own}\n")
    assert not own.exists()
    assert len(json.loads(isoenv("list", "--json", cwd=shop).stdout)["instances"]) == 1
    assert isoenv("port", "web", cwd=shop).stdout == f"{base}\n"


def test_prune_keeps_an_instance_that_still_listens(
    shop: Path,
    feature: Path,
    isoenv: Isoenv,
    listener: Callable[[str, int], object],
    base: int,
) -> None:
    listener("127.0.0.1", base + 1000)
    shutil.rmtree(feature)
    shutil.rmtree(shop / ".git/worktrees/feature")
    done = isoenv("prune", cwd=shop)
    said = f"isoenv: kept shop/1 feature ({feature}): port {base + 1000} is held by "
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_doctor_names_a_stranger_and_not_the_instances_own(
    shop: Path, feature: Path, isoenv: Isoenv, base: int
) -> None:
    code = (
        "import socket, sys\n"
        f"held = socket.create_server(('127.0.0.1', {base + 1000}))\n"
        "print(flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]

    def doctor() -> tuple[int, list[str]]:
        done = isoenv("doctor", "--json", cwd=shop)
        rows = json.loads(done.stdout)["doctor"]
        return done.returncode, [row["message"] for row in rows if row["kind"] == "stranger"]

    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    own = [sys.executable, "-m", "isoenv", "exec", "feature", *command]
    for argv, cwd, is_own in (
        (command, feature, True),
        (own, shop.parent / "shop", True),
        (command, shop, False),
    ):
        with subprocess.Popen(
            argv, cwd=cwd, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as holder:
            assert holder.stdout is not None
            assert holder.stdin is not None
            assert holder.stdout.readline() == b"\n"
            code_, found = doctor()
            if is_own:
                assert found == []
            else:
                (message,) = found
                start = f"port {base + 1000} (web) of shop/1 feature is held by "
                assert message.startswith(start)
                assert f"(pid {holder.pid})" in message
                assert code_ == 1
                text = isoenv("doctor", cwd=shop)
                assert f"wrong: {start}" in text.stdout
            holder.stdin.close()


def test_help_lists_every_command_and_completes_the_thought(isoenv: Isoenv, tmp_path: Path) -> None:
    done = isoenv("--help", cwd=tmp_path)
    assert outcome(done)[::2] == (0, "")
    listed = {
        line.split()[0] for line in done.stdout.partition("Commands:")[2].splitlines() if line
    }
    assert {"exec", "export", "list", "show", "claim", "doctor"} <= listed
    assert isoenv("-h", cwd=tmp_path).stdout == done.stdout
    assert isoenv("--version", cwd=tmp_path).stdout == "isoenv 0.1.0\n"
    assert listing(tmp_path / "state") == {}
