"""The hooks of one process, and when they run."""

from __future__ import annotations

import functools
import random
from typing import Any

import msgpack
import pytest

import runner
from runner import hooks
from runner.hooks import HookFailed, ResumeContext

RESUMED = ResumeContext("resumed", slept_s=3.0, generation=2, snapshot=1, config={"key": "secret"})
CANCELLED = ResumeContext("cancelled", snapshot=1)


@pytest.fixture(autouse=True)
def no_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hooks, "_hooks", {})


def test_before_runs_in_reverse_order_and_after_in_order() -> None:
    calls: list[str] = []
    for name in ("a", "b", "c"):
        hooks.register(
            lambda name=name: calls.append(f"-{name}"), lambda name=name: calls.append(f"+{name}"), name=name
        )
    hooks.run_before()
    hooks.run_after(RESUMED)
    assert calls == ["-c", "-b", "-a", "+a", "+b", "+c"]


def test_an_after_hook_takes_the_context_or_nothing() -> None:
    got: list[Any] = []

    @runner.after_resume
    def with_context(context: ResumeContext) -> None:
        got.append(context)

    @runner.after_resume
    def without() -> None:
        got.append(None)

    hooks.run_after(RESUMED)
    assert got == [RESUMED, None]


def test_a_function_of_the_same_name_takes_the_place_of_the_earlier_one() -> None:
    calls: list[int] = []

    def task(number: int) -> None:
        @runner.before_suspend
        def offload() -> None:
            calls.append(number)

    task(1)
    task(2)
    hooks.run_before()
    assert calls == [2]


def test_methods_of_objects_and_other_callables_are_registered_once_each() -> None:
    calls: list[int] = []

    class Model:
        def __init__(self, number: int) -> None:
            self.number = number

        def offload(self) -> None:
            calls.append(self.number)

    one, two = Model(1), Model(2)
    for method in (one.offload, two.offload, one.offload, functools.partial(calls.append, 3)):
        runner.before_suspend(method)
    hooks.run_before()
    assert calls == [3, 1, 2]


def test_lambdas_of_one_function_are_hooks_of_their_own() -> None:
    calls: list[int] = []
    runner.before_suspend(lambda: calls.append(1))
    runner.before_suspend(lambda: calls.append(2))
    hooks.run_before()
    assert calls == [2, 1]


def test_methods_are_called_on_the_actor_those_of_base_classes_last_before_a_suspend() -> None:
    calls: list[str] = []

    class Base:
        @runner.before_suspend
        def first(self) -> None:
            calls.append("first")

    class Actor(Base):
        @runner.before_suspend
        def second(self) -> None:
            calls.append("second")

        @runner.after_resume
        def again(self, context: ResumeContext) -> None:
            calls.append(context.kind)

    names = hooks.register_methods(Actor())
    hooks.run_before()
    hooks.run_after(RESUMED)
    assert calls == ["second", "first", "resumed"]
    for name in names:
        hooks.unregister(name)
    hooks.run_before()
    hooks.run_after(RESUMED)
    assert calls == ["second", "first", "resumed"], "none is left"


def test_a_failure_names_the_hook_and_ends_the_run() -> None:
    calls: list[str] = []

    def burn() -> None:
        raise ValueError("it burns")

    hooks.register(lambda: calls.append("a"), name="a")
    hooks.register(burn, name="the model")
    with pytest.raises(HookFailed, match=r"the hook before_suspend of the model failed: ValueError: it burns"):
        hooks.run_before()
    assert calls == []


def test_after_a_cancelled_suspend_only_what_was_begun_is_undone() -> None:
    calls: list[str] = []

    def burn() -> None:
        raise ValueError

    hooks.register(lambda: calls.append("-a"), lambda: calls.append("+a"), name="a")
    hooks.register(burn, lambda: calls.append("+b"), name="b")
    hooks.register(after=lambda: calls.append("+c"), name="c")
    with pytest.raises(HookFailed):
        hooks.run_before()
    hooks.run_after(CANCELLED)
    assert calls == ["+b", "+c"]


def test_coroutine_functions_are_run_to_their_end() -> None:
    calls: list[str] = []

    async def before() -> None:
        calls.append("-")

    async def after(context: ResumeContext) -> None:
        raise OSError(context.kind)

    hooks.register(before, after, name="a")
    hooks.run_before()
    assert calls == ["-"]
    with pytest.raises(HookFailed, match="after_resume of a failed: OSError: resumed"):
        hooks.run_after(RESUMED)


async def test_coroutine_functions_run_on_the_loop_that_is_there() -> None:
    calls: list[str] = []

    async def before() -> None:
        calls.append("-")

    hooks.register(before, lambda: calls.append("+"), name="a")
    await hooks.run_before_async()
    await hooks.run_after_async(RESUMED)
    assert calls == ["-", "+"]


def test_a_new_process_of_a_template_runs_its_hooks_as_cold() -> None:
    got: list[ResumeContext] = []
    hooks.run_cold()
    hooks.register(after=got.append, name="a")
    hooks.run_cold(generation=3, snapshot=1, config={"a": "b"})
    assert got == [ResumeContext("cold", generation=3, snapshot=1, config={"a": "b"})]


def test_a_context_travels_as_a_map_and_does_not_print_its_secrets() -> None:
    assert ResumeContext(**msgpack.unpackb(msgpack.packb(RESUMED.to_dict()))) == RESUMED
    assert "secret" not in repr(RESUMED)


def test_reseeding_does_not_repeat_what_was_drawn_before() -> None:
    import numpy

    def seed() -> None:
        random.seed(1)
        numpy.random.seed(1)  # noqa: NPY002  the global one is what is seeded

    def draw() -> tuple[float, float]:
        return random.random(), float(numpy.random.random())  # noqa: NPY002

    seed()
    before = draw()
    seed()
    runner.reseed()
    after = draw()
    assert after[0] != before[0] and after[1] != before[1]
