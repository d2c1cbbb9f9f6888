"""Find and read the files of a checkout that say something about its ports."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from isoenv import files
from isoenv.detection import compose, dotenv, interpolation, package_json, procfile
from isoenv.detection.evidence import Place, Remark, Setting, Sighting
from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Bytes of a file, levels below the root, directories, and files that are read.
SIZE, DEPTH, DIRECTORIES, FILES = 256 * 1024, 3, 400, 100

# Variables by which projects number their instances already.
INSTANCE_VARIABLES = ("AI_INSTANCE_ID", "SKYPILOT_INSTANCE_ID")

_SKIPPED = frozenset(
    (
        *("node_modules", "bower_components", "vendor", "third_party", "site-packages"),
        *("venv", "env", "dist", "build", "target", "out", "tmp", "log", "logs", "coverage"),
        *("test", "tests", "spec", "__tests__", "e2e", "fixtures", "testdata"),
        *("examples", "example", "samples", "templates", "docs", "doc"),
        # As of files: what is for another machine says nothing about this one.
        *("prod", "production", "staging", "testing", "ci", "deploy", "deployment"),
    )
)
_SHOWN = frozenset({".docker", ".devcontainer"})
_PROCFILES = ("Procfile.dev", "Procfile.development", "Procfile.local", "Procfile")
_SCRIPT = re.compile(r".*\.sh|Makefile|[Jj]ustfile|conductor\.json|package\.json|dev")


@dataclass
class Evidence:
    """All that a checkout shows. ``settings`` has the user's own in front of the shared ones.

    ``literals`` are values that everybody can read in the repository. ``instance`` is the first
    use of a variable of INSTANCE_VARIABLES.
    """

    stacks: list[compose.Stack] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    unread: list[Remark] = field(default_factory=list)
    instance: tuple[str, Place] | None = None

    @property
    def literals(self) -> set[str]:
        """Return the values that everybody can read in the repository."""
        shared = {setting.value for setting in self.settings if not setting.private}
        return shared.union(*(stack.literals for stack in self.stacks))


def scan(root: str) -> Evidence:
    """Read what there is, in an order that does not depend on the disk.

    What cannot be read, or leads out of the checkout, is passed over with a remark.
    """
    return _Scan(root).evidence()


class _Scan:
    def __init__(self, root: str) -> None:
        self._root = os.path.realpath(root)
        self._found = Evidence()
        self._texts: dict[str, str] = {}
        # What a variable has where nobody sets it.
        self._defaults: dict[str, str] = {}

    def evidence(self) -> Evidence:
        found = self._found
        for path in self._paths():
            if (text := self._read(path)) is not None:
                self._texts[path] = text
        settings = [path for path in self._texts if dotenv.is_settings(os.path.basename(path))]
        shared = self._tracked([path for path in settings if dotenv.is_private(path)])
        for path in settings:
            parsed = dotenv.parse(self._texts[path], path)
            found.settings += (
                [replace(setting, private=False) for setting in parsed]
                if path in shared
                else parsed
            )
        found.settings.sort(key=_weakness)
        for path, text in self._texts.items():
            for line, name, value in interpolation.defaults(text)[: dotenv.SETTINGS]:
                self._defaults.setdefault(name, value)
                if compose.is_compose(os.path.basename(path)):
                    found.settings.append(Setting(name, value, Place(path, line)))
        for path, text in self._texts.items():
            self._see(path, text)
        found.instance = self._instance()
        return found

    def _tracked(self, paths: list[str]) -> set[str]:
        """Return which files are in the repository: everybody has them, whatever their name."""
        if not paths:
            return set()
        try:
            from git import Git
            from git.exc import GitError
        except ImportError:
            # GitPython cannot be imported where there is no git.
            return set()
        try:
            argv = ["git", "ls-files", "-z", "--", *paths]
            listed = Git(self._root).execute(argv, stdout_as_string=False)
        except (GitError, OSError):
            return set()
        return set(os.fsdecode(listed).split("\0"))

    def _see(self, path: str, text: str) -> None:
        directory, name = os.path.split(path)
        values = self._values(directory)
        readers: dict[str, Callable[[str, str, Mapping[str, str]], list[Sighting]]] = {
            "package.json": package_json.parse,
            "conductor.json": package_json.parse,
            **dict.fromkeys(_PROCFILES, procfile.parse),
        }
        try:
            if compose.is_compose(name):
                self._found.stacks.append(compose.parse(text, path, values))
            elif name in readers:
                self._found.sightings += readers[name](text, path, values)
        except ValueError as error:
            line = re.match(r"line (\d+): ", str(error))
            place = Place(path, int(line[1]) if line else 1)
            reason = str(error)[line.end() :] if line else str(error)
            self._found.unread.append(Remark(place, f"not read: {reason}"))

    def _values(self, directory: str) -> dict[str, str]:
        """Return the settings for a directory: its own beat the root's, the user's the shared."""
        values = dict(self._defaults)
        for where in ("", directory):
            for setting in reversed(self._found.settings):
                if setting.place.directory == where:
                    values[setting.name] = setting.value
        return values

    def _instance(self) -> tuple[str, Place] | None:
        for name in INSTANCE_VARIABLES:
            word = re.compile(rf"\b{name}\b")
            for path, text in self._texts.items():
                if match := word.search(text):
                    return name, Place(path, text.count("\n", 0, match.start()) + 1)
        return None

    def _read(self, path: str) -> str | None:
        full = os.path.join(self._root, path)
        text, reason = None, None
        try:
            if self._is_inside(full):
                raw = files.read(full, SIZE)
                text = None if raw is None else raw.decode().removeprefix("\ufeff")
            else:
                reason = "it leads out of the checkout"
        except UnicodeDecodeError:
            reason = "it is not UTF-8"
        except IsoenvError as error:
            reason = str(error).removeprefix(f"cannot read {full}: ").partition(": `")[0]
        if text and "\0" in text:
            reason = "it holds NUL"
        if reason is None:
            return text
        self._found.unread.append(Remark(Place(path, 1), f"not read: {reason}"))
        return None

    def _is_inside(self, path: str) -> bool:
        """Whether a file is in the checkout, wherever links lead."""
        real = os.path.realpath(path)
        return os.path.commonpath([self._root, real]) == self._root

    def _paths(self) -> list[str]:
        """Return the files to read, those of upper directories first."""
        paths: list[str] = []
        level = [""]
        seen = 0
        for depth in range(DEPTH + 1):
            below: list[str] = []
            for directory in level:
                seen += 1
                if seen > DIRECTORIES:
                    break
                names, inner = self._list(directory)
                paths += [os.path.join(directory, name) for name in _wanted(names, directory)]
                below += [os.path.join(directory, name) for name in inner]
            level = below if depth < DEPTH else []
        if len(paths) > FILES:
            place = Place(paths[FILES], 1)
            self._found.unread.append(Remark(place, f"not read: more than {FILES} files"))
        return paths[:FILES]

    def _list(self, directory: str) -> tuple[list[str], list[str]]:
        """Return the names of files and of directories worth a look, sorted."""
        names: list[str] = []
        inner: list[str] = []
        try:
            with os.scandir(os.path.join(self._root, directory)) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        names.append(entry.name)
                    elif self._is_ours(entry):
                        inner.append(entry.name)
        except OSError:
            return [], []
        return sorted(names), sorted(inner)

    @staticmethod
    def _is_ours(entry: os.DirEntry[str]) -> bool:
        name = entry.name
        if name in _SKIPPED or (name.startswith(".") and name not in _SHOWN):
            return False
        # A nested repository, a submodule or a worktree is a checkout of its own.
        return not os.path.lexists(f"{entry.path}/.git")


def _weakness(setting: Setting) -> tuple[bool, bool]:
    return not setting.private, ".local" not in setting.place.file


def _wanted(names: list[str], directory: str) -> Iterator[str]:
    process = next((name for name in _PROCFILES if name in names), None)
    for name in names:
        is_script = _SCRIPT.fullmatch(name) and name != "package.json"
        if (
            compose.is_compose(name)
            or name in (process, "package.json")
            or (dotenv.is_settings(name) or (is_script and directory in ("", "bin", "scripts")))
        ):
            yield name
