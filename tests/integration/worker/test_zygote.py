"""The zygote and the machines that it forks, with a coordinator that never answers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest

from runner.worker.process import children_of, descendants_of
from tests.integration.worker.harness import wait_gone

_DRIVER = """
import asyncio, json, os, sys
from runner.providers.base import BootConfig
from runner.worker.zygote import Zygote

zygote = Zygote.fork()

def say(**what):
    print(json.dumps(what), flush=True)

async def main():
    loop = asyncio.get_running_loop()
    zygote.attach(lambda name, status: say(gone=name, status=status), lambda: say(lost=True))
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    say(zygote=zygote.pid)
    while line := await lines.readline():
        command, _, name = line.decode().strip().partition(" ")
        if command == "boot":
            boot = BootConfig(coordinator_address="127.0.0.1:1", ca_pem=b"", join_token="x", machine_id=name,
                              cluster_id="c", embedded=True, log_path=os.environ["LOGS"] + "/" + name)
            try:
                say(pid=await zygote.boot(boot))
            except OSError as error:
                say(error=str(error))
        elif command == "close":
            zygote.close()
            say(closed=True)

asyncio.run(main())
"""


class Driver:
    """A process that has a zygote, told what to do line by line."""

    def __init__(self, logs: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=os.environ | {"LOGS": logs},
        )
        self.zygote_pid: int = self.read()["zygote"]

    def read(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        said: dict[str, Any] = json.loads(self.process.stdout.readline())
        return said

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        return self.read()

    def boot(self, name: str) -> tuple[int, int]:
        """Agent and template."""
        agent = self.ask(f"boot {name}")["pid"]
        while not (children := children_of(agent)):
            assert not wait_gone(agent, 0.005), "it ended at once"
        return agent, children[0]

    def end(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
        assert wait_gone(self.zygote_pid, 6.0)


@pytest.fixture
def driver(tmp_path: Any) -> Iterator[Driver]:
    it = Driver(str(tmp_path))
    yield it
    it.end()


def all_gone(pids: list[int], timeout_s: float) -> bool:
    deadline_s = time.monotonic() + timeout_s
    return all(wait_gone(pid, max(0.0, deadline_s - time.monotonic())) for pid in pids)


def test_machines_are_sessions_of_their_own(driver: Driver) -> None:
    agent, template = driver.boot("m-1")
    assert os.getsid(agent) == os.getsid(template) == agent
    assert children_of(driver.zygote_pid) == [agent]


def test_closing_ends_everything(driver: Driver) -> None:
    pids = [*driver.boot("m-1"), *driver.boot("m-2"), driver.zygote_pid]
    assert driver.ask("close") == {"closed": True}
    assert all_gone(pids, 1.0)


def test_nothing_outlives_a_coordinator_that_was_killed(driver: Driver) -> None:
    pids = [*driver.boot("m-1"), *driver.boot("m-2"), driver.zygote_pid]
    driver.process.kill()
    assert all_gone(pids, 2.0)


def test_a_killed_agent_takes_its_machine_along_and_is_reported(driver: Driver) -> None:
    agent, template = driver.boot("m-1")
    other = driver.boot("m-2")
    os.kill(agent, signal.SIGKILL)
    assert driver.read() == {"gone": "m-1", "status": signal.SIGKILL}
    assert all_gone([template], 2.0)
    assert not wait_gone(other[0], 0.0)


def test_a_killed_template_ends_its_machine(driver: Driver) -> None:
    agent, template = driver.boot("m-1")
    os.kill(template, signal.SIGKILL)
    assert driver.read() == {"gone": "m-1", "status": 0}
    assert all_gone([agent], 2.0)


def test_a_machine_that_is_told_to_end_does(driver: Driver) -> None:
    agent, template = driver.boot("m-1")
    os.kill(agent, signal.SIGTERM)
    gone = driver.read()
    assert gone in ({"gone": "m-1", "status": 0}, {"gone": "m-1", "status": signal.SIGTERM})  # or before it listens
    assert all_gone([template], 2.0)


def test_a_killed_zygote_is_noticed_and_machines_live_on(driver: Driver) -> None:
    agent, template = driver.boot("m-1")
    os.kill(driver.zygote_pid, signal.SIGKILL)
    assert driver.read() == {"lost": True}
    assert not wait_gone(agent, 0.0)
    assert "gone" in driver.ask("boot m-2")["error"]
    driver.process.kill()
    assert all_gone([agent, template], 3.0)


def test_sixteen_machines_are_forked_in_no_time(driver: Driver) -> None:
    start_s = time.monotonic()
    agents = [driver.ask(f"boot m-{number}")["pid"] for number in range(16)]
    assert time.monotonic() - start_s < 3.0  # about 0.1 s on an idle machine
    assert sorted(children_of(driver.zygote_pid)) == sorted(agents)
    pids = descendants_of(driver.zygote_pid)
    assert driver.ask("close") == {"closed": True}
    assert all_gone(pids, 1.0)
