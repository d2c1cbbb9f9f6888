"""What users install: the wheel, built from the source distribution as an index would get it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[1]

COMPLETIONS = {
    "share/bash-completion/completions/isoenv": "isoenv.bash",
    "share/fish/vendor_completions.d/isoenv.fish": "isoenv.fish",
    "share/zsh/site-functions/_isoenv": "_isoenv",
}


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that is built from the sdist, not from the tree."""
    out = tmp_path_factory.mktemp("dist")
    argv = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return next(out.glob("*.whl"))


def shipped(wheel: Path) -> dict[str, bytes]:
    """Map each file of the wheel to its content; those outside the package from ``share/`` on."""
    with zipfile.ZipFile(wheel) as archive:
        return {
            name.partition(".data/data/")[2] or name: archive.read(name)
            for name in archive.namelist()
        }


def tree(folder: str, pattern: str = "*") -> dict[str, bytes]:
    """Map each file below a folder of the tree, by its name in that folder, to its content."""
    top = ROOT / folder
    files = [file for file in top.rglob(pattern) if file.is_file()]
    return {str(file.relative_to(top)): file.read_bytes() for file in files}


def test_the_wheel_ships_each_module_preset_script_and_completion(wheel: Path) -> None:
    expected = {
        **{f"isoenv/{name}": data for name, data in tree("isoenv", "*.py").items()},
        **{
            f"isoenv/presets/{name}": data
            for name, data in tree("isoenv/presets", "*.toml").items()
        },
        **{f"isoenv/_shell/{name}": data for name, data in tree("shell").items()},
    }
    assert {"isoenv/presets/sky.toml", "isoenv/presets/orient.toml"} <= expected.keys()
    completions = tree("completions")
    expected |= {name: completions[source] for name, source in COMPLETIONS.items()}
    files = shipped(wheel)
    assert sorted(expected.keys() - files.keys()) == []
    assert [name for name, data in expected.items() if files[name] != data] == []


def test_the_installed_wheel_runs_without_the_tree(
    wheel: Path, tmp_path: Path, make_repo: Callable[[str], Path]
) -> None:
    site = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(site), str(wheel)], check=True)
    repo = make_repo("repo")
    where = "import isoenv.presets; print(isoenv.presets.__path__[0])"
    env = {**os.environ, "PYTHONPATH": str(site)}
    shown = subprocess.check_output([sys.executable, "-c", where], cwd=repo, env=env, text=True)
    assert shown == f"{site}/isoenv/presets\n"
    command = [str(site / "bin/isoenv"), "exec", "2", "sh", "-c", "echo $ISOENV_INSTANCE"]
    assert subprocess.check_output(command, cwd=repo, env=env, text=True) == "2\n"
