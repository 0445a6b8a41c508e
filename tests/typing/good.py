"""What type checkers must accept, and what they must infer. Checked by test_typing.py, never run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import assert_type

import runner
from runner import ActorClass, ActorHandle, ObjectRef, TemplateFunction


@runner.remote
def add(x: int, y: int = 0) -> int:
    return x + y


@runner.remote(num_gpus=0.5, max_retries=2, retry_exceptions=[ValueError], memory="2GiB")
def name_of(number: int, *, upper: bool = False) -> str:
    return str(number)


def pow_of(x: int, y: int) -> int:
    return int(x**y)


class Plain:
    def __init__(self, start: int) -> None:
        self.start = start

    @runner.method(num_returns=2)
    def pair(self) -> tuple[int, int]:
        return self.start, 2


def use_actors() -> None:
    cls = runner.remote(Plain)
    assert_type(cls, ActorClass[Plain])
    assert_type(runner.remote(num_gpus=1, max_restarts=-1)(Plain), ActorClass[Plain])
    handle = cls.options(name="n", max_concurrency=2).remote(1)
    assert_type(handle, ActorHandle[Plain])
    handle.pair.remote()
    handle.pair.options(num_returns=1).remote()
    runner.kill(handle, no_restart=False)
    runner.get_actor("n", namespace="space")


@runner.after_resume
def come_back(context: runner.ResumeContext) -> None:
    assert_type(context.slept_s, float)
    assert_type(runner.reseed(), None)


class Hooked:
    @runner.before_suspend
    async def offload(self) -> None: ...


def use_suspends() -> None:
    assert_type(runner.ready_to_snapshot(), runner.ResumeContext | None)
    come_back(runner.ResumeContext("resumed"))


@runner.template
def weights() -> list[float]:
    return [1.0]


@runner.template(timeout_s=60)
def tokenizer() -> str:
    return "tokenizer"


@runner.remote(template=weights)
def predict(x: float) -> float:
    return weights()[0] * x


def use_templates() -> None:
    assert_type(weights(), list[float])
    assert_type(weights, TemplateFunction[list[float]])
    assert_type(tokenizer(), str)
    assert_type(predict.options(template=[weights, tokenizer]).remote(1.0), ObjectRef[float])
    model = runner.Model(weights, offload=lambda value: value)
    assert_type(model, runner.Model[list[float]])
    assert_type(model.get(), list[float])


def use() -> None:
    ref: ObjectRef[int] = add.remote(1)
    assert_type(name_of.remote(2, upper=True), ObjectRef[str])
    assert_type(name_of.options(num_cpus=2, name="n").remote(3), ObjectRef[str])
    assert_type(runner.get(ref), int)
    assert_type(runner.get([add.remote(1), add.remote(2, y=3)], timeout=5), list[int])
    assert_type(add.remote(ref), ObjectRef[int])
    assert_type(add.remote(1, ref), ObjectRef[int])
    ready, others = runner.wait([ref], num_returns=1)
    assert_type(ready, list[ObjectRef[int]])
    assert_type(others, list[ObjectRef[int]])
    assert_type(runner.put("a"), ObjectRef[str])
    assert_type(runner.map(add, [1, 2]), Iterator[int])
    with runner.Executor(max_workers=2, num_cpus=1) as executor:
        assert_type(executor.submit(pow_of, 2, 3).result(), int)
        assert_type(list(executor.map(pow_of, [1], [2], chunksize=2)), list[int])
    assert_type(runner.get_run("fit").state, str)
    assert_type(ref.future().result(), int)
    runner.report({"loss": 0.5}, step=1, checkpoint={"a": 1})
    with runner.init(machines=2) as session:
        assert_type(session.cluster_id, str)
    for event in runner.stream([ref], kinds="metrics"):
        assert_type(event.step, int)


async def use_async() -> None:
    assert_type(await add.remote(1), int)
    async for event in runner.stream():
        assert_type(event.kind, str)
