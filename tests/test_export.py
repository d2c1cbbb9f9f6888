"""What `isoenv export` prints, evaluated by the shells themselves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tomli_w
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    from conftest import Shell

    Isoenv = Callable[..., CompletedProcess[str]]
    Worktree = Callable[[Path, str], Path]
    Allow = Callable[[Path], None]

ROOT = Path(__file__).resolve().parents[1]

CONFIG = """
project = "shop"
[instance]
variable = "SHOP_SLOT"
[env]
WHERE = "{project}/{id}"
LEGACY = false
[path]
prepend = ["bin", "tools"]
"""

# Entries that are there twice, or empty, are the user's business.
PATH = "/usr/bin:/bin::/usr/bin:/opt/x y"
CALLER = {"PATH": PATH, "WHERE": "before", "LEGACY": "theirs", "PYTHONPATH": str(ROOT)}

LOAD = {
    "bash": 'eval "$({} export bash {})"; ',
    "zsh": 'eval "$({} export zsh {})"; ',
    "fish": "{} export fish {} | source; ",
}


@pytest.fixture
def shop(make_repo: Callable[[str], Path], git: Callable[..., str], allow: Allow) -> Path:
    repo = make_repo("shop")
    (repo / "isoenv.toml").write_text(CONFIG)
    git(repo, "add", ".")
    git(repo, "commit", "--quiet", "--message=configured")
    allow(repo)
    return repo


@pytest.fixture
def feature(shop: Path, worktree: Worktree, allow: Allow) -> Path:
    root = worktree(shop, "feature")
    allow(root)
    return root


@pytest.fixture
def apart(make_repo: Callable[[str], Path]) -> Path:
    """A main checkout of SkyPilot: it has no environment at all."""
    repo = make_repo("skypilot")
    (repo / "sky/skylet").mkdir(parents=True)
    (repo / "sky/__init__.py").touch()
    return repo


def load(shell: Shell, words: str = "") -> str:
    """What a user types to evaluate an export."""
    return LOAD[shell.name].format(f"'{sys.executable}' -m isoenv", words)


def environments(shell: Shell, script: str, cwd: Path) -> list[dict[str, str]]:
    """What each `show;` of the script finds in its environment."""
    env = dict.fromkeys(os.environ) | CALLER
    env |= {name: os.environ[name] for name in ("HOME", "ISOENV_STATE_DIR", "LC_ALL")}
    done = shell.run(script.replace("show;", "/usr/bin/env -0; echo;"), cwd=cwd, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    found = []
    for part in done.stdout.split("\0\n")[:-1]:
        pairs = (line.partition("=") for line in part.split("\0"))
        found.append({name: value for name, _, value in pairs})
    return found


def ours(environ: dict[str, str]) -> tuple[str | None, ...]:
    return tuple(map(environ.get, ("WHERE", "ISOENV_INSTANCE", "SHOP_SLOT", "LEGACY", "PATH")))


def paths(root: Path) -> str:
    return f"{root}/bin:{root}/tools:{PATH}"


def test_an_environment_is_loaded_replaced_and_undone(
    shell: Shell, shop: Path, feature: Path, apart: Path
) -> None:
    there, elsewhere = f"cd '{feature}'; {load(shell)}", f"cd '{apart}'; {load(shell)}"
    script = f"show; {load(shell)} show; {there} show; {load(shell, '2')} show; {elsewhere} show;"
    before, main, linked, second, after = environments(shell, script, shop)
    # fish writes an empty entry of PATH as a dot.
    path = before["PATH"]
    assert ours(before) == ("before", None, None, "theirs", path)
    assert ours(main) == ("shop/0", "0", "0", None, f"{shop}/bin:{shop}/tools:{path}")
    assert ours(linked) == ("shop/1", "1", "1", None, f"{feature}/bin:{feature}/tools:{path}")
    assert ours(second)[:4] == ("shop/2", "2", "2", None)
    assert {k: v for k, v in after.items() if k not in {"PWD", "OLDPWD", "_"}} == {
        k: v for k, v in before.items() if k not in {"PWD", "OLDPWD", "_"}
    }


def test_what_the_user_changed_since_is_left_alone(shell: Shell, shop: Path, apart: Path) -> None:
    change = "set -gx WHERE mine; set -gx LEGACY back" if shell.name == "fish" else (
        "export WHERE=mine LEGACY=back"
    )  # fmt: skip
    script = f"{load(shell)} {change}; cd '{apart}'; {load(shell)} show;"
    (after,) = environments(shell, script, shop)
    assert (after["WHERE"], after["LEGACY"]) == ("mine", "back")
    assert "ISOENV_INSTANCE" not in after


def test_twice_is_once(shell: Shell, shop: Path) -> None:
    script = f"{load(shell)} show; {load(shell)} show;"
    once, twice = environments(shell, script, shop)
    assert {**twice, "_": ""} == {**once, "_": ""}


def test_plain_exports_record_nothing_and_keep_the_callers_path(shell: Shell, shop: Path) -> None:
    plain = load(shell, "--no-diff")
    before, once, twice = environments(shell, f"show; {plain} show; {plain} show;", shop)
    assert ours(once) == ("shop/0", "0", "0", None, f"{shop}/bin:{shop}/tools:{before['PATH']}")
    assert ours(twice) == ours(once)
    assert "__ISOENV_UNDO" not in once


def test_plain_exports_without_a_path_add_no_current_directory(shop: Path, isoenv: Isoenv) -> None:
    done = isoenv("export", "bash", "--no-diff", cwd=shop, env={"PATH": None})
    assert f"export PATH='{shop}/bin:{shop}/tools';\n" in done.stdout


def test_an_eval_without_quotes_is_right_too(shop: Path, isoenv: Isoenv) -> None:
    theirs = {"LEGACY": "theirs"}
    printed = isoenv("export", "bash", cwd=shop, env=theirs).stdout
    done = subprocess.run(
        ["bash", "-c", 'eval $1; echo "$WHERE|$ISOENV_ROOT|${LEGACY-unset}"', "bash", printed],
        env={**os.environ, **theirs},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (f"shop/0|{shop}|unset\n", "")


texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
raws = st.binary(min_size=1, max_size=12).filter(lambda raw: b"\0" not in raw)


def seen(done: CompletedProcess[str]) -> dict[str, str]:
    """What `env -0` has printed."""
    assert (done.returncode, done.stderr) == (0, "")
    return dict(line.split("=", 1) for line in done.stdout.split("\0") if line)


@settings(
    max_examples=6,
    deadline=None,
    # Each try starts processes; to shrink what fails would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(values=st.lists(texts, min_size=30, max_size=60), raw=raws)
def test_values_of_any_bytes_survive_the_whole_way(
    shell: Shell, repo: Path, isoenv: Isoenv, values: list[str], raw: bytes
) -> None:
    wanted = {f"V{number}": value for number, value in enumerate(values)}
    env = {name: value.replace("{", "{{").replace("}", "}}") for name, value in wanted.items()}
    config = tomli_w.dumps({"env": {**env, "HOUSE": "{home}"}})
    (repo / "isoenv.toml").write_bytes(config.encode())
    # Bytes that are not UTF-8 come from a path.
    house = os.fsdecode(b"/" + raw.strip(b"/") + b"x")
    wanted["HOUSE"] = house
    given = {"HOME": house, "OLD": house}

    environ = seen(isoenv("exec", ".", "env", "-0", cwd=repo, env=given))
    assert {name: environ[name] for name in wanted} == wanted
    assert environ["OLD"] == house

    done = isoenv("export", shell.name, cwd=repo, env=given)
    assert (done.returncode, done.stderr) == (0, "")
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.fsencode(done.stdout))
        file.flush()
        source = "source" if shell.name == "fish" else "."
        environ = seen(shell.run(f"{source} {file.name}; /usr/bin/env -0"))
    assert {name: environ[name] for name in wanted} == wanted
