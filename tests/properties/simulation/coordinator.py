"""The shipped coordinator without its sockets: handlers are called directly, and a crash keeps what is on disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from runner.coordinator import wiring
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.state_dir import StateDir
from runner.coordinator.wiring import Coordinator
from runner.pools import fixed_pool
from runner.providers.base import Provider
from runner.testing import FakeClock

Handler = Callable[[Any, Any], Any]


class SimServer:
    """Takes what generated code registers at a gRPC server."""

    def __init__(self, handlers: dict[str, Handler]) -> None:
        self._handlers = handlers

    def add_registered_method_handlers(self, service: str, methods: dict[str, Any]) -> None:
        for name, method in methods.items():
            kinds = (method.stream_stream, method.stream_unary, method.unary_stream, method.unary_unary)
            self._handlers[f"{service}/{name}"] = next(kind for kind in kinds if kind is not None)

    def add_generic_rpc_handlers(self, handlers: object) -> None: ...

    def add_secure_port(self, address: str, credentials: object) -> int:
        return 1

    async def start(self) -> None: ...

    async def stop(self, grace_s: float) -> None: ...


class SimCoordinator:
    """One cluster's coordinator over all its lives."""

    def __init__(self, home: Path, cluster_id: str, clock: FakeClock, provider: Provider, *, machines: int) -> None:
        self.lives = 0
        self.live: Coordinator | None = None
        self._home = home
        self._cluster_id = cluster_id
        self._clock = clock
        self._provider = provider
        self._machines = machines
        self._handlers: dict[str, Handler] = {}
        self._fleet: asyncio.Future[None] | None = None
        self._state: StateDir | None = None

    @property
    def session_handler(self) -> Handler | None:
        return self._handlers.get("runner.v1.Client/Session")

    @property
    def watch_handler(self) -> Handler | None:
        return self._handlers.get("runner.v1.Client/Watch")

    @property
    def register_handler(self) -> Handler | None:
        return self._handlers.get("runner.v1.Join/Register")

    @property
    def assignments_handler(self) -> Handler | None:
        return self._handlers.get("runner.v1.Fleet/Assignments")

    @property
    def report_handler(self) -> Handler | None:
        return self._handlers.get("runner.v1.Fleet/Report")

    async def start(self) -> None:
        """Begin the first life, or the next one from the journal of the last."""
        config = CoordinatorConfig(
            home=str(self._home),
            cluster_id=self._cluster_id,
            embedded=False,
            provider="fake",
            pools=(fixed_pool(self._machines, num_cpus=2.0),),
            lost_after_s=6.0,
            destroy_after_s=12.0,
            heartbeat_s=1.0,
            boot_deadline_s=20.0,
            client_lost_after_s=30.0,
            disk_reserve_bytes=0,
        )
        state = self._state = StateDir(str(self._home), self._cluster_id, "token", embedded=False)
        coordinator = Coordinator(config, state, lambda *_: self._provider, self._clock)
        coordinator.cluster.check()
        self._fleet = asyncio.ensure_future(coordinator._fleet.run())
        await asyncio.sleep(0)
        handlers: dict[str, Handler] = {}
        with (
            mock.patch("grpc.aio.server", lambda **_: SimServer(handlers)),
            mock.patch.object(wiring, "client_port_credentials", lambda *_: None),
            mock.patch.object(wiring, "fleet_port_credentials", lambda *_: None),
        ):
            await coordinator._start([])
        self._handlers = handlers
        self.live = coordinator
        self.lives += 1

    async def crash(self) -> None:
        """kill -9: nothing more is written, sent or destroyed."""
        coordinator, self.live = self.live, None
        assert coordinator is not None
        self._handlers = {}
        failure = coordinator.failure
        coordinator.engine.stop()
        coordinator._sessions.close()
        coordinator._links.close()
        coordinator._lanes.close()
        coordinator._event_log.close()
        coordinator._journal.close()
        self._provider._exit_callbacks.clear()  # type: ignore[attr-defined]  # they belonged to the dead process
        assert self._state is not None
        self._state.close(keep=True, keep_store=True)  # the kernel frees the locks of the dead
        assert self._fleet is not None
        self._fleet.cancel()
        await asyncio.wait([self._fleet])
        assert not failure, f"the coordinator had failed: {failure}"
