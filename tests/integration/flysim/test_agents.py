"""Machines of the simulator are real agents: they register, drain, freeze, die, and never outlive it."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import secrets
import signal
from pathlib import Path
from typing import Any

import httpx
import msgpack
import pytest

from runner.coordinator.booted import encode_config
from runner.coordinator.config import CoordinatorConfig
from runner.coordinator.handover import Secrets, script_command
from runner.flysim import FlySim
from runner.ids import ClusterId
from runner.pools import Pool
from runner.providers.base import BootConfig
from runner.providers.process_tag import find_tagged
from runner.rpc.gen import client_pb2
from runner.rpc.security import new_token
from tests.integration.coordinator.harness import Harness, running
from tests.integration.helpers import until, wait_gone

pytestmark = [pytest.mark.integration, pytest.mark.long]
WAIT_S = 20.0


def config_of(boot: BootConfig | None, **config: Any) -> dict[str, Any]:
    """A machine that boots this agent and never restarts it."""
    env = {} if boot is None else {"RUNNER_BOOT": base64.b64encode(msgpack.packb(boot.to_dict())).decode()}
    return {"image": "runner-worker:1", "env": env, "restart": {"policy": "no"}, **config}


async def create(sim: FlySim, name: str, config: dict[str, Any]) -> str:
    """The id of a machine that has started."""
    async with httpx.AsyncClient(base_url=sim.url + "/v1", headers=sim.headers, timeout=60.0, trust_env=False) as api:
        await api.post("/apps", json={"app_name": "app", "org_slug": "personal"})
        reply = await api.post("/apps/app/machines", json={"name": name, "config": config})
        assert reply.status_code == 200, reply.text
        machine_id = str(reply.json()["id"])
        async with asyncio.timeout(WAIT_S):
            # For a moment the machine is not known to others: 404.
            while (await api.get(f"/apps/app/machines/{machine_id}/wait", params={"state": "settled"})).is_error:
                await asyncio.sleep(0)
        return machine_id


async def pid_of(sim: FlySim, machine_id: str) -> int:
    """Of its main process, which may come a moment after the machine has started."""
    async with asyncio.timeout(WAIT_S):
        while (pid := sim.state()["machines"][machine_id]["pid"]) is None:
            await asyncio.sleep(0)
    return int(pid)


async def ask(sim: FlySim, machine_id: str, move: str, **query: str) -> None:
    async with httpx.AsyncClient(base_url=sim.url + "/v1", headers=sim.headers, timeout=60.0, trust_env=False) as api:
        path = f"/apps/app/machines/{machine_id}"
        reply = await (api.delete(path, params=query) if move == "destroy" else api.post(f"{path}/{move}"))
        assert reply.status_code == 200, reply.text


async def until_state(sim: FlySim, machine_id: str, state: str) -> None:
    async with asyncio.timeout(WAIT_S):
        while sim.state()["machines"][machine_id]["state"] != state:
            await asyncio.sleep(0)


async def until_listed(cluster: Harness, **states: str) -> None:
    """Until the coordinator lists these machines in these states."""
    async with cluster.client() as client, asyncio.timeout(WAIT_S):
        while True:
            listed = (await client.stub.ListMachines(client_pb2.ListMachinesRequest())).machines
            found = {machine.machine_id: machine.state for machine in listed}
            if all(found.get(name) == state for name, state in states.items()):
                return


def states_of(sim: FlySim) -> set[str]:
    """As /proc shows them: T is stopped."""
    return {each.process.state for each in sim.processes()}


async def test_a_machine_registers_and_stop_drains_and_ends_all_of_it(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        machine_id = await create(sim, boot.machine_id, config_of(boot))
        await until_listed(cluster, **{boot.machine_id: "ready"})
        assert len(sim.processes()) >= 2
        await ask(sim, machine_id, "stop")
        await until_state(sim, machine_id, "stopped")

        assert sim.processes() == []
        assert any("returning what runs here" in line for line in sim.logs(machine_id)), sim.logs(machine_id)


async def test_a_suspended_machine_stands_still_and_goes_on_when_resumed(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        machine_id = await create(sim, boot.machine_id, config_of(boot))
        await until_listed(cluster, **{boot.machine_id: "ready"})
        pid = await pid_of(sim, machine_id)
        await ask(sim, machine_id, "suspend")
        await until_state(sim, machine_id, "suspended")
        async with asyncio.timeout(WAIT_S):
            while states_of(sim) != {"T"}:
                await asyncio.sleep(0)
        await ask(sim, machine_id, "start")
        await until_state(sim, machine_id, "started")
        async with asyncio.timeout(WAIT_S):
            while "T" in states_of(sim):
                await asyncio.sleep(0)

        assert sim.state()["machines"][machine_id]["pid"] == pid


async def test_a_suspended_machine_that_lost_its_snapshot_gets_a_new_agent(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        machine_id = await create(sim, boot.machine_id, config_of(boot))
        await until_listed(cluster, **{boot.machine_id: "ready"})
        frozen = [each.process.pid for each in sim.processes()]
        await ask(sim, machine_id, "suspend")
        await until_state(sim, machine_id, "suspended")
        sim.inject("lose_snapshot", machine=machine_id)
        wait_gone(frozen, WAIT_S)
        assert sim.state()["machines"][machine_id]["state"] == "suspended"
        await ask(sim, machine_id, "start")
        await until_state(sim, machine_id, "started")

        assert await pid_of(sim, machine_id) not in frozen


async def test_stop_of_a_suspended_machine_leaves_no_process(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        machine_id = await create(sim, boot.machine_id, config_of(boot))
        await until_listed(cluster, **{boot.machine_id: "ready"})
        frozen = [each.process.pid for each in sim.processes()]
        await ask(sim, machine_id, "suspend")
        await until_state(sim, machine_id, "suspended")
        await ask(sim, machine_id, "stop")
        await until_state(sim, machine_id, "stopped")

        wait_gone(frozen, WAIT_S)


async def test_a_crash_is_an_exit_event_and_frees_an_auto_destroy_machine(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        machine_id = await create(sim, boot.machine_id, config_of(boot, auto_destroy=True))
        os.kill(await pid_of(sim, machine_id), signal.SIGKILL)
        await until_state(sim, machine_id, "destroyed")
        async with httpx.AsyncClient(headers=sim.headers, trust_env=False) as api:
            shown = (await api.get(f"{sim.url}/v1/apps/app/machines/{machine_id}")).json()

    exits = [event["request"]["exit_event"] for event in shown["events"] if event["type"] == "exit"]
    assert [(each["exit_code"], each["guest_signal"], each["requested_stop"]) for each in exits] == [(137, 9, False)]
    assert sim.processes() == []


async def test_destroy_by_force_and_a_failed_host_leave_no_process(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path, machines=2) as cluster:
        boots = [await cluster.next_boot() for _ in range(2)]
        ids = [await create(sim, boot.machine_id, config_of(boot)) for boot in boots]
        await ask(sim, ids[0], "destroy", force="true")
        await until_state(sim, ids[0], "destroyed")
        sim.inject("fail_host", machine=ids[1])
        async with asyncio.timeout(WAIT_S):
            while sim.processes():
                await asyncio.sleep(0)

        assert sim.state()["machines"][ids[1]]["state"] == "started"


async def test_two_machines_of_one_boot_configuration_are_two(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        first, second = [await create(sim, name, config_of(boot)) for name in ("a", "b")]
        await ask(sim, first, "destroy", force="true")
        await until_state(sim, first, "destroyed")

        left = {each.machine_id.partition(".")[0] for each in sim.processes()}
        state = sim.state()["machines"][second]["state"]
        # The second may have been refused by the coordinator and ended itself; it was not taken along.
        assert left == {second} or state == "stopped"
        assert sim.state()["machines"][second]["trail"][:4] == ["creating", "created", "starting", "started"]


async def test_nothing_outlives_a_simulator_that_was_killed(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path, machines=3) as cluster:
        boots = [await cluster.next_boot() for _ in range(3)]
        ids = [await create(sim, boot.machine_id, config_of(boot)) for boot in boots]
        await until_listed(cluster, **{boot.machine_id: "ready" for boot in boots})
        await ask(sim, ids[0], "suspend")  # a frozen one hears of nothing
        async with asyncio.timeout(WAIT_S):
            while "T" not in states_of(sim):
                await asyncio.sleep(0)
        pids = [each.process.pid for each in sim.processes()]
        assert len(pids) >= 6
        sim.kill()

        assert wait_gone(pids, 5.0) < 5.0


async def test_a_simulator_that_lost_its_forker_ends_with_its_machines(sim: FlySim, tmp_path: Path) -> None:
    async with running(tmp_path) as cluster:
        boot = await cluster.next_boot()
        machine_id = await create(sim, boot.machine_id, config_of(boot))
        with open(f"/proc/{await pid_of(sim, machine_id)}/stat", encoding="ascii") as file:
            forker = int(file.read().rpartition(")")[2].split()[1])
        os.kill(forker, signal.SIGKILL)
        async with asyncio.timeout(WAIT_S):
            while sim.is_running:
                await asyncio.sleep(0)

    sim.assert_gone()


@pytest.mark.parametrize(
    ("env", "code", "words"),
    [
        ({"RUNNER_BOOT": "not base64"}, 2, "no boot configuration that can be read"),
        ({"RUNNER_BOOT_FILE": "/nowhere"}, 2, "no boot configuration that can be read"),
    ],
)
async def test_a_machine_that_cannot_boot_ends_at_once(sim: FlySim, env: dict[str, str], code: int, words: str) -> None:
    machine_id = await create(sim, "m", config_of(None) | {"env": env})
    await until_state(sim, machine_id, "stopped")

    assert words in sim.logs(machine_id)[-1]
    async with httpx.AsyncClient(headers=sim.headers, trust_env=False) as api:
        events = (await api.get(f"{sim.url}/v1/apps/app/machines/{machine_id}/events")).json()
    assert [event["request"]["exit_event"]["exit_code"] for event in events if event["type"] == "exit"] == [code]


async def test_a_command_that_fails_leaves_its_words(sim: FlySim) -> None:
    machine_id = await create(sim, "m", config_of(None) | {"env": {"RUNNER_COORDINATOR": "no configuration"}})
    await until_state(sim, machine_id, "stopped")

    assert "RUNNER_COORDINATOR is not a base64 msgpack map" in "\n".join(sim.logs(machine_id))
    assert sim.processes() == []


def is_sleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"/bin/sleep")


async def test_a_coordinator_is_a_machine_that_takes_its_secrets_by_exec(sim: FlySim, tmp_path: Path) -> None:
    home = tmp_path / "inside"
    cluster_id = ClusterId(
        f"f1y{secrets.token_hex(3)}"
    )  # anew each time: what one run leaves must not hide what the next does
    memory = Path(f"/dev/shm/runner-{cluster_id}")
    wanted = CoordinatorConfig(
        home=str(home),
        cluster_id=cluster_id,
        embedded=False,
        advertise="127.0.0.1",
        ends_alone=True,
        pools=(Pool(min=1),),
    )
    env = {"RUNNER_COORDINATOR": encode_config(wanted)}
    machine_id = await create(sim, "coordinator", config_of(None, auto_destroy=True) | {"env": env})
    with open(f"/proc/{await pid_of(sim, machine_id)}/environ", encoding="utf-8") as file:
        inside = dict(each.split("=", 1) for each in file.read().split("\0") if each)
    assert (inside["FLY_MACHINE_ID"], inside["FLY_APP_NAME"]) == (machine_id, "app")
    assert inside["FLY_PRIVATE_IP"].startswith("127.")
    async with asyncio.timeout(WAIT_S):
        while not (home / "hand-over.sh").exists():
            await asyncio.sleep(0)

    async def run(command: list[str]) -> dict[str, Any]:
        url = f"{sim.url}/v1/apps/app/machines/{machine_id}/exec"
        body = {"command": command, "stdin": Secrets(new_token()).to_json(), "timeout": 45}
        async with httpx.AsyncClient(headers=sim.headers, timeout=60.0, trust_env=False) as api:
            answer: dict[str, Any] = (await api.post(url, json=body)).json()
            return answer

    told = await run(script_command(str(home)))
    assert told["exit_code"] == 0, told
    assert json.loads(told["stdout"])["cluster_id"] == cluster_id
    assert memory.is_dir()
    sleeping = asyncio.create_task(run(["/bin/sleep", "3600"]))
    async with asyncio.timeout(WAIT_S):
        while not any(
            each.machine_id.startswith(machine_id) and is_sleep(each.process.pid) for each in sim.processes()
        ):
            await asyncio.sleep(0)
    pids = [each.process.pid for each in (*sim.processes(), *find_tagged(cluster_id))]
    sim.kill()
    with pytest.raises(httpx.TransportError):
        await sleeping

    assert wait_gone(pids, 8.0) < 8.0
    await until(lambda: not memory.exists(), 8.0, "the end of what the coordinator had in shared memory")
