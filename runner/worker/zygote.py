"""The process from which local machines are forked: everything an agent and its executors need is imported once.

It is itself forked from the coordinator before that makes threads, an event loop or gRPC objects. It also holds layers: imports
such as torch that the machines of a host share, each in a process from which those machines' templates are forked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn, Self

from runner.errors import ProtocolViolationError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig
from runner.providers.freezing import is_frozen, sweep_beside
from runner.providers.process_tag import tag_this_process
from runner.rpc.security import make_csr
from runner.worker.agent.agent import run_agent
from runner.worker.forkserver import ForkServer
from runner.worker.frames import Frame, Kind
from runner.worker.layers import layer_of
from runner.worker.process import children_of, receive_packet, send_packet
from runner.worker.template import Layer

log = logging.getLogger(__name__)

# Runs in the child: the zygote's end of the machine's socket, to be closed there, and the machine's own.
MachineBody = Callable[[socket.socket, socket.socket], None]

MACHINE_END_S = 3.0  # for machines to end by themselves
CLOSE_S = 4.0


class Zygote:
    """The coordinator's handle. Implements the local provider's `Forker`."""

    def __init__(self, sock: socket.socket, life_fd: int, pid: int) -> None:
        self._sock = sock
        self._life_fd = life_fd
        self._loop: asyncio.AbstractEventLoop | None = None
        self._booting: dict[MachineId, asyncio.Future[int]] = {}
        self._on_exit: Callable[[MachineId, int], None] = lambda _name, _status: None
        self._on_lost: Callable[[], None] = lambda: None
        self.pid = pid
        self.is_lost = False

    @classmethod
    def fork(cls, server: type[ZygoteServer] | None = None) -> Self:
        """Fork it. The caller must have one thread, no event loop, and must not have used gRPC. `server`: what it is to be."""
        # Loads all that certificates need, which the caller needs as well: else every machine pays 50 ms and 8 MB for it.
        make_csr("warm-up")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        life_read, life_write = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                _be_zygote(theirs, life_read, server or ZygoteServer)
            finally:
                os._exit(1)
        theirs.close()
        os.close(life_read)
        ours.setblocking(False)
        return cls(ours, life_write, pid)

    @property
    def sock(self) -> socket.socket:
        """Readable when there is something to `receive`."""
        return self._sock

    def attach(self, on_exit: Callable[[MachineId, int], None], on_lost: Callable[[], None]) -> None:
        """Serve the running event loop: `on_exit(machine, wait status)` once per machine, `on_lost()` when the zygote is gone."""
        self._on_exit, self._on_lost = on_exit, on_lost
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._sock, self.receive)

    async def boot(self, boot: BootConfig) -> int:
        """Fork one machine; its pid, which is also its session.

        Raises:
            OSError: the zygote is gone or cannot fork.
        """
        return await self._ask_for(boot.machine_id, boot.to_dict())

    async def _ask_for(self, name: MachineId, packed: Mapping[str, Any]) -> int:
        if self.is_lost or self._loop is None:
            raise OSError("the process that forks machines is gone")
        booted = self._booting[name] = self._loop.create_future()
        try:
            await self._send(Kind.BOOT, packed)
            pid: int = await booted
            return pid
        finally:
            self._booting.pop(name, None)

    def preload(self, modules: Sequence[str]) -> None:
        """Begin to import these for machines that will want them."""
        with contextlib.suppress(OSError):
            send_packet(self._sock, Kind.PRELOAD, sorted(set(modules) | layer_of(modules)))

    def receive(self) -> None:
        """Handle what the zygote has said; never blocks."""
        try:
            packet = receive_packet(self._sock)
        except BlockingIOError:
            return
        except ProtocolViolationError:
            packet = None
        if packet is None:
            self._lost()
            return
        frame, _ = packet
        name = MachineId(frame[1])
        booted = self._booting.get(name)
        if frame[0] == Kind.BOOTED:
            if booted is not None and not booted.done():
                booted.set_result(frame[2])
        elif frame[0] == Kind.GONE:
            if frame[2]:
                self._on_exit(name, frame[3])
            elif booted is not None and not booted.done():
                booted.set_exception(OSError(frame[4]))

    def close(self) -> None:
        """End the zygote and all machines that it forked; waits for it, CLOSE_S at most. Idempotent."""
        if self._sock.fileno() < 0:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._sock)
        self.is_lost = True
        self._sock.close()
        os.close(self._life_fd)
        handle = os.pidfd_open(self.pid)
        try:
            if not select.select([handle], [], [], CLOSE_S)[0]:
                os.kill(self.pid, signal.SIGKILL)
        finally:
            os.close(handle)
        os.waitpid(self.pid, 0)

    async def _send(self, kind: Kind, *fields: Any) -> None:
        while True:
            try:
                send_packet(self._sock, kind, *fields)
            except BlockingIOError:
                await asyncio.sleep(0.005)  # a thousand machines at once: it forks one after the other
            else:
                return

    def _lost(self) -> None:
        assert self._loop is not None
        self._loop.remove_reader(self._sock)
        self.is_lost = True
        for booted in self._booting.values():
            if not booted.done():
                booted.set_exception(OSError("the process that forks machines ended"))
        self._on_lost()


def _be_zygote(control: socket.socket, life_fd: int, server: type[ZygoteServer] | None = None) -> NoReturn:
    _silence_inherited({0, 1, 2, control.fileno(), life_fd})
    # Whatever the coordinator's log handlers hold is the coordinator's.
    logging.root.handlers.clear()
    (server or ZygoteServer)(control, life_fd).serve()


def _silence_inherited(keep: set[int]) -> None:
    """Let go of the coordinator's descriptors, or their other ends would never see an end.

    They are replaced, not closed: objects that own them live on here, and would close a later descriptor of that number.
    """
    null = os.open(os.devnull, os.O_RDWR)
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        if fd not in keep and fd != null:
            with contextlib.suppress(OSError):
                os.fstat(fd)
                os.dup2(null, fd, inheritable=False)
    os.close(null)


class ZygoteServer(ForkServer):
    """The loop of the zygote."""

    def __init__(self, control: socket.socket, life_fd: int) -> None:
        super().__init__(control)
        self.life_fd = life_fd
        self._machines: dict[int, tuple[MachineId, bool]] = {}  # pid: name, embedded
        self._layers: dict[frozenset[str], socket.socket] = {}
        self._layer_pids: dict[int, frozenset[str]] = {}

    def on_packet(self, frame: Frame, fds: list[int]) -> None:
        if frame[0] == Kind.BOOT:
            self.boot(frame[1])
        elif frame[0] == Kind.PRELOAD:
            self._layer(frozenset(frame[1]))

    # ---- machines ----
    def boot(self, packed: Mapping[str, Any]) -> None:
        """Fork the machine that this BOOT asks for."""
        boot = BootConfig.from_dict(packed)
        tag = (boot.cluster_id, boot.machine_id)
        self.fork_machine(
            boot.machine_id, tag, lambda ours, theirs: _machine_main(boot, self.life_fd, ours, theirs), boot.embedded
        )

    def fork_machine(self, name: MachineId, tag: tuple[str, str], body: MachineBody, is_embedded: bool) -> None:
        """Fork `body(our end, its end)` of a socket on which it may ask for layers; those carry the tag. BOOTED or GONE tells."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            pid = self.fork(lambda: body(ours, theirs))
        except (OSError, RuntimeError) as error:
            ours.close()
            self._tell(Kind.GONE, name, 0, 0, str(error))
            return
        finally:
            theirs.close()
        self._machines[pid] = (name, is_embedded)
        self.add_source(ours, lambda frame, fds: self._machine_asks(frame, fds, tag), lambda: None)
        self._tell(Kind.BOOTED, name, pid)

    def _machine_asks(self, frame: Frame, fds: list[int], tag: tuple[str, str]) -> None:
        """LAYER [modules, tag] with the control socket of the template that the machine wants."""
        try:
            layer = self._layer(frozenset(frame[1]), fds)
            send_packet(layer, Kind.LAYER, [], tag, fds=tuple(fds))
        except OSError:
            pass  # the machine sees the end of its socket and imports for itself
        finally:
            for fd in fds:
                os.close(fd)

    # ---- layers ----
    def _layer(self, modules: frozenset[str], passing: Sequence[int] = ()) -> socket.socket:
        """The layer's control socket; what is sent there waits until the imports are done.

        `passing`: descriptors that are on their way to it. A new layer must not have them already when they come: its copies would
        keep a machine waiting for the end of a template that is gone.
        """
        known = self._layers.get(modules)
        if known is not None:
            return known
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server_pid = os.getpid()

        def body() -> None:
            ours.close()
            os.close(self.life_fd)
            for fd in passing:
                os.close(fd)
            Layer(theirs, sorted(modules), server_pid).run()

        pid = self.fork(body)
        theirs.close()
        self._layers[modules] = ours
        self._layer_pids[pid] = modules
        return ours

    # ---- children ----
    def is_known(self, pid: int) -> bool:
        return pid in self._machines or pid in self._layer_pids

    def on_exit(self, pid: int) -> None:
        """Nothing to do before it is reaped: a machine's processes are told by their template's socket."""

    def on_reaped(self, pid: int, status: int) -> None:
        modules = self._layer_pids.pop(pid, None)
        if modules is not None:
            self._layers.pop(modules).close()
            return
        name, _ = self._machines.pop(pid)
        self._tell(Kind.GONE, name, pid, status, "")

    def end_children(self, elapsed_s: float) -> bool:
        """Embedded machines have seen the end of their life pipe; others live on until their leases end.

        A frozen one sees and counts nothing. It ends now: its memory would stay for good if no coordinator came back.
        """
        frozen = {pid for pid in self._machines if is_frozen(pid)}
        waited_for = {pid for pid, (_, is_embedded) in self._machines.items() if is_embedded} | frozen
        for pid in {*waited_for, *self._layer_pids} if elapsed_s > MACHINE_END_S else frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for sock in self._layers.values():
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
        # What a machine that was killed leaves lands here, and is killed as it does.
        has_orphans = any(not self.is_known(pid) for pid in children_of(os.getpid()))
        if (waited_for or self._layer_pids or has_orphans) and elapsed_s < CLOSE_S:
            return True
        sweep_beside(os.getpid())
        return False

    def _tell(self, kind: Kind, *fields: object) -> None:
        with contextlib.suppress(OSError):
            send_packet(self.control, kind, *fields)


def write_to(log_path: str) -> None:
    """Send stdout and stderr of this process to the end of this file."""
    fd = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.dup2(fd, 1)
    os.dup2(fd, 2)
    os.close(fd)


def log_to_stderr() -> None:
    """What an agent logs is its machine's log."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", force=True)


def _machine_main(boot: BootConfig, life_fd: int, ours: socket.socket, zygote: socket.socket) -> None:
    os.setsid()
    ours.close()
    tag_this_process(ClusterId(boot.cluster_id), boot.machine_id)
    if boot.log_path:
        write_to(boot.log_path)
    log_to_stderr()
    life = life_fd if boot.embedded else None
    if life is None:
        os.close(life_fd)
    sys.exit(run_agent(boot, life, zygote))
