"""The services of several instances at once, as far as they are known."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoenv.services import plans, record, states

if TYPE_CHECKING:
    from collections.abc import Sequence

    from isoenv.instances import Selected
    from isoenv.models import Environment, Lease
    from isoenv.services.states import Status

# How many services are asked at a time: one that hangs keeps nobody waiting but itself.
AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class Question:
    """A service to look at: ``health`` is asked, ``timeout`` is that of its start."""

    name: str
    place: str
    health: str | None
    timeout: float


def configured(selected: Selected, environment: Environment) -> list[Question]:
    """Return the services that the configuration of an instance names."""
    if not environment.variables:
        return []
    found = plans.of(selected, environment, {}).values()
    return [Question(plan.name, plan.place, plan.health, plan.start_timeout) for plan in found]


def recorded(state: str, lease: Lease) -> list[Question]:
    """Return the services that an instance has ever started, from their records alone."""
    directory = record.directory(state, lease.project.key, lease.slot)
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    questions = []
    for name in names:
        place = f"{directory}/{name}"
        if found := record.read(place):
            timeout = found.seconds("start_timeout") or 0.0
            questions.append(Question(name, place, found.text("health") or None, timeout))
    return questions


def ask(questions: Sequence[Question]) -> list[Status]:
    """Look at all of them, several at a time."""
    if len(questions) < 2:  # noqa: PLR2004  # alone it needs no thread
        return [_look(question) for question in questions]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(_look, questions))


def _look(question: Question) -> Status:
    return states.look(
        question.name, question.place, asked=question.health, timeout=question.timeout
    )
