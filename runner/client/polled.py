"""Streams of the coordinator for a task, which has no connection for them: one page after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, TypeVar

from runner.client.loop_thread import LoopThread
from runner.client.requests import ask

if TYPE_CHECKING:
    from runner.client.session import Session

Reply = TypeVar("Reply")


class PolledTransport:
    """What `streams.Feed` needs of a transport. The coordinator holds a request until there is something to tell."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.threaded = LoopThread()

    async def stream(self, method: str, message: Any, reply: type[Reply]) -> AsyncIterator[Reply]:
        """The pages of a watch, until it is over; `message` is the reader's cursor, which it moves on."""
        while True:
            page: Any = await asyncio.to_thread(ask, self._session, method, message, reply)
            yield page
            if page.is_over:
                return


_shared: PolledTransport | None = None


def polled_transport(session: Session) -> PolledTransport:
    """That of this process, which has one session."""
    global _shared
    if _shared is None or _shared._session is not session:
        _shared = PolledTransport(session)
    return _shared
