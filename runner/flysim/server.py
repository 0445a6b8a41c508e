"""Puts world, processes and web server together, and takes them apart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn

from runner.clock import SystemClock
from runner.flysim.admin import Admin
from runner.flysim.driver import Driver
from runner.flysim.forker import CloudZygote
from runner.flysim.http import FlyApi
from runner.flysim.openapi import Description
from runner.flysim.processes import MachineProcesses
from runner.flysim.programs import Program, process_for
from runner.flysim.serve import Place
from runner.flysim.settings import SimSettings
from runner.flysim.world import World
from runner.ids import ClusterId

log = logging.getLogger(__name__)

_GRACE_S = 1  # for calls that are under way at the end
_KEEP_ALIVE_S = 75


class _Server(uvicorn.Server):
    """Leaves the signals to us: uvicorn raises them again at its end, before machines are ended."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        self.should_exit = True


def run(
    settings: SimSettings, place: Place, listener: socket.socket, zygote: CloudZygote, tag: str, log_dir: Path
) -> int:
    """Serve until told to end; returns the exit status. `tag` marks every process of every machine."""
    return asyncio.run(_Simulator(settings, place, zygote, tag, log_dir).serve(listener))


class _Simulator:
    def __init__(self, settings: SimSettings, place: Place, zygote: CloudZygote, tag: str, log_dir: Path) -> None:
        self._place = place
        self._zygote = zygote
        self._tag = tag
        self._log_dir = log_dir
        clock = SystemClock()
        self._world = World(settings, start_s=clock.monotonic_s(), unix_start_s=time.time())
        self._driver = Driver(self._world, clock)
        self._has_lost_forker = False

    async def serve(self, listener: socket.socket) -> int:
        processes = MachineProcesses(
            self._zygote,
            tag=ClusterId(self._tag),
            log_dir=self._log_dir,
            program_of=self._program_of,
            on_exit=self._driver.process_exited,
            on_lost=self._forker_lost,
        )
        self._driver.attach(processes)
        token = next(iter(self._world.cloud.tokens))
        api = FlyApi(self._driver, Description.load(), Admin(self._driver, processes, token), processes.mark_of)
        self._server = _Server(
            uvicorn.Config(
                api,
                log_level="warning",
                access_log=False,
                lifespan="off",
                http="h11",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        try:
            with _stopped_by(self._server.stop, until_stdin_closes=self._place.until_stdin_closes):
                self._announce(listener, token)
                await self._server.serve(sockets=[listener])
        finally:
            self._driver.close()
            await processes.close()
        return 70 if self._has_lost_forker else 0

    def _program_of(self, machine_id: str) -> Program | None:
        machine = self._world.cloud.machines[machine_id]
        app = self._world.cloud.apps.get(machine.app)
        return process_for(machine.config, {} if app is None else app.secrets)

    def _forker_lost(self) -> None:
        log.error("the process that forks machines is gone; the simulator ends")
        self._has_lost_forker = True
        self._server.stop()

    def _announce(self, listener: socket.socket, token: str) -> None:
        host = f"[{self._place.host}]" if ":" in self._place.host else self._place.host
        url = f"http://{host}:{listener.getsockname()[1]}"
        if self._place.as_json:
            line = json.dumps({"url": url, "token": token, "tag": self._tag, "pid": os.getpid()})
            sys.stdout.write(line + "\n")
        else:
            sys.stdout.write(
                f"Simulated Fly Machines at {url} (Ctrl-C ends it and its machines; their logs: {self._log_dir})\n\n"
                f"export FLY_FLAPS_BASE_URL={url}\nexport FLY_API_TOKEN={token}\n"
            )
        sys.stdout.flush()


@contextlib.contextmanager
def _stopped_by(stop: Callable[[], None], *, until_stdin_closes: bool) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    def stdin_readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            stop()

    if until_stdin_closes:
        loop.add_reader(0, stdin_readable)
    try:
        yield
    finally:
        loop.remove_reader(0)
