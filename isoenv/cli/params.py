"""Arguments that several commands take, with their completion."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from isoenv.errors import IsoenvError

if TYPE_CHECKING:
    from collections.abc import Callable


class InstanceParam(click.ParamType):
    """An INSTANCE: what it names is found out later, from where the command was started."""

    name = "instance"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        param: click.Parameter,  # noqa: ARG002  # likewise
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the slots and names of the project."""
        from isoenv import instances
        from isoenv.cli import start

        try:
            caller = start.caller()
            held = start.registry(caller).leases(instances.context(caller).project)
        except IsoenvError:
            return []
        words = [(str(lease.slot), lease.name) for lease in held]
        words += [(lease.name, f"slot {lease.slot}") for lease in held]
        return [CompletionItem(w, help=h) for w, h in words if w.startswith(incomplete)]


class PortNameParam(click.ParamType):
    """The name of a port in the configuration."""

    name = "name"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        param: click.Parameter,  # noqa: ARG002  # likewise
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the port names of this checkout's configuration."""
        from isoenv import instances
        from isoenv.cli import start

        try:
            ports = instances.context(start.caller()).config.ports
        except IsoenvError:
            return []
        return [CompletionItem(name) for name in ports if name.startswith(incomplete)]


class FlagParam(click.ParamType):
    """The name of a flag in the configuration."""

    name = "flag"

    def shell_complete(
        self,
        ctx: click.Context,  # noqa: ARG002  # click's signature
        param: click.Parameter,  # noqa: ARG002  # likewise
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return the flags of this checkout's configuration."""
        from isoenv import instances
        from isoenv.cli import start

        try:
            flags = instances.context(start.caller()).config.flags
        except IsoenvError:
            return []
        return [CompletionItem(name) for name in flags if name.startswith(incomplete)]


def instance_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an optional INSTANCE."""
    return click.argument("instance", required=False, type=InstanceParam())(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
