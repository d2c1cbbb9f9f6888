"""`use isoenv` in the .envrc of a real direnv, alone and beside the hook."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from subprocess import CompletedProcess

    Command = Callable[..., CompletedProcess[str]]

ROOT = Path(__file__).resolve().parents[1]

SHOP = """
project = "shop"
[ports]
web = 8000
[env]
QUOTED = "it's; $HOME `id`\\n"
EDITOR = false
[path]
prepend = ["tools"]
"""

ENTRY = f"""#!{sys.executable}
import sys
sys.path.insert(0, {str(ROOT)!r})
from isoenv.__main__ import main
main()
"""

LIBRARY = ".config/direnv/lib/isoenv.sh"


@pytest.fixture(scope="module")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command and its entry point as an installer puts them, in an awkward place."""
    bin_dir = tmp_path_factory.mktemp("it's a bin")
    shutil.copy(ROOT / "shell/isoenv.sh", bin_dir / "isoenv")
    (bin_dir / "isoenv-python").write_text(ENTRY)
    (bin_dir / "isoenv-python").chmod(0o755)
    return bin_dir


@pytest.fixture
def command(bin_dir: Path, home: Path) -> Command:
    """Run a program, with the installed command on PATH and an editor set."""

    def command(*argv: str, cwd: Path = home, **env: str) -> CompletedProcess[str]:
        path = f"{bin_dir}:{os.environ['PATH']}"
        environ = {**os.environ, "PATH": path, "EDITOR": "ed", **env}
        return subprocess.run(
            argv, cwd=cwd, env=environ, capture_output=True, text=True, check=False
        )

    return command


@pytest.fixture
def run(command: Command) -> Callable[..., str]:
    """Run a program that must succeed, and return what it printed."""

    def run(*argv: str, **given: str | Path) -> str:
        done = command(*argv, **given)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def installed(home: Path, run: Callable[..., str]) -> Path:
    """The lib file."""
    run("isoenv", "direnv", "install")
    return home / LIBRARY


@pytest.fixture
def shop(make_repo: Callable[[str], Path], run: Callable[..., str], installed: Path) -> Path:
    """An allowed checkout whose .envrc, allowed as well, uses isoenv."""
    assert installed.exists()
    shop = make_repo("a shop")
    (shop / "isoenv.toml").write_text(SHOP)
    run("isoenv", "allow", cwd=shop)
    envrc(shop, "use isoenv", run)
    return shop


def envrc(checkout: Path, text: str, run: Callable[..., str]) -> None:
    """Write and allow the .envrc of a checkout."""
    (checkout / ".envrc").write_text(f"{text}\n")
    run("direnv", "allow", ".", cwd=checkout)


def seen(output: str) -> dict[str, str]:
    """The environment that `env -0` printed."""
    return dict(line.split("=", 1) for line in output.split("\0") if line)


# -- install and uninstall ----------------------------------------------------------------------


def test_install_twice_is_once_and_uninstall_takes_it_out(home: Path, command: Command) -> None:
    file = home / LIBRARY
    for words, said in (
        (["install"], f"isoenv: wrote {file}: `use isoenv` in an .envrc\n"),
        (["install"], f"isoenv: {file} is up to date\n"),
        (["uninstall"], f"isoenv: removed {file}\n"),
        (["uninstall"], f"isoenv: there is no {file}\n"),
    ):
        done = command("isoenv", "direnv", *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", said)
        assert file.exists() == (words == ["install"])


def test_another_version_of_the_file_is_replaced(installed: Path, command: Command) -> None:
    content = installed.read_text()
    installed.write_text(content + "# older\n")
    done = command("isoenv", "direnv", "install")
    assert (done.returncode, installed.read_text()) == (0, content)
    assert done.stderr.startswith(f"isoenv: replaced {installed}")
    assert sorted(os.listdir(installed.parent)) == ["isoenv.sh"]


def test_a_foreign_file_is_left_alone(home: Path, command: Command) -> None:
    file = home / LIBRARY
    file.parent.mkdir(parents=True)
    file.write_text("use_isoenv() { :; }\n")
    for word in ("install", "uninstall"):
        done = command("isoenv", "direnv", word)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert file.read_text() == "use_isoenv() { :; }\n"
    assert command("isoenv", "direnv", "install", "--force").returncode == 0
    assert "isoenv export bash" in file.read_text().replace("'", "")


def test_direnvs_own_settings_of_its_place_are_obeyed(tmp_path: Path, command: Command) -> None:
    for env, place in (
        ({"DIRENV_CONFIG": str(tmp_path / "chosen")}, "chosen"),
        ({"XDG_CONFIG_HOME": str(tmp_path / "xdg")}, "xdg/direnv"),
        ({"XDG_CONFIG_HOME": ""}, "home/.config/direnv"),
    ):
        assert command("isoenv", "direnv", "install", **env).returncode == 0
        assert (tmp_path / place / "lib/isoenv.sh").exists()


def test_a_link_of_the_users_stays_a_link(home: Path, tmp_path: Path, command: Command) -> None:
    file = home / LIBRARY
    file.parent.mkdir(parents=True)
    file.symlink_to(tmp_path / "dotfiles.sh")
    assert command("isoenv", "direnv", "install").returncode == 0
    assert file.is_symlink()
    assert (tmp_path / "dotfiles.sh").exists()


# -- direnv alone -------------------------------------------------------------------------------


def test_use_isoenv_gives_what_exec_gives(shop: Path, run: Callable[..., str]) -> None:
    env = seen(run("direnv", "exec", ".", "env", "-0", cwd=shop))
    expected = seen(run("isoenv", "exec", ".", "env", "-0", cwd=shop))
    assert "__ISOENV_UNDO" not in env
    # What direnv's bash leaves.
    others = {"__ISOENV_UNDO", "_", "SHLVL", "OLDPWD", "PWD"}
    others |= {name for name in env if name.startswith("DIRENV_")}
    assert {name: env[name] for name in env.keys() - others} == {
        name: expected[name] for name in expected.keys() - others
    }
    assert (env["WEB_PORT"], env["QUOTED"]) == ("8000", "it's; $HOME `id`\n")


def test_use_isoenv_with_a_number(shop: Path, run: Callable[..., str]) -> None:
    envrc(shop, "use isoenv 2", run)
    env = seen(run("direnv", "exec", ".", "env", "-0", cwd=shop))
    assert (env["ISOENV_INSTANCE"], env["WEB_PORT"]) == ("2", "10000")


class Interactive:
    """What direnv's hook does in a shell, without the shell: an environment that it changes."""

    def __init__(self, command: Command, cwd: Path, **env: str) -> None:
        """Begin in a directory with what is laid over the environment."""
        self.command = command
        self.cwd = cwd
        self.env = env

    def prompt(self) -> str:
        """Do what a prompt does; return what it said."""
        import json

        done = self.command("direnv", "export", "json", cwd=self.cwd, **self.env)
        for name, value in (json.loads(done.stdout) if done.stdout else {}).items():
            if value is None:
                self.env.pop(name, None)
            else:
                self.env[name] = value
        return done.stderr

    def reload(self) -> None:
        """Do what `direnv reload` does: a second later, because direnv compares whole seconds."""
        assert self.command("direnv", "reload", cwd=self.cwd, **self.env).returncode == 0
        for file in Path(os.environ["XDG_DATA_HOME"], "direnv/allow").iterdir():
            os.utime(file, (1, 1))


def test_an_edit_a_claim_and_a_slot_are_noticed(
    shop: Path, command: Command, run: Callable[..., str]
) -> None:
    shell = Interactive(command, shop)
    assert "loading" in shell.prompt()
    assert shell.env["WEB_PORT"] == "8000"
    assert shell.prompt() == ""
    # direnv compares whole seconds.
    past = shop.stat().st_mtime - 10
    os.utime(shop / "isoenv.toml", (past, past))
    assert "loading" in shell.prompt()
    assert shell.prompt() == ""
    run("isoenv", "claim", "3", cwd=shop)
    assert "loading" in shell.prompt()
    assert shell.env["WEB_PORT"] == "11000"
    (shop / ".env").write_text("ISOENV_INSTANCE=4\n")
    assert "loading" in shell.prompt()
    assert shell.env["WEB_PORT"] == "12000"


def test_leaving_gives_everything_back(shop: Path, command: Command, tmp_path: Path) -> None:
    shell = Interactive(command, shop)
    before = seen(command("env", "-0", **shell.env).stdout)
    shell.prompt()
    shell.cwd = tmp_path
    assert "unloading" in shell.prompt()
    after = seen(command("env", "-0", **shell.env).stdout)
    assert after == before


def test_what_is_not_allowed_fails_the_envrc_with_one_line(
    shop: Path, command: Command, run: Callable[..., str]
) -> None:
    with (shop / "isoenv.toml").open("a") as file:
        file.write("# changed\n")
    envrc(shop, "use isoenv\nexport AFTER=1", run)
    shell = Interactive(command, shop)
    said = shell.prompt()
    assert [line for line in said.splitlines() if line.startswith("isoenv:")] == [
        f"isoenv: {shop}/isoenv.toml has changed: `isoenv allow` shows how, and allows it"
    ]
    assert "error exit status 4" in said
    assert not {"WEB_PORT", "AFTER"} & shell.env.keys()
    # direnv does not try again by itself.
    assert shell.prompt() == ""
    run("isoenv", "allow", cwd=shop)
    shell.reload()
    assert "loading" in shell.prompt()
    assert (shell.env["WEB_PORT"], shell.env["AFTER"]) == ("8000", "1")


def test_a_file_that_does_not_parse_fails_the_envrc(
    shop: Path, command: Command, run: Callable[..., str]
) -> None:
    (shop / "isoenv.toml").write_text("nonsense\n")
    shell = Interactive(command, shop)
    said = shell.prompt()
    assert "error exit status 1" in said
    assert "`direnv reload` tries again" in said
    (shop / "isoenv.toml").write_text(SHOP)
    run("isoenv", "allow", cwd=shop)
    shell.reload()
    assert "loading" in shell.prompt()
    assert shell.env["WEB_PORT"] == "8000"


def test_a_record_of_another_checkout_is_undone_inside(
    shop: Path,
    make_repo: Callable[[str], Path],
    command: Command,
    run: Callable[..., str],
    tmp_path: Path,
) -> None:
    other = make_repo("other")
    (other / "isoenv.toml").write_text('[env]\nTHEIRS = "1"\nEDITOR = "ted"\n')
    run("isoenv", "allow", cwd=other)
    inherited = seen(run("isoenv", "exec", ".", "env", "-0", cwd=other))
    shell = Interactive(command, shop, **inherited)
    shell.prompt()
    assert not {"THEIRS", "EDITOR", "__ISOENV_UNDO"} & shell.env.keys()
    assert shell.env["PATH"].startswith(f"{shop}/tools:")
    # Outside again, the inherited set is there as it was, with its record.
    shell.cwd = tmp_path
    shell.prompt()
    assert {name: shell.env.get(name) for name in inherited} == inherited


# -- beside the hook ------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [("direnv", "isoenv"), ("isoenv", "direnv")])
@pytest.mark.parametrize(
    "argv",
    [["bash", "--norc", "--noprofile", "-i"], ["zsh", "-f", "-i"], ["fish", "--no-config"]],
    ids=["bash", "zsh", "fish"],
)
def test_both_hooks_at_once_do_not_fight(  # noqa: PLR0913, PLR0917  # fixtures
    shop: Path,
    make_repo: Callable[[str], Path],
    run: Callable[..., str],
    tmp_path: Path,
    bin_dir: Path,
    argv: list[str],
    order: tuple[str, str],
) -> None:
    other = make_repo("other")
    (other / "isoenv.toml").write_text(
        'project = "other"\n[ports]\nweb = 9000\n[env]\nTHEIRS = "1"\n[path]\nprepend = ["bin"]\n'
    )
    run("isoenv", "allow", cwd=other)
    later = make_repo("later")
    (later / "isoenv.toml").write_text('project = "later"\n[ports]\nweb = 9500\n')
    run("isoenv", "allow", cwd=later)
    script = tmp_path / "show"
    script.write_text(
        'echo "${WEB_PORT-none} ${THEIRS-none} ${EDITOR-none} ${__ISOENV_UNDO:+record}'
        ' ${DIRENV_DIR:+direnv}"; echo "$PATH" >> "$PATHS"'
    )
    show = f"sh {quote(str(script))}"
    lines = [f'eval "$({name} hook {argv[0]})"' for name in order]
    for place in (shop, other, shop, tmp_path, other, tmp_path, shop, shop / "tools", tmp_path):
        # Two prompts at each place: the second must change nothing.
        lines += [f"cd {quote(str(place))}", show, ":", show]
    # A .envrc appears where the hook alone has been at work, and goes again.
    lines += [f"cd {quote(str(later))}", show]
    lines += ["echo 'use isoenv' > .envrc; direnv allow .", ":", show, ":", show]
    lines += [f"cd {quote(str(tmp_path))}", ":", show, ""]
    (shop / "tools").mkdir(exist_ok=True)
    paths = tmp_path / "paths"
    if argv[0] == "fish":
        # Without a terminal fish shows no prompt, which is when its hooks are called.
        lines[:2] = [f"{name} hook fish | source" for name in order]
        lines = [line + "\nemit fish_prompt; emit fish_preexec" for line in lines]
    done = subprocess.run(
        argv,
        input="\n".join(lines),
        cwd=tmp_path,
        env={
            **os.environ,
            "PATH": f"{bin_dir}:{os.environ['PATH']}",
            "EDITOR": "ed",
            "PATHS": str(paths),
            "DIRENV_LOG_FORMAT": "direnv: %s",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    at_shop = "8000 none none  direnv"
    at_other = "9000 1 ed record "
    outside = "none none ed  "
    expected = [
        *(at_shop, at_other, at_shop, outside, at_other, outside, at_shop, at_shop, outside)
    ]
    seen_lines = done.stdout.splitlines()
    assert seen_lines[:18] == [line for line in expected for _ in range(2)], done.stderr
    at_later = "9500 none ed record "
    assert seen_lines[18:] == [at_later, *["9500 none ed  direnv"] * 2, outside], done.stderr
    clean = f"{bin_dir}:{os.environ['PATH']}"
    fronts = {
        at_shop: f"{shop}/tools:{clean}",
        at_other: f"{other}/bin:{clean}",
        outside: clean,
    }
    for line, path in zip(seen_lines[:18], paths.read_text().splitlines(), strict=False):
        assert path == fronts[line]
    loads = [line for line in done.stderr.splitlines() if "direnv: loading" in line]
    assert len(loads) == 4, done.stderr
