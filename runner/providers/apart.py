"""Local machines that count as hosts of their own: they share no files with the coordinator, nor with each other. For tests."""

from __future__ import annotations

from dataclasses import replace

from runner.objects.machine_folders import remove_folders
from runner.providers.base import MachineSpec, ProviderMachine
from runner.providers.local import LocalProvider, _Machine


class ApartProvider(LocalProvider):
    """What `provider_options={"apart": True}` makes of provider `local`: values and checkpoints move as to remote machines."""

    async def create(self, spec: MachineSpec) -> ProviderMachine:
        boot = replace(spec.boot, host_id=f"{spec.cluster_id}/{spec.machine_id}")
        return await super().create(replace(spec, boot=boot))

    def _forget(self, machine: _Machine) -> None:
        super()._forget(machine)
        # Its agent may have been killed; a real host would be gone with its files.
        remove_folders(machine.spec.cluster_id, machine.spec.machine_id)
