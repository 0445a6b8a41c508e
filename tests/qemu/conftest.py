"""Micro-VMs for real: with the QEMU of this host and the image that RUNNER_TEST_VM_IMAGE names (.ci/qemu builds it).

Without one these tests are skipped with that reason.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner import config
from runner.ids import ClusterId, random_id
from runner.providers.process_tag import find_tagged
from runner.providers.qemu.options import parse
from runner.providers.qemu.provider import QemuProvider
from runner.providers.registry import Place
from tests.integration.cli.conftest import environment, home, run  # noqa: F401  fixtures
from tests.qemu.registrations import Registrations, serving

IMAGE = os.environ.get("RUNNER_TEST_VM_IMAGE", "")
NO_IMAGE = "no micro-VMs: RUNNER_TEST_VM_IMAGE is not set (.ci/qemu builds an image where it may install QEMU)"
MEMORY = "384MiB"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(120))
            if not IMAGE:
                item.add_marker(pytest.mark.skip(reason=NO_IMAGE))
            elif shutil.which("qemu-system-x86_64") is None:
                item.add_marker(pytest.mark.skip(reason="qemu-system-x86_64 is not installed"))


@pytest.fixture
def options() -> dict[str, Any]:
    """What `provider_options` says in these tests."""
    return {"image": IMAGE, "default_memory": MEMORY}


@pytest.fixture
def cluster() -> ClusterId:
    return ClusterId(random_id("c"))


@pytest.fixture
def make_provider(tmp_path: Path, options: dict[str, Any]) -> Callable[..., QemuProvider]:
    """Providers of one cluster or of several, on folders of the test."""

    def make(cluster_id: ClusterId, *, embedded: bool = True, state: Path | None = None, **more: Any) -> QemuProvider:
        state = state or tmp_path
        for name in ("store", "artefacts"):
            (tmp_path / name).mkdir(exist_ok=True)
        place = Place(
            cluster_id=cluster_id,
            embedded=embedded,
            options={**options, **more},
            log_dir=state / "logs",
            store_path=str(tmp_path / "store"),
            artefact_path=str(tmp_path / "artefacts"),
            host_id="this-host",
        )
        return QemuProvider(parse(place.options), place)

    return make


@pytest.fixture
async def provider(cluster: ClusterId, make_provider: Callable[..., QemuProvider]) -> AsyncIterator[QemuProvider]:
    """One that leaves nothing, no process and no file."""
    made = make_provider(cluster)
    yield made
    await end_all(made, cluster)


async def end_all(provider: QemuProvider, cluster_id: ClusterId) -> None:
    for machine in await provider.list(cluster_id):
        await provider.destroy(machine.name)
    folders = provider._folders
    await provider.close()
    assert left_over(folders, cluster_id) == []


def left_over(folders: Path, cluster_id: ClusterId) -> list[str]:
    """What is there of a cluster's machines: processes by their tag, and files."""
    found = [f"pid {each.process.pid} of {each.machine_id}" for each in find_tagged(cluster_id)]
    return found + [str(each) for each in folders.glob("**/*")]


@pytest.fixture
def start(options: dict[str, Any]) -> Iterator[Callable[..., Any]]:
    """`runner.init` on micro-VMs; ends with the test, and then no file of a machine is left (nor a process: the leak check)."""

    def init(machines: int = 1, **more: Any) -> Any:
        return runner.init(provider="qemu", provider_options=options, machines=machines, log_to_driver=False, **more)

    yield init
    runner.shutdown()
    assert [*(config.load().clusters_dir).glob("*/qemu/*")] == []


@pytest.fixture
async def registrations() -> AsyncIterator[Registrations]:
    """Where machines ask to be registered, and nobody acts on it."""
    async with serving() as made:
        yield made
