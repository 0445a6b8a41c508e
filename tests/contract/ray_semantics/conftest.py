"""The switch between the systems, what does not hold on one of them, and a cluster for each module."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.contract.ray_semantics import exclusions
from tests.contract.ray_semantics.adapter import NAME, SWITCH, system
from tests.contract.ray_semantics.signals import Gate, Signals

HERE = Path(__file__).parent
LIMIT_S = 40.0
# For modules that do not name another one in a constant of this name.
CLUSTER: dict[str, Any] = {"num_cpus": 4}


def pytest_configure(config: pytest.Config) -> None:
    if NAME == "ray":
        # Ray's own warnings, on a Python and with packages that it may not know yet.
        config.addinivalue_line("filterwarnings", "ignore")


def pytest_report_header() -> str:
    return f"system: {NAME} (set {SWITCH})"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[Any]) -> None:
    """Expect failure, strictly, where the table says so; and put tests of one cluster together, whatever shuffled them."""
    excluded = {entry.test: entry for entry in exclusions.load() if entry.on == NAME}
    mine = [item for item in items if HERE in item.path.parents]
    for item in mine:
        item.add_marker(pytest.mark.timeout(LIMIT_S))
        entry = excluded.get(f"{item.path.stem.removeprefix('test_')}::{item.originalname}")
        if entry is not None:
            item.add_marker(pytest.mark.xfail(reason=entry.why, strict=True, run=entry.run))
    others = [item for item in items if HERE not in item.path.parents]
    items[:] = others + sorted(mine, key=lambda item: str(item.callspec.params["cluster"]))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give each module its cluster; modules that want the same one share it, and pytest runs them one after the other."""
    wanted = getattr(metafunc.module, "CLUSTER", CLUSTER)
    name = "+".join(f"{key}:{value}" for key, value in wanted.items())
    metafunc.parametrize("cluster", [pytest.param(wanted, id=name)], indirect=True, scope="package")


@pytest.fixture(scope="package", autouse=True)
def cluster(request: pytest.FixtureRequest) -> Iterator[None]:
    """What `system.cluster` takes is the parameter. It ends before tests of other folders run: they have their own."""
    # Workers import the test modules, and those the adapter.
    os.environ[SWITCH] = NAME
    with system.cluster(**request.param):
        yield


@pytest.fixture
def signals(tmp_path: Path) -> Iterator[Signals]:
    """Files of this test; all gates that it named are open when it ends, so that nothing waits on."""
    folder = tmp_path / "signals"
    folder.mkdir()
    made: list[Gate] = []

    class Remembering(Signals):
        def gate(self, name: str) -> Gate:
            made.append(super().gate(name))
            return made[-1]

    yield Remembering(str(folder))
    for gate in made:
        gate.open()
