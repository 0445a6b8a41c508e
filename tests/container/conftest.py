"""Containers for real: on the engine that RUNNER_TEST_ENGINE names, with the images that .ci/containers has made there.

Without an engine these tests are skipped with that reason.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.ids import ClusterId, random_id
from runner.providers.container.options import parse
from runner.providers.container.provider import ContainerProvider
from runner.providers.registry import Place

ENGINE = os.environ.get("RUNNER_TEST_ENGINE", "")
IMAGE = os.environ.get("RUNNER_TEST_IMAGE", "runner-worker:slim")
BASE = os.environ.get("RUNNER_TEST_BASE", "runner-base:test")
NO_ENGINE = "no container engine: RUNNER_TEST_ENGINE is not set (.ci/containers starts one where it may install Podman)"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.integration)
            if not ENGINE:
                item.add_marker(pytest.mark.skip(reason=NO_ENGINE))


@pytest.fixture
def client() -> Iterator[docker.APIClient]:
    """A second view of the engine: what the provider says is not taken on trust."""
    made = docker.APIClient(base_url=ENGINE, timeout=30)
    yield made
    made.close()


@pytest.fixture
def containers(client: docker.APIClient) -> Callable[..., list[dict[str, Any]]]:
    """All containers of a cluster; of any cluster when none is named."""

    def find(cluster_id: str = "") -> list[dict[str, Any]]:
        label = f"runner.cluster={cluster_id}" if cluster_id else "runner.cluster"
        return client.containers(all=True, filters={"label": label})

    return find


@pytest.fixture
def options() -> dict[str, Any]:
    """What `provider_options` says in these tests."""
    return {"socket": ENGINE, "image": IMAGE}


@pytest.fixture
def make_provider(tmp_path: Path, options: dict[str, Any]) -> Callable[..., ContainerProvider]:
    """Providers of one cluster or of several, on folders of the test."""

    def make(cluster_id: ClusterId | None = None, **more: Any) -> ContainerProvider:
        for name in ("store", "artefacts"):
            (tmp_path / name).mkdir(exist_ok=True)
        place = Place(
            cluster_id=cluster_id or ClusterId(random_id("c")),
            embedded=True,
            options={**options, **more},
            log_dir=tmp_path / "logs",
            store_path=str(tmp_path / "store"),
            artefact_path=str(tmp_path / "artefacts"),
            host_id="this-host",
        )
        return ContainerProvider(parse(place.options), place)

    return make


def runner_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line, as a process."""
    command = [sys.executable, "-m", "runner.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=55)
