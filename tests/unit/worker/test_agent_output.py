from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from runner.core.values import FailureKind
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.rpc.phases import MARKED_MAX
from runner.worker.agent import events as ev
from runner.worker.agent.events import Attempt, Environment
from runner.worker.agent.executors import Handle
from runner.worker.agent.output import LOG_BYTES_MAX, Output
from runner.worker.frames import Kind

KEY = ("t-1", 2)


def handle(**fields: Any) -> Handle:
    attempt = Attempt(KEY, 1, Environment(), "f", "task t-1")
    defaults = {
        "executor_id": "x-1",
        "attempt": attempt,
        "serial": 5,
        "next_index": 1,
        "lines_dropped": 0,
        "started": None,
        "held": None,
    }
    return cast("Handle", SimpleNamespace(**defaults | fields))


def items(output: Output) -> list[fleet_pb2.ReportItem]:
    got = []
    while output.buffer.has_work:
        got += output.buffer.take()[1]
    return got


def kinds(output: Output) -> list[str | None]:
    return [item.WhichOneof("item") for item in items(output)]


def test_an_attempt_that_ends_before_its_start_was_told_costs_one_item() -> None:
    output, it = Output("m-1"), handle()
    output.started(ev.ReportStarted(KEY, 1, is_run=False), it)
    output.ended(ev.ReportEnded(KEY, 1, fleet_pb2.AttemptEnded().SerializeToString(), None, 0.1), it)
    assert kinds(output) == ["ended"]


def test_an_end_with_more_work_behind_it_waits_for_company() -> None:
    output = Output("m-1")
    woken: list[str] = []
    output.wake, output.wake_later = lambda: woken.append("now"), lambda: woken.append("later")
    for is_last in (False, True):
        output.ended(ev.ReportEnded(KEY, 1, b"", None, 0.1, is_last), handle())
    assert woken == ["later", "now"]


def test_the_start_stays_when_it_matters() -> None:
    for said in ("run", "metrics", "sent"):
        output, it = Output("m-1"), handle()
        output.started(ev.ReportStarted(KEY, 1, is_run=said == "run"), it)
        if said == "metrics":
            output.metrics(it, [int(Kind.METRICS), 5, 0, b""])
        first = items(output) if said == "sent" else []
        output.ended(ev.ReportEnded(KEY, 1, b"", None, 0.1), it)
        assert next(item.WhichOneof("item") for item in first + items(output)) == "started", said


def test_metrics_and_lines_share_one_count() -> None:
    output, it = Output("m-1"), handle()
    output.lines(it, "stdout", ["a", "b"])
    output.metrics(it, [int(Kind.METRICS), 5, 0, b"v"])
    output.lines(it, "stderr", ["c"])
    logs, metrics, last = items(output)
    assert (logs.logs.first_index, metrics.metrics.index, last.logs.first_index) == (1, 3, 4)


def test_words_of_another_attempt_are_dropped() -> None:
    output = Output("m-1")
    output.metrics(handle(), [int(Kind.METRICS), 4, 0, b""])
    output.checkpoint(handle(), [int(Kind.CHECKPOINT), 4, 0, "/x", "", 0])
    output.lines(handle(attempt=None), "stdout", ["nobody's"])
    assert kinds(output) == []


def test_a_flood_of_lines_leaves_a_counted_gap() -> None:
    output, it = Output("m-1"), handle()
    line = "x" * 1000
    for _ in range(LOG_BYTES_MAX // 1000 + 50):
        output.lines(it, "stdout", [line])
    kept = items(output)
    output.buffer.acknowledge(len(kept))
    output.lines(it, "stdout", ["after"])
    output.tell_dropped(it)
    (after,) = items(output)
    lines = sum(len(item.logs.lines) for item in kept)
    assert after.logs.lines_dropped == LOG_BYTES_MAX // 1000 + 50 - lines > 0
    assert after.logs.first_index == lines + 1


def test_a_gap_at_the_end_is_told_too() -> None:
    output, it = Output("m-1"), handle(lines_dropped=3)
    output.tell_dropped(it)
    (gap,) = items(output)
    assert gap.logs.lines_dropped == 3
    assert not gap.logs.lines


def test_many_lines_are_cut_into_items_of_bounded_size() -> None:
    output, it = Output("m-1"), handle()
    lines = ["y" * 60_000] * 20
    output.lines(it, "stdout", lines)
    got = items(output)
    assert [line for item in got for line in item.logs.lines] == lines
    assert max(item.ByteSize() for item in got) < 300_000
    assert [item.logs.first_index for item in got] == [1 + 4 * n for n in range(5)]


def test_empty_lines_and_lines_of_wide_characters_count_as_what_they_are() -> None:
    output, it = Output("m-1"), handle()
    output.lines(it, "stdout", [""] * 400_000)
    output.lines(it, "stdout", ["\ufffd" * 60_000] * 40)
    while output.buffer.has_work:
        _, frame = output.buffer.take()
        assert sum(item.ByteSize() for item in frame) < 2_000_000


def test_a_result_that_no_message_holds_becomes_a_failure() -> None:
    output, it = Output("m-1"), handle()
    returns = fleet_pb2.Returns(values=[types_pb2.Value(inline=b"x" * (4 << 20))])
    output.ended(ev.ReportEnded(KEY, 1, fleet_pb2.AttemptEnded(returns=returns).SerializeToString(), None, 0.1), it)
    output.metrics(it, [Kind.METRICS, 5, 1, b"x" * (4 << 20)])
    (item,) = items(output)
    assert "the limit is" in item.ended.failure.message
    assert (item.ended.key.task_id, item.ended.failure.kind) == ("t-1", FailureKind.USER)


def test_a_fault_becomes_a_failure() -> None:
    output = Output("m-1")
    output.ended(ev.ReportEnded(KEY, 0, None, ev.Fault(FailureKind.TIMEOUT, "too slow"), 1.5), None)
    (item,) = items(output)
    failure = item.ended.failure
    assert (failure.kind, failure.message, failure.machine_id) == (FailureKind.TIMEOUT, "too slow", "m-1")
    assert (item.ended.key.task_id, item.ended.key.attempt, item.ended.duration_s) == ("t-1", 2, 1.5)


def test_requests_after_an_end_that_waits_follow_its_report() -> None:
    output, it = Output("m-1"), handle()
    output.relay(it, b"")
    output.hold(it)
    output.relay(it, b"")
    assert kinds(output) == ["relay"]
    output.ended(ev.ReportEnded(KEY, 1, b"", None, 0.1), it)
    output.let_go(it)
    output.relay(it, b"")
    assert kinds(output) == ["ended", "relay", "relay"]


def test_only_the_first_word_on_a_phase_counts_and_only_so_many_phases() -> None:
    output = Output("m-1")
    for name, time_s in (("weights on CPU", 5.0), ("weights on CPU", 6.0), ("model on GPU", 7.0)):
        output.mark_phase(name, time_s)
    told = [(item.phase.name, item.phase.time_s) for item in items(output)]
    assert told == [("weights on CPU", 5.0), ("model on GPU", 7.0)]
    for number in range(100):
        output.mark_phase(f"step {number}", 8.0)
    assert len(items(output)) == MARKED_MAX - 2
