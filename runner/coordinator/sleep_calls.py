"""What people ask of machines that sleep, or are to: refused at once, and with the reason, where it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runner.coordinator.engine import Engine
from runner.coordinator.fleet import Fleet
from runner.core import suspend_events
from runner.core.views import MachineView
from runner.errors import BadOptionsError, ProviderError
from runner.ids import MachineId
from runner.rpc.gen import client_pb2

_PAGE = 1000
# Of all after_resume configuration together: it is sent with every registration after a resume.
CONFIG_BYTES_MAX = 64 << 10

_READY = "ready"
_FALLING_ASLEEP = frozenset({"suspending", "suspended"})
_COMING_UP = frozenset({"requested", "creating", "booting", "resuming"})


class SleepCalls:
    """Suspend, resume, and the configuration that goes with a resume. All of a request is checked before any of it counts."""

    def __init__(self, engine: Engine, fleet: Fleet) -> None:
        self._engine = engine
        self._fleet = fleet

    async def suspend(self, request: client_pb2.SuspendMachinesRequest) -> client_pb2.SuspendMachinesReply:
        """For one that sleeps, or is about to, this changes nothing.

        Raises:
            BadOptionsError: there is no such machine, or its state does not allow it.
            ProviderError: machines like it cannot be suspended.
        """
        if request.machine_ids:
            chosen = self._named(request.machine_ids)
        else:
            chosen = self._all(lambda view: view.state == _READY and not view.groups and not view.is_single_use)
        for view in chosen:
            self._check_suspend(view)
        for view in chosen:
            if view.state == _READY:
                self._engine.post(suspend_events.SuspendRequested(view.machine_id, request.interrupts))
        await self._engine.committed()
        return client_pb2.SuspendMachinesReply(machine_ids=[view.machine_id for view in chosen])

    async def resume(self, request: client_pb2.ResumeMachinesRequest) -> client_pb2.ResumeMachinesReply:
        """For one that is ready, or comes up, this changes nothing. A suspend that has not happened yet is called off.

        Raises:
            BadOptionsError: there is no such machine, or it is gone or about to go.
        """
        if request.machine_ids:
            chosen = self._named(request.machine_ids)
        else:
            chosen = self._all(lambda view: view.state in _FALLING_ASLEEP)
        for view in chosen:
            if view.state not in _FALLING_ASLEEP | _COMING_UP | {_READY}:
                raise BadOptionsError(f"machine {view.machine_id} cannot be resumed: it is {_state(view)}")
        for view in chosen:
            if view.state in _FALLING_ASLEEP:
                self._engine.post(suspend_events.ResumeRequested(view.machine_id))
        await self._engine.committed()
        return client_pb2.ResumeMachinesReply(machine_ids=[view.machine_id for view in chosen])

    def set_config(self, request: client_pb2.SetMachineConfigRequest) -> client_pb2.SetMachineConfigReply:
        """Replaces what was set before.

        Raises:
            BadOptionsError: it is too large.
        """
        size_bytes = sum(len(name.encode()) + len(value.encode()) for name, value in request.config.items())
        if size_bytes > CONFIG_BYTES_MAX:
            raise BadOptionsError(
                f"the machine configuration takes {size_bytes} bytes, the limit is {CONFIG_BYTES_MAX}; hand over large things "
                "as a file, or as a value that a task reads"
            )
        self._fleet.machine_config = dict(request.config)
        return client_pb2.SetMachineConfigReply()

    def _named(self, machine_ids: Iterable[str]) -> list[MachineView]:
        views = []
        for machine_id in dict.fromkeys(machine_ids):
            view = self._engine.cluster.machine(MachineId(machine_id))
            if view is None:
                raise BadOptionsError(f"there is no machine {machine_id!r}; `runner machines` lists them")
            views.append(view)
        return views

    def _all(self, is_meant: Callable[[MachineView], bool]) -> list[MachineView]:
        chosen: list[MachineView] = []
        token = ""
        while True:
            views, token = self._engine.cluster.machines(after=token, limit=_PAGE)
            chosen += filter(is_meant, views)
            if not token:
                return chosen

    def _check_suspend(self, view: MachineView) -> None:
        if view.state in _FALLING_ASLEEP:
            return
        if view.state in _COMING_UP:
            raise BadOptionsError(
                f"machine {view.machine_id} cannot be suspended: it is {view.state}; wait for it with "
                f"`runner machines wait {view.machine_id} --state ready`"
            )
        if view.state != _READY:
            raise BadOptionsError(f"machine {view.machine_id} cannot be suspended: it is {_state(view)}")
        if view.is_single_use:
            raise BadOptionsError(
                f"machine {view.machine_id} cannot be suspended: its pool has single_use=True, it serves one task and goes"
            )
        if view.groups:
            raise BadOptionsError(
                f"machine {view.machine_id} cannot be suspended: it is part of placement group {', '.join(view.groups)}, whose "
                "other machines would wait for it; remove the group first"
            )
        obstacle = self._fleet.suspend_obstacle(view)
        if obstacle:
            raise ProviderError(
                f"machine {view.machine_id} cannot be suspended: {obstacle}; `runner machines remove {view.machine_id}` ends it",
                phase="suspend",
                machine_id=view.machine_id,
            )


def _state(view: MachineView) -> str:
    return f"{view.state} ({view.reason})" if view.reason else view.state
