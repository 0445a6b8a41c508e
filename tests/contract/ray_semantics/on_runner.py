"""This project by the common names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import runner
from tests.contract.ray_semantics.common import Adapter
from tests.integration.helpers import wait_until


class OnRunner(Adapter):
    """What is not named here is `runner`'s own, or one of its exceptions."""

    library = runner

    @contextlib.contextmanager
    def cluster(
        self,
        *,
        num_cpus: int,
        resources: Mapping[str, float] | None = None,
        machines: int = 1,
        labels: Sequence[Mapping[str, str]] = (),
    ) -> Iterator[None]:
        """A cluster of `machines` with `num_cpus` and `resources` each, and this process as its client."""
        fleet: int | list[runner.Pool] = machines
        kind: dict[str, Any] = {"num_cpus": num_cpus, "resources": resources or {}}
        if labels:
            names = "abcdefgh"[:machines]
            fleet = [runner.Pool(name, min=1, labels=each, **kind) for name, each in zip(names, labels, strict=True)]
            kind = {}
        with runner.init(machines=fleet, log_to_driver=False, **kind):
            wait_until(lambda: len(self.machine_ids()) == machines, 60, f"{machines} machines")
            yield

    @staticmethod
    def machine_ids() -> list[str]:
        """The machines that are alive."""
        return [node.machine_id for node in runner.nodes() if node.is_alive]
