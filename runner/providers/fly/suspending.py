"""Which machines Fly can suspend, and the suspend of one until it is done or called off."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from runner.errors import ProviderError
from runner.providers.base import Wanted
from runner.providers.fly.api import FlyApi
from runner.providers.fly.errors import AMBIGUOUS, FlyError, Kind
from runner.providers.fly.guest import SUSPEND_MEMORY_MB_MAX, fit, suspend_obstacle
from runner.providers.fly.model import Machine
from runner.providers.fly.options import FlyOptions
from runner.providers.fly.prepare import guests_of
from runner.providers.fly.records import DEAD_STATES

_CALL_OFF_S = 10.0


def nothing_to_suspend(options: FlyOptions) -> str:
    """Why no machine of these options can be suspended; empty when one can."""
    guests = [fit(size, ()) for size in options.sizes]
    if not guests or any(not suspend_obstacle(guest.memory_mb) for guest in guests if guest is not None):
        return ""
    rule = f"Fly suspends machines of at most {SUSPEND_MEMORY_MB_MAX} MB without swap, schedule or GPU"
    return f"{rule}; all of {', '.join(options.sizes)} have more"


def pool_obstacle(wanted: Wanted, options: FlyOptions) -> str:
    """Why some machine of this pool could not be suspended: it may get any of the sizes that hold it."""
    try:
        guests = guests_of(wanted, options)
    except ProviderError as error:
        return str(error.args[0])
    for guest in guests:
        obstacle = suspend_obstacle(guest.memory_mb)
        if obstacle:
            return f"a machine of size {guest.size} cannot be suspended: {obstacle}"
    return ""


def machine_obstacle(machine: Machine) -> str:
    """Why this machine cannot be suspended, whoever has configured it; empty when it can."""
    config, guest = machine.config, machine.config.child("guest")
    return suspend_obstacle(
        int(guest.get("memory_mb") or 0),
        swap_mb=int(config.child("init").get("swap_size_mb") or 0),
        has_schedule=bool(config.text("schedule")),
        gpus=int(guest.get("gpus") or 0),
    )


async def suspend_machine(api: FlyApi, machine: Machine, options: FlyOptions) -> None:
    """Returns when it is suspended.

    Raises:
        FlyError: it was not, as far as one could see; then it was asked to go on, which calls a suspend under way off.
    """
    deadline_s = asyncio.get_running_loop().time() + options.suspend_deadline_s
    machines = api.until(deadline_s).machines
    try:
        await _whole(machines.suspend(machine.id))
        other = await machines.wait(
            machine.id,
            "suspended",
            instance_id=machine.instance_id,  # an update drops the snapshot: then this one never will be
            deadline_s=deadline_s,
            slice_s=options.wait_slice_s,
            gone_states=DEAD_STATES | {"started"},
        )
    except FlyError as error:
        if error.kind in AMBIGUOUS:
            await _call_off(api, machine)
        raise
    if other is not None:
        raise FlyError(Kind.WRONG_STATE, f"it is {other.state} instead of suspended", action="suspend")


async def _whole(call: Coroutine[Any, Any, None]) -> None:
    """Who breaks a suspend off comes with a start or an end: Fly is to have taken this request before it gets theirs."""
    sending = asyncio.ensure_future(call)
    try:
        await asyncio.shield(sending)
    except asyncio.CancelledError:
        await asyncio.wait([sending])
        if not sending.cancelled():
            sending.exception()  # seen
        raise


async def _call_off(api: FlyApi, machine: Machine) -> None:
    """A start ends a suspend that is under way as if it had never been, and resumes from one that is done."""
    with contextlib.suppress(FlyError):  # it may run on, or be suspended: whoever asks for its state is told
        await api.until(asyncio.get_running_loop().time() + _CALL_OFF_S).machines.start(machine.id)
