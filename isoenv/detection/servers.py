"""Servers that a machine has one of, unless a checkout starts its own."""

from __future__ import annotations

import re

_PORTS = {
    1025: "smtp",
    1433: "mssql",
    3306: "mysql",
    4222: "nats",
    5432: "postgres",
    5672: "rabbitmq",
    6379: "redis",
    8123: "clickhouse",
    9092: "kafka",
    9200: "elasticsearch",
    11211: "memcached",
    27017: "mongodb",
}
_WORDS = {
    **{name: name for name in _PORTS.values()},
    **dict.fromkeys(("postgresql", "postgis", "pg"), "postgres"),
    **dict.fromkeys(("mariadb", "mysql2", "trilogy"), "mysql"),
    **dict.fromkeys(("mongo", "mongodb+srv"), "mongodb"),
    **dict.fromkeys(("rediss", "valkey"), "redis"),
    **dict.fromkeys(("amqp", "amqps"), "rabbitmq"),
    **dict.fromkeys(("smtps", "mail", "mailhog", "email"), "smtp"),
}
_SCHEME = re.compile(r"([a-z][a-z0-9]*)(?:\+[a-z0-9]+)?://", re.IGNORECASE)
_PORTLESS = re.compile(
    r"(([a-z][a-z0-9]*)(?:\+[a-z0-9]+)?://(?:[^/@\s]*@)?(?:localhost|127\.0\.0\.1))(?=[/?#]|$)",
    re.IGNORECASE,
)
# The ports of mail servers, which are nearly always somebody else's.
MAIL = frozenset({25, 143, 465, 587, 993, 995, 2525})


def kind(variable: str, value: str, port: int) -> str | None:
    """Return what kind of server a variable is about, None for one of the project's own."""
    if match := _SCHEME.match(value):
        scheme = match[1].lower()
        return _WORDS.get(scheme, None if scheme.startswith("http") else _PORTS.get(port))
    words = variable.lower().split("_")
    named = next((_WORDS[word] for word in words if word in _WORDS), None)
    return named or _PORTS.get(port) or ("database" if {"db", "database"} & set(words) else None)


def with_port(value: str) -> str:
    """Return the address of a local server with its port, where it leaves the usual one out."""
    match = _PORTLESS.match(value)
    kind = _WORDS.get(match[2].lower()) if match else None
    port = next((port for port, name in _PORTS.items() if name == kind), None)
    return f"{match[1]}:{port}{value[match.end() :]}" if match and port else value
