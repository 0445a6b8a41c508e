"""The GPUs of this host, handed out whole, each to one machine at a time."""

from __future__ import annotations

from collections.abc import Sequence

from runner.core.values import GPU, UNIT
from runner.providers.base import MachineSpec, provider_error
from runner.providers.gpus import Gpu, detect_gpus


class GpuStock:
    """For one provider."""

    def __init__(self, gpus: Sequence[Gpu] | None) -> None:
        """None: all that the driver shows, asked at the first use."""
        self._gpus = gpus
        self._taken: set[str] = set()

    def all(self) -> Sequence[Gpu]:
        """What there is, taken or not."""
        if self._gpus is None:
            self._gpus = detect_gpus()
        return self._gpus

    def take(self, spec: MachineSpec) -> tuple[str, ...]:
        """The tokens of as many as the machine needs.

        Raises:
            ProviderError: so many are not free; a permanent one where there never will be.
        """
        wanted = dict(spec.shape).get(GPU, 0)
        if wanted == 0:
            return ()
        count, rest = divmod(wanted, UNIT)
        free = [gpu.token for gpu in self.all() if gpu.token not in self._taken]
        if rest or count > len(free):
            total = len(self.all())
            has = f"{total}, of which {len(free)} are free" if total else "none"
            raise provider_error(
                "create",
                spec,
                f"it needs {wanted / UNIT:g} GPUs; this host has {has}",
                advice="ask for fewer machines or fewer GPUs per machine (whole ones)",
                is_permanent=bool(rest) or count > total,
            )
        self._taken.update(free[:count])
        return tuple(free[:count])

    def give_back(self, tokens: Sequence[str]) -> None:
        """The machine that had them is gone."""
        self._taken.difference_update(tokens)
