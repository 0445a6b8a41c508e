"""Everything that ends user code before it is done, and the ends of agents and templates."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import cloudpickle
import pytest

from runner.rpc.gen import types_pb2
from runner.worker.agent import machine as agent_machine
from tests.integration.worker.harness import Worker, is_alive, machine, wait_gone

cloudpickle.register_pickle_by_value(sys.modules[__name__])

CANCELLED = types_pb2.FAILURE_KIND_CANCELLED


def sleeps() -> None:
    print("begun")
    time.sleep(60)


def loops() -> None:
    print("begun")
    while True:
        pass


def sleeps_in_c() -> None:
    print("begun")
    ctypes.CDLL(None).sleep(60)


def waits_for_a_socket() -> None:
    one, _other = socket.socketpair()
    print("begun")
    one.recv(1)


def waits_for_a_lock() -> None:
    print("begun")
    threading.Event().wait()


def waits_for_a_child() -> None:
    print("begun")
    subprocess.run(["sleep", "60"], check=True)


def gets() -> None:
    import runner
    from runner.client.context import current_session
    from runner.ids import ObjectId

    session = current_session()
    session.borrow(ObjectId("t-never.0"))
    ref: runner.ObjectRef[int] = runner.ObjectRef(ObjectId("t-never.0"), session)
    print("begun")
    runner.get(ref)


def runs_asyncio() -> None:
    async def forever() -> None:
        print("begun")
        await asyncio.Event().wait()

    asyncio.run(forever())


@pytest.mark.parametrize(
    "function",
    [sleeps, loops, sleeps_in_c, waits_for_a_socket, waits_for_a_lock, waits_for_a_child, gets, runs_asyncio],
    ids=lambda each: each.__name__,
)
async def test_a_cancelled_task_ends_within_a_second(function: object) -> None:
    async with machine() as worker:
        task = worker.start(function)  # type: ignore[arg-type]
        await worker.line(task, "begun")
        start_s = time.monotonic()
        worker.stop(task)
        outcome = await worker.ended(task)
        assert time.monotonic() - start_s < 1.0
        assert outcome.failure.kind == CANCELLED
        assert "was cancelled" in outcome.failure.message


async def test_a_signal_handler_of_user_code_does_not_outlive_its_attempt() -> None:
    def takes_over() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    async with machine(cpus=1) as worker:
        assert (await worker.run(takes_over)).value() is None
        task = worker.start(sleeps)
        await worker.line(task, "begun")
        worker.stop(task)
        assert (await worker.ended(task)).failure.kind == CANCELLED


async def test_a_task_can_clean_up_when_it_is_cancelled() -> None:
    def cleans_up() -> str:
        try:
            print("begun")
            time.sleep(60)
        except KeyboardInterrupt:
            print("cleaned up")
        return "as if nothing had happened"

    async with machine() as worker:
        task = worker.start(cleans_up)
        await worker.line(task, "begun")
        worker.stop(task)
        outcome = await worker.ended(task)
        assert outcome.failure.kind == CANCELLED
        assert outcome.lines()[-1] == "cleaned up"


async def test_a_forced_cancel_kills_at_once() -> None:
    def stubborn() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        print("begun")
        time.sleep(60)

    async with machine() as worker:
        task = worker.start(stubborn)
        await worker.line(task, "begun")
        pid = worker.executor_pid(task)
        worker.stop(task, force=True)
        assert (await worker.ended(task)).failure.kind == CANCELLED
        assert not is_alive(pid)


async def test_a_stop_escalates_to_sigterm_and_sigkill(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent_machine, "TERM_AFTER_S", 0.3)
    monkeypatch.setattr(agent_machine, "KILL_AFTER_S", 0.3)

    def stubborn() -> None:
        signal.signal(signal.SIGINT, lambda *_: os.write(1, b"interrupt\n"))
        signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"terminate\n"))
        print("begun")
        while True:
            signal.pause()

    async with machine() as worker:
        task = worker.start(stubborn)
        await worker.line(task, "begun")
        worker.stop(task)
        outcome = await worker.ended(task)
        assert outcome.failure.kind == CANCELLED
        assert outcome.lines() == ["begun", "interrupt", "terminate"]


async def test_a_timeout_needs_no_coordinator() -> None:
    async with machine() as worker:
        outcome = await worker.run(sleeps, timeout_s=0.2)
        assert outcome.failure.kind == types_pb2.FAILURE_KIND_TIMEOUT
        assert "timeout_s=0.2" in outcome.failure.message


async def test_a_late_interrupt_hits_nobody() -> None:
    """Stops race with ends: whatever wins, the next attempt in that executor is never hit."""

    def quick() -> int:
        return sum(range(200))

    async with machine(cpus=1) as worker:
        await worker.run(quick)
        for _ in range(60):
            victim, other = worker.start(quick, slot=1), worker.start(quick, slot=1)
            worker.stop(victim)
            first, second = await worker.ended(victim), await worker.ended(other)
            assert first.ended is not None
            assert first.ended.WhichOneof("outcome") == "returns" or first.failure.kind == CANCELLED
            assert second.returned is not None or second.value() == 19900


async def test_cancel_of_an_attempt_that_waits_in_its_slot() -> None:
    async with machine(cpus=1) as worker:
        head = worker.start(sleeps, slot=1)
        behind = worker.start(sleeps, slot=1)
        worker.stop(behind)
        outcome = await worker.ended(behind)
        assert outcome.returned is not None or outcome.failure.kind == CANCELLED
        worker.stop(head, force=True)
        await worker.ended(head)


async def test_a_chained_attempt_comes_back_when_its_predecessor_is_slow_or_blocks() -> None:
    async with machine(cpus=1) as worker:
        for function in (sleeps, gets):
            head = worker.start(function, slot=1)
            behind = worker.start(sleeps, slot=1)
            outcome = await worker.ended(behind)
            assert outcome.returned is not None and outcome.ended is None
            worker.stop(head, force=True)
            await worker.ended(head)


async def test_a_blocked_task_goes_on_when_it_has_its_cpus_again() -> None:
    from runner.rpc.gen import client_pb2
    from runner.worker.agent import events as ev
    from runner.worker.frames import Kind, encode

    def waits() -> str:
        import runner
        from runner.client.context import current_session
        from runner.ids import ObjectId

        session = current_session()
        session.borrow(ObjectId("t-other.0"))
        ref: runner.ObjectRef[str] = runner.ObjectRef(ObjectId("t-other.0"), session)
        return runner.get(ref) + "!"

    async with machine() as worker:
        task = worker.start(waits)
        outcome = worker.outcomes[task]
        await worker.until(lambda: "blocked" in outcome.kinds())
        relayed = [item.relay.request for item in outcome.items if item.WhichOneof("item") == "relay"]
        assert relayed[0].WhichOneof("body") == "hello"
        operations = [op.WhichOneof("op") for request in relayed[1:] for op in request.frame.operations]
        assert operations[:2] == ["add_refs", "resolve"]

        from runner.objects.serialization import serialize

        value = types_pb2.Value(inline=serialize("there").to_bytes()).SerializeToString()
        reply = client_pb2.SessionReply()
        reply.frame.ready.add(object_id="t-other.0", value=value)
        handle = next(each for each in worker.shell.executors.by_number.values() if each.attempt is not None)
        handle.link.send(encode(Kind.SESSION_REPLY, reply.SerializeToString()))
        await worker.until(lambda: "unblocked" in outcome.kinds())
        assert outcome.ended is None
        worker.shell.handle(ev.AttemptResumed((task, 1)))
        assert (await worker.ended(task)).value() == "there!"


# ---- ends of agents and templates ----
def spreads() -> None:
    """Children in the group, out of the group, and orphaned."""
    grandchild = (
        "import subprocess; print(subprocess.Popen(['sleep', '60'], start_new_session=True, stdout=-3, stderr=-3).pid)"
    )
    ours = [subprocess.Popen(["sleep", "60"]).pid, subprocess.Popen(["sleep", "60"], start_new_session=True).pid]
    orphan = int(subprocess.run([sys.executable, "-c", grandchild], check=True, capture_output=True).stdout)
    print("pids", os.getpid(), *ours, orphan, flush=True)
    print("begun")
    time.sleep(60)


async def spread_out(worker: Worker) -> list[int]:
    task = worker.start(spreads)
    await worker.line(task, "begun")
    line = next(each for each in worker.outcomes[task].lines() if each.startswith("pids"))
    return [int(word) for word in line.split()[1:]]


async def test_nothing_is_left_when_the_agent_goes() -> None:
    """The template sees the end of its socket, however the agent ended, and kills everything."""
    async with machine() as worker:
        pids = await spread_out(worker)
        executors = [each.pid for each in worker.shell.executors.by_number.values() if each.pid]
        start_s = time.monotonic()
        worker.shell.close()
        assert wait_gone(worker.template_pid, 2.0)
        assert all(wait_gone(pid, 2.0) for pid in [*pids, *executors])
        assert time.monotonic() - start_s < 2.0


async def test_executors_die_with_their_template() -> None:
    async with machine() as worker:
        task = worker.start(sleeps)
        await worker.line(task, "begun")
        executors = [each.pid for each in worker.shell.executors.by_number.values() if each.pid]
        os.kill(worker.template_pid, signal.SIGKILL)
        await worker.until(lambda: worker.exit_reason is not None)
        assert worker.exit_reason == "its template ended"
        assert all(wait_gone(pid, 2.0) for pid in executors)


async def test_a_layer_that_cannot_be_imported_is_no_obstacle() -> None:
    async with machine() as worker:
        worker.shell.preload(["no_such_module_here"])
        assert (await worker.run(os.getpid)).ended is not None


async def test_executors_are_ready_before_anybody_asks() -> None:
    async with machine(cpus=4) as worker:
        await worker.until(lambda: True)
        while sum(1 for each in worker.shell.executors.by_number.values() if each.pid) < 2:
            await asyncio.sleep(0)
        assert len(worker.shell.executors.by_number) == 2


async def test_only_segments_of_the_store_are_freed(tmp_path: Path) -> None:
    async with machine() as worker:
        store = Path(worker.shell.executors.settings["store_path"])
        segment, other, nested = store / "o-1-ab", tmp_path / "other", store / "packages" / "p"
        nested.parent.mkdir(exist_ok=True)
        for path in (segment, other, nested):
            path.touch()
        for wanted in (segment, other, nested, store / ".." / other.name, f"{store}/../{store.name}/../o"):
            worker.shell.free_segment(str(wanted))
        worker.shell.free_segment(str(segment))
        assert [path.exists() for path in (segment, other, nested)] == [False, True, True]
