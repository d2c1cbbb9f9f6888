"""Write the files of ``[templates]``."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from isoenv import template
from isoenv.errors import IsoenvError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from isoenv.models import Config, Environment


def render(config: Config, environment: Environment, targets: Iterable[str]) -> list[str]:
    """Write each target, or all of them for none named, and return their paths.

    All sources are read before the first target is written, and a target is replaced whole.
    """
    root = environment.instance.root
    wanted = list(targets) or list(config.templates)
    contents: dict[str, tuple[bytes, int]] = {}
    variables = {
        os.fsencode(name): os.fsencode(value)
        for name, value in environment.variables.items()
        if value is not None
    }
    for target in wanted:
        if target not in config.templates:
            known = ", ".join(config.templates) or "none"
            raise NotFoundError(f"no template for {target}: isoenv.toml has {known}")
        source = f"{root}/{config.templates[target]}"
        try:
            with open(source, "rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                contents[f"{root}/{target}"] = template.substitute(file.read(), variables), mode
        except OSError as error:
            raise IsoenvError(f"cannot read {source}: {error.strerror}") from None
    for path, (content, mode) in contents.items():
        _replace(path, content, mode)
    return list(contents)


def _replace(path: str, content: bytes, mode: int) -> None:
    temporary = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(temporary, "xb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
        os.rename(temporary, path)
    except OSError as error:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise IsoenvError(f"cannot write {path}: {error.strerror}") from None
