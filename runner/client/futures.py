"""Refs as futures: `await ref`, and `ref.future()`, whose results one daemon thread sets."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Generator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from runner.objects.refs import ObjectRef

if TYPE_CHECKING:
    from runner.client.session import Session

_Item = tuple["Future[Any]", ObjectRef[Any]]


class FutureResolver:
    """Decodes values for futures. Not in the transport's thread: decoding may fetch, and callbacks are user code."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._ready: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def future(self, ref: ObjectRef[Any]) -> Future[Any]:
        """A future that keeps `ref` alive until it is done."""
        self._start()
        future: Future[Any] = Future()
        item = (future, ref)
        if self._session.when_ready(ref.id, lambda: self._ready.put(item)):
            return future
        if (failure := self._session.failure) is not None:  # the thread may have ended with the session
            future.set_exception(type(failure)(*failure.args))
        else:
            self._ready.put(item)
        return future

    def close(self) -> None:
        """Finish what is ready and end the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            self._ready.put(None)
            if thread is not threading.current_thread():
                thread.join(timeout=1.0)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="runner-futures", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (item := self._ready.get()) is not None:
            future, ref = item
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = self._session.get(ref)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)
            value = None
            del item, future, ref  # else this frame keeps the last value alive


def until_ready(session: Session, object_id: str) -> Generator[Any, None, None]:
    """Wait in the running asyncio loop until the object is final or the session over."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    if session.when_ready(object_id, lambda: set_soon(loop, arrived)):
        yield from arrived


def set_soon(loop: asyncio.AbstractEventLoop, arrived: asyncio.Future[None]) -> None:
    """Complete a future of another thread's loop; too late is fine."""

    def complete() -> None:
        if not arrived.done():
            arrived.set_result(None)

    try:
        loop.call_soon_threadsafe(complete)
    except RuntimeError:  # that loop is closed: nobody waits there any more
        pass
