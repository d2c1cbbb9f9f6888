"""Turn a flag on or off in one instance; an exclusive one is on in one instance at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoenv.errors import IsoenvError, NotFoundError

if TYPE_CHECKING:
    from isoenv.instances import Selected
    from isoenv.models import Config, Flag, Lease
    from isoenv.registry import Registry


def named(config: Config, name: str) -> Flag:
    """Return the flag of that name."""
    if name in config.flags:
        return config.flags[name]
    raise NotFoundError(f"no flag {name}: isoenv.toml has {', '.join(config.flags) or 'none'}")


def turn(
    registry: Registry, selected: Selected, name: str, *, on: bool, steal: bool = False
) -> list[Lease]:
    """Set a flag in the selected instance and return the leases whose flag has changed.

    With ``steal`` an exclusive flag is turned off where it is on; without, that is an error.
    """
    here, lease = selected.context, selected.lease
    flag = named(here.config, name)
    if lease is None:
        raise NotFoundError(
            f"nobody holds slot {selected.slot} of {here.project.name}: "
            f"`isoenv exec {selected.slot} …` takes it"
        )
    changed = [lease]
    with registry.transaction():
        if on and flag.exclusive:
            for other in registry.leases(here.project):
                if other.id == lease.id or not is_on(registry, flag, other):
                    continue
                if not steal:
                    raise IsoenvError(
                        f"{name} is on in {other.project.name}:{other.slot} ({other.name}) and may "
                        f"be on in one instance only: `isoenv enable {name} --steal`"
                    )
                registry.set_flag(other, name, value=False)
                changed.append(other)
        registry.set_flag(lease, name, value=on)
    return changed


def states(registry: Registry, config: Config, lease: Lease) -> dict[str, bool]:
    """Return what each flag is in a lease's instance: its own setting, or the default.

    The default of an exclusive flag gives way to an instance that it was turned on in: the main
    checkout may be the last to ask.
    """
    own = registry.flags(lease) if config.flags else {}
    found = {name: is_on(registry, flag, lease) for name, flag in config.flags.items()}
    for flag in config.flags.values():
        if flag.exclusive and found[flag.name] and flag.name not in own:
            others = (registry.flags(other) for other in registry.leases(lease.project))
            found[flag.name] = not any(settings.get(flag.name) for settings in others)
    return found


def is_on(registry: Registry, flag: Flag, lease: Lease) -> bool:
    """Whether a flag is on in a lease's instance, by its own setting or by default."""
    default = flag.others if lease.slot else flag.main
    return registry.flags(lease).get(flag.name, default)
