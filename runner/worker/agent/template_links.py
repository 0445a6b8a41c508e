"""The agent's end of its templates: their control sockets, and the numbers of the processes that user code has made templates of."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from runner.errors import ProtocolViolationError
from runner.worker.agent.templates import BASE, Modules
from runner.worker.frames import Frame, Kind
from runner.worker.process import receive_packet, send_packet

_RETRY_S = 0.01


class TemplateLink:
    """Packets to and from one template, in order, without blocking."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        on_frame: Callable[[Frame], None],
        on_end: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._loop = loop
        self._sock = sock
        self._on_frame = on_frame
        self._on_end = on_end
        self._waiting: deque[tuple[Kind, tuple[Any, ...], tuple[int, ...]]] = deque()
        self.is_open = True
        loop.add_reader(sock, self._readable)

    def send(self, kind: Kind, *fields: Any, fds: tuple[int, ...] = ()) -> None:
        """Send one packet; `fds` are closed when they have gone."""
        self._waiting.append((kind, fields, fds))
        if len(self._waiting) == 1:
            self._send_waiting()

    def shut_down(self) -> socket.socket:
        """Ask the template to end; the socket that is returned ends when it has."""
        self._detach()
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was faster
        return self._sock

    def close(self) -> None:
        """Forget it. Idempotent."""
        self._detach()
        self._sock.close()

    def read_rest(self) -> None:
        """Handle what it said last: its process is gone."""
        while self.is_open:
            if not self._readable():
                return

    def _detach(self) -> None:
        if self.is_open:
            self.is_open = False
            self._loop.remove_reader(self._sock)
            for _, _, fds in self._waiting:
                _close(fds)
            self._waiting.clear()

    def _send_waiting(self) -> None:
        while self._waiting:
            kind, fields, fds = self._waiting[0]
            try:
                send_packet(self._sock, kind, *fields, fds=fds)
            except BlockingIOError:
                self._loop.call_later(_RETRY_S, self._send_waiting)
                return
            except OSError:
                pass  # the reader sees the end
            self._waiting.popleft()
            _close(fds)

    def _readable(self) -> bool:
        """Take one packet; False: there was none."""
        try:
            packet = receive_packet(self._sock)
        except BlockingIOError:
            return False
        except ProtocolViolationError:
            packet = None
        if packet is None:
            self.close()
            self._on_end()
            return False
        frame, fds = packet
        _close(tuple(fds))
        self._on_frame(frame)
        return True


class TemplateOwner(Protocol):
    """Who is told what templates say."""

    def on_template_frame(self, names: Modules, frame: Frame) -> None: ...
    def on_template_end(self, names: Modules) -> None: ...


class TemplateLinks:
    """All templates of one machine."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owner: TemplateOwner,
        base: socket.socket,
        zygote: socket.socket | None,
    ) -> None:
        """`zygote`: where layers are asked for; None, and when it ends: at the base template."""
        self._loop = loop
        self._owner = owner
        self.by_names: dict[Modules, TemplateLink] = {}
        self._add(BASE, base)
        self._zygote = None if zygote is None else TemplateLink(loop, zygote, lambda _frame: None, self._zygote_ended)
        self._parents: dict[int, TemplateLink] = {}  # by number of the process: of what was forked, or is to be
        self._user: dict[int, tuple[Modules, TemplateLink]] = {}  # user templates by number

    def _add(self, names: Modules, sock: socket.socket) -> None:
        link = self.by_names[names] = TemplateLink(
            self._loop,
            sock,
            lambda frame: self._owner.on_template_frame(names, frame),
            lambda: self._ended(names, link),
        )

    def spawn(self, names: Modules, number: int, fds: tuple[int, ...]) -> None:
        """Have an executor forked; its socket ends when the template is gone by now."""
        self._have_forked(names, Kind.SPAWN, number, fds)

    def can_reach(self, number: int) -> bool:
        """Whether the template that forked this process is there, to signal it and to tell of its end."""
        link = self._parents.get(number)
        return link is not None and link.is_open

    def signal(self, number: int, signal_number: int, *, whole_group: bool) -> None:
        """Have a process signalled by the template that forked it: another one of the same names does not know it."""
        if self.can_reach(number):
            self._parents[number].send(Kind.SIGNAL, number, signal_number, whole_group)

    def load(self, modules: Modules, tag: tuple[str, str]) -> None:
        """Ask for a template that has imported these."""
        theirs = self._new_end(modules)
        source = self._zygote or self.by_names[BASE]
        source.send(Kind.LAYER, sorted(modules), tag, fds=(theirs,))

    def make(self, number: int, names: Modules, parent: Modules, frames: bytes) -> None:
        """Have the process of a user template forked from `parent`; the frames say what it runs."""
        frames_fd = os.memfd_create("runner-template")
        with open(frames_fd, "wb", closefd=False) as file:
            file.write(frames)
        os.lseek(frames_fd, 0, os.SEEK_SET)
        theirs = self._new_end(names)
        self._user[number] = (names, self.by_names[names])
        self._have_forked(parent, Kind.MAKE, number, (theirs, frames_fd))

    def end(self, names: Modules) -> None:
        """Have a user template end what it forked, and itself."""
        link = self.by_names.pop(names, None)
        if link is not None:
            link.shut_down().close()

    def exited(self, number: int) -> Modules | None:
        """A process with this number is gone: the names of the user template that it was, all it said being handled."""
        self._parents.pop(number, None)
        if number not in self._user:
            return None
        names, link = self._user.pop(number)
        link.read_rest()
        return names

    def out_of_reach(self) -> list[int]:
        """The numbers of user templates whose end nobody will tell."""
        return [number for number in self._user if not self.can_reach(number)]

    def close(self, limit_s: float) -> None:
        """Have all of them end everything that they forked, and wait until they have."""
        if self._zygote is not None:
            self._zygote.close()
        socks = [link.shut_down() for link in self.by_names.values() if link.is_open]
        deadline_s = time.monotonic() + limit_s
        while socks and (left_s := deadline_s - time.monotonic()) > 0:
            for sock in select.select(socks, [], [], left_s)[0]:
                if _is_at_end(sock):
                    sock.close()
                    socks.remove(sock)
        for sock in socks:
            sock.close()

    def _have_forked(self, parent: Modules, kind: Kind, number: int, fds: tuple[int, ...]) -> None:
        link = self.by_names.get(parent)
        if link is None:
            _close(fds)
        else:
            self._parents[number] = link
            link.send(kind, number, fds=fds)

    def _new_end(self, names: Modules) -> int:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._add(names, ours)
        return theirs.detach()

    def _ended(self, names: Modules, link: TemplateLink) -> None:
        if self.by_names.get(names) is not link:
            return  # one that failed, whose successor is on its way
        del self.by_names[names]
        self._owner.on_template_end(names)

    def _zygote_ended(self) -> None:
        self._zygote = None


def _is_at_end(sock: socket.socket) -> bool:
    try:
        while sock.recv(65536):
            pass
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True


def _close(fds: tuple[int, ...]) -> None:
    for fd in fds:
        os.close(fd)
