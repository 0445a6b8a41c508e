"""A cluster for tests on this host: real processes to break, and a check at its end that nothing is left of it."""

from __future__ import annotations

import glob
import signal
import socket
import time
from types import TracebackType
from typing import Any, Self

import runner
from runner.client.connection import ClientSession
from runner.client.context import session_or_none
from runner.client.streams import client_transport
from runner.errors import NotInitializedError
from runner.ids import ClusterId, MachineId
from runner.providers.process_tag import Process, Tagged, find_process, find_tagged, send_signal
from runner.rpc.gen import client_pb2

_POLL_S = 0.02


class LocalCluster:
    """`with LocalCluster(machines=2) as cluster:` is `runner.init(machines=2)` for tests; keywords are those of `init`.

    It must be the only session of the process.

    Raises:
        AssertionError: at the end of the block, naming the processes, shared memory or ports that are left after `gone_within_s`.
    """

    def __init__(self, *, gone_within_s: float = 10.0, **init_options: Any) -> None:
        self._gone_within_s = gone_within_s
        self._options = init_options
        self._session: ClientSession | None = None
        self._coordinator: Process | None = None

    def __enter__(self) -> Self:
        assert not runner.is_initialized(), "another session is open in this process"
        self._session = runner.init(**self._options)
        self._coordinator = find_process(self._status().pid)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        runner.shutdown()
        if error is None:
            self.assert_gone()

    @property
    def session(self) -> ClientSession:
        """What `init` returned."""
        if self._session is None:
            raise NotInitializedError("the cluster has not been started: use it in a `with` block")
        return self._session

    @property
    def cluster_id(self) -> ClusterId:
        return ClusterId(self.session.cluster_id)

    # ---- its processes ----
    def agents(self) -> list[Tagged]:
        """The first process of each machine, in order of the machines' names."""
        return sorted(
            (each for each in find_tagged(self.cluster_id) if each.is_agent), key=lambda each: each.machine_id
        )

    def executors(self) -> list[Tagged]:
        """The processes in which tasks run, busy or not."""
        found = [
            each
            for each in find_tagged(self.cluster_id)
            if each.process.group == each.process.pid and not each.is_agent
        ]
        return sorted(found, key=lambda each: each.process.pid)

    def send_signal(self, target: Tagged, number: signal.Signals) -> bool:
        """Signal one of them; False when it is gone."""
        return send_signal(target.process, number)

    def add_machines(self, count: int) -> tuple[MachineId, ...]:
        """Ask for more machines; they boot in the background."""
        request = client_pb2.AddMachinesRequest(count=count)
        reply = client_transport(_open_session()).request("AddMachines", request, client_pb2.AddMachinesReply)
        return tuple(MachineId(machine_id) for machine_id in reply.machine_ids)

    # ---- its end ----
    def left_over(self) -> list[str]:
        """What exists of it now, one line for each thing."""
        found = [f"process {each.process.pid} of machine {each.machine_id}" for each in find_tagged(self.cluster_id)]
        coordinator = self._coordinator
        now = find_process(coordinator.pid) if coordinator is not None else None
        if coordinator is not None and now is not None and now.identity == coordinator.identity:
            found.append(f"coordinator process {coordinator.pid}")
        stem = f"/dev/shm/runner-{self.cluster_id}"  # of machines apart it goes on with their names
        found += [f"shared memory {path}" for path in (*glob.glob(stem), *glob.glob(f"{stem}-*"))]
        if _is_listening(self.session.address):
            found.append(f"port {self.session.address}")
        return found

    def assert_gone(self) -> None:
        """Wait until nothing is left, `gone_within_s` at most."""
        deadline_s = time.monotonic() + self._gone_within_s
        while left := self.left_over():
            assert time.monotonic() < deadline_s, f"cluster {self.cluster_id} left behind: {'; '.join(left)}"
            time.sleep(_POLL_S)

    def _status(self) -> client_pb2.GetStatusReply:
        transport = client_transport(_open_session())
        return transport.request("GetStatus", client_pb2.GetStatusRequest(), client_pb2.GetStatusReply)


def _open_session() -> Any:
    session = session_or_none()
    if session is None:
        raise NotInitializedError("the cluster's session is closed")
    return session


def _is_listening(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except OSError:
        return False
    return True
