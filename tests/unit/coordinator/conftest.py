"""What tests of the coordinator's parts share."""

from __future__ import annotations

import pytest


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What failed is tried again at once."""
    monkeypatch.setattr("runner.coordinator.sleepers._RETRY_S", 0.001)
