"""The service named `api`, from anywhere."""

from __future__ import annotations

import click

from isoenv.cli import logs, params, ps, serving, start, targets
from isoenv.errors import NotFoundError, UsageError
from isoenv.names import SERVICE_ACTIONS

ACTIONS = tuple(sorted(SERVICE_ACTIONS))


@click.command("api")
@click.argument("operands", nargs=-1, metavar="[INSTANCE] ACTION", type=params.ActionParam())
@params.log_options
@params.json_option
def command(operands: tuple[str, ...], *, follow: bool, lines: int, as_json: bool) -> int:
    """Start, stop, restart or look at the service `api`.

    ACTION is one of start, stop, restart, status and logs. Outside of any checkout the project
    is skypilot. `status` ends with 0 when the service is healthy, with 3 when it does not run,
    and with 1 in between.

    \b
    Example:
      isoenv api status
      isoenv api 2 restart
      isoenv api 2 logs -f
    """
    if not operands or len(operands) > 2 or operands[-1] not in SERVICE_ACTIONS:  # noqa: PLR2004  # INSTANCE and ACTION
        raise UsageError(f"expected `isoenv api [INSTANCE] ACTION`, one of {', '.join(ACTIONS)}")
    *instance, action = operands
    target = _target(instance[0] if instance else None, lease=action in ("start", "restart"))
    if action == "status":
        return ps.show(target, as_json=as_json)
    if action == "logs":
        logs.show(target, follow=follow, lines=lines)
    if action in ("stop", "restart"):
        serving.take_down(target)
    if action in ("start", "restart"):
        serving.bring_up(target)
    return 0


def _target(instance: str | None, *, lease: bool) -> targets.Target:
    try:
        return targets.of(start.here(instance, "sky"), instance, [targets.API], lease=lease)
    except NotFoundError as error:
        if str(error).startswith("no service"):
            raise NotFoundError(f"{error}: `[services.api]` makes one") from None
        raise
