"""The agent's end of its executors: their sockets, their pipes, their cancel pages, their memory."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from runner.ids import random_id
from runner.rpc.link import Link
from runner.worker.agent.events import Attempt, Environment
from runner.worker.agent.logs import LinePipe
from runner.worker.executor.interrupts import CancelPage
from runner.worker.frames import Decoder, Frame, Kind, encode

# An executor's end is told by its template; when that says nothing, the end of the socket must do.
_EXIT_NOTICE_S = 1.0


@dataclass(slots=True, eq=False)
class Handle:
    """One executor as the agent sees it."""

    number: int
    executor_id: str
    template: frozenset[str]
    link: Link[Frame]
    page: CancelPage
    pipes: tuple[LinePipe, LinePipe]
    pid: int = 0
    is_set_up: bool = False
    sent: set[str] = field(default_factory=set)  # functions and packages that it has
    attempt: Attempt | None = None
    serial: int = 0
    next_index: int = 1  # of the attempt's metrics and log lines
    lines_dropped: int = 0
    started: Any = None  # the report that says so, while nothing else was said about the attempt
    held: list[bytes] | None = None  # session requests that wait for the report of the attempt's end


class Owner(Protocol):
    """Who is told what happens on executors."""

    def on_frames(self, handle: Handle, frames: list[Frame]) -> None: ...
    def on_lines(self, handle: Handle, stream: str, lines: list[str]) -> None: ...
    def on_silent_end(self, handle: Handle, error: str) -> None: ...


Spawn = Callable[[frozenset[str], int, tuple[int, ...]], None]


class Executors:
    """All executors of one machine, by number."""

    def __init__(self, loop: asyncio.AbstractEventLoop, owner: Owner, spawn: Spawn) -> None:
        """`spawn(template, number, descriptors)` has a template fork."""
        self._loop = loop
        self._owner = owner
        self.settings: dict[str, Any] = {}  # what every executor is told about the cluster
        self._spawn = spawn
        self._is_paused = False
        self.by_number: dict[int, Handle] = {}
        self.by_id: dict[str, Handle] = {}

    def spawn(self, number: int, template: frozenset[str]) -> None:
        """Have one forked; its READY comes as a frame."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        page_fd = CancelPage.create()
        handle = Handle(
            number,
            random_id("x"),
            template,
            Link(
                self._loop,
                ours,
                Decoder(),
                lambda frames: self._owner.on_frames(handle, frames),
                lambda error: self._ended(handle, error),
            ),
            CancelPage(page_fd),
            (LinePipe(out_read, "stdout"), LinePipe(err_read, "stderr")),
        )
        self.by_number[number] = handle
        self.by_id[handle.executor_id] = handle
        for pipe in handle.pipes:
            self._loop.add_reader(pipe.fd, self._pipe_readable, handle, pipe)
        # The template's copies are closed when they have gone; `theirs` gives its descriptor away.
        self._spawn(template, number, (theirs.detach(), out_write, err_write, page_fd))

    def setup_frame(self, handle: Handle, environment: Environment) -> bytes:
        """What an executor gets before its first attempt."""
        setup = self.settings | {
            "executor_id": handle.executor_id,
            "env_vars": environment.env_vars,
            "threads": environment.threads,
            "visible_gpus": environment.visible_gpus,
        }
        return encode(Kind.SETUP, setup)

    def drain(self, handle: Handle) -> None:
        """Take the lines that were written before the frame that is being handled."""
        for pipe in handle.pipes:
            if not pipe.is_at_end:
                lines = pipe.read()
                if lines:
                    self._owner.on_lines(handle, pipe.stream, lines)

    def finish_lines(self, handle: Handle) -> None:
        """The attempt is over: its last lines, also those without an end."""
        self.drain(handle)
        for pipe in handle.pipes:
            lines = pipe.flush()
            if lines:
                self._owner.on_lines(handle, pipe.stream, lines)

    def remove(self, number: int) -> Handle | None:
        """The process is gone: take what it said last, and forget it."""
        handle = self.by_number.get(number)
        if handle is None:
            return None
        handle.link.read_rest()
        self.finish_lines(handle)
        del self.by_number[number]
        del self.by_id[handle.executor_id]
        handle.link.close()
        handle.page.close()
        for pipe in handle.pipes:
            self._loop.remove_reader(pipe.fd)
            pipe.close()
        return handle

    def pause(self, *, is_paused: bool) -> None:
        """Stop or go on reading what executors send: they block when their sockets are full."""
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            for handle in self.by_number.values():
                handle.link.pause(is_paused=is_paused)

    def broadcast(self, data: bytes) -> None:
        """One frame to all that are ready."""
        for handle in self.by_number.values():
            handle.link.send(data)

    def _pipe_readable(self, handle: Handle, pipe: LinePipe) -> None:
        lines = pipe.read()
        if pipe.is_at_end:
            self._loop.remove_reader(pipe.fd)
        if lines:
            self._owner.on_lines(handle, pipe.stream, lines)

    def _ended(self, handle: Handle, error: str) -> None:
        self._loop.call_later(0.0 if error else _EXIT_NOTICE_S, self._owner.on_silent_end, handle, error)
