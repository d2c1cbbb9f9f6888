"""The status line, from given numbers: four forms to the letter, and its parts one by one."""

from __future__ import annotations

TYPE_CHECKING = False  # importing typing costs a status line more than all of this
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypedDict

    class Numbers(TypedDict, total=False):
        """What a status line may show; None, like what is missing, is left out."""

        current_agents: float | None
        total_agents: float | None
        instance_count: int | None
        tokens_used: float | None
        tokens_total: float | None
        percentage: float | None
        confidence: float | None
        status: str | None
        model: str | None
        cost: float | None
        worktree: str | None


OPTIMAL = "\N{LARGE GREEN CIRCLE} OPTIMAL"
HIGH = "\N{LARGE YELLOW CIRCLE} HIGH"
CRITICAL = "\N{LARGE RED CIRCLE} CRITICAL"
# From so many percent of the context window on it is said.
HIGH_FROM, CRITICAL_FROM = 80.0, 95.0

STYLES = ("full", "compact", "json")
SEGMENTS = ("agents", "tokens", "confidence", "status", "model", "cost", "worktree")
_SEPARATOR = " | "


def format_status(  # noqa: PLR0913  # what a line may show
    *,
    current_agents: float | None = None,
    total_agents: float | None = None,
    instance_count: int | None = None,
    tokens_used: float | None = None,
    tokens_total: float | None = None,
    confidence: float | None = None,
    status: str | None = None,
    model: str | None = None,
    cost: float | None = None,
    worktree: str | None = None,
    style: str = "full",
    shared: bool = False,
) -> str:
    """Return the status line of given numbers, without a line end; None is left out.

    ``current_agents`` are this session's, ``total_agents`` those of all ``instance_count``
    sessions; ``confidence`` is in percent, ``cost`` in US dollars. ``style`` is full, compact or
    json; ``shared`` shows the total alone.
    """
    numbers: Numbers = {
        "current_agents": current_agents,
        "total_agents": total_agents,
        "instance_count": instance_count,
        "tokens_used": tokens_used,
        "tokens_total": tokens_total,
        "confidence": confidence,
        "status": status,
        "model": model,
        "cost": cost,
        "worktree": worktree,
    }
    return formatted(numbers, style, shared=shared)


def formatted(numbers: Numbers, style: str = "full", *, shared: bool = False) -> str:
    """Return a line in one of the styles."""
    if style == "json":
        return _json(numbers, shared=shared)
    parts = segments(numbers, shared=shared)
    if style == "compact":
        return _compact(numbers, shared=shared)
    return _SEPARATOR.join(parts[name] for name in SEGMENTS if name in parts)


def segments(numbers: Numbers, *, shared: bool = False) -> dict[str, str]:
    """Return the parts of the full line by name."""
    parts = {}
    if agents := _agents(numbers, " ", shared=shared):
        parts["agents"] = f"Agents: {agents}"
    if tokens := _tokens(numbers):
        parts["tokens"] = f"Tokens: {tokens}"
    if (confidence := numbers.get("confidence")) is not None:
        parts["confidence"] = f"Conf: {confidence:.1f}%"
    if status := numbers.get("status"):
        parts["status"] = f"Status: {status}"
    if model := numbers.get("model"):
        parts["model"] = f"Model: {model}"
    if (cost := numbers.get("cost")) is not None:
        parts["cost"] = f"Cost: ${cost:.2f}"
    if worktree := numbers.get("worktree"):
        parts["worktree"] = f"Worktree: {worktree}"
    return parts


def judged(numbers: Numbers) -> str:
    """Return the status that follows from how full the context window is."""
    percentage = _percentage(numbers) or 0.0
    if percentage >= CRITICAL_FROM:
        return CRITICAL
    return HIGH if percentage >= HIGH_FROM else OPTIMAL


def fields(numbers: Numbers) -> dict[str, str]:
    """Return what a template may name; what is left out is empty."""
    percentage, confidence = _percentage(numbers), numbers.get("confidence")
    cost = numbers.get("cost")
    return {
        "agents": _plain(numbers.get("current_agents")),
        "total": _plain(numbers.get("total_agents")),
        "sessions": _plain(numbers.get("instance_count")),
        "tokens_used": _short(numbers.get("tokens_used")),
        "tokens_total": _short(numbers.get("tokens_total")),
        "percentage": "" if percentage is None else f"{percentage:.1f}",
        "confidence": "" if confidence is None else f"{confidence:.1f}",
        "status": numbers.get("status") or "",
        "model": numbers.get("model") or "",
        "cost": "" if cost is None else f"{cost:.2f}",
        "worktree": numbers.get("worktree") or "",
    }


def plain_number(number: float) -> int | float:
    """Return a number as people write it: without decimals where it has none."""
    return int(number) if number == int(number) else round(number, 6)


def _plain(number: float | None) -> str:
    return "" if number is None else str(plain_number(number))


def _agents(numbers: Numbers, gap: str, *, shared: bool) -> str:
    current, total = numbers.get("current_agents"), numbers.get("total_agents")
    if shared or current is None or total is None:
        return _plain(total if current is None or shared else current)
    count = numbers.get("instance_count")
    return f"{_plain(current)}/{_plain(total)}" + ("" if count is None else f"{gap}({count})")


def _tokens(numbers: Numbers) -> str:
    used, total = _short(numbers.get("tokens_used")), _short(numbers.get("tokens_total"))
    percentage = _percentage(numbers)
    share = "" if percentage is None else f"{percentage:.1f}%"
    counts = f"{used}/{total}" if used and total else used
    return f"{counts} ({share})" if counts and share else counts or share


def _percentage(numbers: Numbers) -> float | None:
    """Return how full the context window is, from the counts where there are both."""
    used, total = numbers.get("tokens_used"), numbers.get("tokens_total")
    if used is not None and total:
        return used / total * 100
    return numbers.get("percentage")


def _short(tokens: float | None) -> str:
    """Return a count of tokens as 950, 1.5k, 15k or 1.2M."""
    if tokens is None:
        return ""
    for limit, unit, letter in ((1e3, 1, ""), (999_500, 1e3, "k"), (float("inf"), 1e6, "M")):
        if tokens < limit:
            scaled = tokens / unit
            digits = 1 if letter and scaled < 10 else 0  # noqa: PLR2004  # two digits are enough
            text = f"{scaled:.{digits}f}"
            return (text.removesuffix(".0") if digits else text) + letter
    return ""


def _compact(numbers: Numbers, *, shared: bool) -> str:
    percentage, confidence = _percentage(numbers), numbers.get("confidence")
    parts = []
    if agents := _agents(numbers, "", shared=shared):
        parts.append(f"A:{agents}")
    if percentage is not None:
        parts.append(f"T:{percentage:.1f}%")
    if confidence is not None:
        parts.append(f"C:{confidence:.1f}%")
    return " ".join(parts)


def _json(numbers: Numbers, *, shared: bool) -> str:
    import json

    percentage = _percentage(numbers)
    agents = {
        "current": None if shared else numbers.get("current_agents"),
        "total": numbers.get("total_agents"),
        "instance_count": None if shared else numbers.get("instance_count"),
    }
    tokens = {
        "used": numbers.get("tokens_used"),
        "total": numbers.get("tokens_total"),
        "percentage": None if percentage is None else round(percentage, 1),
    }
    rest = ("confidence", "status", "model", "cost", "worktree")
    shown = {
        "agents": _present(agents),
        "tokens": _present(tokens),
        **_present({name: numbers.get(name) for name in rest}),
    }
    shown = {name: value for name, value in shown.items() if value != {}}
    return json.dumps(shown, indent=2, ensure_ascii=False)


def _present(values: Mapping[str, object]) -> dict[str, object]:
    return {
        name: plain_number(value) if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None and value != ""
    }
