"""Calls that travel over a bad network: delayed, cut at any message, noticed by the two ends at different times."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.message import Message

from runner.testing import FaultPlan

_TINY_S = 1e-6  # keeps messages of one pipe in order where their delays are equal


class Cut(ConnectionError):
    """The connection is gone; what was under way may or may not have arrived."""


class Refused(Exception):
    """The other end answered with an error (its `__cause__`) instead of serving the call."""


@dataclass(slots=True)
class Pipe:
    """One direction of one call. What is sent arrives later, in order, or is lost with everything after it."""

    numbers: random.Random
    delay_s: float
    _arrived: deque[Message] = field(default_factory=deque)
    _last_s: float = 0.0
    _end: BaseException | None = None
    _is_cut: bool = False
    _is_finished: bool = False
    _waiter: asyncio.Future[None] | None = None

    def send(self, message: Message) -> None:
        if self._is_cut:
            return
        # Copied as the wire would: nobody may change a message that is under way.
        self._later(self._arrive, type(message).FromString(message.SerializeToString()))

    def finish(self) -> None:
        """No more will be sent; the reader ends after what is under way."""
        self._later(self._note_end, None)

    def fail(self, error: BaseException) -> None:
        self._later(self._note_end, error)

    def cut(self, noticed_after_s: float) -> None:
        """What has not arrived is lost; the reader notices a little later."""
        self._is_cut = True
        asyncio.get_running_loop().call_later(noticed_after_s, self._note_end, Cut("the connection was cut"))

    async def receive(self) -> Message | None:
        """The next message; None at the end."""
        while not self._arrived and not self._is_finished:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self._arrived:
            return self._arrived.popleft()
        if self._end is not None:
            raise self._end
        return None

    def _later(self, then: Callable[..., None], *args: Any) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self.delay_s * self.numbers.random()
        self._last_s = max(due_s, self._last_s + _TINY_S)
        loop.call_at(self._last_s, then, *args)

    def _arrive(self, message: Message) -> None:
        if not self._is_cut and not self._is_finished:
            self._arrived.append(message)
            self._wake()

    def _note_end(self, error: BaseException | None) -> None:
        if not self._is_finished:
            self._is_finished, self._end = True, error
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Context:
    """What a handler sees of its call, as far as the shipped handlers look."""

    def __init__(self, call: Call, machine: tuple[str, bytes] | None) -> None:
        self._call = call
        self._machine = machine

    async def write(self, message: Message) -> None:
        self._call.down.send(message)
        await asyncio.sleep(0)

    def auth_context(self) -> dict[str, list[bytes]]:
        if self._machine is None:
            return {}
        name, uri = self._machine
        return {"x509_common_name": [name.encode()], "peer_uri": [uri]}

    def cancelled(self) -> bool:
        return self._call.is_lost

    def peer(self) -> str:
        return "simulated"

    def invocation_metadata(self) -> tuple[()]:
        return ()


@dataclass(slots=True)
class Call:
    """One call of a handler; the handler runs as a task of the server."""

    label: str
    up: Pipe
    down: Pipe
    server: asyncio.Task[None] | None = None
    is_over: bool = False
    is_lost: bool = False  # the server has noticed that its caller is gone

    def send(self, message: Message) -> None:
        self.up.send(message)

    async def receive(self) -> Any:
        return await self.down.receive()

    def finish(self) -> None:
        """Half-close: nothing more will be sent up."""
        self.up.finish()

    async def requests(self) -> AsyncIterator[Any]:
        """What the handler reads. Like gRPC's: a lost caller cancels the handler."""
        try:
            while (message := await self.up.receive()) is not None:
                yield message
        except Cut:
            self.lose()
            await asyncio.Event().wait()

    def lose(self) -> None:
        self.is_lost = True
        if self.server is not None:
            self.server.cancel()


class Network:
    """Opens calls, and cuts them."""

    def __init__(self, plan: FaultPlan, *, delay_s: float) -> None:
        self.plan = plan
        self.delay_s = delay_s
        self.calls: list[Call] = []
        self.cuts = 0
        self._opened: dict[str, int] = {}
        self._cut_off_until_s: dict[str, float] = {}  # by the last word of a call's label: who makes it

    def open(
        self,
        label: str,
        handler: Callable[[Any, Any], Any] | None,
        *,
        request: Message | None = None,
        machine: tuple[str, bytes] | None = None,
    ) -> Call:
        """Call `handler` (None: nobody listens). `label` is what and who; `request` is given for calls with one request."""
        now_s = asyncio.get_running_loop().time()
        if handler is None or self._cut_off_until_s.get(label.split()[-1], 0.0) > now_s:
            raise Cut("nobody can be reached")
        self._opened[label] = self._opened.get(label, 0) + 1
        label = f"{label} #{self._opened[label]}"
        # Numbers of its own: what one call draws does not depend on what others do.
        up, down = (Pipe(random.Random(f"{self.plan.seed} {label} {way}"), self.delay_s) for way in ("up", "down"))
        call = Call(label, up, down)
        if request is not None:
            call.up.send(request)
        call.server = asyncio.ensure_future(self._serve(call, handler, Context(call, machine), request is not None))
        self.calls.append(call)
        return call

    def cut(self, call: Call) -> None:
        """Break it: the ends notice after different times, and what is under way is lost."""
        if call.is_over:
            return
        call.is_over = True
        self.cuts += 1
        numbers = self.plan.stream("cuts")
        call.down.cut(numbers.random() * 2 * self.delay_s)
        call.up.cut(numbers.random() * 2 * self.delay_s)
        self.calls.remove(call)

    def cut_off(self, who: str, duration_s: float) -> None:
        """Nothing gets from or to a machine or client for a while."""
        self._cut_off_until_s[who] = asyncio.get_running_loop().time() + duration_s
        for call in [*self.calls]:
            if call.label.split()[1] == who:
                self.cut(call)

    def cut_all(self) -> None:
        for call in [*self.calls]:
            self.cut(call)

    async def _serve(self, call: Call, handler: Callable[[Any, Any], Any], context: Context, is_unary: bool) -> None:
        try:
            request: Any = await call.up.receive() if is_unary else call.requests()
            watch = asyncio.ensure_future(self._watch(call)) if is_unary else None
            try:
                reply = await handler(request, context)
            finally:
                if watch is not None:
                    watch.cancel()
            if reply is not None:
                call.down.send(reply)
            call.down.finish()
        except asyncio.CancelledError:
            call.down.fail(Cut("the server is gone"))
        except Exception as error:
            refused = Refused(str(error))
            refused.__cause__ = error
            call.down.fail(refused)
        finally:
            if not call.is_over:
                call.is_over = True
                self.calls.remove(call)

    async def _watch(self, call: Call) -> None:
        try:
            await call.up.receive()
        except Cut:
            call.lose()
