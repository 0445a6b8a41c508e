"""`runner.Model` in a real executor around a suspend, with a template as its source."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle

import runner
from tests.integration.worker.harness import machine
from tests.integration.worker.test_suspend_executors import Suspend
from tests.integration.worker.test_user_templates import add

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Weights:
    """Notes where it is moved, as a torch module is."""

    def __init__(self, path: str) -> None:
        self.path = path

    def to(self, device: str) -> Weights:
        with open(self.path, "a") as file:
            file.write(device + "\n")
        return self


def model_at(path: str) -> Any:
    """A template of a model that is moved to a stand-in for a device."""

    @runner.template
    def weights() -> runner.Model[Weights]:
        return runner.Model(lambda: Weights(path), to_device=lambda value: value.to("cuda"))

    return weights


async def test_a_model_is_in_host_memory_while_the_machine_sleeps(tmp_path: Path) -> None:
    weights = model_at(str(tmp_path / "moves"))

    def use() -> str:
        return str(weights().get() and weights().place.name)

    async with machine(cpus=1) as worker:
        ids = [add(worker, weights)]
        assert (await worker.ended(worker.start(use, package_ids=ids))).value() == "DEVICE"
        suspend = Suspend(worker)
        await suspend.quiet()
        await suspend.prepare()
        assert (tmp_path / "moves").read_text().split() == ["cuda", "cpu"]
        assert await suspend.wake() == ""
        assert (tmp_path / "moves").read_text().split() == ["cuda", "cpu", "cuda"]
        assert (await worker.ended(worker.start(use, package_ids=ids))).value() == "DEVICE"
        assert (tmp_path / "moves").read_text().split() == ["cuda", "cpu", "cuda"]
