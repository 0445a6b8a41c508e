"""Records keep what they do not know, and read what the API really writes."""

from __future__ import annotations

import pytest

from runner.providers.base import MachineState
from runner.providers.fly.model import (
    Config,
    Event,
    ExitEvent,
    Machine,
    Volume,
    format_duration,
    parse_duration,
    parse_time,
)
from runner.providers.fly.records import describe_end, describe_exit, phases, to_record
from tests.unit.providers.fly.scripted import ID, M1, exit_event, machine


@pytest.mark.parametrize(
    ("value", "seconds"),
    # REFERENCE 1.4, durations
    [("15s", 15), ("1m15s", 75), ("1.5h", 5400), ("500ms", 0.5), ("0", 0), (10_000_000_000, 10), (0, 0), ("2us", 2e-6)],
)
def test_durations_as_strings_and_as_nanoseconds(value, seconds) -> None:
    assert parse_duration(value) == pytest.approx(seconds)


@pytest.mark.parametrize("value", ["", "15", "s", "15s x", None, 1.5, True, "-1s"])
def test_what_is_no_duration(value) -> None:
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(value)


def test_a_stop_timeout_in_both_forms() -> None:
    assert Config({"stop_config": {"timeout": "10s"}}).stop_timeout_s == 10
    assert Config({"stop_config": {"timeout": 10_000_000_000}}).stop_timeout_s == 10
    assert Config({}).stop_timeout_s is None
    assert parse_duration(format_duration(10)) == 10


def test_times() -> None:
    assert parse_time("2026-11-21T10:00:00.123456789Z") == pytest.approx(1795255200.123456)
    assert parse_time("2026-11-21T10:00:00Z") == 1795255200
    assert parse_time(None) == parse_time("yesterday") == 0


def test_unknown_keys_are_kept_through_a_change() -> None:
    """REFERENCE 1.4: keep unknown keys; 1.2: an update replaces the whole."""
    config = Machine(machine()).config
    changed = config.changed(image="other")
    assert changed.raw == {**machine()["config"], "image": "other"}
    assert Machine(machine()).raw["from_the_future"] == 7


def test_missing_and_odd_values_read_as_empty() -> None:
    odd = Machine({"id": ID, "state": 5, "events": None, "config": None, "cordoned": "yes"})
    assert (odd.state, odd.events, odd.has_config, odd.is_cordoned, odd.host_status) == ("", (), False, False, "ok")
    assert odd.config.metadata == {}


def test_a_host_that_does_not_answer_gives_an_incomplete_config() -> None:
    raw = machine(host_status="unreachable")
    raw["incomplete_config"] = raw.pop("config")
    lost = Machine(raw)
    assert not lost.has_config
    assert lost.config.metadata["runner_machine"] == M1
    assert "host does not answer" in to_record(lost).detail


def test_events_are_newest_first_whatever_their_order() -> None:
    """REFERENCE 1.2: newest first is only inferred."""
    events = [{"id": str(at), "type": "start", "status": "started", "timestamp": at} for at in (5, 9, 1)]
    assert [event.text("id") for event in Machine(machine(events=events)).events] == ["9", "5", "1"]
    assert Event(events[1]).unix_s == 0.009


def test_a_repr_shows_no_environment() -> None:
    raw = machine()
    raw["config"]["env"] = {"RUNNER_BOOT": "hidden"}
    for each in (Machine(raw), Machine(raw).config, Volume(raw)):
        assert "hidden" not in repr(each)


@pytest.mark.parametrize(
    ("end", "words"),
    # REFERENCE 1.4, exit_event
    [
        ({"exit_code": 1}, "exited with code 1"),
        ({"exit_code": 0, "guest_exit_code": 3, "signal": -1}, "exited with code 3"),
        ({"exit_code": 0, "oom_killed": True, "signal": 9}, "ran out of memory"),
        ({"guest_signal": 9, "exit_code": 0}, "was killed by signal 9 (SIGKILL)"),
        ({"signal": 15, "exit_code": 0}, "was killed by signal 15 (SIGTERM)"),
        ({"exit_code": 137, "signal": -1}, "exited with code 137, as by signal 9 (SIGKILL)"),
        ({"exit_code": 0}, "exited with code 0"),
        ({}, "exit code is not known"),
    ],
)
def test_an_exit_in_words(end, words) -> None:
    assert words in describe_exit(ExitEvent(end))


def test_why_a_machine_ended() -> None:
    events = [exit_event(1000, exit_code=1), exit_event(9000, oom_killed=True)]
    assert "memory" in describe_end(Machine(machine("destroyed", events=events)))
    assert "gone" in describe_end(None)
    launch = {"type": "launch", "status": "failed", "timestamp": 1000}
    assert "launch failed" in describe_end(Machine(machine("failed", events=[launch])))
    assert "host does not answer" in describe_end(Machine(machine("stopped", host_status="unreachable")))


def test_an_exit_under_the_monitor_event() -> None:
    event = Event({"type": "exit", "request": {"MonitorEvent": {"exit_event": {"exit_code": 4}}}})
    assert event.exit is not None and event.exit.code == 4


@pytest.mark.parametrize(
    ("state", "expected"),
    # REFERENCE 1.5
    [
        ("created", MachineState.CREATING),
        ("starting", MachineState.CREATING),
        ("started", MachineState.RUNNING),
        ("replacing", MachineState.RUNNING),
        ("suspending", MachineState.RUNNING),
        ("suspended", MachineState.SUSPENDED),
        ("stopped", MachineState.STOPPED),
        ("failed", MachineState.STOPPED),
        ("destroying", MachineState.STOPPED),
        ("destroyed", MachineState.DESTROYED),
        ("migrated", MachineState.DESTROYED),
        ("a state of tomorrow", MachineState.RUNNING),
    ],
)
def test_states(state: str, expected: MachineState) -> None:
    assert to_record(Machine(machine(state))).state is expected


def test_phases_from_events() -> None:
    events = [
        {"type": "start", "status": "started", "timestamp": 9000},
        {"type": "start", "status": "started", "timestamp": 5000},
        {"type": "image", "status": "pulled", "timestamp": 4000},
    ]
    found = phases(Machine(machine(events=events)))
    assert (found["started"], found["image pulled"]) == (5, 4)
    assert found["created"] == pytest.approx(1795255200.123456)


def test_a_record() -> None:
    record = to_record(Machine(machine()))
    assert (record.name, record.provider_machine_id, record.region, record.size) == (M1, ID, "iad", "performance-1x")


@pytest.mark.parametrize(
    ("changes", "is_free"),
    [
        ({}, True),
        ({"attached_machine_id": ID}, False),
        ({"state": "pending_destroy"}, False),
        ({"host_status": "unreachable"}, False),
    ],
)
def test_a_free_volume(changes, is_free) -> None:
    assert Volume({"id": "vol_1", "state": "created", "attached_machine_id": None} | changes).is_free is is_free
