"""Ray by the common names."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# Read when ray is imported: no usage reports, no metrics, no word about either.
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")

import ray
import ray.exceptions

from tests.contract.ray_semantics.common import Adapter

STORE_BYTES = 150 * 1024 * 1024
QUIET: dict[str, Any] = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}


class OnRay(Adapter):
    """What is not named here is `ray`'s own, or one of its exceptions."""

    library = ray

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
        if machines == 1 and not labels:
            ray.init(num_cpus=num_cpus, resources=dict(resources or {}), object_store_memory=STORE_BYTES, **QUIET)
            try:
                yield
            finally:
                ray.shutdown()
            return
        from ray.cluster_utils import Cluster

        cluster = Cluster()
        try:
            for index in range(machines):
                cluster.add_node(
                    num_cpus=num_cpus,
                    resources=dict(resources or {}),
                    labels=dict(labels[index]) if labels else None,
                    object_store_memory=STORE_BYTES,
                    include_dashboard=False,
                )
            ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
            yield
        finally:
            ray.shutdown()
            cluster.shutdown()

    @staticmethod
    def machine_ids() -> list[str]:
        """The machines that are alive."""
        return [node["NodeID"] for node in ray.nodes() if node["Alive"]]
