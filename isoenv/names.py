"""The words that the command line takes for itself, so that no instance may be called by them."""

from __future__ import annotations

SERVICE_ACTIONS = frozenset({"start", "stop", "status", "restart", "logs"})
# `api` is the one service that has a command of its own.
RESERVED = SERVICE_ACTIONS | {".", "api"}
