from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.worker.actor_harness import Forker


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    forker = Forker()
    yield forker
    forker.close()
