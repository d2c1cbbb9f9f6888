"""The shape of the package: a pure core, IO at the edge, and only the commands print."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = Path(__file__).resolve().parents[1] / "isoenv"

MODULES = {
    str(file.relative_to(PACKAGE).with_suffix("")): file for file in sorted(PACKAGE.rglob("*.py"))
}

PURE_NAMES = {
    *(
        "allocator",
        "columns",
        "config",
        "envdiff",
        "errors",
        "models",
        "names",
        "positions",
        "reserved",
    ),
    *("resolver", "sections", "services/order", "tables", "template"),
    *("databases/address", "databases/isolation", "databases/marks", "databases/naming"),
}
PURE = {name for name in MODULES if name in PURE_NAMES or name.startswith("shells/")}

IMPURE = {
    *("click", "git", "os", "pathlib", "platformdirs", "psutil", "rich", "shutil", "socket"),
    *("sqlite3", "subprocess"),
}

# What runs before the commands do, or instead of them.
ENTRY = {"__main__", "launch", "services/become"}

each_module = pytest.mark.parametrize("name", sorted(MODULES))


def parsed(name: str) -> ast.Module:
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def is_for_typing(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def running(node: ast.AST) -> Iterator[ast.AST]:
    """Walk what runs: all but the branches that only a type checker reads."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not is_for_typing(child):
            yield from running(child)


def imports(name: str) -> set[str]:
    """Name each module that a module imports when it runs, at the top or late."""
    found: set[str] = set()
    for node in running(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def prints(node: ast.AST) -> bool:
    """Whether a node of the syntax tree writes to standard output or standard error."""
    return (isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "click.echo"}) or (
        isinstance(node, ast.Attribute) and ast.unparse(node) in {"sys.stdout", "sys.stderr"}
    )


def test_the_pure_core_is_all_there() -> None:
    assert PURE_NAMES <= PURE
    assert "shells/posix" in PURE


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_pure_core_imports_no_module_that_does_io(name: str) -> None:
    assert {module.partition(".")[0] for module in imports(name)} & IMPURE == set()


@pytest.mark.parametrize("name", sorted(PURE))
def test_the_pure_core_imports_nothing_else_of_the_package(name: str) -> None:
    ours = {module.removeprefix("isoenv.").replace(".", "/") for module in imports(name)}
    pure = {module.removesuffix("/__init__") for module in PURE}
    assert {module for module in ours if module in MODULES} - pure == set()


@each_module
def test_only_the_commands_print(name: str) -> None:
    if not name.startswith("cli/") and name not in ENTRY:
        lines = [getattr(node, "lineno", 0) for node in running(parsed(name)) if prints(node)]
        assert lines == []


@each_module
def test_only_the_commands_import_click_and_rich(name: str) -> None:
    if not name.startswith("cli/") and name not in ENTRY:
        assert {module.partition(".")[0] for module in imports(name)} & {"click", "rich"} == set()


@each_module
def test_no_module_is_named_after_nothing(name: str) -> None:
    assert set(name.split("/")) & {"utils", "util", "helpers", "common", "manager", "misc"} == set()


@each_module
def test_each_module_says_what_it_is(name: str) -> None:
    assert ast.get_docstring(parsed(name))


@each_module
def test_each_module_is_short(name: str) -> None:
    length = len(MODULES[name].read_text(encoding="utf-8").splitlines())
    assert length <= 350
