"""What a new machine is told, and how a creation that lost its reply is found again."""

from __future__ import annotations

import logging
from typing import Any

from runner import config as settings
from runner.coordinator.config import CoordinatorConfig
from runner.core.values import CPU, GPU, MEMORY, UNIT, Shape
from runner.errors import ProviderError
from runner.providers.base import BootConfig, MachineSpec, MachineState, Provider, ProviderMachine

log = logging.getLogger(__name__)

_COMING_UP = frozenset({MachineState.CREATING, MachineState.RUNNING})


def boot_config(config: CoordinatorConfig, shape: Shape, **of_machine: Any) -> BootConfig:
    """All that its agent needs to join; `of_machine` are the fields that differ between machines of one shape."""
    amounts = dict(shape)
    amounts.pop(GPU, None)  # which devices they are is the provider's to choose
    return BootConfig(
        cpus=amounts.pop(CPU, 0) / UNIT,
        memory_bytes=amounts.pop(MEMORY, 0),
        resources={name: amount / UNIT for name, amount in amounts.items()},
        preload=config.preload,
        embedded=config.embedded,
        heartbeat_s=config.heartbeat_s,
        lost_after_s=config.lost_after_s,
        destroy_after_s=config.destroy_after_s,
        cuda_checkpoint=settings.load().cuda_checkpoint,
        **of_machine,
    )


async def create_or_adopt(provider: Provider, spec: MachineSpec) -> ProviderMachine:
    """A create that failed may have worked and lost its reply: the name tells."""
    try:
        return await provider.create(spec)
    except ProviderError as error:
        try:
            machine = await provider.get(spec.machine_id)
        except ProviderError:
            raise error from None  # if there is one, it is destroyed by its name
        if machine is None or machine.state not in _COMING_UP:
            raise
        if error.is_permanent:
            raise
        log.warning("machine %s exists although its creation failed (%s); it is kept", spec.machine_id, error)
        return machine
