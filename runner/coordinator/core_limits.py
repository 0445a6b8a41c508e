"""The core's limits, from a coordinator's settings."""

from __future__ import annotations

from runner import config as settings
from runner.coordinator.config import CoordinatorConfig
from runner.core.values import CoreConfig
from runner.worker.agent.cuda_moves import MOVE_S

# Before its creation a machine may wait its turn, at a provider that creates one a second.
_BOOT_GRACE_S = 3600.0
# Of a suspend or a resume, beside its hooks: reports, registrations, a provider that is slow to start.
_AROUND_HOOKS_S = 50.0


def core_config(config: CoordinatorConfig) -> CoreConfig:
    """The core's limits. Embedded local machines end with their pipes, so they need no leases."""
    cuda_s = MOVE_S if settings.load().cuda_checkpoint else 0.0
    return CoreConfig(
        lost_after_s=config.lost_after_s,
        # The fleet tells of a boot that is overdue, with what the provider says; this is for one that cannot.
        boot_deadline_s=config.boot_deadline_s + _BOOT_GRACE_S,
        client_lost_after_s=config.client_lost_after_s,
        use_leases=not (config.embedded and config.provider == "local"),
        prepare_deadline_s=2 * (hooks_s(config) + cuda_s)
        + _AROUND_HOOKS_S,  # twice: what was done may have to be undone
        resume_deadline_s=hooks_s(config) + cuda_s + _AROUND_HOOKS_S,
    )


def hooks_s(config: CoordinatorConfig) -> float:
    """How long all suspend hooks of one process may take."""
    return settings.load().suspend_hooks_s if config.suspend_hooks_s is None else config.suspend_hooks_s
