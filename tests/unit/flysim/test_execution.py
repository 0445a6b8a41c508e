"""Commands inside simulated machines that are processes: as the API answers them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from runner.flysim.answers import ApiError
from runner.flysim.execution import execute


def run(**body: Any) -> dict[str, Any]:
    answer = asyncio.run(execute(body, {}))
    assert answer.status == 200
    assert isinstance(answer.body, dict)
    return answer.body


def test_output_errors_and_exit_code_come_back() -> None:
    found = run(command=["/bin/sh", "-c", "cat; echo oops >&2; exit 3"], stdin="a secret")

    assert found == {"exit_code": 3, "stdout": "a secret", "stderr": "oops\n"}


def test_the_old_form_is_a_line_for_the_shell() -> None:
    assert run(cmd="echo a b")["stdout"] == "a b\n"


def test_a_program_that_is_not_there_is_an_exit_code() -> None:
    found = run(command=["/no/such/program"])

    assert found["exit_code"] == 127
    assert "/no/such/program" in found["stderr"]


def test_death_by_a_signal_is_told_as_a_shell_does() -> None:
    assert run(command=["/bin/sh", "-c", "kill -9 $$"])["exit_code"] == 137


def test_the_time_is_limited_and_nothing_runs_on() -> None:
    with pytest.raises(ApiError) as caught:
        run(command=["/bin/sh", "-c", "sleep 30 & wait"], timeout=0.2)

    assert caught.value.status == 408
