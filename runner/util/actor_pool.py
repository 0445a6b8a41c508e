"""Work spread over a fixed set of actors: each gets the next piece when it has done its last one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import runner
from runner.errors import BadOptionsError, GetTimeoutError
from runner.objects.refs import ObjectRef

# Calls a method of the given actor with the given value; returns the ref.
Submit = Callable[[Any, Any], "ObjectRef[Any]"]


class ActorPool:
    """As `ray.util.ActorPool`. Belongs to one thread."""

    def __init__(self, actors: Iterable[Any]) -> None:
        self._idle: deque[Any] = deque(actors)
        self._running: dict[ObjectRef[Any], tuple[int, Any]] = {}  # -> index of the result, actor
        self._by_index: dict[int, ObjectRef[Any]] = {}  # whose result was not taken
        self._next_submit = 0
        self._next_return = 0
        self._waiting: deque[tuple[Submit, Any]] = deque()

    def map(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """Call `fn(actor, value)` for each value; yields results in the order of the values."""
        self._drop_results()
        for value in values:
            self.submit(fn, value)
        return self._take(self.get_next)

    def map_unordered(self, fn: Submit, values: Iterable[Any]) -> Iterator[Any]:
        """As `map`, with results as they come."""
        self._drop_results()
        for value in values:
            self.submit(fn, value)
        return self._take(self.get_next_unordered)

    def submit(self, fn: Submit, value: Any) -> None:
        """Call `fn(actor, value)` as soon as an actor is idle."""
        if not self._idle:
            self._waiting.append((fn, value))
            return
        actor = self._idle.popleft()
        ref = fn(actor, value)
        self._running[ref] = (self._next_submit, actor)
        self._by_index[self._next_submit] = ref
        self._next_submit += 1

    def has_next(self) -> bool:
        """Whether there is a result to take, now or later."""
        return bool(self._by_index) or bool(self._waiting)

    def get_next(self, timeout: float | None = None, *, ignore_if_timedout: bool = False) -> Any:
        """The next result in the order of submission.

        Raises:
            StopIteration: there is none.
            GetTimeoutError: it was not there within `timeout` seconds; with `ignore_if_timedout` it is given up.
        """
        if not self.has_next():
            raise StopIteration("No more results to get")
        while self._next_return not in self._by_index:  # it was taken out of order
            self._next_return += 1
        ref = self._by_index[self._next_return]
        if not runner.wait([ref], timeout=timeout)[0]:
            self._timed_out(ref, timeout, is_ignored=ignore_if_timedout)
        return self._result(ref, self._next_return)

    def get_next_unordered(self, timeout: float | None = None, *, ignore_if_timedout: bool = False) -> Any:
        """The result that comes first; otherwise as `get_next`."""
        if not self.has_next():
            raise StopIteration("No more results to get")
        ready = runner.wait(list(self._by_index.values()), timeout=timeout)[0]
        if not ready:
            self._timed_out(next(iter(self._by_index.values())), timeout, is_ignored=ignore_if_timedout)
        return self._result(ready[0], self._running[ready[0]][0])

    def has_free(self) -> bool:
        """Whether an actor is idle and nothing waits for one."""
        return bool(self._idle) and not self._waiting

    def pop_idle(self) -> Any:
        """Take an idle actor out of the pool; None when there is none."""
        return self._idle.popleft() if self.has_free() else None

    def push(self, actor: Any) -> None:
        """Add an actor.

        Raises:
            BadOptionsError: it belongs to the pool already.
        """
        if actor in self._idle or any(actor == each for _, each in self._running.values()):
            raise BadOptionsError(f"{actor!r} belongs to this pool already.")
        self._return(actor)

    def _take(self, take: Callable[[], Any]) -> Iterator[Any]:
        while self.has_next():
            yield take()

    def _result(self, ref: ObjectRef[Any], index: int) -> Any:
        del self._by_index[index]
        _, actor = self._running.pop(ref)
        self._return(actor)
        return runner.get(ref)

    def _return(self, actor: Any) -> None:
        self._idle.append(actor)
        if self._waiting:
            self.submit(*self._waiting.popleft())

    def _timed_out(self, ref: ObjectRef[Any], timeout: float | None, *, is_ignored: bool) -> None:
        text = f"ActorPool: no result within {timeout} s"
        if is_ignored:
            index, actor = self._running.pop(ref)
            del self._by_index[index]
            self._return(actor)
            text += "; it is given up, and its actor has the next piece"
        raise GetTimeoutError(text)

    def _drop_results(self) -> None:
        """What was submitted before is not part of a new `map`."""
        while self.has_next():
            try:
                self.get_next_unordered(timeout=0)
            except GetTimeoutError:
                break
