"""What a handle must know of its actor's class: travels with the handle, and with the actor's creation."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgpack

from runner.client.actors.options import ActorOptions
from runner.client.parameters import Parameters
from runner.objects.serialization import deserialize, serialize
from runner.options import STREAMING as STREAMING_OPTION
from runner.rpc.actor_frames import STREAMING
from runner.rpc.gen import types_pb2

# Set by `runner.method`.
METHOD_MARK = "__runner_method__"
# Methods of every actor, and their names on the wire.
SPECIAL = {
    "__runner_ready__": "__ray_ready__",
    "__ray_ready__": "__ray_ready__",
    "__ray_call__": "__ray_call__",
    "__ray_terminate__": "__ray_terminate__",
}


@dataclass(frozen=True, slots=True)
class MethodMeta:
    """One method, with the options of its calls."""

    name: str
    num_returns: int = 1  # STREAMING for generators
    group: str = ""  # the concurrency group; empty: the default one
    retries: int = 0  # of calls under way when the actor restarts, and of `retry_exceptions`; -1: no limit
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    backpressure: int = 0
    parameters: Parameters | None = field(default=None, compare=False, repr=False)  # None: it takes anything
    # Derived: made for each call else.
    wire_name: str = field(init=False, compare=False)
    may_retry: Callable[[bytes], bool] | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        wire_name = SPECIAL.get(self.name, self.name)
        object.__setattr__(self, "wire_name", f"{wire_name}@{self.group}" if self.group else wire_name)
        covers = functools.partial(_covers, self.retry_exceptions) if self.retry_exceptions else None
        object.__setattr__(self, "may_retry", covers)

    def with_options(self, options: Mapping[str, Any]) -> MethodMeta:
        """The same method with other options, which have been checked."""
        num_returns = options.get("num_returns", self.num_returns)
        return MethodMeta(
            self.name,
            STREAMING if num_returns == STREAMING_OPTION else num_returns,
            options.get("concurrency_group", self.group),
            options.get("max_task_retries", self.retries),
            options.get("retry_exceptions", self.retry_exceptions),
            max(0, options.get("generator_backpressure_num_objects", self.backpressure)),
            self.parameters,
        )


@dataclass(frozen=True, slots=True)
class ActorMeta:
    """A class as its handles see it. `packed` is all of it as bytes."""

    class_name: str
    max_pending_calls: int
    methods: Mapping[str, MethodMeta]
    is_concurrent: bool  # calls run at the same time, so that none waits for those made before it
    packed: bytes = field(repr=False)

    @staticmethod
    def of(kind: type, options: ActorOptions) -> ActorMeta:
        """Of the actors that class `kind` makes with `options`."""
        methods = [
            _method(kind, name, member, options.max_task_retries)
            for name, member in inspect.getmembers(kind, callable)
            if not (name.startswith("__") and name.endswith("__")) or name == "__call__"
        ]
        rows = [
            [
                each.name,
                each.num_returns,
                each.group,
                each.retries,
                _pack_exceptions(each.retry_exceptions),
                each.backpressure,
                None if each.parameters is None else each.parameters.pack(),
            ]
            for each in methods
        ]
        name = kind.__qualname__.rpartition("<locals>.")[2]
        is_concurrent = (options.max_concurrency or 1) > 1 or bool(options.concurrency_groups) or has_coroutines(kind)
        packed: bytes = msgpack.packb(
            [name, options.max_pending_calls, options.max_task_retries, is_concurrent, rows],
        )
        return ActorMeta.unpack(packed)

    @staticmethod
    @functools.lru_cache(maxsize=256)
    def unpack(packed: bytes) -> ActorMeta:
        """What `packed` says."""
        class_name, max_pending_calls, max_task_retries, is_concurrent, rows = msgpack.unpackb(packed)
        methods = {
            name: MethodMeta(
                name,
                returns,
                group,
                retries,
                _unpack_exceptions(exceptions),
                backpressure,
                Parameters.unpack(f"{class_name}.{name}", parameters),
            )
            for name, returns, group, retries, exceptions, backpressure, parameters in rows
        }
        methods.update({name: MethodMeta(name, retries=max_task_retries) for name in SPECIAL})
        return ActorMeta(class_name, max_pending_calls, methods, is_concurrent, packed)


def has_coroutines(kind: type) -> bool:
    """Whether a method of the class is an `async def`: its calls run as coroutines of one loop."""
    methods = (inspect.unwrap(each) for _, each in inspect.getmembers(kind, callable))
    return any(inspect.iscoroutinefunction(each) or inspect.isasyncgenfunction(each) for each in methods)


def _method(kind: type, name: str, member: Any, max_task_retries: int) -> MethodMeta:
    is_stream = inspect.isgeneratorfunction(member) or inspect.isasyncgenfunction(member)
    parameters = _parameters(inspect.getattr_static(kind, name), member)
    method = MethodMeta(name, STREAMING if is_stream else 1, retries=max_task_retries, parameters=parameters)
    return method.with_options(getattr(member, METHOD_MARK, {}))


def _parameters(static: Any, member: Any) -> Parameters | None:
    """Those of its calls. A wrapper's own count, not those of what it wraps: it may add or take some."""
    try:
        signature = inspect.signature(member, follow_wrapped=False)
    except (TypeError, ValueError):
        return None
    if inspect.isfunction(static):
        rest = list(signature.parameters.values())
        if rest and rest[0].kind is not inspect.Parameter.VAR_POSITIONAL:
            rest = rest[1:]  # self
        return Parameters("", signature.replace(parameters=rest))
    is_known = isinstance(static, staticmethod | classmethod)
    return Parameters("", signature) if is_known else None


def _covers(kinds: bool | tuple[type[BaseException], ...], failure: bytes) -> bool:
    """Whether a failure of the user's code is one of `kinds`."""
    if isinstance(kinds, bool):
        return kinds
    try:
        return isinstance(deserialize(types_pb2.Failure.FromString(failure).exception), kinds)
    except Exception:  # it could not be pickled, or cannot be loaded here
        return False


def _pack_exceptions(kinds: bool | tuple[type[BaseException], ...]) -> bool | bytes:
    return kinds if isinstance(kinds, bool) else serialize(kinds).to_bytes()


def _unpack_exceptions(packed: bool | bytes) -> bool | tuple[type[BaseException], ...]:
    if isinstance(packed, bool):
        return packed
    try:
        kinds: tuple[type[BaseException], ...] = deserialize(packed)
    except Exception:  # their module is missing here
        return False
    return kinds
