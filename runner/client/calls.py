"""A remote function made ready to send: pickled once, with what it needs; and one call's constant part."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from runner.objects.functions import FunctionElsewhere
from runner.objects.refs import ObjectRef
from runner.objects.serialization import Serialized, serialize
from runner.options import STREAMING, TaskOptions
from runner.placing import fill_wishes
from runner.rpc.gen import client_pb2, types_pb2
from runner.runtime_env import NONE, RuntimeEnv

if TYPE_CHECKING:
    from runner.client.code_shipping import Needs
    from runner.client.template_function import TemplateFunction

# Larger functions (closures over data) travel as objects: a message holds 4 MiB, and a frame more than one operation.
LARGE_FUNCTION_BYTES = 512 * 1024


@dataclass(frozen=True, slots=True)
class SourcePackage:
    """A zip of the user's own modules."""

    package_id: str
    zip_bytes: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PickledFunction:
    """One version of a function. `blob` is what `runner.objects.functions.load_function` reads."""

    function_id: str
    name: str
    blob: bytes = field(repr=False)
    contained_refs: Sequence[ObjectRef[Any]]
    modules: Sequence[str]
    packages: Sequence[SourcePackage]
    function: Callable[..., Any] = field(repr=False)
    templates: Sequence[TemplateFunction[Any]] = ()  # that its code names

    @classmethod
    def of(cls, function: Callable[..., Any], name: str, needs: Needs) -> PickledFunction:
        """Pickle `function`. Raises whatever pickling raises."""
        serialized = serialize(function)
        blob = serialized.to_bytes()
        digest = hashlib.sha256(blob)
        for package in needs.packages:
            digest.update(package.package_id.encode())
        return cls(
            digest.hexdigest()[:32],
            name,
            blob,
            serialized.contained_refs,
            needs.modules,
            needs.packages,
            function,
            needs.templates,
        )

    @property
    def is_large(self) -> bool:
        return len(self.blob) > LARGE_FUNCTION_BYTES

    def serialized(self) -> Serialized:
        """The function as a value of its own."""
        return serialize(self.function)

    def stand_in(self, ref: ObjectRef[Any]) -> bytes:
        """A blob that says that the function is the value of `ref`."""
        return serialize(FunctionElsewhere(ref)).to_bytes()


@dataclass(frozen=True, slots=True)
class PreparedCall:
    """Everything about a call but its arguments and its id."""

    function: PickledFunction
    name: str  # for people
    num_returns: int
    is_run: bool
    is_streaming: bool  # a generator: its one return is ready when it is done
    has_backpressure: bool
    is_anywhere: bool  # says nothing of where it is to run
    constant: bytes = field(repr=False)  # a serialised TaskSpec; fields appended to it add to it

    @classmethod
    def of(
        cls,
        function: PickledFunction,
        options: TaskOptions,
        env: RuntimeEnv = NONE,
        *,
        is_executor: bool,
        is_generator: bool = False,
    ) -> PreparedCall:
        """The call of `function` under `options`; `env` is the whole environment, whose packages the function has.

        Generators stream unless `num_returns` says otherwise.
        """
        is_streaming = options.num_returns == STREAMING or (options.num_returns is None and is_generator)
        num_returns = options.num_returns if isinstance(options.num_returns, int) else 1
        backpressure = max(0, options.generator_backpressure_num_objects) if is_streaming else 0
        is_run = options.name is not None and not is_executor
        spec = types_pb2.TaskSpec(
            function_id=function.function_id,
            name=options.name or "",
            resources=types_pb2.Resources(amounts=options.amounts()),
            num_returns=num_returns,
            max_retries=options.max_retries,
            retry_user_errors=options.retry_exceptions is not False,
            timeout_s=options.timeout_s or 0.0,
            max_calls=options.max_calls or 0,
            # None keeps Ray's default: a GPU task's process is not used again.
            reuse_gpu_worker=options.max_calls is not None and options.max_calls != 1,
            env_vars=env.env_vars,
            startup_timeout_s=options.startup_timeout_s or env.setup_timeout_s or 0.0,
            detached=options.lifetime == "detached",
            is_run=is_run,
            is_streaming=is_streaming,
            backpressure=backpressure,
        )
        fill_wishes(spec, options)
        if isinstance(options.retry_exceptions, tuple):
            spec.retry_exceptions = serialize(options.retry_exceptions).to_bytes()
        constant = spec.SerializeToString()
        name = options.name or function.name
        return cls(
            function,
            name,
            num_returns,
            is_run,
            is_streaming,
            backpressure > 0,
            options.scheduling_strategy is None,
            constant,
        )


def register_operations(
    function: PickledFunction, blob: bytes, keep: Sequence[ObjectRef[Any]]
) -> list[tuple[str, bytes]]:
    """Serialised operations that make a function known, what it needs first, each with its content id."""
    operations: list[tuple[str, bytes]] = []
    for package in function.packages:
        if not package.zip_bytes:
            continue  # the cluster has it
        message = types_pb2.Package(package_id=package.package_id, zip=package.zip_bytes)
        operation = client_pb2.Operation(register_package=message)
        operations.append((package.package_id, operation.SerializeToString()))
    described = types_pb2.Function(
        function_id=function.function_id,
        name=function.name,
        blob=blob,
        contained_refs=[ref.id for ref in keep],
        modules=function.modules,
        package_ids=[package.package_id for package in function.packages],
    )
    operation = client_pb2.Operation(register_function=described)
    return [*operations, (function.function_id, operation.SerializeToString())]
