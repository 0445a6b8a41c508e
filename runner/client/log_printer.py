"""Prints what tasks write to stdout and stderr, with the run's name before each line; equal lines of many tasks once."""

from __future__ import annotations

import asyncio
import queue
import sys
import threading
import time
from collections.abc import Iterable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from runner.client.events import Event
from runner.client.log_dedup import LogDedup
from runner.client.streams import Feed, below
from runner.errors import RunnerError
from runner.rpc.gen import client_pb2

if TYPE_CHECKING:
    from runner.client.grpc_transport import GrpcTransport
    from runner.client.session import Session

_BUFFER_MAX_LINES = 10_000
# Of so few named runs every line is shown, whoever else has written the same: their names are what is looked for.
FEW_RUNS = 8
_KINDS = (client_pb2.EVENT_KIND_LOG, client_pb2.EVENT_KIND_LOG_GAP)


class LogPrinter:
    """Watches of this session's log lines and of the fleet's troubles, and a thread that prints them: a terminal that blocks must not stop the session."""

    def __init__(self, session: Session, transport: GrpcTransport, from_seq: int) -> None:
        self._transport = transport
        self._runs = session.runs
        request = client_pb2.WatchRequest(
            client_id=session.info.client_id, from_seq=from_seq, kinds=_KINDS, follow=True
        )
        fleet = client_pb2.WatchRequest(
            from_seq=session.info.machines_from_seq, kinds=[client_pb2.EVENT_KIND_FLEET], follow=True
        )
        self._feeds = (Feed(session, transport, request), Feed(session, transport, fleet))
        self._lines: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._following: Future[None] = transport.threaded.start(self._follow)
        self._thread = threading.Thread(target=self._print_all, name="runner-logs", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float) -> None:
        """Print what has been logged until now, at most `timeout_s`, and end."""
        try:
            self._transport.threaded.call(self._finish, timeout_s)
        except (TimeoutError, RunnerError, RuntimeError):
            pass
        self._lines.put(None)
        self._thread.join(timeout_s)

    async def _follow(self) -> None:
        try:
            await self._read()
        except RunnerError:
            pass  # the session is over, and says so itself

    async def _read(self) -> None:
        await asyncio.gather(*(feed.run(self._lines.put, self._has_room) for feed in self._feeds))

    async def _finish(self) -> None:
        """Stop following, then read once more to the newest line."""
        following = asyncio.wrap_future(self._following)
        self._following.cancel()
        await asyncio.wait([following])
        for feed in self._feeds:
            feed.request.follow = False
        await self._read()

    async def _has_room(self) -> None:
        await below(self._lines, _BUFFER_MAX_LINES)

    def _print_all(self) -> None:
        dedup = LogDedup()
        while (event := self._next_event(dedup)) is not None:
            if event.kind != "log":
                _print(event.kind != "fleet", _line(event))
            elif self._is_one_of_few(event) or dedup.feed(
                event.task_id, _label(event), event.stream, event.text, time.monotonic()
            ):
                _print(event.stream != "stderr", _line(event))
            if self._lines.empty():
                _flush()
        _print_counts(dedup.flush())

    def _is_one_of_few(self, event: Event) -> bool:
        return event.task_id in self._runs and len(self._runs) <= FEW_RUNS

    def _next_event(self, dedup: LogDedup) -> Event | None:
        """The next one; counts of equal lines are printed when it is time for them."""
        while (due_s := dedup.next_due_s()) is not None:
            try:
                return self._lines.get(timeout=max(0.0, due_s - time.monotonic()))
            except queue.Empty:
                _print_counts(dedup.due(time.monotonic()))
        return self._lines.get()


def _print_counts(counts: Iterable[tuple[str, str]]) -> None:
    for stream, line in counts:
        _print(stream != "stderr", f"{line}\n")
    _flush()


def _print(is_out: bool, text: str) -> None:
    target = sys.stdout if is_out else sys.stderr
    try:
        target.write(text)
    except (OSError, ValueError, AttributeError):
        pass  # closed, or there is none


def _flush() -> None:
    for target in (sys.stdout, sys.stderr):
        try:
            target.flush()
        except (OSError, ValueError, AttributeError):
            continue


def _label(event: Event) -> str:
    return event.name or event.task_id


def _line(event: Event) -> str:
    if event.kind == "fleet":
        return f"runner: {f'pool {event.name}: ' if event.name else ''}{event.text}\n"
    text = f"[{event.lines_dropped} lines were not kept]" if event.kind == "log_gap" else event.text
    return f"({_label(event)}) {text}\n"
