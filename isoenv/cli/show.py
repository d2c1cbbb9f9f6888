"""Show one environment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isoenv import instances, resolver, shells
from isoenv.cli import output, params, start

if TYPE_CHECKING:
    from isoenv.models import Environment

FORMATS = ("table", "json", "dotenv", "bash", "zsh", "fish")


@click.command("show")
@params.instance_argument
@click.option("--format", "style", type=click.Choice(FORMATS), default="table", show_default=True)
@click.option("--json", "style", flag_value="json", help="The same as --format json.")
@click.option("--reveal", is_flag=True, help="Show passwords in the table.")
def command(instance: str | None, style: str, *, reveal: bool) -> None:
    """Show the environment of INSTANCE, by default that of the current directory.

    A number that nobody holds is shown as it would be; nothing is leased for it. Passwords in
    URLs are masked in the table.

    \b
    Example:
      isoenv show
      isoenv show 2 --format json
      isoenv show feature-auth --format dotenv > .env.feature
    """
    caller = start.here(instance)
    with start.registry(caller) as registry:
        selected = instances.select(caller, registry, instance, lease=False)
        environment = instances.environment(selected, registry)
    variables = environment.variables
    if style == "json":
        output.write_json(describe(environment) | {"env": dict(variables)})
    elif style == "table":
        _write_table(environment, reveal=reveal)
    elif style == "dotenv":
        output.write_statements(shells.DOTENV, variables.items())
    else:
        changed = output.plain_changes(variables, environment.path_prepend)
        output.write_statements(shells.named(style), changed)


def describe(environment: Environment) -> dict[str, object]:
    """Return what JSON says of an instance, without its variables."""
    found = environment.instance
    return {
        "project": found.project.name,
        "slot": found.slot,
        "name": found.name,
        "root": found.root,
        "trusted": True,
        "ports": dict(found.ports),
        "dirs": dict(environment.dirs),
        "urls": dict(environment.urls),
        "flags": dict(found.flags),
    }


def _write_table(environment: Environment, *, reveal: bool) -> None:
    found = environment.instance
    if not environment.variables:
        start.say(f"{found.project.name}/{found.slot} is left as it is: it has no environment")
        return
    rows = []
    for name, value in environment.variables.items():
        shown = "(unset)" if value is None else value if reveal else resolver.mask(value)
        rows.append((name, shown))
    rows += [("PATH", f"{entry}:…") for entry in environment.path_prepend]
    output.write_table(("VARIABLE", "VALUE"), rows)
