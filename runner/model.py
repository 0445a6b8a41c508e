"""`runner.Model`: a value that is loaded into host memory once, used on a device, and brought back before the machine is suspended."""

from __future__ import annotations

import enum
import itertools
import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from runner import hooks
from runner.client.template_function import in_template_process
from runner.errors import UsageError

T = TypeVar("T")

_numbers = itertools.count(1)


class Place(enum.Enum):
    """Where a model's value is."""

    NOWHERE = "not loaded"
    HOST = "in host memory, where a snapshot has it"
    DEVICE = "where tasks use it"


class Model(Generic[T]):
    """A value such as a torch module, made by `load()` in host memory and moved to the device by the first `get()`.

    `to_device(value)` returns the value as tasks use it. Left out: `value.to("cuda")` where torch sees a GPU, else the value itself.
    `offload(value)` is its opposite. Left out: `value.to("cpu")`; what has no `to` and was moved by a `to_device` of yours is
    dropped and loaded again. Before a suspend of the machine the value is brought back, afterwards it is moved again, before the next
    task. Made in the code of a `@runner.template`, or with a template as `load`, the weights are loaded there, for all processes.
    Sent to a task it goes without its value.
    """

    def __init__(
        self,
        load: Callable[[], T],
        *,
        to_device: Callable[[T], T] | None = None,
        offload: Callable[[T], T] | None = None,
    ) -> None:
        self._load = load
        self._to_device = to_device
        self._offload = offload
        self._value: list[T] = []  # the one value, unless it is nowhere
        self._place = Place.NOWHERE
        self._goes_back = False  # to the device, after a resume
        self._lock = threading.RLock()
        self._name = f"model {next(_numbers)}"
        if in_template_process():
            self._loaded()

    @property
    def place(self) -> Place:
        return self._place

    @property
    def parts(self) -> list[Callable[..., Any]]:
        """The user's code in it."""
        return [part for part in (self._load, self._to_device, self._offload) if part is not None]

    def get(self) -> T:
        """The value on the device; the first call moves it there. Its hooks are registered in this process then.

        Raises:
            UsageError: called in the code of a template, which must not use a device.
        """
        with self._lock:
            if self._place is Place.DEVICE:
                return self._value[0]
            if in_template_process():
                raise UsageError(
                    "Model.get() was called in the code of a template, which must not use a GPU: return the Model from there, and"
                    " call get() in the task."
                )
            value = self._loaded()
            self._value[0] = (self._to_device or _to_gpu)(value)
            self._place = Place.DEVICE
            _register(self)
            return self._value[0]

    __call__ = get

    def offload(self) -> None:
        """Bring the value back to host memory, and let the device's memory go. Nothing happens when it is not on the device."""
        with self._lock:
            if self._place is not Place.DEVICE:
                return
            value: Any = self._value[0]
            if self._offload is not None:
                self._value[0] = self._offload(value)
            elif _can_move(value):
                self._value[0] = value.to("cpu")
            elif self._to_device is not None:
                self._value.clear()
            del value
            self._place = Place.HOST if self._value else Place.NOWHERE
            _free_gpu_memory()

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._load, self._to_device, self._offload)

    def _loaded(self) -> T:
        with self._lock:
            if self._place is Place.NOWHERE:
                self._value.append(self._load())
                self._place = Place.HOST
            return self._value[0]

    def _before_suspend(self) -> None:
        self._goes_back = self._place is Place.DEVICE
        self.offload()

    def _after_resume(self) -> None:
        if self._goes_back:
            self._goes_back = False
            self.get()


def _rebuild(load: Any, to_device: Any, offload: Any) -> Model[Any]:
    return Model(load, to_device=to_device, offload=offload)


def _register(model: Model[Any]) -> None:
    """The hooks do not keep the model, and with it the device's memory, alive."""
    found = weakref.ref(model)

    def before() -> None:
        if (model := found()) is not None:
            model._before_suspend()

    def after(_context: hooks.ResumeContext) -> None:
        if (model := found()) is not None:
            model._after_resume()

    hooks.register(before, after, name=model._name)
    weakref.finalize(model, hooks.unregister, model._name)


def _can_move(value: Any) -> bool:
    return callable(getattr(value, "to", None))


def _to_gpu(value: Any) -> Any:
    torch = sys.modules.get("torch")
    return value.to("cuda") if torch is not None and torch.cuda.is_available() and _can_move(value) else value


def _free_gpu_memory() -> None:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
