"""ObjectRefGenerator: what a call of a remote generator returns."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from runner.errors import NotSerializableError
from runner.objects.refs import ObjectRef

if TYPE_CHECKING:
    from runner.client.item_streams import ItemStream
    from runner.client.session import Session
    from runner.ids import ObjectId

T = TypeVar("T")


class ObjectRefGenerator(Iterator[ObjectRef[T]], AsyncIterator[ObjectRef[T]]):
    """The items of a remote generator: a ref to each one, as soon as it has been made.

    Iterate with `for` or `async for`, or wait for the next item with `runner.wait([generator, ...])`. When the
    generator has failed, the last ref is one that raises. Once it is closed or collected the generator is stopped on
    its machine, and items that nobody has taken are freed.

    One reader at a time: threads that share it must take turns themselves. It belongs to its process: it cannot be
    pickled; send the refs, or the values.
    """

    __slots__ = ("__weakref__", "_completion", "_is_end_told", "_owner", "_stream")

    def __init__(self, session: Session, stream: ItemStream, completion: ObjectRef[Any]) -> None:
        self._owner = session
        self._stream = stream
        self._completion = completion
        self._is_end_told = False

    def __iter__(self) -> ObjectRefGenerator[T]:
        return self

    def __next__(self) -> ObjectRef[T]:
        ref = self._next()
        if ref is None:
            raise StopIteration
        return ref

    def __aiter__(self) -> ObjectRefGenerator[T]:
        return self

    async def __anext__(self) -> ObjectRef[T]:
        while not self.next_ready():
            await self._arrival()
        ref = self._next()
        if ref is None:
            raise StopAsyncIteration
        return ref

    def _next(self) -> ObjectRef[T] | None:
        """The next item's ref, waiting for it; None at the end."""
        session, stream = self._owner, self._stream
        object_id = self._take()
        if object_id is not None:
            # An item that failed says that the stream itself was lost or refused: there is no more to tell.
            self._is_end_told = session.machine.outcomes[object_id].is_failure
            return ObjectRef(object_id, session)
        if self._is_end_told or stream.is_closed or not self._has_failed():
            self._is_end_told = True
            return None
        self._is_end_told = True
        return self._new_ref(stream.completion)

    def _take(self) -> ObjectId | None:
        session, stream = self._owner, self._stream
        session._check_usable()
        while True:
            with session._lock:
                object_id = session.machine.streams.take(stream)
                if object_id is not None or stream.is_over or stream.is_closed:
                    break
                waiter = session._new_waiter([stream.awaited], 1, wake_on_failure=True)
            session._block(waiter, None)
            session._check_usable()
        if object_id is not None and stream.has_backpressure:
            session.transport.wake()
        return object_id

    def completed(self) -> ObjectRef[None]:
        """A ref that is ready when the generator is done; `get` of it raises what the generator raised.

        As long as it is there the generator is not stopped because this object was collected.
        """
        return self._new_ref(self._stream.completion)

    def next_ready(self) -> bool:
        """Whether the next item, or the end, is here."""
        stream = self._stream
        return bool(stream.unread) or stream.is_over or stream.is_closed

    def is_finished(self) -> bool:
        """Whether all items were taken and there are no more."""
        stream = self._stream
        if stream.is_closed or self._is_end_told:
            return True
        return stream.is_over and not stream.unread and not self._has_failed()

    def close(self) -> None:
        """Read no further: the generator is stopped on its machine, and what was not taken is freed. Idempotent."""
        session = self._owner
        with session._lock:
            session.machine.streams.close(self._stream.stream_id)
        session.transport.wake()

    @property
    def waited_id(self) -> ObjectId:
        """An object that is ready when the next item or the end is here; another one after each item."""
        stream = self._stream
        if stream.unread:
            return stream.unread[0]
        return stream.completion if stream.is_over or stream.is_closed else stream.awaited

    def send(self, _value: Any) -> NoReturn:
        """As in Ray."""
        raise NotImplementedError("a remote generator takes nothing in; iterate over it")

    def throw(self, _error: Any) -> NoReturn:
        """As in Ray."""
        raise NotImplementedError("nothing can be thrown into a remote generator; close() ends it")

    async def _arrival(self) -> None:
        import asyncio

        from runner.client.futures import set_soon

        session = self._owner
        session._check_usable()
        loop = asyncio.get_running_loop()
        arrived: asyncio.Future[None] = loop.create_future()
        with session._lock:
            if self.next_ready():
                return
            session.machine.watch(self._stream.awaited, lambda: set_soon(loop, arrived))
        session.transport.want_callbacks()
        session.transport.wake()
        await arrived
        session._check_usable()

    def _has_failed(self) -> bool:
        outcome = self._owner.machine.outcomes.get(self._stream.completion)
        return outcome is not None and outcome.is_failure

    def _new_ref(self, object_id: ObjectId) -> ObjectRef[Any]:
        self._owner.borrow(object_id)
        return ObjectRef(object_id, self._owner)

    def __repr__(self) -> str:
        return f"ObjectRefGenerator({self._stream.stream_id})"

    def __reduce__(self) -> NoReturn:
        self.__getstate__()

    def __getstate__(self) -> NoReturn:
        error = NotSerializableError(
            f"{self!r} cannot be pickled: the items of a generator have one reader, the process that called it. Send the"
            " refs that it yields, or runner.get() of them."
        )
        error.path = repr(self)
        raise error

    def __del__(self) -> None:
        # No lock may be taken here: the session looks at what was dropped.
        if not self._stream.is_closed:
            self._owner.dropped.append(self._stream.stream_id)  # type: ignore[arg-type]  # ids of streams, too


def waited_id(ref: ObjectRef[Any] | ObjectRefGenerator[Any]) -> ObjectId:
    """The object that `wait` has to look at. To be called under the session's lock."""
    return ref.waited_id if isinstance(ref, ObjectRefGenerator) else ref.id
