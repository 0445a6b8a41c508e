"""What the core and the provider are told of a pool, and policies of it that the provider cannot keep."""

from __future__ import annotations

from collections.abc import Sequence

from runner.core.values import CPU, GPU, MEMORY, UNIT, PoolRecord, Shape, make_shape
from runner.errors import ProviderError
from runner.pools import REGION_LABEL, Pool
from runner.providers.base import Provider, Wanted


def pool_shape(pool: Pool) -> Shape:
    """What one machine of a pool has; what was left open counts as one CPU and no GPU."""
    amounts = {name: round(amount * UNIT) for name, amount in pool.all_resources.items()}
    cpus = 1.0 if pool.num_cpus is None else pool.num_cpus
    amounts |= {CPU: round(cpus * UNIT), GPU: (pool.num_gpus or 0) * UNIT, MEMORY: pool.memory_bytes}
    return make_shape(amounts)


def pool_record(pool: Pool) -> PoolRecord:
    """What the core is told of a pool."""
    return PoolRecord(
        pool.name,
        pool_shape(pool),
        min=pool.min,
        max=pool.most,
        buffer=pool.buffer,
        idle_shutdown_s=pool.idle_shutdown_s,
        is_single_use=pool.single_use,
        labels=tuple(sorted(pool.all_labels.items())),
        unknown_labels=(REGION_LABEL,),  # which it is, is seen when the machine is there
        suspends_idle=pool.idle == "suspend",
        max_suspended_s=pool.max_suspended_s or 0.0,
    )


def wanted_of(pool: Pool) -> Wanted:
    """What the provider is going to be asked for."""
    return Wanted(pool.name, pool_shape(pool), pool.size, pool.first, pool.most)


def check_idle(provider: Provider, pools: Sequence[Pool]) -> tuple[str, ...]:
    """Refuse pools whose idle machines can never be suspended; warnings about those where that saves less than it says.

    Raises:
        ProviderError: the provider, or what a machine of the pool has, does not allow it.
    """
    asleep = [pool for pool in pools if pool.idle == "suspend"]
    for pool in asleep:
        obstacle = provider.suspend_obstacle(wanted_of(pool))
        if obstacle:
            error = ProviderError(
                f"pool {pool.name} cannot have idle='suspend' with provider {provider.name}: {obstacle}; "
                f"leave it out, and machines without work are shut down",
                phase="prepare",
            )
            error.is_permanent = True
            raise error
    if not asleep or provider.capabilities().suspend_kind != "freeze":
        return ()
    names = ", ".join(pool.name for pool in asleep)
    warning = f"idle machines of pool {names} are frozen, not saved: their CPUs are free, their memory stays in use"
    why = provider.capabilities().suspend_reason
    return (f"{warning} ({why})" if why else warning,)
