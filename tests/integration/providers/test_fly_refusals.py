"""What a script hears when its cluster at Fly cannot be had: one sentence, not the coordinator's traceback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.errors import ProviderError
from runner.flysim import FlySim

pytestmark = [pytest.mark.long, pytest.mark.timeout(60)]


@pytest.fixture(scope="module")
def sim() -> Iterator[FlySim]:
    with FlySim(rate_limit=False) as started:
        yield started


@pytest.mark.parametrize(
    ("changes", "wanted", "words"),
    [
        ({"token": "fm2_wrong"}, {}, "the token is wrong or expired"),
        ({"app": "missing"}, {}, "app 'missing' does not exist"),
        ({"regions": ["xxx"]}, {}, "Fly has no region xxx"),
        ({}, {"num_gpus": 1}, "providers that have GPUs are local and container"),
    ],
)
def test_init_says_what_is_wrong_in_one_sentence(
    changes: dict[str, Any],
    wanted: dict[str, Any],
    words: str,
    sim: FlySim,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RUNNER_HOME", str(tmp_path))
    org = {} if "app" in changes else {"org": "personal"}
    options = {"app": "refusals", "image": "runner-worker:1", "base_url": sim.url, "token": sim.token} | org | changes
    with pytest.raises(ProviderError) as caught:
        runner.init(provider="fly", provider_options=options, machines=1, log_to_driver=False, **wanted)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert sim.state()["machines"] == {}
