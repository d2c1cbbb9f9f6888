"""Files of settings: .env, .env.example and their like."""

from __future__ import annotations

import re

from isoenv.detection.evidence import Place, Setting

# What a person writes is shorter, in settings of a file and in characters.
SETTINGS, NAME, VALUE = 500, 100, 1000

_FILE = re.compile(r"\.env(?:\.[a-z]+)*|env\.(?:example|sample|template|dist)")
_ELSEWHERE = frozenset({"prod", "production", "staging", "stage", "test", "testing", "ci", "e2e"})
# What a repository shares; every other such file is the user's own.
_SHARED = frozenset(
    {"example", "sample", "template", "dist", "default", "defaults", "dev", "development"}
)
_LINE = re.compile(
    r"""^[ \t]*(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)[ \t]*=[ \t]*"""
    r"""(?:'([^']*)'|"((?:\\[\s\S]|[^"\\])*)"|([^\n]*))""",
    re.MULTILINE,
)


def is_settings(name: str) -> bool:
    """Whether a file of this name holds settings for work on this machine."""
    return bool(_FILE.fullmatch(name)) and not _ELSEWHERE & set(name.split("."))


def is_private(name: str) -> bool:
    """Whether a file of settings is by its name the user's own, so that it may hold secrets."""
    words = set(name.rpartition("/")[2].split("."))
    return not words & _SHARED or ("local" in words and not words & {"example", "sample"})


def parse(text: str, file: str) -> list[Setting]:
    """Return the settings of a file, of each name the last; what is none is passed over."""
    private = is_private(file)
    found: dict[str, Setting] = {}
    line, at = 1, 0
    text = text.replace("\r\n", "\n")
    for match in _LINE.finditer(text):
        line += text.count("\n", at, match.start(1))
        at = match.start(1)
        name, single, double, plain = match.groups()
        if single is not None:
            value = single
        elif double is not None:
            value = re.sub(r"\\(.)", r"\1", double)
        else:
            value = re.sub(r"(?:^|[ \t])#.*", "", plain).strip()
        if len(name) <= NAME and len(value) <= VALUE:
            found[name] = Setting(name, value, Place(file, line), private, single is not None)
    return list(found.values())[:SETTINGS]
