"""Write the files of ``[templates]``."""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from isoenv import files, template
from isoenv.errors import IsoenvError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isoenv.models import Config, Environment

# The largest template that is read, in bytes.
LIMIT = 1 << 24


def render(config: Config, environment: Environment, targets: Iterable[str]) -> list[str]:
    """Write each target, or all of them for none named, and return their paths.

    All sources are read before the first target is written, and a target is replaced whole.
    """
    root = environment.instance.root
    wanted = check(config, targets)
    contents: dict[str, tuple[bytes, int]] = {}
    variables = {
        os.fsencode(name): os.fsencode(value)
        for name, value in environment.variables.items()
        if value is not None
    }
    for target in wanted:
        source = f"{root}/{config.templates[target]}"
        text = files.read(source, LIMIT)
        if text is None:
            raise IsoenvError(f"no template {source}: `[templates]` of isoenv.toml names it")
        mode = stat.S_IMODE(os.stat(source).st_mode)
        contents[f"{root}/{target}"] = template.substitute(text, variables), mode
    for path, (content, mode) in contents.items():
        _replace(path, content, mode)
    return list(contents)


def check(config: Config, targets: Iterable[str]) -> list[str]:
    """Return the targets that are meant, all for none named."""
    for target in targets:
        if target not in config.templates:
            known = ", ".join(config.templates) or "none"
            raise NotFoundError(f"no template for {target}: isoenv.toml has {known}")
    return list(targets) or list(config.templates)


def _replace(path: str, content: bytes, mode: int) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        os.rename(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise IsoenvError(f"cannot write {path}: {files.reason(error)}") from None
