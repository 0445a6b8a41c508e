from __future__ import annotations

import pickle

import msgpack
import pytest

from runner.core.values import CPU, GPU, MEMORY, UNIT
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, provider_error


def boot(**changes) -> BootConfig:
    return BootConfig(
        coordinator_address="127.0.0.1:1",
        ca_pem=b"pem",
        join_token="secret-token",
        machine_id=MachineId("m-1"),
        cluster_id=ClusterId("c-1"),
        **changes,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {
            "gpus": ("GPU-1", "GPU-2"),
            "preload": ("torch",),
            "resources": {"disk": 0.5},
            "memory_bytes": 5,
            "embedded": True,
            "cuda_checkpoint": True,
        },
    ],
)
def test_a_boot_configuration_survives_msgpack(changes) -> None:
    config = boot(**changes)
    assert BootConfig.from_dict(msgpack.unpackb(msgpack.packb(config.to_dict()))) == config


def test_an_older_image_ignores_what_a_newer_coordinator_adds() -> None:
    assert BootConfig.from_dict(boot().to_dict() | {"added_later": 1}) == boot()


def test_the_join_token_is_in_no_repr() -> None:
    assert "secret-token" not in repr(boot())


def test_the_shape_counts_in_units_and_memory_in_bytes() -> None:
    config = boot(cpus=1.5, gpus=("0", "1"), memory_bytes=1 << 30, resources={"disk": 0.25})
    assert dict(config.shape()) == {CPU: 15_000, GPU: 2 * UNIT, MEMORY: 1 << 30, "disk": 2_500}


def test_a_provider_error_says_phase_machine_and_last_lines_and_survives_pickle() -> None:
    error = pickle.loads(
        pickle.dumps(provider_error("boot", MachineId("m-1"), "it ended", advice="look", log_lines=("a", "b")))
    )
    assert isinstance(error, ProviderError)
    assert (error.phase, error.machine_id, error.log_lines) == ("boot", "m-1", ("a", "b"))
    assert str(error) == "boot of machine m-1 failed: it ended; look\n  a\n  b"
