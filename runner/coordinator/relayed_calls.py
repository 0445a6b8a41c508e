"""Plain calls that come as operations of a session: executors have no connection of their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from runner.coordinator.engine import Engine
from runner.coordinator.sessions import Sessions
from runner.errors import RunnerError, UsageError
from runner.ids import ClientId
from runner.rpc.gen import client_pb2, types_pb2

if TYPE_CHECKING:
    from runner.coordinator.client_service import ClientService

log = logging.getLogger(__name__)

Method = tuple[Any, Callable[[Any], Awaitable[Any]]]


class RelayedCalls:
    """Answers those methods that only read; each when what its session has said before is durable."""

    def __init__(self, engine: Engine, sessions: Sessions, service: ClientService) -> None:
        self._engine = engine
        self._sessions = sessions
        self._methods: dict[str, Method] = {
            "ListMachines": (client_pb2.ListMachinesRequest, lambda request: service.ListMachines(request, None)),
            "ListTasks": (client_pb2.ListTasksRequest, lambda request: service.ListTasks(request, None)),
            "ListGroups": (client_pb2.ListGroupsRequest, lambda request: service.ListGroups(request, None)),
            "GetStatus": (client_pb2.GetStatusRequest, lambda request: service.GetStatus(request, None)),
            "Watch": (client_pb2.WatchRequest, service.watch_page),
        }
        self._running: set[asyncio.Task[None]] = set()
        sessions.serve_calls(self._start)

    def close(self) -> None:
        """Nobody waits for answers any more. Idempotent."""
        for task in self._running:
            task.cancel()

    def _start(self, client_id: ClientId, call: client_pb2.Call) -> None:
        task = asyncio.ensure_future(self._serve(client_id, call))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _serve(self, client_id: ClientId, call: client_pb2.Call) -> None:
        answer = client_pb2.Answer(request_id=call.request_id)
        try:
            await self._engine.committed()
            answer.reply = (await self._reply(call)).SerializeToString()
        except RunnerError as error:
            answer.failure = _failure(error)
        except Exception as error:
            log.exception("the call %s of %s failed", call.method, client_id)
            answer.failure = _failure(error)
        self._sessions.tell(client_id, client_pb2.ServerFrame(answers=[answer]))
        self._sessions.flush()

    async def _reply(self, call: client_pb2.Call) -> Any:
        method = self._methods.get(call.method)
        if method is None:
            raise UsageError(f"{call.method} works in clients only, not inside a task")
        return await method[1](method[0].FromString(call.request))


def _failure(error: Exception) -> bytes:
    return types_pb2.Failure(message=str(error), exception_type=type(error).__name__).SerializeToString()
