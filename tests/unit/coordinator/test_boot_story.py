"""What people read when a machine did not come up."""

from __future__ import annotations

from runner.coordinator.boot_story import LINES_MAX, boot_story, error_story
from runner.providers.base import provider_error


def test_it_says_what_was_seen_how_far_it_came_what_the_provider_says_and_the_last_lines() -> None:
    phases = {"requested": 0.0, "agent_up": 3.24, "created": 0.5}
    assert boot_story(phases, "its agent did not register within 120 s", "exit, code 1", ["one", "", "two"]) == (
        "its agent did not register within 120 s; it came as far as 'agent up' after 3.2 s; "
        "the provider says: exit, code 1\n  one\n  two"
    )


def test_what_is_not_known_is_left_out() -> None:
    assert boot_story({}, "gone", "", []) == "gone"


def test_lines_are_told_once_and_only_the_last() -> None:
    lines = [f"line {number}" for number in range(80)]
    told = boot_story({}, "agent ended with exit status 1; line 78; line 79", "", lines).splitlines()
    assert told[0] == "agent ended with exit status 1"
    assert told[1:] == [f"  line {number}" for number in range(80 - LINES_MAX, 80)]


def test_a_line_without_end_is_cut() -> None:
    told = boot_story({}, "gone", "", ["x" * 10_000])
    assert len(told) < 320
    assert told.endswith("x…")


def test_an_error_of_the_provider_names_its_phase_and_the_last_lines() -> None:
    error = provider_error("boot", "m-1", "exit status 1", log_lines=tuple(f"line {n}" for n in range(60)))
    told = error_story(error).splitlines()
    assert told[0] == "boot of machine m-1 failed: exit status 1"
    assert told[1:] == [f"  line {number}" for number in range(10, 60)]
