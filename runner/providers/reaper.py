"""Ends every process of a machine on this host, wherever it hid."""

from __future__ import annotations

import asyncio
import signal

from runner.ids import ClusterId, MachineId
from runner.providers.base import provider_error
from runner.providers.process_tag import Process, Seen, Tagged, send_signal, survey

_POLL_S = 0.005


class Reaper:
    """Finds and kills by tag and by session, for one cluster and one event loop."""

    def __init__(self, cluster_id: ClusterId, *, kill_grace_s: float) -> None:
        self._cluster_id = cluster_id
        self._kill_grace_s = kill_grace_s
        self._survey: asyncio.Future[tuple[Seen, ...]] | None = None

    async def find_tagged(self) -> tuple[Tagged, ...]:
        """All live processes that carry the cluster's tag."""
        return tuple(seen for seen in await self._look() if isinstance(seen, Tagged))

    async def members(self, name: MachineId, leaders: tuple[Process, ...]) -> tuple[Process, ...]:
        """Everything that carries the machine's tag or is in the session of one of its leaders."""
        return tuple(_belonging(await self._look(), name, leaders))

    async def kill_all(self, name: MachineId, leaders: tuple[Process, ...]) -> None:
        """SIGKILL everything that carries the machine's tag or is in the session of one of its leaders, until nothing does.

        Raises:
            ProviderError: something is still there after the grace, such as a process stuck in the kernel.
        """
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._kill_grace_s
        while rest := _belonging(await self._look(), name, leaders):
            if loop.time() > deadline_s:
                states = ", ".join(f"{process.pid} (state {process.state})" for process in rest)
                raise provider_error("destroy", name, f"after SIGKILL these processes are left: {states}")
            for process in rest:
                send_signal(process, signal.SIGKILL)
            await asyncio.sleep(_POLL_S)

    async def _look(self) -> tuple[Seen, ...]:
        # One look serves everybody who asks in the same turn of the loop: fleets end together, and a look costs milliseconds.
        if self._survey is None:
            loop = asyncio.get_running_loop()
            self._survey = loop.create_future()
            loop.call_soon(self._finish_look, self._survey)
        return await asyncio.shield(self._survey)

    def _finish_look(self, waiting: asyncio.Future[tuple[Seen, ...]]) -> None:
        self._survey = None
        waiting.set_result(tuple(survey(self._cluster_id)))


def _belonging(all_seen: tuple[Seen, ...], name: MachineId, leaders: tuple[Process, ...]) -> list[Process]:
    sessions = {leader.pid: leader.start_ticks for leader in leaders}
    for seen in all_seen:  # a pid that leads another session by now says nothing about ours
        if seen.process.is_session_leader and sessions.get(seen.process.pid) not in (None, seen.process.start_ticks):
            del sessions[seen.process.pid]
    return [seen.process for seen in all_seen if seen.machine_id == name or seen.process.session in sessions]
