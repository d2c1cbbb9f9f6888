"""Arguments that several commands take, with their completion."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from isoenv.errors import IsoenvError
from isoenv.names import SERVICE_ACTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from isoenv.context import Context


class _Completed(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4 alone
    """An argument whose candidates come from the place that the command would be started in."""

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002  # click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        """Return what begins with ``incomplete``; nothing where the place cannot be read."""
        try:
            found = list(self.candidates(_place(ctx)))
        except (IsoenvError, OSError):
            return []
        return [item for item in found if str(item.value).startswith(incomplete)]

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield all candidates."""
        raise NotImplementedError


def _place(ctx: click.Context) -> Context:
    """Return where the command line would have an effect: in the directory of ``-C``."""
    from isoenv import context
    from isoenv.cli import start

    caller = context.Caller(os.getcwd(), os.environ, start.say)
    directory = ctx.find_root().params.get("directory")
    if directory:
        caller = context.Caller(os.path.join(caller.directory, directory), os.environ, start.say)
    return context.find(caller)


class InstanceParam(_Completed):
    """An INSTANCE: what it names is found out later, from where the command was started."""

    name = "instance"

    def convert(
        self,
        value: Any,  # noqa: ANN401  # click's signature
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Refuse an empty one: an unset variable of a script must not mean "here"."""
        if not value:
            self.fail("it is empty: `.` is the instance of the current directory", param, ctx)
        return str(value)

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the slots and names of the project."""
        from isoenv import paths
        from isoenv.registry import Registry

        # Looking must not make a registry.
        if not os.path.exists(paths.registry_file(place.caller.state)):
            return
        with Registry(place.caller.state, mend=False) as registry:
            leases = registry.leases(place.project)
        for lease in leases:
            yield CompletionItem(str(lease.slot), help=lease.name)
        for lease in leases:
            yield CompletionItem(lease.name, help=f"slot {lease.slot}")


class OperandParam(InstanceParam):
    """An INSTANCE or a service: which of them is known when the configuration is."""

    name = "operand"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the services of this checkout's configuration, and the instances."""
        yield from map(CompletionItem, place.config.services)
        yield from super().candidates(place)


class ActionParam(InstanceParam):
    """An INSTANCE or what to do with the service `api`."""

    name = "action"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the actions, and the instances."""
        yield from map(CompletionItem, sorted(SERVICE_ACTIONS))
        yield from super().candidates(place)


class PortNameParam(_Completed):
    """The name of a port in the configuration."""

    name = "name"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the port names of this checkout's configuration."""
        yield from map(CompletionItem, place.config.ports)


class FlagParam(_Completed):
    """The name of a flag in the configuration."""

    name = "flag"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the flags of this checkout's configuration."""
        yield from map(CompletionItem, place.config.flags)


class DatabaseParam(_Completed):
    """The name of a database in the configuration."""

    name = "name"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the databases of this checkout's configuration."""
        yield from map(CompletionItem, place.config.databases)


class TargetParam(_Completed):
    """A file that ``[templates]`` writes."""

    name = "template"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the targets of this checkout's configuration."""
        yield from map(CompletionItem, place.config.templates)


class SessionParam(_Completed):
    """A session, by name or id."""

    name = "session"

    def candidates(self, place: Context) -> Iterator[CompletionItem]:
        """Yield the names and ids of the live sessions."""
        from isoenv import paths
        from isoenv.coordination import registering
        from isoenv.coordination.store import open_store

        # Looking must not make a database.
        if not paths.has_store(os.environ, place.caller.state):
            return
        for record in registering.live(open_store(place.caller.state)):
            yield CompletionItem(record.title, help=record.state)


def session_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--session``."""
    return click.option(
        "--session", type=SessionParam(), help="The session, by name or id; else ISOENV_SESSION."
    )(command)


def _labels(
    _ctx: click.Context, _param: click.Parameter, values: tuple[str, ...]
) -> dict[str, str]:
    labels = {}
    for value in values:
        key, equals, text = value.partition("=")
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is no label: KEY=VALUE is one")
        labels[key] = text
    return labels


def label_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--label K=V``, any number of times, as a dict."""
    return click.option(
        "--label", "labels", metavar="K=V", multiple=True, callback=_labels, help="A label."
    )(command)


def instance_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add an optional INSTANCE."""
    return click.argument("instance", required=False, type=InstanceParam())(command)


def services_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``[INSTANCE] [SERVICE]...`` as ``operands``."""
    return click.argument(
        "operands", nargs=-1, metavar="[INSTANCE] [SERVICE]...", type=OperandParam()
    )(command)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--follow`` and ``--lines``."""
    command = click.option(
        "-n",
        "--lines",
        default=100,
        show_default=True,
        type=click.IntRange(0),
        help="So many lines of each log.",
    )(command)
    return click.option(
        "-f", "--follow", is_flag=True, help="Go on with what comes, until Ctrl-C."
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)
