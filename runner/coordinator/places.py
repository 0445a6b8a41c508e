"""Values that only one machine has: where it can be reached, and how they come to the coordinator."""

from __future__ import annotations

import asyncio

from runner.coordinator.engine import Engine
from runner.coordinator.machine_links import MachineLinks
from runner.core.value_events import ObjectWanted
from runner.core.values import FailureRecord, SegmentRecord, ValueRecord
from runner.errors import ObjectLostError
from runner.ids import MachineId, ObjectId
from runner.rpc.gen import fleet_pb2

Outcome = ValueRecord | FailureRecord | None


class Places:
    """Waits for values that are made again, and asks machines to bring theirs; each value once at a time."""

    def __init__(self, engine: Engine, links: MachineLinks) -> None:
        self._engine = engine
        self._cluster = engine.cluster
        self._links = links
        self.addresses: dict[MachineId, tuple[int, str]] = {}  # generation, and where its values can be pulled
        self._waiting: dict[ObjectId, asyncio.Future[None]] = {}  # done when there is something new about the object
        self._asked: dict[ObjectId, str] = {}  # to be brought: the path it has

    def address(self, machine_id: MachineId) -> tuple[int, str]:
        """The machine's generation, and where its values can be pulled; empty: nowhere."""
        generation = self._cluster.generation_of(machine_id)
        known, address = self.addresses.get(machine_id, (0, ""))
        return generation, address if known == generation else ""

    def close(self) -> None:
        """Keep nobody waiting. Idempotent."""
        for future in self._waiting.values():
            future.cancel()

    async def settled(self, object_id: ObjectId) -> Outcome:
        """The outcome of an object; one that is lost is made again first. None: its task has not settled yet."""
        while True:
            outcome = self._cluster.object_outcome(object_id)
            if outcome is not None or not self._cluster.is_lost(object_id):
                return outcome
            news = self._news(object_id)
            self._engine.post(ObjectWanted(object_id))
            await asyncio.shield(news)

    async def at_hand(self, object_id: ObjectId) -> Outcome:
        """As `settled`; what only a machine has is brought first.

        Raises:
            ObjectLostError: the machine cannot bring it.
        """
        while True:
            outcome = await self.settled(object_id)
            segment = outcome.segment if isinstance(outcome, ValueRecord) else None
            if segment is None or not segment.machine_id:
                return outcome
            news = self._news(object_id)
            self.ask_for(object_id)
            await asyncio.shield(news)

    def ask_for(self, object_id: ObjectId) -> None:
        """Have its machine bring it, unless it is on its way."""
        segment = self._segment(object_id)
        if segment is None or self._asked.get(object_id) == segment.path:
            return
        self._asked[object_id] = segment.path
        generation = self._cluster.generation_of(segment.machine_id)
        bring = fleet_pb2.Bring(object_id=object_id, path=segment.path)
        self._links.send(segment.machine_id, generation, fleet_pb2.AgentCommand(bring=bring))

    def bring_failed(self, object_id: ObjectId, path: str, why: str) -> None:
        """Those who wait for it hear why."""
        segment = self._segment(object_id)
        self._asked.pop(object_id, None)
        future = self._waiting.pop(object_id, None)
        if future is not None and not future.done():
            if segment is not None and segment.path == path:
                text = f"object {object_id} lies on machine {segment.machine_id}, which cannot bring it: {why}"
                future.set_exception(ObjectLostError(text))
                future.exception()  # everybody who waited may be gone
            else:
                future.set_result(None)

    def look_again(self, object_id: ObjectId) -> None:
        """There is something new about the object."""
        self._asked.pop(object_id, None)
        future = self._waiting.pop(object_id, None)
        if future is not None and not future.done():
            future.set_result(None)

    def _news(self, object_id: ObjectId) -> asyncio.Future[None]:
        future = self._waiting.get(object_id)
        if future is None or future.done():
            future = self._waiting[object_id] = asyncio.get_running_loop().create_future()
        return future

    def _segment(self, object_id: ObjectId) -> SegmentRecord | None:
        outcome = self._cluster.object_outcome(object_id)
        segment = outcome.segment if isinstance(outcome, ValueRecord) else None
        return segment if segment is not None and segment.machine_id else None
