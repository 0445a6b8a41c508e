"""Opening and closing the session of a client process."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from runner import config
from runner.client import embedded
from runner.client.context import current_task, session_or_none, set_session
from runner.client.fleet_options import estimate
from runner.coordinator.config import STRICT_START_S_MAX
from runner.errors import BadOptionsError, RunnerError, UsageError
from runner.runtime_env import NONE, RuntimeEnv

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.client.cluster_info import Node
    from runner.client.fleet_options import FleetOptions
    from runner.client.grpc_transport import GrpcTransport
    from runner.client.log_printer import LogPrinter
    from runner.client.machine_states import Machines
    from runner.client.session import Session
    from runner.client.session_info import SessionInfo
    from runner.rpc.clusters import Target
    from runner.rpc.gen import client_pb2

# Nobody waits longer than this for a standing cluster that does not answer.
_CONNECT_S_MAX = 10.0
_FLUSH_S = 5.0
_LOGS_S = 3.0
_COST_S = 2.0


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """How the coordinator is reached; see `runner.init`."""

    address: str | None
    token: str | None = field(repr=False)
    ca: str | os.PathLike[str] | bytes | None
    log_to_driver: bool
    lost_after_s: float
    timeout_s: float
    runtime_env: RuntimeEnv = NONE


class ClientSession:
    """The session of this process, as `init` returns it. A context manager that shuts it down."""

    def __init__(self, session: Session, address: str, state_dir: str) -> None:
        self._session = session
        self.address = address  # of the coordinator; empty inside tasks
        self.state_dir = state_dir  # of an embedded cluster; else empty

    @property
    def cluster_id(self) -> str:
        return self._session.info.cluster_id

    @property
    def client_id(self) -> str:
        return self._session.info.client_id

    @property
    def embedded(self) -> bool:
        """Whether the cluster ends with this process."""
        return self._session.info.embedded

    # ---- machines that sleep: docs/suspend.md ----
    def suspend(
        self, machines: Machines | None = None, *, now: bool = False, wait: bool = True, timeout: float | None = None
    ) -> list[str]:
        """Have machines (ids or nodes; None: all that are ready) sleep until they are resumed, or until work needs them.

        A machine gets nothing new, and sleeps when what it runs has ended. With `now` its tasks are interrupted instead, and
        run again elsewhere: from their last checkpoint, and not charged to their retries. One that sleeps already is left as
        it is. Blocks until they sleep, at most `timeout` seconds, unless `wait=False`. Returns their ids.

        Raises:
            BadOptionsError, ProviderError: a machine cannot be suspended, and why; then nothing was asked for.
            StateTimeoutError: not in time; says what each waits for. The suspend goes on.
            MachineStateError: a machine does not sleep after all: a hook refused, or somebody has called it off.
        """
        from runner.client import machine_states

        return machine_states.suspend(self._session, machines, now=now, wait=wait, timeout=timeout)

    def resume(self, machines: Machines | None = None, *, wait: bool = True, timeout: float | None = None) -> list[str]:
        """Have machines back (None: all that sleep, or are about to). One that is ready, or boots, is left as it is.

        A suspend that has not happened yet is called off. A machine whose snapshot cannot be used boots cold; its reason, in
        `runner.nodes()`, says why. Blocks until they are ready, unless `wait=False`. Returns their ids.

        Raises:
            BadOptionsError: there is no such machine, or it is gone.
            StateTimeoutError: not ready within `timeout` seconds; they go on coming.
            MachineStateError: a machine is lost.
        """
        from runner.client import machine_states

        return machine_states.resume(self._session, machines, wait=wait, timeout=timeout)

    def wait_for_state(self, machine: str | Node, state: str, timeout: float | None = None) -> None:
        """Block until the machine is in `state`, one of those of docs/states.md. States that pass quickly may be missed.

        Raises:
            BadOptionsError: there is no such machine or state.
            StateTimeoutError: not within `timeout` seconds; says where it is, and why.
            MachineStateError: it can never be, from where it is.
        """
        from runner.client import machine_states

        machine_states.wait_for_state(self._session, machine, state, timeout)

    def set_machine_config(self, config: Mapping[str, str]) -> None:
        """What `after_resume` hooks find in their context from now on, such as fresh credentials; replaces what was set.

        The coordinator keeps it in memory only: after a restart of it, it has to be set again.
        """
        from runner.client import machine_states

        machine_states.set_machine_config(self._session, config)

    def shutdown(self) -> None:
        """End the session, unless it has ended already. Inside a task it stays: it is the worker's."""
        if session_or_none() is self._session and not self._session.info.is_executor:
            shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.shutdown()

    def __repr__(self) -> str:
        return f"<session of cluster {self.cluster_id} at {self.address}>"


@dataclass(slots=True)
class _Opened:
    """What `shutdown` has to close, in this process."""

    pid: int
    handle: ClientSession
    session: Session
    printer: LogPrinter | None
    coordinator: embedded.EmbeddedCoordinator | None
    is_charged: bool = False  # its machines cost money: what they came to is told at the end


_lock = threading.RLock()
_opened: _Opened | None = None


def init(fleet: FleetOptions, access: AccessOptions) -> ClientSession:
    """See `runner.init`."""
    session = session_or_none()
    if session is not None and session.info.is_executor:
        return ClientSession(session, "", "")
    with _lock:
        if _opened is not None:
            if _opened.pid != os.getpid():
                raise UsageError(
                    "This process was forked from one with a runner session; gRPC does not survive a fork."
                    " Start it with the 'spawn' method to call runner.init() there."
                )
            if _opened.session.failure is None:
                return _opened.handle
            shutdown()  # it was lost: clear away what is left of it
        return _open(fleet, access)


def shutdown() -> None:
    """See `runner.shutdown`. In a forked child it does nothing: the session is the parent's."""
    global _opened
    if current_task() is not None:
        return
    with _lock:
        opened = _opened
        if opened is None or opened.pid != os.getpid():
            return
        _opened = None
        try:
            if opened.session.failure is None:
                opened.session.flush(_FLUSH_S)
            if opened.printer is not None:
                opened.printer.close(_LOGS_S)
            if opened.is_charged and opened.session.failure is None:
                _tell_cost(opened.session)
        finally:
            # Also when Ctrl-C comes in between: the cluster must end.
            try:
                opened.session.close(_FLUSH_S if opened.coordinator is None else 1.0)
            finally:
                set_session(None)
                if opened.coordinator is not None:
                    opened.coordinator.close()


def _open(fleet: FleetOptions, access: AccessOptions) -> ClientSession:
    config.set_grpc_defaults()
    settings = config.load()
    if access.address is None and settings.address is None:
        return _open_embedded(settings, fleet, access)
    if not fleet.is_default:
        raise BadOptionsError(
            "provider, machines, num_cpus, num_gpus, memory, resources, labels, idle, preload, image, region,"
            " provider_options, max_cost and strict belong to a cluster that init() starts itself; for one that runs already they are"
            " given to `runner up`."
        )
    from runner.client.connect import find_target

    target = find_target(access.address, access.token, access.ca)
    return _connect(target, access, min(access.timeout_s, _CONNECT_S_MAX), None)


def _open_embedded(settings: config.Settings, fleet: FleetOptions, access: AccessOptions) -> ClientSession:
    wanted = {"home": str(settings.home), "lost_after_s": float(access.lost_after_s), **fleet.to_config()}
    told = estimate(wanted, settings.prices_file)
    for line in told:
        _tell(line)
    # A strict start answers when all machines have booted.
    timeout_s = access.timeout_s + (STRICT_START_S_MAX if fleet.strict else 0.0)
    started = embedded.start(wanted, timeout_s, _import_all)
    try:
        from runner.rpc.clusters import Target

        target = Target(started.ready.address, started.ready.ca_pem, started.ready.token)
        handle = _connect(target, access, access.timeout_s, started)
    except BaseException:
        started.close()
        raise
    assert _opened is not None
    _opened.is_charged = bool(told)
    return handle


def _tell(text: str) -> None:
    print(f"runner: {text}", file=sys.stderr, flush=True)  # noqa: T201  for the person, whatever logging is set to


def _tell_cost(session: Session) -> None:
    from runner.client.cluster_info import read_cost
    from runner.coordinator.estimate import total_text

    try:
        cost = read_cost(session, _COST_S)
    except RunnerError as error:
        _tell(f"what the machines have cost is not known: {error}")
    else:
        if cost is not None:
            _tell(total_text(cost.spent, cost.unpriced_machines))


def _connect(
    target: Target, access: AccessOptions, timeout_s: float, coordinator: embedded.EmbeddedCoordinator | None
) -> ClientSession:
    global _opened
    from runner.client.grpc_transport import GrpcTransport
    from runner.client.session import Session
    from runner.ids import random_id

    client_id = random_id("c")
    is_alive = (lambda: True) if coordinator is None else coordinator.is_alive
    transport = GrpcTransport(
        target.address, target.ca_pem, target.token, client_id, lost_after_s=access.lost_after_s, is_alive=is_alive
    )
    try:
        welcome = transport.connect(timeout_s)
    except BaseException:
        transport.close(0.0)
        raise
    session = Session(_info(client_id, welcome, target.address, access.runtime_env), transport)
    transport.attach(session)
    printer = _printer(session, transport, welcome) if access.log_to_driver else None
    state_dir = coordinator.ready.state_dir if coordinator is not None else ""
    handle = ClientSession(session, target.address, state_dir)
    if _opened is None:
        atexit.unregister(shutdown)
        atexit.register(shutdown)
    _opened = _Opened(os.getpid(), handle, session, printer, coordinator)
    set_session(session)
    return handle


def _import_all() -> None:
    """What a session needs and takes long to import, gRPC above all: there is time while the coordinator does the same."""
    import runner.client.grpc_transport
    import runner.client.log_printer
    import runner.client.session  # noqa: F401


def _info(client_id: str, welcome: client_pb2.Welcome, address: str, runtime_env: RuntimeEnv) -> SessionInfo:
    from runner.client.session_info import SessionInfo
    from runner.rpc.version import host_id

    is_local = welcome.peer.host_id == host_id()
    return SessionInfo(
        client_id=client_id,
        cluster_id=welcome.cluster_id,
        host_id=host_id(),
        store_path=welcome.store_path if is_local else "",
        embedded=welcome.embedded,
        # An own cluster's machines are as old as the session; what a standing one had before may be a long story.
        machines_from_seq=1 if welcome.embedded else welcome.event_seq + 1,
        runtime_env=runtime_env,
        address=address,
    )


def _printer(session: Session, transport: GrpcTransport, welcome: client_pb2.Welcome) -> LogPrinter:
    from runner.client.log_printer import LogPrinter

    return LogPrinter(session, transport, welcome.event_seq + 1)
