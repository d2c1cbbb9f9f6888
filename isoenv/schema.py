"""The JSON schema 2020-12 of ``isoenv.toml``, so that editors complete and check it. Pure.

What only the whole file can tell (two equal ports, a field that names nothing) is left to
``isoenv check``.
"""

from __future__ import annotations

from typing import Any

from isoenv import names, presets, reserved, sections
from isoenv.models import Numbering, Service
from isoenv.tables import NAME

Schema = dict[str, Any]

_DEFAULT = Numbering()
_NUL_FREE = "^[^\\u0000]*$"
# Not absolute, no `..`, and more than the checkout itself.
_INSIDE = r"^(?!/)(?!(?:[^/]*/)*\.\.(?:/|$))(?!(?:\.?/)*\.?$)"
_NO_TILDE = "^(?!~(?:/|$))"
_PLAIN = "id name project root home"
_HEALTH_PORT = r"0*(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
_HEALTH = rf"^(?:https?://[^/\s]\S*|tcp:(?:{_HEALTH_PORT}|\{{[^{{}}]+\}}))$"


def document() -> Schema:
    """Return the whole schema."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "isoenv.toml",
        "description": "What every checkout of a project gets of its own: ports, variables, "
        "directories, services.",
        "type": "object",
        "additionalProperties": False,
        "properties": _properties(),
        "allOf": [_BASES_WITHOUT_PRESET],
        "$defs": _definitions(),
    }


def _properties() -> Schema:
    return {
        "project": _project(),
        "extends": {
            "description": "The built-in preset to start from; what stands here is laid over it.",
            "enum": list(presets.NAMES),
        },
        "instance": _instance(),
        "ports": _map(
            "Ports by name, each with its number in slot 0. Exported as NAME_PORT.",
            _ref("port"),
            _ref("name"),
        ),
        "env": _map(
            "Variables, in order. A value may use {id}, {name}, {project}, {root}, {home}, "
            "{ports.X}, {dirs.X} and, of a variable further up, {env.X}; {{ and }} are braces.",
            {
                "description": "The value, or false: the variable is unset.",
                "anyOf": [_template("ports", "dirs", "env"), {"const": False}],
            },
            _ref("variable"),
        ),
        "dirs": _map(
            "Directories, exported as absolute paths. Relative ones are in the checkout.",
            {
                **_path(
                    "The directory. May use {id}, {name}, {project}, {root}, {home}, {ports.X}."
                ),
                **_template("ports", empty=False),
            },
            _ref("variable"),
        ),
        "path": _table(
            "What is put in front of PATH.",
            {
                "prepend": _texts(
                    "Directories, the first one first. Relative ones are in the checkout.",
                    {**_path(), **_template("ports", "dirs", "env", empty=False), "not": _COLON},
                )
            },
        ),
        "setup": _setup(),
        "flags": _flags(),
        "templates": _map(
            "Files to write, each with the template that it is made from: ${NAME} and $NAME of "
            "this environment's variables are replaced.",
            {
                **_text("The template, relative to the checkout."),
                "not": {"pattern": "^/"},
            },
            {**_text(), "allOf": [{"pattern": _INSIDE}]},
        ),
        "services": _map("What an instance runs.", _service(), _ref("name")),
        "databases": _map("Databases by name.", _database(), {"pattern": _whole(NAME.pattern)}),
        "limits": _map("Pool limits of metrics by name.", _integer("The limit.", 0)),
    }


def _project() -> Schema:
    return {
        **_text("What this is a checkout of. Without it each repository is a project."),
        "maxLength": sections.PROJECT_LENGTH,
        "not": {"pattern": r"[:/\u0000-\u001f\u007f]|^\d+$|^\s|\s$"},
    }


def _instance() -> Schema:
    low, high = sections.PORTS
    return _table(
        "How instances are numbered, and how ports follow from the number, the slot.",
        {
            "variable": {
                "description": "The variable that carries the slot; set by the user, it decides.",
                "$ref": "#/$defs/variable",
            },
            "prefer": {
                "description": "The slot that a new checkout gets: the lowest free one, or the "
                "POSIX cksum of its name % 9 + 1 and upwards.",
                "enum": ["lowest", "cksum"],
                "default": _DEFAULT.prefer,
            },
            "ports": {
                "description": "offset: port = base + slot * stride. block: slot 0 keeps the "
                "bases, every other slot gets a block of its own from range.",
                "enum": ["offset", "block"],
                "default": _DEFAULT.ports,
            },
            "stride": {
                **_integer("How far the ports of two neighbouring slots are apart.", low, high),
                "default": _DEFAULT.stride,
            },
            "range": {
                "description": "The first and the last port for blocks, at least 10 apart.",
                "type": "array",
                "items": _integer("A port.", low, high),
                "minItems": 2,
                "maxItems": 2,
                "default": list(_DEFAULT.range),
            },
            "main": {
                "description": "The slot of the main checkout. none: it gets no environment.",
                "enum": [0, "none"],
                "default": _DEFAULT.main,
            },
            "dir": {
                **_path("The instance's own directory; by default under the state directory."),
                **_template("ports", empty=False),
            },
        },
    )


def _setup() -> Schema:
    return _table(
        "What a new instance needs once.",
        {
            "copy": _texts(
                "Ignored files to copy from the main checkout where they are missing.",
                {**_text(), "allOf": [{"pattern": _INSIDE}]},
            ),
            "run": _texts("Commands to run once, after the copying.", _text()),
        },
    )


def _flags() -> Schema:
    exclusive = {"properties": {"exclusive": {"const": True}, "others": {"const": True}}}
    flag = _table(
        "A variable that is true or false, switched by `isoenv enable` and `isoenv disable`.",
        {
            "main": _boolean("Whether it is on in slot 0."),
            "others": _boolean("Whether it is on in the other slots."),
            "exclusive": _boolean("Whether it is on in one instance of the project at a time."),
        },
    )
    flag["not"] = {**exclusive, "required": ["exclusive", "others"]}
    return _map('Variables that are "true" or "false".', flag, _ref("variable"))


def _service() -> Schema:
    service = _table(
        "A process that stays (run), or commands that return (start and stop).",
        {
            "run": _command("The process. A string is run by /bin/sh -c, a list as it is."),
            "start": _command("The command that starts the service and returns."),
            "stop": _command("The command that ends what start began."),
            "health": {
                **_text("What answers when the service is up: a URL, or tcp:PORT."),
                **_template("ports", "dirs", "env", empty=False),
                "allOf": [{"pattern": _HEALTH}],
                "examples": ["http://127.0.0.1:{ports.web}/health", "tcp:{ports.web}"],
            },
            "start_timeout": {
                "description": "Seconds to wait for health.",
                "type": "number",
                "exclusiveMinimum": 0,
                "maximum": sections.DAY,
                "default": Service("").start_timeout,
            },
            "requires": _texts("Services that are started before this one.", _text()),
        },
    )
    service["oneOf"] = [
        {"required": ["run"], "not": {"anyOf": [{"required": ["start"]}, {"required": ["stop"]}]}},
        {"required": ["start", "stop"], "not": {"required": ["run"]}},
    ]
    return service


def _database() -> Schema:
    template = _template("ports", "dirs", "env", empty=False)
    table = _table(
        "A database of each instance.",
        {
            "url": {
                "description": "postgresql:// or sqlite:///; the name in it is the instance's.",
                **template,
                "examples": ["{env.DATABASE_URL}"],
            },
            "template": {"description": "The database that a new one is a copy of.", **template},
            "shared": _boolean("Whether all instances use one."),
        },
    )
    return {**table, "required": ["url"]}


def _definitions() -> Schema:
    variable: Schema = {
        "description": "A variable that every shell lets be set.",
        "type": "string",
        "pattern": "^[A-Za-z_][A-Za-z0-9_]*$",
        "not": {
            "anyOf": [
                {"pattern": "^(?:__)?ISOENV_|^(?:__)?fish_"},
                {"enum": sorted({"PATH", "path", *reserved.REASONS})},
            ]
        },
    }
    name = {
        "description": "One plain word that is no action of the command line.",
        "type": "string",
        "pattern": _whole(NAME.pattern),
        "not": {"enum": sorted(names.SERVICE_ACTIONS)},
    }
    base = _integer("The port of slot 0.", *sections.PORTS)
    long = _table(
        "A port whose variable is not NAME_PORT.",
        {
            "base": base,
            "variable": {
                "description": "The variable it is exported as; false: none.",
                "anyOf": [_ref("variable"), {"const": False}],
            },
        },
    )
    port = {"description": "The port of slot 0, or a table with it.", "anyOf": [base, long]}
    return {"variable": variable, "name": name, "port": port}


# A preset may have the base already.
_BASES_WITHOUT_PRESET: Schema = {
    "if": {"not": {"required": ["extends"]}},
    "then": {
        "properties": {
            "ports": {
                "additionalProperties": {"if": {"type": "object"}, "then": {"required": ["base"]}}
            }
        }
    },
}
_COLON: Schema = {"pattern": ":"}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def _whole(pattern: str) -> str:
    return f"^(?:{pattern})$"


def _table(description: str, properties: Schema) -> Schema:
    return {
        "description": description,
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
    }


def _map(description: str, values: Schema, keys: Schema | None = None) -> Schema:
    table = {"description": description, "type": "object", "additionalProperties": values}
    return {**table, "propertyNames": keys} if keys else table


def _text(description: str | None = None) -> Schema:
    text: Schema = {"type": "string", "minLength": 1, "pattern": _NUL_FREE}
    return {"description": description, **text} if description else text


def _texts(description: str, items: Schema) -> Schema:
    return {"description": description, "type": "array", "items": items}


def _template(*tables: str, empty: bool = True) -> Schema:
    """Return the schema of a string whose ``{fields}`` are of these tables, or plain ones."""
    field = rf"\{{(?:{'|'.join(_PLAIN.split())}|(?:{'|'.join(tables)})\.[^{{}}\u0000]+)\}}"
    pattern = rf"^(?:[^{{}}\u0000]|\{{\{{|\}}\}}|{field})*$"
    return {"type": "string", "pattern": pattern, **({} if empty else {"minLength": 1})}


def _path(description: str | None = None) -> Schema:
    path: Schema = {"allOf": [{"pattern": _NO_TILDE}]}
    return {"description": description, **path} if description else path


def _command(description: str) -> Schema:
    word = _template("ports", "dirs", "env")
    first = {**word, "minLength": 1}
    words = {"type": "array", "minItems": 1, "prefixItems": [first], "items": word}
    return {"description": description, "anyOf": [first, words]}


def _integer(description: str, low: int, high: int | None = None) -> Schema:
    limits = {"minimum": low} if high is None else {"minimum": low, "maximum": high}
    return {"description": description, "type": "integer", **limits}


def _boolean(description: str) -> Schema:
    return {"description": description, "type": "boolean", "default": False}
