"""`runner.map`: a remote function over many inputs, never all of them at once."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from runner.client.remote_function import RemoteFunction
from runner.errors import BadOptionsError, RunnerError
from runner.objects.refs import ObjectRef
from runner.options import TaskOptions

if TYPE_CHECKING:
    from runner.client.session import Session

# Enough for a thousand CPUs; inputs and results of that many calls are alive at a time.
OUTSTANDING_DEFAULT = 1000


def run_map(
    session: Session,
    function: RemoteFunction[..., Any] | Callable[..., Any],
    iterables: tuple[Iterable[Any], ...],
    *,
    max_outstanding: int | None,
    ordered: bool,
    return_exceptions: bool,
) -> Iterator[Any]:
    """See `runner.map`. The first calls are submitted now, the others as results are taken."""
    if not iterables:
        raise BadOptionsError("map() needs at least one iterable.")
    limit = OUTSTANDING_DEFAULT if max_outstanding is None else max_outstanding
    if limit < 1:
        raise BadOptionsError(f"max_outstanding={max_outstanding!r} cannot work: expected a whole number >= 1.")
    remote = function if isinstance(function, RemoteFunction) else RemoteFunction(function, TaskOptions())
    calls = _Calls(session, remote, zip(*iterables, strict=False))
    pending = deque(calls.take(limit))
    results = _in_order(session, calls, pending) if ordered else _as_ready(session, calls, pending)
    return _values(session, pending, results, return_exceptions=return_exceptions)


class _Calls:
    """Submits one call per item of the inputs, called after the function and its number; runs if the function has a name."""

    def __init__(self, session: Session, remote: RemoteFunction[..., Any], inputs: Iterator[tuple[Any, ...]]) -> None:
        self._session = session
        self._inputs = inputs
        self._numbers = itertools.count()
        self._name = remote.task_name
        self._prepared = remote.prepare(session)
        if self._prepared.is_streaming:
            raise BadOptionsError(f"map() needs one result of each call, and {self._name} is a generator.")
        if self._prepared.num_returns != 1:
            raise BadOptionsError(f"map() needs num_returns=1, and {self._name} has {self._prepared.num_returns}.")

    def take(self, count: int) -> Iterator[ObjectRef[Any]]:
        """Submit up to `count` more calls."""
        for args in itertools.islice(self._inputs, count):
            name = f"{self._name}[{next(self._numbers)}]"
            yield self._session.submit(self._prepared, args, {}, name)[0]


def _in_order(session: Session, calls: _Calls, pending: deque[ObjectRef[Any]]) -> Iterator[ObjectRef[Any]]:
    while pending:
        session.wait([pending[0]], 1, None)
        yield pending.popleft()
        pending.extend(calls.take(1))


def _as_ready(session: Session, calls: _Calls, pending: deque[ObjectRef[Any]]) -> Iterator[ObjectRef[Any]]:
    while pending:
        session.wait(list(pending), 1, None)
        ready, others = session.wait(list(pending), len(pending), 0.0)
        pending.clear()
        pending.extend(others)
        for ref in ready:
            yield ref
            pending.extend(calls.take(1))


def _values(
    session: Session, pending: deque[ObjectRef[Any]], results: Iterator[ObjectRef[Any]], *, return_exceptions: bool
) -> Generator[Any, None, None]:
    try:
        for ref in results:
            try:
                value = session.get(ref)
            except RunnerError as error:
                if not return_exceptions or session.failure is not None:
                    raise
                value = error
            yield value
    finally:
        # Left early, by an error or by the caller: nobody will read the rest.
        for ref in pending:
            if session.failure is None:
                session.cancel(ref, force=False, recursive=True)
