"""`cd ../other && CMD` in one command line of an agent: the environment goes along."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from isoenv import context, entering, paths
from isoenv.agents import envfile

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Isoenv = Callable[..., CompletedProcess[str]]
    Bash = Callable[..., CompletedProcess[str]]

SHOP = """
project = "shop"
[ports]
web = 4200
[path]
prepend = ["tools"]
"""
SAY = 'echo "${WEB_PORT-none}"'


@pytest.fixture
def shop(repo: Path, linked: Callable[[Path, str], Path], allow: Callable[[Path], None]) -> Path:
    """A checkout with ports from 4200 on; `../b` is another one of it, with 5200."""
    (repo / "isoenv.toml").write_text(SHOP)
    (repo / "deep/below").mkdir(parents=True)
    (repo / "deep/below/file").write_text("")
    other = linked(repo, "b")
    allow(repo)
    for place, port in ((repo, "4200"), (other, "5200")):
        caller = context.Caller(str(place), os.environ)
        with entering.open_registry(caller) as registry:
            _, ready = entering.enter(caller, registry, None)
        assert ready.variables["WEB_PORT"] == port
    envfile.write(caller.state)
    return repo


@pytest.fixture
def bash() -> Bash:
    """Run a command line as an agent does, ``bash(script, cwd, *options)``."""

    def bash(
        script: str, cwd: Path, *options: str, plain: bool = False, **given: str
    ) -> CompletedProcess[str]:
        file = paths.agent_env_file(os.environ["ISOENV_STATE_DIR"])
        assert Path(file).exists()
        env = {**os.environ, "PWD": str(cwd), **({} if plain else {"BASH_ENV": file}), **given}
        return subprocess.run(
            ["bash", *options, "-c", script, "name", "argument"],
            cwd=cwd,
            env=env,
            capture_output=True,
            check=False,
            text=True,
        )

    return bash


@pytest.mark.parametrize(
    ("script", "expected"),
    {
        f"cd ../b && {SAY}": "5200",
        f"cd ../b/deep/below; {SAY}; cd - >/dev/null; {SAY}": "5200 4200",
        f"(cd ../b && {SAY}); {SAY}": "5200 4200",
        f"cd ../b; cd ../b/deep; {SAY}": "5200",
        f"pushd ../b >/dev/null; {SAY}; popd >/dev/null; {SAY}": "5200 4200",
        f"cd ../b; sh -c '{SAY}'; env | grep ^WEB_PORT=": "5200 WEB_PORT=5200",
        f"cd ../link; {SAY}; cd deep; {SAY}": "5200 5200",
        f"cd ../inner; {SAY}; cd ..; {SAY}": "5200 5200",
        f'cd ../b; cd /; {SAY}; cd -- "$OLDPWD"; {SAY}': "5200 5200",
        f"cd ../b && cd / && cd ~- && cd ../it*; {SAY}": "4200",
        f"cd ../plain; {SAY}; cd ../b; {SAY}": "none 5200",
        f"printf '%s\\n' ../b | while read -r dir; do cd \"$dir\"; {SAY}; done; {SAY}": "5200 4200",
        f"f() {{ cd ../b && {SAY}; }}; f; {SAY}": "5200 5200",
        f"export WEB_PORT=1; cd deep; {SAY}; cd ..; {SAY}": "1 1",
        f"builtin cd ../b; {SAY}; command cd .; {SAY}": "4200 4200",
        f"CDPATH=.. cd b >/dev/null && {SAY}": "5200",
        f"unset -f cd pushd popd; cd ../b; {SAY}": "4200",
        f"git -C ../b worktree add -q --detach ../c; cd ../c; {SAY}": "6200",
        "cd ../b; echo ${PATH%%:*}": "{other}/tools",
    }.items(),
)
def test_the_environment_goes_along(  # noqa: PLR0913, PLR0917  # fixtures
    shop: Path,
    bash: Bash,
    make_repo: Callable[[str], Path],
    script: str,
    expected: str,
    isoenv: Isoenv,
) -> None:
    other = shop.parent / "b"
    (shop.parent / "link").symlink_to(other)
    (shop.parent / "inner").symlink_to(other / "deep")
    make_repo(str(shop.parent / "plain"))
    for options in ((), ("-eu",), ("-f",)):
        if options == ("-f",) and "*" in script:
            continue
        if "worktree add" in script and options:
            continue
        done = bash(script, shop, *options)
        assert done.stdout.split("\n")[:-1] == (
            [str(other / "tools")] if "{other}" in expected else expected.split()
        )
        assert (done.returncode, done.stderr) == (0, "")
    assert isoenv("list", cwd=shop).returncode == 0


STATE = 'echo "$?|$PWD|${OLDPWD-unset}|$-|${DIRSTACK[*]}|$#|$*|$IFS|$(trap -p)|$(shopt -p | cksum)"'
HOSTILE = (
    *("cd nope", "cd", "cd ''", "cd -", "cd -P deep", "cd -L -- deep/below/..", "cd deep below"),
    *("cd -Z", "cd deep/below/file", "unset HOME; cd", "unset OLDPWD; cd -", "cd ..; cd -"),
    *("CDPATH=deep; cd below", "CDPATH=deep cd below", "pushd", "popd", "pushd deep; popd"),
    *("pushd deep; pushd below; pushd +1; dirs -v; popd -n", "pushd -n deep; dirs", "cd deep; $_"),
    *("cd deep; echo $_", "cd; echo $_", "cd -- deep; echo $_", "! cd deep", "cd nope || echo no"),
    *("cd deep && echo ${PIPESTATUS[@]}", "cd nope; echo ${PIPESTATUS[@]}", "cd deep | cat"),
    *("set -e; cd nope; echo on", "set -e; cd nope || echo on; if cd nope; then :; fi; echo on"),
    *("set -eE; trap 'echo ERR' ERR; cd nope; echo on", "set -u; cd deep; echo ${nope-}"),
    *("trap 'echo D:$BASH_COMMAND' DEBUG; cd deep; echo x", "trap 'echo R' RETURN; cd deep"),
    *("trap 'echo bye' EXIT; cd deep; exit 3", "IFS=/; cd deep/below", "set -f; cd deep; echo *"),
    *(
        "set -k; cd deep",
        "set -a; X=1; cd deep; env | grep -c isoenv_agent",
        "set -o posix; cd deep",
    ),
    *("shopt -s expand_aliases; alias cd='echo mine'\ncd deep", "cd() { echo mine; }; cd deep"),
    *("cd deep; declare -p DIRSTACK", "cd deep & wait $!; pwd", "x=$(cd deep && pwd); echo $x"),
    *(
        "mkdir gone && cd gone && rmdir ../gone && cd .. && pwd",
        "cd deep; exec pwd",
        "cd deep; f=1",
    ),
    *("f() { local -; set -f; cd deep; }; f; echo *", "readonly x=1; cd deep; echo $x"),
    *(
        "for d in deep deep/below; do (cd $d && pwd); done",
        "exec 2>&-; cd deep",
        "exec >&-; cd deep",
    ),
    *(
        "TIMEFORMAT=took; time cd deep 2>/dev/null",
        "coproc cd deep; wait",
        "eval 'cd deep'; pwd -P",
        "cd linked",
        "cd linked; cd ..",
        "cd -P linked; cd ..",
        "unset OLDPWD; cd linked && cd .",
        "pushd linked; cd deep; popd",
        "cd deep#x",
    ),
)


@pytest.mark.parametrize("script", HOSTILE)
def test_all_else_is_as_in_a_plain_bash(shop: Path, bash: Bash, script: str) -> None:
    (shop / "deep#x").mkdir()
    (shop / "linked").symlink_to(shop / "deep/below")
    for options in ((), ("-eu",), ("-o", "pipefail")):
        plain = bash(f"{script}\n{STATE}", shop, *options, plain=True)
        ours = bash(f"{script}\n{STATE}", shop, *options)
        assert ours.stdout == plain.stdout
        assert ours.returncode == plain.returncode
        assert ours.stderr == plain.stderr


def test_a_trace_shows_what_was_called_and_not_what_is_in_it(shop: Path, bash: Bash) -> None:
    done = bash("set -x; cd ../b; : done", shop)
    assert (done.returncode, done.stderr) == (0, "+ cd ../b\n+ : done\n")


def test_neither_scripts_nor_other_shells_nor_children_have_it(
    shop: Path, bash: Bash, tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/bash\ntype -t cd pushd popd\ncd ../b; {SAY}\n")
    script.chmod(0o755)
    as_plain = "builtin\nbuiltin\nbuiltin\n4200\n"
    for command in (str(script), f"bash {script}", f"bash -s <{script}", f"cat {script} | bash"):
        assert bash(command, shop).stdout == as_plain, command
    assert bash(f"sh -c 'cd ../b; {SAY}'", shop).stdout == "4200\n"
    look = "export -f; env -u BASH_EXECUTION_STRING | grep -c 'cd%%\\|isoenv_agent'"
    # -a gives to scripts what bash sets for a command line.
    assert bash(str(script), shop, "-a").stdout == as_plain
    for options in ((), ("-a",)):
        done = bash(f"set -a; cd ../b; cd deep; {look}", shop, *options)
        assert (done.stdout, done.stderr) == ("0\n", "")


def test_who_has_a_cd_of_his_own_keeps_it(shop: Path, bash: Bash) -> None:
    done = bash("cd ../b", shop, **{"BASH_FUNC_cd%%": "() { echo mine; }"})
    assert (done.stdout, done.stderr) == ("mine\n", "")


def test_in_a_snapshot_of_functions_alone_it_is_the_builtin(shop: Path, bash: Bash) -> None:
    # Agents leave out of it what begins with an underscore.
    functions = bash("declare -f cd pushd popd", shop).stdout
    assert functions
    done = bash(
        f"{functions}\ncd ../b; pwd; pushd / >/dev/null; popd >/dev/null; {SAY}", shop, plain=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{shop.parent / 'b'}\nnone\n"
    # With the file beside it, as in each command, it is what it is there.
    assert bash(f"{functions}\ncd ../b; {SAY}", shop).stdout == "5200\n"


def test_when_the_file_is_gone_it_is_the_builtin(shop: Path, bash: Bash) -> None:
    done = bash(f'rm "$BASH_ENV"; cd ../b; {SAY}', shop)
    assert (done.returncode, done.stdout, done.stderr) == (0, "4200\n", "")


def test_a_chosen_instance_is_kept(shop: Path, isoenv: Isoenv) -> None:
    file = paths.agent_env_file(os.environ["ISOENV_STATE_DIR"])
    env = {"BASH_ENV": file}
    for number, expected in (("3", "7200\n"), (".", "5200\n")):
        done = isoenv("exec", number, "bash", "-c", f"cd ../b; {SAY}", cwd=shop, env=env)
        assert done.stdout == expected


def test_a_change_starts_no_process(shop: Path, bash: Bash, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    script = f"cd deep; cd ../../b; {SAY}; cd - >/dev/null; cd /; cd ../../; {SAY}"
    bash(script, shop)
    file = paths.agent_env_file(os.environ["ISOENV_STATE_DIR"])
    calls = "trace=fork,vfork,clone,clone3,execve"
    done = subprocess.run(
        ["strace", "-f", "-qq", "-o", str(trace), "-e", calls, "bash", "-c", script],
        cwd=shop,
        env={**os.environ, "BASH_ENV": file, "PWD": str(shop)},
        capture_output=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == (b"5200\n4200\n", b"")
    started = [line for line in trace.read_text().splitlines() if "= -1" not in line]
    assert len(started) == 1, started
