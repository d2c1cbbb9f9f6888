"""Print the JSON schema of isoenv.toml."""

from __future__ import annotations

import json

import click

from isoenv import schema
from isoenv.cli import output


@click.command("schema")
def command() -> None:
    """Print the JSON schema (2020-12) of isoenv.toml, so that editors complete it.

    Editors that use taplo read it from a line in isoenv.toml: `#:schema` and the file's path.

    \b
    Example:
      isoenv schema > ~/.config/isoenv/isoenv.schema.json
    """
    output.write(json.dumps(schema.document(), indent=2, ensure_ascii=False) + "\n")
