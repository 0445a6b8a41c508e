"""A suspend of one machine as its executors see it: hooks, parked tasks, actors, random numbers. The test plays the coordinator."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle

import runner
from runner.rpc.gen import fleet_pb2
from runner.worker.agent import suspend_words as words
from runner.worker.agent.suspending import Stage
from tests.integration.helpers import until
from tests.integration.worker.actor_classes import meet, until_suspended, wait_for_file
from tests.integration.worker.harness import Worker, machine

cloudpickle.register_pickle_by_value(sys.modules[__name__])

HOOKS_S = 5.0


class Suspend:
    """One suspend of a machine, step by step."""

    def __init__(self, worker: Worker, snapshot: int = 1) -> None:
        self.worker = worker
        self.snapshot = snapshot

    def say(self, action: fleet_pb2.SuspendAction, hooks_s: float = HOOKS_S, *, interrupts: bool = False) -> None:
        self.worker.shell.sleep.asked(
            fleet_pb2.Suspend(snapshot=self.snapshot, action=action, hooks_s=hooks_s, interrupts=interrupts)
        )

    def steps(self) -> list[fleet_pb2.SuspendStep]:
        return [
            item.suspend_step
            for item in self.worker.others
            if item.WhichOneof("item") == "suspend_step" and item.suspend_step.snapshot == self.snapshot
        ]

    async def step(self, progress: fleet_pb2.SuspendProgress) -> fleet_pb2.SuspendStep:
        await self.worker.until(lambda: any(each.progress == progress for each in self.steps()))
        return self.steps()[-1]

    async def quiet(self, *, interrupts: bool = False) -> None:
        self.say(fleet_pb2.SUSPEND_ACTION_QUIET, interrupts=interrupts)
        await self.step(fleet_pb2.SUSPEND_PROGRESS_QUIET)

    async def prepare(self) -> None:
        self.say(fleet_pb2.SUSPEND_ACTION_PREPARE)
        await self.step(fleet_pb2.SUSPEND_PROGRESS_PREPARED)
        self.worker.shell.handle(words.HungUp())

    async def refused(self, hooks_s: float = HOOKS_S) -> str:
        self.say(fleet_pb2.SUSPEND_ACTION_PREPARE, hooks_s)
        return (await self.step(fleet_pb2.SUSPEND_PROGRESS_REFUSED)).reason

    async def wake(self, kind: fleet_pb2.WakeKind = fleet_pb2.WAKE_KIND_RESUMED, hooks_s: float = HOOKS_S) -> str:
        """What Awake says of a failure."""
        shell = self.worker.shell
        shell.output.buffer.begin_generation()
        wake = fleet_pb2.Wake(kind=kind, snapshot=self.snapshot, slept_s=7.5, config={"token": "fresh"})
        if shell.sleep.registered(fleet_pb2.RegisterReply(generation=2, wake=wake), owns_clock=False):
            shell.reseed()
        shell.handle(words.Awoke(0.0, hooks_s))
        told = self.worker.others
        await self.worker.until(lambda: any(item.awake.snapshot == self.snapshot for item in told))
        return next(item.awake.failure for item in told if item.awake.snapshot == self.snapshot)

    async def whole(self) -> None:
        await self.quiet()
        await self.prepare()
        assert await self.wake() == ""


def note(path: str, text: str) -> None:
    with open(path, "a") as file:
        file.write(text + "\n")


def install(path: str) -> None:
    runner.before_suspend(lambda: note(path, "before"))

    @runner.after_resume
    def after(context: runner.ResumeContext) -> None:
        note(path, f"{context.kind} {context.slept_s} {context.generation} {context.snapshot} {context.config}")


async def test_hooks_of_an_idle_executor_run_around_the_suspend(tmp_path: Path) -> None:
    told = tmp_path / "told"
    async with machine(cpus=1) as worker:
        await worker.run(install, str(told))
        await Suspend(worker).whole()
        assert told.read_text() == "before\nresumed 7.5 2 1 {'token': 'fresh'}\n"
        await Suspend(worker, 2).whole()
        assert told.read_text().count("before\n") == 2


async def test_a_hook_that_fails_refuses_the_suspend_and_the_others_are_undone(tmp_path: Path) -> None:
    def install_good(path: str, *places: str) -> None:
        install(path)
        meet(*places)

    def install_bad(*places: str) -> None:
        def burn() -> None:
            raise ValueError("it burns")

        runner.before_suspend(burn)
        meet(*places)

    told, places = tmp_path / "told", (str(tmp_path / "a"), str(tmp_path / "b"))
    async with machine(cpus=2) as worker:
        good, bad = worker.start(install_good, str(told), *places), worker.start(install_bad, *places[::-1])
        await worker.ended(good)
        await worker.ended(bad)
        suspend = Suspend(worker)
        await suspend.quiet()
        reason = await suspend.refused()
        assert "worker process" in reason and "burn failed: ValueError: it burns" in reason
        assert told.read_text() == "before\ncancelled 0.0 0 1 {}\n"
        assert (await worker.run(len, (1, 2))).value() == 2


async def test_a_hook_that_takes_too_long_refuses_the_suspend(tmp_path: Path) -> None:
    def install_slow(path: str) -> None:
        def wait() -> None:
            wait_for_file(path)

        runner.before_suspend(wait)

    gate = tmp_path / "gate"
    async with machine(cpus=1) as worker:
        await worker.run(install_slow, str(gate))
        suspend = Suspend(worker)
        await suspend.quiet()
        suspend.say(fleet_pb2.SUSPEND_ACTION_PREPARE, 1.0)
        # It is asked to undo, which it can only do when its hook is over.
        suspending = worker.shell._machine._suspending
        await until(lambda: suspending.stage is Stage.UNDOING, 15.0, "the hooks' time to be over")
        gate.touch()
        assert "took longer than 1 s" in (await suspend.step(fleet_pb2.SUSPEND_PROGRESS_REFUSED)).reason
        assert (await worker.run(len, (1, 2))).value() == 2


async def test_a_hook_that_fails_after_the_resume_is_told(tmp_path: Path) -> None:
    def install_bad() -> None:
        def burn(context: runner.ResumeContext) -> None:
            raise OSError("no GPU")

        runner.after_resume(burn)

    async with machine(cpus=1) as worker:
        await worker.run(install_bad)
        suspend = Suspend(worker)
        await suspend.quiet()
        await suspend.prepare()
        assert "after_resume" in (failure := await suspend.wake()) and "OSError: no GPU" in failure
        assert (await worker.ended(worker.start(len, ()))).returned is not None


def warm_up() -> Any:
    print("before the snapshot", flush=True)
    context = until_suspended()
    print("after the snapshot", flush=True)
    return context.kind, context.slept_s, context.config["token"] if context.config else ""


async def test_a_task_that_is_ready_waits_through_the_suspend_and_goes_on() -> None:
    async with machine(cpus=2) as worker:
        task = worker.start(warm_up)
        await worker.line(task, "before the snapshot")
        suspend = Suspend(worker)
        await suspend.quiet()
        await suspend.prepare()
        assert worker.outcomes[task].lines() == ["before the snapshot"]
        assert await suspend.wake() == ""
        outcome = await worker.ended(task)
        assert outcome.value() == ("resumed", 7.5, "fresh")
        assert outcome.lines() == ["before the snapshot", "after the snapshot"]
        firsts = [item.logs.first_index for item in outcome.items if item.WhichOneof("item") == "logs"]
        assert firsts == [1, 2]


async def test_a_task_that_is_ready_goes_on_when_the_suspend_is_called_off() -> None:
    async with machine(cpus=2) as worker:
        task = worker.start(warm_up)
        await worker.line(task, "before the snapshot")
        suspend = Suspend(worker)
        await suspend.quiet()
        suspend.say(fleet_pb2.SUSPEND_ACTION_CALL_OFF)
        assert (await worker.ended(task)).value() == ("cancelled", 0.0, "")


async def test_a_parked_task_can_be_cancelled() -> None:
    async with machine(cpus=2) as worker:
        task = worker.start(warm_up)
        await worker.line(task, "before the snapshot")
        await Suspend(worker).quiet()
        worker.stop(task)
        assert "cancelled" in (await worker.ended(task)).failure.message


async def test_with_interrupts_a_running_task_comes_back_uncharged() -> None:
    def work() -> None:
        import threading

        print("begun", flush=True)
        threading.Event().wait()

    async with machine(cpus=2) as worker:
        task = worker.start(work)
        await worker.line(task, "begun")
        await Suspend(worker).quiet(interrupts=True)
        assert worker.outcomes[task].returned is not None


IN_TEMPLATE = """
import builtins, runner
builtins.kinds = []
@runner.after_resume
def again(context):
    if context.kind == "cold" and {fails}:
        raise OSError("no GPU")
    builtins.kinds.append(context.kind)
"""


def kinds() -> Any:
    import builtins

    return builtins.kinds  # type: ignore[attr-defined]


async def test_hooks_of_template_code_run_as_cold_in_each_executor_before_its_first_task() -> None:
    async with machine(cpus=1, template_code=IN_TEMPLATE.format(fails=False)) as worker:
        assert (await worker.run(kinds)).value() == (await worker.run(kinds)).value() == ["cold"]
        await Suspend(worker).whole()
        assert (await worker.run(kinds)).value() == ["cold", "resumed"]


async def test_a_cold_hook_that_fails_is_why_the_task_cannot_begin() -> None:
    async with machine(cpus=1, template_code=IN_TEMPLATE.format(fails=True)) as worker:
        for _ in range(2):
            assert "after_resume __main__.again failed: OSError: no GPU" in (await worker.run(kinds)).failure.message


def draw() -> tuple[float, float]:
    import random

    import numpy

    return random.random(), float(numpy.random.random())  # noqa: NPY002  the global one is what is seeded


def seed() -> None:
    import random

    import numpy

    random.seed(1)
    numpy.random.seed(1)  # noqa: NPY002


async def test_no_two_executors_draw_the_same_numbers() -> None:
    def draw_with_the_other(*places: str) -> Any:
        meet(*places)
        return draw()

    async with machine(cpus=2) as worker:
        paths = f"{worker.folder}/a", f"{worker.folder}/b"
        both = [worker.start(draw_with_the_other, *paths), worker.start(draw_with_the_other, *paths[::-1])]
        one, two = [(await worker.ended(each)).value() for each in both]
        assert one[0] != two[0] and one[1] != two[1]


async def test_an_idle_executor_does_not_go_on_where_the_snapshot_was_taken() -> None:
    seed()
    repeated = draw()
    async with machine(cpus=1) as worker:
        await worker.run(seed)
        assert (await worker.run(draw)).value() == repeated  # it keeps its state from task to task
        await worker.run(seed)
        await Suspend(worker).whole()
        drawn = (await worker.run(draw)).value()
        assert drawn[0] != repeated[0] and drawn[1] != repeated[1]


async def test_a_parked_task_keeps_its_numbers_unless_it_asks_for_others() -> None:
    def park(reseeds: bool) -> Any:
        seed()
        print("seeded", flush=True)
        until_suspended()
        if reseeds:
            runner.reseed()
        return draw()

    seed()
    repeated = draw()
    async with machine(cpus=2) as worker:
        keeps, asks = worker.start(park, False), worker.start(park, True)
        await worker.line(keeps, "seeded")
        await worker.line(asks, "seeded")
        await Suspend(worker).whole()
        assert (await worker.ended(keeps)).value() == repeated
        drawn = (await worker.ended(asks)).value()
        assert drawn[0] != repeated[0] and drawn[1] != repeated[1]
