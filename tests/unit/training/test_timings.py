"""Where the time of boots goes."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from runner.training.tables import phases_table
from runner.training.timings import PhaseTimes, timings

FULL = {"requested": 0.0, "created": 1.0, "image pulled": 3.0, "started": 3.5, "agent_up": 4.0, "registered": 4.25}


def test_a_phase_takes_the_time_since_the_one_before_it() -> None:
    shown = timings([FULL])
    assert [(each.phase, each.p50_s) for each in shown.boot] == [
        ("created", 1.0), ("image pulled", 2.0), ("started", 0.5), ("agent_up", 0.5), ("registered", 0.25),
    ]  # fmt: skip
    assert shown.ready is not None
    assert (shown.ready.max_s, shown.ready.machines) == (4.25, 1)
    assert shown.loading == ()


def test_what_is_loaded_later_is_told_apart() -> None:
    late = {**FULL, "template_ready+torch": 9.25, "first_task": 10.0, "weights on CPU": 12.0, "model on GPU": 15.0}
    shown = timings([late])
    assert [each.phase for each in shown.all] == [
        "created", "image pulled", "started", "agent_up", "registered", "ready",
        "template_ready+torch", "first_task", "weights on CPU", "model on GPU",
    ]  # fmt: skip
    assert [each.p50_s for each in shown.loading] == [5.0, 0.75, 2.0, 3.0]


def test_a_machine_that_lacks_a_phase_counts_its_time_to_the_next() -> None:
    without = {name: at_s for name, at_s in FULL.items() if name != "image pulled"}
    shown = {each.phase: each for each in timings([FULL, without]).boot}
    assert list(shown) == ["created", "image pulled", "started", "agent_up", "registered"]
    assert shown["image pulled"].machines == 1
    assert shown["started"].seconds == (0.5, 2.5)


def test_a_machine_that_has_not_registered_is_still_booting() -> None:
    shown = timings([{"requested": 0.0, "created": 2.0}])
    assert [each.phase for each in shown.boot] == ["created"]
    assert shown.ready is None
    assert timings([]).all == timings([{}]).all == []


def test_phases_come_in_the_order_of_most_machines() -> None:
    odd = {"registered": 1.0, "created": 2.0}
    assert [each.phase for each in timings([FULL, FULL, FULL, odd]).boot] == list(FULL)[1:]
    assert [each.phase for each in timings([FULL, FULL, FULL, odd]).loading] == ["created"]


def test_percentiles_and_the_histogram() -> None:
    times = PhaseTimes.of("x", [4.0, 1.0, 2.0, 3.0, 0.0])
    assert (times.p50_s, times.max_s, times.machines) == (2.0, 4.0, 5)
    assert times.p95_s == pytest.approx(3.8)
    assert times.histogram(4) == [1, 1, 1, 2]
    assert PhaseTimes.of("x", [0.0, 0.0]).histogram(3) == [2, 0, 0]


@given(
    st.lists(st.dictionaries(st.sampled_from([*FULL, "first_task", "mine"]), st.floats(0, 1e6), max_size=8), max_size=8)
)
def test_no_time_is_lost_or_counted_twice(machines: list[dict[str, float]]) -> None:
    shown = timings(machines)
    told = sum(sum(each.seconds) for each in (*shown.boot, *shown.loading))
    reached = [{name: at_s for name, at_s in phases.items() if name != "requested"} for phases in machines]
    assert told == pytest.approx(sum(max(phases.values()) for phases in reached if phases))
    for each in shown.all:
        assert sum(each.histogram(16)) == each.machines
        assert 0 <= each.p50_s <= each.p95_s <= each.max_s


def text_of(width: int, machines: list[dict[str, float]]) -> list[str]:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    with console.capture() as captured:
        console.print(phases_table(timings(machines)))
    return [line.rstrip() for line in captured.get().splitlines()]


@pytest.mark.parametrize("width", [80, 140])
def test_the_table_fits_a_terminal(width: int) -> None:
    machines = [{**FULL, "registered": 4.25 + n / 16, "first_task": 8.0, "weights on CPU": 200.0} for n in range(16)]
    lines = text_of(width, machines)
    assert lines[0].split() == ["boot", "phase", "p50", "p95", "max", "machines", "0", "to", "max"]
    assert lines[5].startswith("registered      0.72 s  1.14 s  1.19 s        16     ▄▄")
    assert lines[6].startswith("ready ")
    assert lines[7] == "after the boot"
    assert lines[9].startswith("weights on CPU   192 s   192 s   192 s        16                 █")
    assert max(map(len, lines)) <= width


def test_json_has_all_seconds() -> None:
    shown = json.loads(json.dumps(timings([FULL, {**FULL, "first_task": 5.0}]).to_dict()))
    assert list(shown) == ["boot", "ready", "loading"]
    assert shown["loading"] == [
        {"phase": "first_task", "p50_s": 0.75, "p95_s": 0.75, "max_s": 0.75, "machines": 1, "seconds": [0.75]}
    ]
    assert timings([]).to_dict()["ready"] is None


def test_where_there_is_little_room_names_give_way_and_not_numbers() -> None:
    long = "template ready with numpy, torch, transformers"
    out = io.StringIO()
    Console(width=80, file=out).print(phases_table(timings([{"created": 0.11, "registered": 0.5, long: 13.61}])))
    text = out.getvalue()
    assert "13.11 s  13.11 s  13.11 s" in text
    assert "…" not in text
