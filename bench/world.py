"""A home of its own with a repository, linked worktrees, and each tool's file in them."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tools import call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tools import Tool

PORTS = {
    "NGINX": 80,
    "WHATSAPP": 4097,
    "DASHBOARD": 4098,
    "OPENCODE": 4099,
    "VITE": 5173,
    "POSTGRES": 5432,
    "MINIO_API": 9000,
    "MINIO_CONSOLE": 9001,
}
STRIDE = 1000
PATH_ENTRY = ".venv/bin"

_ISOENV_TOML = f"""\
project = "shop"
[instance]
stride = {STRIDE}
[ports]
{"".join(f"{name.lower()} = {base}" + chr(10) for name, base in PORTS.items())}
[env]
COMPOSE_PROJECT_NAME = "shop-{{id}}"
POSTGRES_DB = "shop_{{id}}"
DATABASE_URL = "postgresql://shop:shop@localhost:{{ports.postgres}}/{{env.POSTGRES_DB}}"
S3_BUCKET = "shop-data-{{id}}"
[path]
prepend = ["{PATH_ENTRY}"]
"""


def variables(slot: int) -> dict[str, str]:
    """Return the twelve variables of an instance."""
    ports = {f"{name}_PORT": base + slot * STRIDE for name, base in PORTS.items()}
    return {
        **{name: str(port) for name, port in ports.items()},
        "COMPOSE_PROJECT_NAME": f"shop-{slot}",
        "POSTGRES_DB": f"shop_{slot}",
        "DATABASE_URL": f"postgresql://shop:shop@localhost:{ports['POSTGRES_PORT']}/shop_{slot}",
        "S3_BUCKET": f"shop-data-{slot}",
    }


class World:
    """A home directory without configuration, and an environment that leads nowhere else."""

    def __init__(self) -> None:
        """Make the home."""
        self.home = Path(tempfile.mkdtemp(prefix="isoenv-bench-")).resolve()
        self.environ = {
            "HOME": str(self.home),
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "LC_ALL": "C.UTF-8",
            "TERM": "xterm",
            "INPUTRC": "/dev/null",
            "ISOENV_HOST_DIR": str(self.home / "host"),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            # No look for newer versions of itself or of tools.
            "MISE_OFFLINE": "1",
            **{f"GIT_{who}_NAME": "bench" for who in ("AUTHOR", "COMMITTER")},
            **{f"GIT_{who}_EMAIL": "bench@example.org" for who in ("AUTHOR", "COMMITTER")},
        }

    def __enter__(self) -> Self:
        """Return the world itself."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Remove the home with all that is in it."""
        shutil.rmtree(self.home, ignore_errors=True)

    def run(self, *argv: str, cwd: str | Path | None = None, **environ: str) -> str:
        """Run a command that has to succeed, at home; return what it printed."""
        return call(list(argv), env={**self.environ, **environ}, cwd=cwd or self.home)

    def directory(self, name: str) -> str:
        """Make a directory below the home."""
        path = self.home / name
        path.mkdir(parents=True, exist_ok=True)
        return str(path)

    def repository(self, name: str, files: Mapping[str, str]) -> str:
        """Make a git repository with these files committed."""
        root = self.directory(name)
        self.run("git", "init", "--quiet", "--initial-branch=main", "--template=", cwd=root)
        for file, content in files.items():
            Path(root, file).write_text(content, encoding="utf-8")
        self.run("git", "add", "--force", "--all", cwd=root)
        self.run("git", "commit", "--quiet", "--allow-empty", "--message=first", cwd=root)
        return root

    def worktree(self, repository: str, name: str) -> str:
        """Add a linked worktree beside a repository."""
        root = str(Path(repository).parent / name)
        self.run("git", "worktree", "add", "--quiet", "--detach", root, cwd=repository)
        return root

    def hook(self, tool: Tool, shell: str) -> str:
        """Write a tool's hook to a file, and return it."""
        file = self.home / f".hook-{tool.name}.{shell}"
        file.write_text(self.run(tool.executable, tool.hook, shell), encoding="utf-8")
        return str(file)


def shop(world: World, tools: Sequence[Tool]) -> tuple[str, str]:
    """Make two checkouts in which every tool sets the same twelve variables, and is trusted."""
    main = world.repository("code/shop", {"isoenv.toml": _ISOENV_TOML, ".gitignore": ".venv/\n"})
    checkouts = (main, world.worktree(main, "shop-search"))
    for slot, checkout in enumerate(checkouts):
        world.directory(f"{checkout}/{PATH_ENTRY}")
        for tool in tools:
            if tool.name != "isoenv":
                text = tool.spell(variables(slot), PATH_ENTRY)
                Path(checkout, tool.file).write_text(text, encoding="utf-8")
            world.run(tool.executable, tool.trust, cwd=checkout)
    # In this order: isoenv leases the lowest free slot.
    for slot, checkout in enumerate(checkouts):
        for tool in tools:
            _check(world.run(*tool.exec("env"), cwd=checkout), slot, checkout, tool)
    return checkouts


def _check(printed: str, slot: int, checkout: str, tool: Tool) -> None:
    found = dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)
    expected = variables(slot)
    wrong = {name: found.get(name) for name in expected if found.get(name) != expected[name]}
    if wrong or f"{checkout}/{PATH_ENTRY}" not in found["PATH"].split(":"):
        raise RuntimeError(f"{tool.name} in {checkout} sets {wrong}, PATH={found['PATH']}")
