"""This project by the common names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import runner
from tests.contract.ray_semantics.common import Adapter


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
        with runner.init(machines=machines, num_cpus=num_cpus, resources=resources, log_to_driver=False):
            yield

    @staticmethod
    def machine_ids() -> list[str]:
        """The machines that are alive."""
        return [node.machine_id for node in runner.nodes() if node.is_alive]

    @staticmethod
    def is_generator(value: Any) -> bool:
        """Whether it is what a streaming call returns."""
        return isinstance(value, runner.ObjectRefGenerator)
