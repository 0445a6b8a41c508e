"""Waiting until the coordinator knows what this process's session has told it so far."""

from __future__ import annotations

import asyncio

from runner.client.futures import set_soon
from runner.client.session import Session
from runner.client.waiting import Waiter


def wait_acknowledged(session: Session) -> None:
    """Block until all operations queued so far are acknowledged."""
    waiter = Waiter((), 1, wake_on_failure=False)
    with session._lock:
        is_known = not session.machine.after_ack(waiter.finish)
    if not is_known:
        session._block(waiter, None, is_for_objects=False)


async def acknowledged(session: Session) -> None:
    """The same for a coroutine. Somebody must read the session's replies meanwhile."""
    loop = asyncio.get_running_loop()
    arrived: asyncio.Future[None] = loop.create_future()
    with session._lock:
        is_known = not session.machine.after_ack(lambda: set_soon(loop, arrived))
    if not is_known:
        session.transport.wake()
        await arrived
