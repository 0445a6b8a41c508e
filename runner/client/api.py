"""The public functions. This module is light: what needs gRPC or protobuf is imported when it is first used."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, overload

from runner.client.actors.classes import ActorClass, actor_class
from runner.client.actors.options import NAMES as ACTOR_NAMES
from runner.client.actors.options import ActorOptions, parse_actor_options
from runner.client.context import current_session, session_or_none
from runner.client.ray_keywords import check_ray_keywords
from runner.client.remote_function import RemoteFunction
from runner.errors import BadOptionsError
from runner.options import ALL_NAMES as NAMES
from runner.options import TaskOptions, parse_options
from runner.runtime_env import parse_runtime_env

if TYPE_CHECKING:
    import os
    from typing import Unpack

    from runner.client.actors.handle import ActorHandle
    from runner.client.actors.options import RemoteOptionsDict
    from runner.client.cluster_info import Node
    from runner.client.connection import ClientSession
    from runner.client.generators import ObjectRefGenerator
    from runner.client.runtime_context import RuntimeContext
    from runner.objects.refs import ObjectRef
    from runner.pools import Pool

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


# ---- the session ----
def init(
    address: str | None = None,
    *,
    provider: str = "local",
    machines: int | Pool | Sequence[Pool] = 1,
    num_cpus: float | None = None,
    num_gpus: int | None = None,
    memory: int | str | None = None,
    resources: Mapping[str, float] | None = None,
    labels: Mapping[str, str] | None = None,
    idle: str | None = None,
    preload: Sequence[str] = (),
    image: str | None = None,
    region: str | Sequence[str] | None = None,
    provider_options: Mapping[str, Any] | None = None,
    max_cost: float | None = None,
    strict: bool = False,
    object_store_memory: int | str | None = None,
    token: str | None = None,
    ca: str | os.PathLike[str] | bytes | None = None,
    log_to_driver: bool = True,
    lost_after_s: float = 60.0,
    timeout_s: float = 30.0,
    runtime_env: Mapping[str, Any] | None = None,
    **of_ray: Any,
) -> ClientSession:
    """Start a cluster of this process's own, or connect to a standing one at `address` ("host:port", RUNNER_ADDRESS).

    `machines` machines are booted by `provider` ("local": this computer), each with `num_cpus`, `num_gpus`, `memory`
    (bytes or "8GiB"), custom `resources` and `labels`. Left out, this computer's CPUs, GPUs and 70 % of its memory are
    shared among them; elsewhere a machine has 1 CPU, no GPU, and memory that no task can ask for. With
    `idle="suspend"` one without work sleeps (docs/suspend.md). With a `Pool`, or several with names, machines follow
    the work. `init` does not wait for them; with `strict` fewer than were asked for are a failure.

    `image`, `region` (or several, best first) and `provider_options` are the provider's own options.
    `object_store_memory` (bytes or "8GiB"; None: 30 % of the host's memory) bounds shared memory. Near `max_cost` (US
    dollars) no more machines are booted. `preload`: modules that workers import before their first task. For a
    standing cluster the token and the certificate `ca` (PEM, or a file) are found on this host, or in RUNNER_TOKEN and
    RUNNER_CA. `log_to_driver` prints what tasks write. A coordinator that does not answer for `lost_after_s` ends the
    session. `runtime_env` is that of all its calls: a call's own `env_vars` come on top of it, its other keys in place
    of it. `of_ray`: keywords of `ray.init` without a meaning here. Called again, it returns its session; `with` ends it.

    Raises:
        CoordinatorUnreachableError: nobody answered within `timeout_s`.
        AuthenticationError, VersionMismatchError: it is another cluster's token, Python minor version or protocol.
        BadOptionsError: an argument cannot work.
    """
    from runner.client import connection, fleet_options

    check_ray_keywords(of_ray)
    fleet = fleet_options.FleetOptions(
        provider,
        machines,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        memory=memory,
        resources=resources,
        labels=labels,
        idle=idle,
        preload=tuple(preload),
        provider_options=provider_options,
        image=image,
        region=region,
        max_cost=max_cost,
        strict=strict,
        object_store_memory=object_store_memory,
    )
    env = parse_runtime_env("runtime_env", runtime_env or {})
    access = connection.AccessOptions(address, token, ca, log_to_driver, lost_after_s, timeout_s, env)
    return connection.init(fleet, access)


def shutdown() -> None:
    """End the session: what was submitted is confirmed, what was printed is shown, an embedded cluster ends. Idempotent."""
    if session_or_none() is not None:
        from runner.client import connection

        connection.shutdown()


def is_initialized() -> bool:
    """Whether there is a session that works."""
    session = session_or_none()
    return session is not None and session.failure is None


# ---- calls and values ----
class RemoteDecorator(Protocol):
    """What `runner.remote(...)` with options returns."""

    @overload  # a class is callable, too: the first that fits counts
    def __call__(self, target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
    @overload
    def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...


@overload
def remote(target: type[T], /) -> ActorClass[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
@overload
def remote(**options: Unpack[RemoteOptionsDict]) -> RemoteDecorator: ...
def remote(target: Any = None, /, **options: Any) -> Any:
    """Make a function remote, or a class one of actors: `@runner.remote`, or with options `@runner.remote(num_gpus=1)`.

    Options are those of `runner.options.TaskOptions`, and for classes those of `runner.client.actors.options`.

    Raises:
        BadOptionsError: an unknown option or a bad value.
    """
    if target is not None:
        return (
            actor_class(target, ActorOptions()) if isinstance(target, type) else remote_function(target, TaskOptions())
        )
    # What can be an option of neither is refused here, at its place.
    for_tasks = parse_options(options) if not set(options) - set(NAMES) else None
    for_actors = parse_actor_options(options) if not set(options) - set(ACTOR_NAMES) else None
    if for_tasks is None and for_actors is None:
        parse_options(options)

    def decorate(decorated: Any) -> Any:
        if isinstance(decorated, type):
            return actor_class(decorated, for_actors or parse_actor_options(options))
        return remote_function(decorated, for_tasks or parse_options(options))

    return decorate


def remote_function(function: Callable[P, R], options: TaskOptions) -> RemoteFunction[P, R]:
    """`function` as a remote function."""
    if isinstance(function, RemoteFunction):
        raise BadOptionsError(f"{function!r} is remote already; use .options() to change its options.")
    if isinstance(function, ActorClass):
        raise BadOptionsError(f"{function!r} is an actor class already; use .options() to change its options.")
    if not callable(function):
        raise BadOptionsError(f"runner.remote takes a function or a class, not a {type(function).__name__}.")
    if inspect.iscoroutinefunction(function):
        raise BadOptionsError(
            f"{getattr(function, '__qualname__', function)} is an 'async def', and a task has no event loop: call asyncio.run()"
            " in a plain function, or make it a method of an actor."
        )
    return RemoteFunction(function, options)


# ---- actors ----
def get_actor(name: str, namespace: str | None = None) -> ActorHandle[Any]:
    """A handle of the actor that was made with this name.

    Raises:
        BadOptionsError: there is none (also a ValueError).
    """
    from runner.client.actors.creation import get_actor as look_up

    return look_up(current_session(), name, namespace)


def kill(actor: ActorHandle[Any], *, no_restart: bool = True) -> None:
    """End an actor at once; returns at once. Its exit hooks do not run, and its unanswered calls fail.

    With `no_restart=False` it is restarted where its `max_restarts` allows.
    """
    from runner.client.actors.creation import kill as end

    end(current_session(), actor, no_restart=no_restart)


@overload
def get(refs: ObjectRef[R], *, timeout: float | None = None) -> R: ...
@overload
def get(refs: list[ObjectRef[R]], *, timeout: float | None = None) -> list[R]: ...
def get(refs: Any, *, timeout: float | None = None) -> Any:
    """The value of a ref, or the values of a list of refs in order. Blocks until they are there.

    numpy arrays come back read-only, because they may be shared. What a task raised is raised here, as soon as it is
    known: an error that is both a TaskError and of the original type.

    Raises:
        GetTimeoutError: not ready after `timeout` seconds; the tasks go on.
    """
    return current_session().get(refs, timeout)


def wait(
    refs: list[ObjectRef[R]],
    *,
    num_returns: int = 1,
    timeout: float | None = None,
    fetch_local: bool = True,  # noqa: ARG001
) -> tuple[list[ObjectRef[R]], list[ObjectRef[R]]]:
    """Block until `num_returns` refs are ready or `timeout` seconds are over; returns (ready, not ready).

    `ready` has at most `num_returns` refs; both lists keep the order of `refs`. A failed task's ref is ready. No refs
    give two empty lists. `fetch_local` is Ray's and changes nothing: a value is brought when it is read.

    Raises:
        BadOptionsError: a ref is there twice, `num_returns` is not between 1 and the number of refs, or `timeout` < 0.
        BadTypeError: `refs` is not a list of refs.
    """
    return current_session().wait(refs, num_returns, timeout)


def put(value: R) -> ObjectRef[R]:
    """Store a value once, for many tasks; large ones lie in shared memory."""
    return current_session().put(value)


def cancel(ref: ObjectRef[Any] | ObjectRefGenerator[Any], *, force: bool = False, recursive: bool = True) -> None:
    """Ask for the end of the task behind `ref`; returns at once. A finished task stays as it is.

    A waiting task never starts; a running one gets a KeyboardInterrupt, or with `force` its process is killed. `get`
    then raises TaskCancelledError. `recursive` cancels the tasks that it has submitted as well.
    """
    current_session().cancel(ref, force=force, recursive=recursive)


@overload
def map(  # noqa: A001
    function: RemoteFunction[..., R],
    *iterables: Iterable[Any],
    max_outstanding: int | None = None,
    ordered: bool = True,
    return_exceptions: bool = False,
) -> Iterator[R]: ...
@overload
def map(  # noqa: A001
    function: Callable[..., R],
    *iterables: Iterable[Any],
    max_outstanding: int | None = None,
    ordered: bool = True,
    return_exceptions: bool = False,
) -> Iterator[R]: ...
def map(  # noqa: A001  its name, as in every executor
    function: Any,
    *iterables: Iterable[Any],
    max_outstanding: int | None = None,
    ordered: bool = True,
    return_exceptions: bool = False,
) -> Iterator[Any]:
    """Call `function` remotely for each tuple of inputs; yields results in order, or as they come (`ordered=False`).

    Lazy: at most `max_outstanding` (1000) calls are submitted ahead of what was taken. An error is raised at its
    place, or yielded with `return_exceptions`. Leaving early cancels what is still running.

    The calls are plain tasks, forgotten with their results. With a name, as in
    `map(f.options(name="fit"), ...)`, they are runs "fit[0]", "fit[1]", ...: each stays on record with its metrics,
    logs and checkpoints, so name some hundreds of calls, not millions.
    """
    from runner.client.map import run_map

    return run_map(
        current_session(),
        function,
        iterables,
        max_outstanding=max_outstanding,
        ordered=ordered,
        return_exceptions=return_exceptions,
    )


# ---- the cluster ----
def nodes() -> list[Node]:
    """The machines of the cluster."""
    from runner.client.cluster_info import list_nodes

    return list_nodes(current_session())


def cluster_resources() -> dict[str, float]:
    """What all machines that are ready have together: CPU, GPU, memory in bytes, custom resources."""
    from runner.client.cluster_info import resources

    return resources(current_session(), available=False)


def available_resources() -> dict[str, float]:
    """What of it no task holds now."""
    from runner.client.cluster_info import resources

    return resources(current_session(), available=True)


def get_gpu_ids() -> list[int]:
    """The GPUs of the running task, as numbers on its machine; none outside tasks."""
    return list(get_runtime_context().gpu_ids)


def get_runtime_context() -> RuntimeContext:
    """Where the calling code runs: cluster, task, attempt, machine, GPUs."""
    from runner.client.runtime_context import runtime_context

    return runtime_context()
