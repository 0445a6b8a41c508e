"""The checks before the first machine: token, app, regions, sizes, room; everything that can never work is refused here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from runner.core.values import CPU, GPU, MEMORY, UNIT
from runner.errors import ProviderError
from runner.providers.base import Wanted
from runner.providers.fly.api import FlyApi
from runner.providers.fly.errors import FlyError, Kind
from runner.providers.fly.failures import advise
from runner.providers.fly.guest import SIZES, Guest, choose
from runner.providers.fly.options import GPUS_ENDED, FlyOptions, is_loopback

# Aliases that stand where a region's code does (docs: machine-placement).
_ALIASES = frozenset({"any", "eu", "na", "sa", "us", "apac", "af"})
# For all checks; a client waits 30 s for its coordinator.
PREPARE_S = 20.0
_DENIED = frozenset({Kind.UNAUTHORIZED, Kind.FORBIDDEN})


def refusal(what: str, saw: str, advice: str) -> ProviderError:
    """A permanent error of the whole provider, not of one machine."""
    error = ProviderError(f"provider 'fly' cannot be used: {what}: {saw}; {advice}", phase="prepare")
    error.is_permanent = True
    return error


def check_place(options: FlyOptions, coordinator_host: str) -> None:
    """Refuse a coordinator that machines at Fly can never reach.

    Raises:
        ProviderError: a permanent one.
    """
    if options.is_real and is_loopback(coordinator_host):
        raise refusal(
            "machines at Fly cannot reach the coordinator",
            f"they are told to find it at {coordinator_host}, which only its own computer reaches",
            "start it where they can: `runner up --provider fly` (a small machine of its own at Fly), "
            "or with --host and --advertise at an address that they reach",
        )


def guests_of(wanted: Wanted, options: FlyOptions) -> list[Guest]:
    """The sizes that machines of a pool may get, in the order in which they are tried.

    Raises:
        ProviderError: a permanent one: none, or a GPU is asked for.
    """
    amounts = dict(wanted.shape)
    if amounts.get(GPU):
        raise refusal(f"pool {wanted.pool!r}", "it asks for GPUs", GPUS_ENDED)
    if wanted.size and wanted.size not in SIZES:
        known = f"known are: {', '.join(SIZES)}"
        raise refusal(f"pool {wanted.pool!r}", f"Fly has no size {wanted.size!r}", known)
    sizes = (wanted.size, *options.sizes) if wanted.size else options.sizes
    guests = choose(wanted.shape, sizes, options.cpu_kind)
    if not guests:
        needs = f"{amounts.get(CPU, 0) / UNIT:g} CPUs and {amounts.get(MEMORY, 0) >> 20} MiB"
        raise refusal(
            f"pool {wanted.pool!r}",
            f"its machines need {needs}, which no allowed size holds",
            f"ask for less, or name sizes=[...] among {', '.join(SIZES)}",
        )
    return guests


async def check_app(api: FlyApi, options: FlyOptions) -> str:
    """See that token and app work, and create the app where `org` is given. Returns the organisation's slug, if it is told.

    Raises:
        ProviderError: permanent where token, app or organisation cannot be used; passing where Fly does not answer.
    """
    try:
        try:
            return (await api.get_app()).org or options.org
        except FlyError as error:
            if error.kind is not Kind.NOT_FOUND or not options.org:
                raise
            return (await api.create_app(options.org)).org or options.org
    except FlyError as error:
        if error.kind in _DENIED | {Kind.NOT_FOUND, Kind.NAME_TAKEN, Kind.INVALID}:
            raise refusal(f"app {options.app!r}", f"Fly: {error}", advise(error, app=options.app)) from None
        # A passing one: it may work in a minute.
        saw = f"{options.base_url} does not answer ({error})"
        advice = "see status.flyio.net, and FLY_FLAPS_BASE_URL or base_url if another server was meant"
        raise ProviderError(f"provider 'fly' cannot be used now: {saw}; {advice}", phase="prepare") from None


async def check_regions(api: FlyApi, options: FlyOptions) -> tuple[str, ...]:
    """Warnings; a region that does not exist is refused.

    Raises:
        ProviderError: a permanent one.
    """
    named = {code for region in options.regions for code in region.split(",")} - _ALIASES
    if not named:
        return ()
    try:
        known = await api.list_regions()
    except FlyError as error:
        if error.kind in _DENIED:  # a token for one app need not be allowed to ask
            return ()
        return (f"Fly does not list its regions ({error}); regions {', '.join(sorted(named))} were not checked",)
    if known and (unknown := sorted(named - set(known))):
        raise refusal("regions", f"Fly has no region {', '.join(unknown)}", f"known are: {', '.join(sorted(known))}")
    return ()


async def check_room(api: FlyApi, options: FlyOptions, wanted: Sequence[Wanted], org: str) -> tuple[str, ...]:
    """Ask where machines would find room, before many are booted; warnings where it is for fewer than are wanted."""
    counts: Counter[Guest] = Counter()
    for each in wanted:
        counts[guests_of(each, options)[0]] += each.count
    warnings = []
    for guest, count in counts.items():
        if count < options.placements_from:
            continue
        try:
            places = await api.place(guest, count, region=",".join(options.regions), org=org)
        except FlyError as error:
            warnings.append(_no_forecast(error, options, guest, count))
            continue
        room = sum(place.count for place in places)
        if room < count:
            where = ", ".join(options.regions) or "all regions"
            warnings.append(f"Fly has room for {room} of the {count} machines of size {guest.size} wanted ({where})")
    return tuple(warning for warning in warnings if warning)


def _no_forecast(error: FlyError, options: FlyOptions, guest: Guest, count: int) -> str:
    if error.kind is Kind.CAPACITY:
        return (
            f"Fly has no room for {count} machines of size {guest.size} now: {error}; {advise(error, app=options.app)}"
        )
    if error.kind in _DENIED | {Kind.NOT_FOUND}:  # not for this token, or not on this server: nothing is lost
        return ""
    return f"Fly does not say whether there is room for {count} machines of size {guest.size}: {error}"
