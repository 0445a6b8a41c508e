"""`runner.mark_phase`: what it takes, and where."""

from __future__ import annotations

from typing import Any

import pytest

import runner
from runner.errors import BadOptionsError, UsageError
from runner.rpc.phases import RESERVED


@pytest.mark.parametrize("name", [*sorted(RESERVED), "", "x" * 65, "two\nlines", "template_ready+torch", 3, None])
def test_names_that_cannot_be_marked(name: Any) -> None:
    with pytest.raises(BadOptionsError, match="mark_phase"):
        runner.mark_phase(name)


def test_outside_a_task_there_is_no_machine() -> None:
    with pytest.raises(UsageError, match="inside a remote function only"):
        runner.mark_phase("weights on CPU")
