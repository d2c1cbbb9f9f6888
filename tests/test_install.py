"""The command as pip, pipx and uv install it: a sh script that finds its Python beside it."""

from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import sysconfig
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Check = Callable[[Path], None]

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = ROOT / "shell/isoenv.sh"
PIP = (sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check")


def run(*argv: str | Path, cwd: Path | None = None, **env: str | Path) -> str:
    """Run a command that must succeed, and return what it printed."""
    environ = {**os.environ, **{name: str(value) for name, value in env.items()}}
    done = subprocess.run(
        list(map(str, argv)), cwd=cwd, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, and for each of its dependencies one that leads to this interpreter's own."""
    house = tmp_path_factory.mktemp("house")
    run(*(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", house, ROOT))
    (wheel,) = house.glob("isoenv-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        required = Parser().parsestr(archive.read(name).decode()).get_all("Requires-Dist") or []
    # All that this interpreter has but isoenv itself, which pipx would take for the installed one.
    libraries = house / "libraries"
    libraries.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.lower().startswith(("isoenv", "_isoenv", "_editable", "__editable")):
            (libraries / entry.name).symlink_to(entry)
    for requirement in required:
        stand_in(house, requirement.partition(">=")[0], libraries)
    return house


def stand_in(house: Path, name: str, libraries: Path) -> None:
    """Make a wheel without content, but for the way to this interpreter's packages."""
    unix = name.replace("-", "_")
    info = f"{unix}-99.dist-info"
    files = {
        f"{unix}-stand-in.pth": f"{libraries}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 99\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=")
        record += f"{path},sha256={digest.decode()},{len(text)}\n"
    with zipfile.ZipFile(house / f"{unix}-99-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)


@pytest.fixture(scope="session")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where uv, pipx and what an editable build needs are; without an index none is to be had."""
    tools = tmp_path_factory.mktemp("tools")
    argv = [*PIP, "install", "--target", str(tools), "uv", "pipx", "editables"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        missing = pytest.fail if os.environ.get("CI") else pytest.skip
        missing(f"uv and pipx cannot be installed: {done.stderr}")
    return tools


@pytest.fixture
def check(make_repo: Callable[[str], Path]) -> Check:
    """Check that an installed command works: what Python does, and what the script does alone."""

    def check(command: Path) -> None:
        repo = make_repo("repo")
        (repo / "isoenv.toml").write_text('[ports]\nweb = 8000\n[env]\nA = "1"\n')
        assert command.read_text() == LAUNCHER.read_text()
        show = ("exec", ".", "sh", "-c", "echo $WEB_PORT $A $ISOENV_INSTANCE")
        # Nothing of this interpreter's on PATH.
        env = {"PATH": f"{command.parent}:/usr/bin:/bin"}
        assert run("isoenv", "--version", cwd=repo, **env).startswith("isoenv ")
        run("isoenv", "allow", cwd=repo, **env)
        assert run("isoenv", *show, cwd=repo, **env) == "8000 1 0\n"
        hook = run("isoenv", "hook", "bash", cwd=repo, **env).replace("'\\''", "'")
        assert str(command) in hook or os.path.realpath(command) in hook
        python = Path(os.path.realpath(command)).parent / "isoenv-python"
        mode = python.stat().st_mode
        python.chmod(0o600)
        try:
            assert run("isoenv", *show, cwd=repo, **env) == "8000 1 0\n"
        finally:
            python.chmod(mode)
        assert run("isoenv", "exec", "2", *show[2:], cwd=repo, **env) == "10000 1 2\n"

    return check


def environment(at: Path) -> Path:
    """Make a virtual environment; it needs no pip of its own."""
    run(sys.executable, "-m", "venv", "--without-pip", at)
    return at


def install(venv: Path, house: Path, *words: str | Path) -> None:
    """Install into an environment from the house alone."""
    pip = [*PIP, "--python", venv / "bin/python", "install", "--no-index", "--find-links", house]
    run(*pip, *words)


def test_pip_install(tmp_path: Path, house: Path, check: Check) -> None:
    venv = environment(tmp_path / "venv")
    install(venv, house, "isoenv")
    check(venv / "bin/isoenv")


def test_pip_install_into_a_path_with_spaces(tmp_path: Path, house: Path, check: Check) -> None:
    venv = environment(tmp_path / "it's a venv")
    install(venv, house, "isoenv")
    check(venv / "bin/isoenv")


def test_pip_install_editable(
    tmp_path: Path, house: Path, tools: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = environment(tmp_path / "venv")
    # With the backend, which the stand-ins lead to.
    install(venv, house, "click")
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tools))
        install(venv, house, "--no-build-isolation", "--editable", ROOT)
    check(venv / "bin/isoenv")
    where = "import isoenv; print(isoenv.__file__)"
    assert run(venv / "bin/python", "-c", where) == f"{ROOT}/isoenv/__init__.py\n"


def test_pip_install_user(
    tmp_path: Path, house: Path, check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONUSERBASE", str(tmp_path / "base"))
    # Of a virtual environment pip does not see the user's site.
    base = Path(sys.base_prefix, "bin", f"python{sys.version_info[0]}.{sys.version_info[1]}")
    words = ("--user", "--break-system-packages", "--no-index", "--find-links", house, "isoenv")
    run(base, *PIP[1:], "install", "--no-warn-script-location", *words)
    check(tmp_path / "base/bin/isoenv")


def test_a_link_to_the_command(tmp_path: Path, house: Path, check: Check) -> None:
    venv = environment(tmp_path / "venv")
    install(venv, house, "isoenv")
    run("ln", "-s", "../venv/bin", tmp_path / "home/linked")
    (tmp_path / "home/bin").mkdir()
    (tmp_path / "home/bin/isoenv").symlink_to("../linked/isoenv")
    version = run("isoenv", "--version", PATH=f"{tmp_path}/home/bin:/usr/bin:/bin")
    assert version.startswith("isoenv ")
    check(tmp_path / "home/linked/isoenv")


def test_uv_tool_install(tmp_path: Path, house: Path, tools: Path, check: Check) -> None:
    words = ("--no-index", "--find-links", house, "--python", sys.executable, "isoenv")
    run(tools / "bin/uv", "tool", "install", *words, **uv(tmp_path))
    command = tmp_path / "bin/isoenv"
    assert command.is_symlink()
    check(command)


def test_uv_pip_install(tmp_path: Path, house: Path, tools: Path, check: Check) -> None:
    venv = environment(tmp_path / "venv")
    words = ("--no-index", "--find-links", house, "--python", venv / "bin/python", "isoenv")
    run(tools / "bin/uv", "pip", "install", *words, **uv(tmp_path))
    check(venv / "bin/isoenv")


def uv(tmp_path: Path) -> Mapping[str, Path | str]:
    """Settings by which uv keeps to the test's own directory."""
    places = {"UV_TOOL_DIR": "tools", "UV_TOOL_BIN_DIR": "bin", "UV_CACHE_DIR": "cache"}
    return {**{name: tmp_path / place for name, place in places.items()}, "UV_NO_CONFIG": "1"}


def test_pipx_install(tmp_path: Path, house: Path, tools: Path, check: Check) -> None:
    (wheel,) = house.glob("isoenv-*.whl")
    places = {"PIPX_HOME": "pipx", "PIPX_BIN_DIR": "bin", "PIPX_MAN_DIR": "man"}
    run(
        *(sys.executable, "-m", "pipx", "install", "--python", sys.executable),
        *(f"--pip-args=--no-index --find-links={house}", wheel),
        **{name: tmp_path / place for name, place in places.items()},
        PYTHONPATH=tools,
    )
    command = tmp_path / "bin/isoenv"
    assert command.is_symlink()
    check(command)
