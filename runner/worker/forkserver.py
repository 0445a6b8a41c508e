"""The loop that zygote and templates share: single-threaded, answers packets, forks, reaps, and leaves nobody behind.

It must never start a thread, an event loop or gRPC: its children are copies of it.
"""

from __future__ import annotations

import contextlib
import gc
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from typing import NoReturn

from runner.worker import fork_rules
from runner.worker.frames import Frame
from runner.worker.process import become_subreaper, children_of, receive_packet

OnPacket = Callable[[Frame, list[int]], None]


class ForkServer:
    """Serves packets from several sockets until the first one, `control`, ends."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self._sources: dict[int, tuple[socket.socket, OnPacket, Callable[[], None]]] = {}
        self._poll = select.poll()
        self._closing = False
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.add_source(control, self.on_packet, self._control_ended)

    # ---- what the kinds of server fill in ----
    def on_packet(self, frame: Frame, fds: list[int]) -> None:
        """A packet on the control socket. The descriptors belong to the callee."""
        raise NotImplementedError

    def on_exit(self, pid: int) -> None:
        """Child `pid` is dead but not reaped: its pid and group id still mean it. Not called for orphans."""
        raise NotImplementedError

    def is_known(self, pid: int) -> bool:
        """Whether `pid` is a child that this server made and that may live."""
        raise NotImplementedError

    def on_reaped(self, pid: int, status: int) -> None:
        """`on_exit` was called for it, and now the pid is free."""
        raise NotImplementedError

    def end_children(self, elapsed_s: float) -> bool:
        """Make all children end. Called again and again at the end of service, until it returns False: nobody is waited for."""
        raise NotImplementedError

    # ---- what they use ----
    def add_source(self, sock: socket.socket, on_packet: OnPacket, on_end: Callable[[], None]) -> None:
        """Also serve `sock`; it is closed when it ends."""
        self._sources[sock.fileno()] = (sock, on_packet, on_end)
        self._poll.register(sock, select.POLLIN)

    def drop_source(self, sock: socket.socket) -> None:
        """Close `sock` and serve it no longer."""
        if self._sources.pop(sock.fileno(), None) is not None:
            self._poll.unregister(sock)
        sock.close()

    def serve(self) -> NoReturn:
        """Run until the control socket ends; then end all children and exit."""
        become_subreaper()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, lambda _signal, _frame: None)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._poll.register(self._wake_read, select.POLLIN)
        gc.disable()
        while not self._closing:
            for fd, _ in self._poll.poll():
                if fd == self._wake_read:
                    self._reap()
                elif fd in self._sources:
                    self._read(fd)
        self._end_all()
        os._exit(0)

    def fork(self, body: Callable[[], None], *, keep: tuple[int, ...] = ()) -> int:
        """Fork a child that runs `body` and exits; the parent gets the pid.

        The child has none of this server's descriptors but `keep` and no signal handlers of it.
        """
        if fork_rules.has_used_cuda():
            raise RuntimeError("CUDA was initialised by an import in a template; it cannot be forked")
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
        gc.freeze()
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            self._become_child(keep)
            body()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(Exception):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(status)

    def _become_child(self, keep: tuple[int, ...]) -> None:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.close(self._wake_read)
        os.close(self._wake_write)
        for fd, (sock, _, _) in self._sources.items():
            if fd not in keep:
                sock.close()
        self._sources.clear()
        gc.enable()

    def _read(self, fd: int) -> None:
        sock, on_packet, on_end = self._sources[fd]
        packet = receive_packet(sock)
        if packet is None:
            self.drop_source(sock)
            on_end()
            return
        on_packet(*packet)

    def _control_ended(self) -> None:
        self._closing = True

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        self._reap_dead()
        self._kill_orphans()

    def _reap_dead(self) -> None:
        while True:
            try:
                # WNOWAIT: signals to the group are safe only while the leader is a zombie.
                dead = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if dead is None:
                return
            known = self.is_known(dead.si_pid)
            if known:
                self.on_exit(dead.si_pid)
            _, status = os.waitpid(dead.si_pid, 0)
            if known:
                self.on_reaped(dead.si_pid, status)

    def _kill_orphans(self) -> None:
        """User processes that left their executor's group and lost their parent land here."""
        for pid in children_of(os.getpid()):
            if not self.is_known(pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    def _end_all(self) -> None:
        start_s = time.monotonic()
        while self.end_children(time.monotonic() - start_s):
            # A child's end writes a byte; the timeout is for orphans that arrive without one.
            select.select([self._wake_read], [], [], 0.05)
            self._reap()
