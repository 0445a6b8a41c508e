"""The one thread in which a client's gRPC calls live."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class LoopThread:
    """An asyncio loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="runner-client", daemon=True)
        self._thread.start()

    def call(self, make: Callable[[], Coroutine[Any, Any, T]], timeout_s: float | None = None) -> T:
        """Run a coroutine there and wait for it in the calling thread, interruptibly; it is cancelled if we stop waiting.

        Raises:
            TimeoutError: it took longer than `timeout_s`.
        """
        future = self.start(make)
        try:
            return future.result(timeout_s)
        except BaseException:
            future.cancel()
            raise

    def start(self, make: Callable[[], Coroutine[Any, Any, T]]) -> concurrent.futures.Future[T]:
        """Run a coroutine there; gRPC objects must be made inside it."""

        async def run() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(run(), self.loop)

    def soon(self, callback: Callable[[], object]) -> bool:
        """Call there soon; False when the loop is closed."""
        try:
            self.loop.call_soon_threadsafe(callback)
        except RuntimeError:
            return False
        return True

    def is_current(self) -> bool:
        """Whether the caller is that thread, which must never wait for itself."""
        return threading.current_thread() is self._thread

    def stop(self, timeout_s: float) -> None:
        """Cancel what runs there and end the thread; waits at most `timeout_s`. Idempotent."""
        if self.soon(self.loop.stop):
            self._thread.join(timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
            self.loop.run_until_complete(self._end_tasks())
        finally:
            self.loop.close()

    async def _end_tasks(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
