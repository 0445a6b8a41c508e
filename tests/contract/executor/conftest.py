"""One cluster for all cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import runner


@pytest.fixture(scope="package", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
    with runner.init(num_cpus=4, log_to_driver=False):
        yield
    patch.undo()


@pytest.fixture(params=["cluster", "threads", "processes"])
def make(request: pytest.FixtureRequest) -> object:
    """Makes an executor: ours, and the standard library's, so that the cases tell of the interface and not of our wishes."""
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    kinds = {"cluster": runner.Executor, "threads": ThreadPoolExecutor, "processes": ProcessPoolExecutor}
    return kinds[request.param]
