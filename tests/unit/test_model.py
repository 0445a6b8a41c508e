from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import cloudpickle
import pytest

from runner import hooks
from runner.client import template_function
from runner.errors import UsageError
from runner.hooks import ResumeContext
from runner.model import Model, Place


class Weights:
    """Notes where it is, as a torch module would."""

    def __init__(self) -> None:
        self.device = "cpu"

    def to(self, device: str) -> Weights:
        self.device = device
        return self


def on_a_gpu(value: Weights) -> Weights:
    return value.to("cuda")


class Counted:
    """A `load` that says how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        return Weights()


@pytest.fixture
def in_template() -> Iterator[None]:
    template_function.enter_template_process()
    yield
    template_function.leave_template_process()


def test_it_is_loaded_and_moved_by_the_first_get() -> None:
    load = Counted()
    model = Model(load, to_device=on_a_gpu)
    assert (load.calls, model.place) == (0, Place.NOWHERE)
    value = model.get()
    assert (value.device, model.place) == ("cuda", Place.DEVICE)
    assert model() is value
    assert load.calls == 1


def test_without_a_gpu_the_value_stays_as_it_is() -> None:
    value = [1, 2]
    model = Model(lambda: value)
    assert model.get() is value
    model.offload()
    assert model.get() is value


def test_offload_brings_it_back_and_get_moves_it_again() -> None:
    load = Counted()
    model = Model(load, to_device=on_a_gpu)
    value = model.get()
    model.offload()
    assert (value.device, model.place) == ("cpu", Place.HOST)
    assert model.get().device == "cuda"
    assert load.calls == 1


def test_what_cannot_be_brought_back_is_loaded_again() -> None:
    load = Counted()
    model = Model(lambda: str(load().device), to_device=lambda value: f"{value} and the device")
    assert model.get() == "cpu and the device"
    model.offload()
    assert model.place is Place.NOWHERE
    assert model.get() == "cpu and the device"
    assert load.calls == 2


def test_an_offload_of_ones_own() -> None:
    model = Model(lambda: [0], to_device=lambda value: [*value, 1], offload=lambda value: [*value, 2])
    model.get()
    model.offload()
    assert model.get() == [0, 1, 2, 1]


@pytest.mark.parametrize("kind", ["resumed", "cancelled"])
def test_around_a_suspend_it_is_in_host_memory(kind: Any) -> None:
    model = Model(Weights, to_device=on_a_gpu)
    value = model.get()
    hooks.run_before()
    assert (value.device, model.place) == ("cpu", Place.HOST)
    hooks.run_after(ResumeContext(kind))
    assert (value.device, model.place) == ("cuda", Place.DEVICE)


def test_what_was_not_on_the_device_does_not_go_there_after_a_resume() -> None:
    model = Model(Weights, to_device=on_a_gpu)
    model.get()
    model.offload()
    hooks.run_before()
    hooks.run_after(ResumeContext("resumed"))
    assert model.place is Place.HOST


def test_a_model_that_nobody_holds_has_no_hooks() -> None:
    value = Weights()
    model = Model(lambda: value, to_device=on_a_gpu)
    model.get()
    name = model._name
    assert name in hooks._hooks
    del model
    gc.collect()
    assert name not in hooks._hooks
    hooks.run_before()
    assert value.device == "cuda"


def test_it_travels_without_its_value() -> None:
    model = Model(lambda: [1], to_device=lambda value: [*value, 2])
    model.get()
    copy = cloudpickle.loads(cloudpickle.dumps(model))
    assert copy.place is Place.NOWHERE
    assert copy.get() == [1, 2]


def test_what_load_raises_is_tried_again() -> None:
    answers: list[Any] = [OSError("not there"), "there"]

    def load() -> str:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return str(answer)

    model = Model(load)
    with pytest.raises(OSError, match="not there"):
        model.get()
    assert model.get() == "there"


@pytest.mark.usefixtures("in_template")
def test_in_a_template_it_is_loaded_at_once_and_never_moved() -> None:
    load = Counted()
    model = Model(load, to_device=on_a_gpu)
    assert (load.calls, model.place) == (1, Place.HOST)
    with pytest.raises(UsageError, match="must not use a GPU"):
        model.get()
    assert model.place is Place.HOST


def test_what_a_template_loaded_is_moved_in_a_process_forked_from_it() -> None:
    template_function.enter_template_process()
    model = Model(Weights, to_device=on_a_gpu)
    template_function.leave_template_process()
    assert model.get().device == "cuda"


@pytest.mark.gpu
def test_on_a_real_gpu_the_device_memory_is_free_during_a_suspend() -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    model = Model(lambda: torch.nn.Linear(4096, 4096))
    assert next(model.get().parameters()).is_cuda
    hooks.run_before()
    assert torch.cuda.memory_allocated() == 0
    hooks.run_after(ResumeContext("resumed"))
    assert next(model.get().parameters()).is_cuda
