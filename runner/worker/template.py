"""The process from which executors are forked: everything they need is imported once.

Imports only, and the code of user templates, under the rules of fork_rules.py. torch._dynamo and torch.optim belong to it: without
them the first optimizer step of a child takes seconds.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Sequence

from runner.hooks import reseed
from runner.ids import ClusterId, MachineId
from runner.providers.process_tag import tag_this_process
from runner.worker import fork_rules, layers, user_template
from runner.worker.executor import executor
from runner.worker.forkserver import ForkServer
from runner.worker.frames import Frame, Kind
from runner.worker.process import (
    children_of,
    die_with_parent,
    kill_group,
    outlive_parent,
    prefer_for_oom_kill,
    send_packet,
)

# How long killed processes get to be gone.
REAP_S = 2.0


class Template(ForkServer):
    """Forks executors and further templates. Ends, with all of them, when the control socket does."""

    def __init__(self, control: socket.socket) -> None:
        super().__init__(control)
        self._executors: dict[int, int] = {}  # pid: number; and those of user templates
        self._pids: dict[int, int] = {}
        self._templates: set[int] = set()

    def run(self) -> None:
        """Say that it is ready, and serve."""
        with contextlib.suppress(OSError):
            send_packet(self.control, Kind.READY, os.getpid())
        self.serve()

    # ---- requests ----
    def on_packet(self, frame: Frame, fds: list[int]) -> None:
        server_pid = os.getpid()
        match frame[0]:
            case Kind.SPAWN:
                self._spawn(frame[1], lambda: _executor_main(server_pid, fds), fds)
            case Kind.MAKE:
                self._spawn(frame[1], lambda: _user_template_main(server_pid, fds), fds)
            case Kind.SIGNAL:
                self._signal(frame[1], frame[2], whole_group=frame[3])
            case Kind.LAYER:
                self._fork_template(frame[1], frame[2], fds)
            case Kind.RESEED:
                reseed()
            case _:
                _close(fds)

    def _spawn(self, number: int, body: Callable[[], None], fds: list[int]) -> None:
        """Fork what user code runs in: a process group of its own."""
        try:
            pid = self.fork(body)
        except (OSError, RuntimeError) as error:
            self._tell(Kind.SPAWN_FAILED, number, str(error))
            return
        finally:
            _close(fds)
        with contextlib.suppress(OSError):  # the child does it too: whoever is first
            os.setpgid(pid, pid)
        self._executors[pid] = number
        self._pids[number] = pid
        self._tell(Kind.SPAWNED, number, pid)

    def _signal(self, number: int, signal_number: int, *, whole_group: bool) -> None:
        pid = self._pids.get(number)
        if pid is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if whole_group:
                os.killpg(pid, signal_number)
            else:
                os.kill(pid, signal_number)

    def _fork_template(self, modules: Sequence[str], tag: Sequence[str], fds: list[int]) -> None:
        server_pid = os.getpid()
        self._templates.add(self.fork(lambda: _template_main(server_pid, modules, tag, fds[0])))
        _close(fds)

    def _tell(self, kind: Kind, *fields: object) -> None:
        # When the agent is gone, the end of the control socket says so next.
        with contextlib.suppress(OSError):
            send_packet(self.control, kind, *fields)

    # ---- children ----
    def is_known(self, pid: int) -> bool:
        return pid in self._executors or pid in self._templates

    def on_exit(self, pid: int) -> None:
        if pid in self._executors:
            kill_group(pid)

    def on_reaped(self, pid: int, status: int) -> None:
        self._templates.discard(pid)
        number = self._executors.pop(pid, None)
        if number is not None:
            self._pids.pop(number, None)
            self._tell(Kind.EXITED, number, status)

    def end_children(self, elapsed_s: float) -> bool:
        for pid in self._executors:
            kill_group(pid)
        # Templates forked from this one end with their own control sockets.
        return elapsed_s < REAP_S and any(pid not in self._templates for pid in children_of(os.getpid()))


def _executor_main(server_pid: int, fds: list[int]) -> None:
    os.setpgid(0, 0)
    die_with_parent(server_pid)
    prefer_for_oom_kill()
    sock_fd, stdout_fd, stderr_fd, page_fd = fds
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (stdout_fd, 1), (stderr_fd, 2)):
        os.dup2(source, target)
        os.close(source)
    executor.main(socket.socket(fileno=sock_fd), page_fd)


def _user_template_main(server_pid: int, fds: list[int]) -> None:
    control_fd, frames_fd = fds
    user_template.main(server_pid, socket.socket(fileno=control_fd), frames_fd, lambda control: Template(control).run())


def _template_main(server_pid: int, modules: Sequence[str], tag: Sequence[str], control_fd: int) -> None:
    """A template for one machine, with `modules` on top of what its parent has."""
    control = socket.socket(fileno=control_fd)
    if tag:
        tag_this_process(ClusterId(tag[0]), MachineId(tag[1]))
    if modules:
        die_with_parent(server_pid)  # while it imports it does not watch its socket
        import_modules(modules)
        outlive_parent()
    Template(control).run()


class Layer(Template):
    """Holds imports for several machines: forks a template for each that asks. Ends with its parent."""

    def __init__(self, control: socket.socket, modules: Sequence[str], parent_pid: int) -> None:
        super().__init__(control)
        self._modules = modules
        self._parent_pid = parent_pid

    def run(self) -> None:
        die_with_parent(self._parent_pid)
        import_modules(self._modules)
        self.serve()


def import_modules(modules: Sequence[str]) -> None:
    """Import `modules` under the template's rules, with what else their first use would import.

    Raises:
        ImportError: and whatever else a module raises when imported.
        RuntimeError: an import started threads, so this process cannot be forked.
    """
    with fork_rules.kept():
        for name in layers.closure(modules):
            importlib.import_module(name)
    threads = fork_rules.other_threads()
    if threads:
        raise RuntimeError(
            f"importing {', '.join(modules)} started {len(threads)} threads; a process with threads is not forked"
        )


def _close(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
