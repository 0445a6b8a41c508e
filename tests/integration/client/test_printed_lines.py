"""What tasks print reaches the terminal: with names, whole, and not sixty-four times."""

from __future__ import annotations

import pytest

from tests.integration.client.conftest import Script, finish

pytestmark = pytest.mark.timeout(90)


def test_every_line_is_printed_with_its_name_and_none_is_lost_at_the_end(script: Script) -> None:
    status, out, err = finish(
        script(
            """
            import sys, runner
            @runner.remote
            def talk(count):
                name = runner.get_runtime_context().get_task_name()
                for index in range(count):
                    print("line", index, "of", name)
                print("to stderr", file=sys.stderr)
                print("no end of line", end="")
            runner.init()
            runner.get([talk.options(name="lr=0.1").remote(500), talk.remote(2)])
            """
        )
    )
    assert status == 0, err
    lines = out.splitlines()
    assert [line for line in lines if line.startswith("(lr=0.1) line")] == [
        f"(lr=0.1) line {i} of lr=0.1" for i in range(500)
    ]
    assert lines.count("(talk) line 1 of talk") == 1
    # Of few runs every line is shown, also those that another task has written.
    told = sorted(line for line in [*lines, *err.splitlines()] if "no end of line" in line or "to stderr" in line)
    assert told == [f"({name}) {text}" for name in ("lr=0.1", "talk") for text in ("no end of line", "to stderr")]


def test_equal_lines_of_many_runs_are_printed_once_with_a_count(script: Script) -> None:
    status, out, err = finish(
        script(
            """
            import runner
            @runner.remote
            def talk():
                print("the same warning")
            runner.init()
            runner.get([talk.options(name=f"r{index}").remote() for index in range(10)])
            """
        )
    )
    assert status == 0, err
    first, count = [line.partition(") ")[2] for line in out.splitlines() if "the same warning" in line]
    assert first == "the same warning"
    assert count.startswith("the same warning [9 more times, from 9 other tasks")
