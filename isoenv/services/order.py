"""In which order services start: that of the file, and what one requires before it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from isoenv.models import Service


def named(services: Mapping[str, Service], names: Iterable[str]) -> list[str]:
    """Return the services that are meant, in the order of the file; all for none named."""
    wanted = list(names)
    for name in wanted:
        if name not in services:
            known = ", ".join(services) or "none"
            raise NotFoundError(f"no service {name}: isoenv.toml has {known}")
    return [name for name in services if not wanted or name in wanted]


def starting(services: Mapping[str, Service], names: Iterable[str]) -> list[str]:
    """Return the services that are meant and all they require, in the order of starting.

    What is required comes first, else the order is that of the file. Circles are refused with
    the configuration.
    """
    found: dict[str, None] = {}

    def add(name: str) -> None:
        if name in found:
            return
        for other in services:
            if other in services[name].requires:
                add(other)
        found[name] = None

    for name in named(services, names):
        add(name)
    return list(found)


def stopping(services: Mapping[str, Service], names: Iterable[str]) -> list[str]:
    """Return the services that are meant, in the reverse order of starting."""
    meant = named(services, names)
    return [name for name in reversed(starting(services, ())) if name in meant]
