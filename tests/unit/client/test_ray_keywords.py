"""What programs for Ray say to `init`."""

from __future__ import annotations

import pytest

import runner
from runner.client.ray_keywords import check_ray_keywords


def test_what_means_nothing_here_is_taken() -> None:
    check_ray_keywords({"ignore_reinit_error": True, "include_dashboard": False, "logging_level": 20})


@pytest.mark.parametrize(
    ("keyword", "told"), [("mashines", "unexpected keyword argument 'mashines'"), ("namespace", "whole cluster's")]
)
def test_any_other_is_refused_before_anything_starts(keyword: str, told: str) -> None:
    with pytest.raises(TypeError, match=told):
        runner.init(**{keyword: "x"})  # type: ignore[arg-type]
    assert not runner.is_initialized()
