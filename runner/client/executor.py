"""`runner.Executor`: a `concurrent.futures.Executor` whose calls run on the machines of the cluster."""

from __future__ import annotations

import itertools
import threading
import types
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from runner.client import executor_worker
from runner.client.context import current_session
from runner.client.map import OUTSTANDING_DEFAULT
from runner.client.remote_function import RemoteFunction
from runner.errors import BadOptionsError, BadTypeError
from runner.ids import random_id
from runner.options import parse_options

if TYPE_CHECKING:
    from typing import Unpack

    from runner.options import OptionsDict

P = ParamSpec("P")
T = TypeVar("T")

_FUNCTIONS_KEPT = 64
_KEPT_TYPES = (types.FunctionType, types.BuiltinFunctionType, type)


class _Work(NamedTuple):
    future: Future[Any]
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


class Executor(futures.Executor):
    """Runs calls on the cluster of this session; futures are those of `concurrent.futures`.

    At most `max_workers` calls are with the cluster at a time (default: 1000); the others wait here, and can be
    cancelled. `initializer(*initargs)` runs in each worker process before its first call; when it raises, this executor
    is broken, as in the standard library. A worker process that dies breaks nothing: its call is retried
    (`max_retries`), else its future has a WorkerCrashedError. More options are those of `runner.remote`, for each call.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        **options: Unpack[OptionsDict],
    ) -> None:
        """Raises NotInitializedError without a session, BadOptionsError for options that cannot work."""
        if max_workers is not None and max_workers <= 0:
            raise BadOptionsError("max_workers must be greater than 0")
        if initializer is not None and not callable(initializer):
            raise BadTypeError("initializer must be a callable")
        current_session()
        self._max_workers = max_workers or OUTSTANDING_DEFAULT
        self._initial = None if initializer is None else (random_id("init"), initializer, initargs)
        self._options = parse_options({"num_returns": 1, **options})
        self._lock = threading.RLock()  # a callback of a future may submit more
        self._pending: deque[_Work] = deque()
        self._open: set[Future[Any]] = set()
        self._running = 0
        self._is_shut_down = False
        self._broken = ""
        self._remotes: OrderedDict[int, tuple[Any, RemoteFunction[..., Any]]] = OrderedDict()  # by id of the function

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call `fn` on a machine. Refs among the arguments become their values.

        Raises:
            RuntimeError: the executor was shut down, or is broken (BrokenExecutor).
        """
        future: Future[T] = Future()
        with self._lock:
            if self._broken:
                raise BrokenExecutor(self._broken)
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._pending.append(_Work(future, fn, args, kwargs))
            self._open.add(future)
        future.add_done_callback(self._open.discard)
        self._start_more()
        return future

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1
    ) -> Iterator[T]:
        """Results in order. The inputs are read at once, as in the standard library; `runner.map` is lazy.

        `chunksize` calls travel as one.
        """
        if chunksize < 1:
            raise BadOptionsError("chunksize must be >= 1.")
        if chunksize == 1:
            return super().map(fn, *iterables, timeout=timeout)
        inputs = zip(*iterables, strict=False)
        chunks = iter(lambda: tuple(itertools.islice(inputs, chunksize)), ())
        return _chained(super().map(executor_worker.chunked(fn), chunks, timeout=timeout))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; `wait` for those that there are, or cancel those that have not started. Idempotent."""
        with self._lock:
            self._is_shut_down = True
            waiting = [work.future for work in self._pending] if cancel_futures else []
            left = list(self._open)
        for future in waiting:
            future.cancel()
        self._start_more()
        if wait:
            futures.wait(left)

    def _start_more(self) -> None:
        while (work := self._next()) is not None:
            try:
                ref = self._remote(work.function).remote(*work.args, **work.kwargs)
                ref.future().add_done_callback(partial(self._done, work.future))
            except BaseException as error:
                self._end(work.future, None, error)
            del work  # else this frame keeps the last arguments alive

    def _next(self) -> _Work | None:
        with self._lock:
            while self._pending and self._running < self._max_workers:
                work = self._pending.popleft()
                if work.future.set_running_or_notify_cancel():
                    self._running += 1
                    return work
        return None

    def _remote(self, function: Callable[..., Any]) -> RemoteFunction[..., Any]:
        """The same for calls of the same function: it is pickled once. Methods are not kept: they hold their object."""
        with self._lock:
            kept = self._remotes.get(id(function))
            if kept is not None:
                self._remotes.move_to_end(id(function))
                return kept[1]
            called = function if self._initial is None else executor_worker.initialised(function, *self._initial)
            remote: RemoteFunction[..., Any] = RemoteFunction(called, self._options)
            if isinstance(function, _KEPT_TYPES):
                self._remotes[id(function)] = (function, remote)
                if len(self._remotes) > _FUNCTIONS_KEPT:
                    self._remotes.popitem(last=False)
            return remote

    def _done(self, future: Future[Any], inner: Future[Any]) -> None:
        error = inner.exception()
        self._end(future, None if error is not None else inner.result(), error)
        self._start_more()

    def _end(self, future: Future[Any], result: Any, error: BaseException | None) -> None:
        with self._lock:
            self._running -= 1
        if isinstance(error, BrokenExecutor):
            self._break(str(error))
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    def _break(self, why: str) -> None:
        with self._lock:
            self._broken = self._broken or why.partition("\n")[0]
            waiting, self._pending = self._pending, deque()
        for work in waiting:
            if work.future.set_running_or_notify_cancel():
                work.future.set_exception(BrokenExecutor(self._broken))


def _chained(chunks: Iterator[list[T]]) -> Iterator[T]:
    """The results of all chunks; none is kept after it was taken."""
    for chunk in chunks:
        chunk.reverse()
        while chunk:
            yield chunk.pop()
