"""Which GPUs of the engine's host go to which machine: whole ones, each to one machine at a time."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from runner.errors import ProviderError
from runner.providers.base import MachineSpec, provider_error
from runner.providers.gpus import detect_gpus

_HOOKS = ("nvidia-container-runtime-hook", "nvidia-container-runtime")


class Devices:
    """Hands out device ids. Without `info` (of the engine) only what there is can be asked."""

    def __init__(
        self,
        named: Sequence[str] = (),
        *,
        info: Mapping[str, Any] | None = None,
        version: Mapping[str, Any] | None = None,
        is_local: bool = True,
    ) -> None:
        """`named`: the ids to hand out; empty: all of this host's, where the engine is on it. The rest: the engine's answers."""
        self._version = version or {}
        self._named = tuple(named)
        self._info = info or {}
        self._is_local = is_local
        self._found = () if named or not is_local else tuple(detect_gpus())
        self._taken: set[str] = set()

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them."""
        return self._named or tuple(gpu.token for gpu in self._found)

    @property
    def total(self) -> int:
        """How many there are."""
        return len(self.ids)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of this host's."""
        return tuple(sorted({gpu.name for gpu in self._found}))

    def check(self) -> None:
        """Refuse machines with GPUs where the engine cannot give them any.

        Raises:
            ProviderError: a permanent one.
        """
        why = ""
        if not self.ids and self._is_local:
            why = "this host shows no GPU"
        elif not self.ids:
            why = "the engine is on another host, and which devices it has was not said: name them in the option gpus"
        elif is_podman(self._version):
            why = "Podman's Docker API hands no GPUs to containers; use Docker with the NVIDIA container toolkit"
        elif not self._has_runtime():
            why = "the engine has no NVIDIA runtime; install the NVIDIA container toolkit on its host"
        if why:
            error = ProviderError(f"machines with GPUs cannot be containers here: {why}", phase="prepare")
            error.is_permanent = True
            raise error

    def take(self, spec: MachineSpec, count: int) -> tuple[str, ...]:
        """Ids for one machine.

        Raises:
            ProviderError: fewer are free; a permanent one when there are fewer at all.
        """
        if count == 0:
            return ()
        self.check()
        free = [each for each in self.ids if each not in self._taken]
        if count > len(free):
            raise provider_error(
                "create",
                spec,
                f"it needs {count} GPUs; the engine's host has {self.total}, of which {len(free)} are free",
                advice="ask for fewer machines or fewer GPUs per machine",
                is_permanent=count > self.total,
                is_capacity=count <= self.total,
            )
        taken = tuple(free[:count])
        self._taken.update(taken)
        return taken

    def keep(self, ids: Sequence[str]) -> None:
        """A machine that was adopted has these."""
        self._taken.update(ids)

    def give_back(self, ids: Sequence[str]) -> None:
        """Their machine is gone."""
        self._taken.difference_update(ids)

    def _has_runtime(self) -> bool:
        runtimes = self._info.get("Runtimes") or {}
        discovered = str(self._info.get("DiscoveredDevices") or "")
        has_hook = self._is_local and any(shutil.which(each) for each in _HOOKS)
        return "nvidia" in runtimes or "nvidia.com/gpu" in discovered or has_hook


def is_podman(version: Mapping[str, Any]) -> bool:
    """By what the engine says about its parts."""
    return any("podman" in str(each.get("Name", "")).lower() for each in version.get("Components") or ())
