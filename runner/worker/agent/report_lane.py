"""The agent's end of its lane: commands in, reports out, all in callbacks."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

from runner.rpc.gen import fleet_pb2
from runner.rpc.lanes import LaneDecoder, pack
from runner.rpc.link import Link

# Reports follow each other at least this far apart: under load each then carries many items. One alone never waits.
PAUSE_S = 0.001


class ReportLane:
    """Carries one connection's commands and reports. `ended` is done when the other end has closed it."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_commands: Callable[[fleet_pb2.AgentCommands], None],
        next_report: Callable[[], fleet_pb2.AgentReport | None],
    ) -> None:
        """`next_report` gives what is to be said, None for nothing."""
        self._loop = loop
        self._on_commands = on_commands
        self._next_report = next_report
        self._is_due = False
        self._sent_s = 0.0
        self.ended: asyncio.Future[None] = loop.create_future()
        self._link = Link(loop, sock, LaneDecoder(), self._on_messages, self._end)
        self._link.on_drained = self.wake

    def wake(self) -> None:
        """There is something to report: it goes when what happens now is handled."""
        if not self._is_due:
            self._is_due = True
            self._loop.call_later(max(0.0, self._sent_s + PAUSE_S - self._loop.time()), self._send)

    def send_now(self) -> None:
        """There is something to report: it goes at once, unless a report went just now."""
        if self._is_due or self._sent_s + PAUSE_S > self._loop.time():
            self.wake()
        else:
            self._send()

    def close(self) -> None:
        """Idempotent."""
        self._link.close()

    def _send(self) -> None:
        self._is_due = False
        while self._link.is_open and not self._link.is_clogged and (report := self._next_report()) is not None:
            self._link.send(pack(report.SerializeToString()))
        self._sent_s = self._loop.time()

    def _on_messages(self, messages: list[bytes]) -> None:
        for message in messages:
            self._on_commands(fleet_pb2.AgentCommands.FromString(message))

    def _end(self, _error: str) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
