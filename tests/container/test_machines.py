"""What containers are given, how their ends are told, and what a killed coordinator leaves."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import docker
import pytest

from runner.core.values import GPU, UNIT
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId, random_id
from runner.providers.base import MachineState, Wanted
from runner.providers.container.provider import ContainerProvider
from runner.providers.criu import find_criu
from tests.container.conftest import BASE, IMAGE
from tests.contract.providers.harness import Exits, make_spec
from tests.contract.providers.podman import CRIU
from tests.integration.helpers import wait_until

M1 = MachineId("m-1")
MakeProvider = Callable[..., ContainerProvider]


@pytest.fixture
def cluster() -> ClusterId:
    return ClusterId(random_id("c"))


@pytest.fixture
async def provider(cluster: ClusterId, make_provider: MakeProvider) -> AsyncIterator[ContainerProvider]:
    made = make_provider(cluster)
    yield made
    for machine in await made.list(cluster):
        await made.destroy(machine.name)
    await made.close()


def _inspect(client: docker.APIClient, cluster: ClusterId) -> dict[str, Any]:
    return client.inspect_container(f"runner-{cluster}-m-1")


async def test_a_container_has_its_limits_and_no_rights(cluster, provider, client) -> None:
    spec = make_spec(cluster, M1)
    await provider.create(replace(spec, boot=replace(spec.boot, cpus=0.5, memory_bytes=256 << 20)))
    made = _inspect(client, cluster)
    host = made["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (500_000_000, 256 << 20, 256 << 20)
    assert (host["ShmSize"], host["PidsLimit"], host["NetworkMode"]) == (128 << 20, 4096, "host")
    assert host["AutoRemove"] is True
    status = Path(f"/proc/{made['State']['Pid']}/status").read_text().split()
    assert status[status.index("CapEff:") + 1] == "0000000000000000"
    assert status[status.index("NoNewPrivs:") + 1] == "1"
    assert status[status.index("Uid:") + 1] == str(os.getuid())


async def test_the_join_token_is_shown_nowhere(cluster, provider, client) -> None:
    await provider.create(make_spec(cluster, M1))
    made = _inspect(client, cluster)
    assert "nobody checks it" not in json.dumps(made)
    # Seen from outside: an exec would leave a process of Podman's behind for minutes.
    boot = Path(f"/proc/{made['State']['Pid']}/root/tmp/runner-boot")
    await asyncio.to_thread(wait_until, lambda: not boot.exists(), 20, "the agent left its boot configuration in place")


async def test_the_hosts_store_and_artefacts_are_at_the_same_paths(cluster, provider, client, tmp_path) -> None:
    (tmp_path / "store" / "from-host").write_text("1")
    await provider.create(make_spec(cluster, M1))
    inside = Path(f"/proc/{_inspect(client, cluster)['State']['Pid']}/root{tmp_path}")
    assert (inside / "store" / "from-host").read_text() == "1"
    (inside / "artefacts" / "from-machine").write_text("2")
    assert (tmp_path / "artefacts" / "from-machine").read_text() == "2"
    assert sorted(path.name for path in inside.iterdir()) == ["artefacts", "store"], "nothing else of the host is there"


async def test_a_container_that_cannot_register_ends_with_its_reason(cluster, provider) -> None:
    """Nobody listens where it should register: the dead-man's switch, and what the agent says of it."""
    exits = Exits(provider)
    spec = make_spec(cluster, M1)
    await provider.create(replace(spec, boot=replace(spec.boot, lost_after_s=0.5, destroy_after_s=1.0)))
    name, reason = await exits.first()
    assert name == M1
    assert reason.startswith("container exited with code 1")
    assert "could not join its cluster" in reason
    assert "127.0.0.1:9" in " ".join(await provider.logs(M1))


async def test_an_image_without_runner_is_refused_with_what_to_do(cluster, make_provider) -> None:
    other = make_provider(cluster, image=BASE)
    for call in (other.prepare(()), other.create(make_spec(cluster, M1))):
        with pytest.raises(ProviderError, match=r"is no worker image.*runner image build") as caught:
            await call
        assert caught.value.is_permanent
    await other.close()


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"runner.python": "3.9", "runner.protocol": "1"}, r"has Python 3\.9, this client runs Python 3\.1"),
        ({"runner.protocol": "99", "runner.version": "9.9"}, r"runner 9\.9 with protocol 99, this client has"),
    ],
)
async def test_another_python_or_protocol_is_refused_before_any_boot(
    cluster, make_provider, client, labels, words
) -> None:
    made = client.create_container(IMAGE, labels=labels)
    changes = [f"LABEL {name}={value}" for name, value in labels.items()]
    client.commit(made["Id"], "runner-test-wrong", "1", changes=changes)
    client.remove_container(made["Id"], force=True)
    other = make_provider(cluster, image="runner-test-wrong:1")
    try:
        with pytest.raises(ProviderError, match=words) as caught:
            await other.prepare(())
        assert caught.value.is_permanent
    finally:
        await other.close()
        client.remove_image("runner-test-wrong:1", force=True)


async def test_an_image_that_does_not_exist(cluster, make_provider) -> None:
    absent = make_provider(cluster, image="runner-absent:cpu")
    with pytest.raises(ProviderError, match=r"runner-absent:cpu is not on the engine.*`runner image build") as caught:
        await absent.prepare(())
    assert caught.value.is_permanent
    with pytest.raises(ProviderError, match="nowhere to pull it from"):
        await absent.create(make_spec(cluster, M1))
    await absent.close()


async def test_a_pull_that_fails_is_told_once_for_all_who_wait(cluster, make_provider) -> None:
    absent = make_provider(cluster, image="127.0.0.1:9/runner/worker:1")
    specs = [make_spec(cluster, f"m-{number}") for number in range(3)]
    ends = await asyncio.gather(*(absent.create(spec) for spec in specs), return_exceptions=True)
    assert all("could not be pulled" in str(end) for end in ends), ends
    assert "waits for image 127.0.0.1:9/runner/worker:1" in " ".join(await absent.logs(MachineId("m-2")))
    await absent.close()


async def test_gpus_are_refused_where_there_are_none(provider) -> None:
    wanted = Wanted("default", ((GPU, UNIT),), "", 1, 1)
    with pytest.raises(ProviderError, match="machines with GPUs cannot be containers here") as caught:
        await provider.prepare([wanted])
    assert caught.value.is_permanent


async def test_an_engine_that_is_not_there(cluster, make_provider) -> None:
    other = make_provider(cluster, socket="unix:///nowhere/engine.sock")
    with pytest.raises(ProviderError, match=r"engine at unix:///nowhere/engine\.sock did not answer") as caught:
        await other.prepare(())
    assert not caught.value.is_permanent
    await other.close()


async def test_one_that_was_never_started_is_listed_and_swept(cluster, provider, client) -> None:
    """As `kill -9` between create and start leaves it: nothing in it can end it."""
    labels = {"runner.cluster": str(cluster), "runner.machine": "m-1"}
    client.create_container(IMAGE, name=f"runner-{cluster}-m-1", labels=labels)
    (orphan,) = await provider.list(cluster)
    assert (orphan.name, orphan.state) == (M1, MachineState.CREATING)
    await provider.destroy(M1)
    assert await provider.list(cluster) == ()


async def test_the_name_of_one_that_was_never_started_can_be_used(cluster, provider, client) -> None:
    labels = {"runner.cluster": str(cluster), "runner.machine": "m-1"}
    stale = client.create_container(IMAGE, name=f"runner-{cluster}-m-1", labels=labels)
    made = await provider.create(make_spec(cluster, M1))
    assert made.provider_machine_id != stale["Id"]
    assert made.state is MachineState.RUNNING


async def test_a_running_machine_of_an_earlier_coordinator_is_adopted(cluster, provider, make_provider) -> None:
    first = await provider.create(make_spec(cluster, M1))
    later = make_provider(cluster)
    assert await later.create(make_spec(cluster, M1)) == first
    await later.destroy(M1)
    assert await later.list(cluster) == ()
    await later.close()


async def test_how_containers_are_suspended_is_said_with_the_reason(provider) -> None:
    """A snapshot where Podman has a CRIU that works, else pausing and why."""
    await provider.prepare(())
    can = provider.capabilities()
    criu = await asyncio.to_thread(find_criu)
    if criu.works:
        assert (can.suspend_kind, can.suspend_reason) == ("snapshot", f"saved by Podman with CRIU {criu.version}")
    else:
        assert can.suspend_kind == "freeze"
        assert criu.problem in can.suspend_reason


async def test_a_paused_container_is_the_same_after(cluster, provider, client) -> None:
    if provider.capabilities().suspend_kind == "snapshot":
        pytest.skip("this engine saves containers instead of pausing them")
    await provider.create(make_spec(cluster, M1))
    before = _inspect(client, cluster)["State"]["Pid"]
    await provider.suspend(M1)
    assert _inspect(client, cluster)["State"]["Status"] == "paused"
    await provider.start(M1)
    state = _inspect(client, cluster)["State"]
    assert (state["Status"], state["Pid"]) == ("running", before)


async def test_one_that_an_earlier_coordinator_suspended_is_known_and_swept(
    cluster, provider, make_provider, client
) -> None:
    await provider.create(make_spec(cluster, M1))
    await provider.suspend(M1)
    later = make_provider(cluster)
    (seen,) = await later.list(cluster)
    assert (seen.name, seen.state) == (M1, MachineState.SUSPENDED)
    await later.destroy(M1)
    assert await later.list(cluster) == ()
    assert client.containers(all=True, filters={"label": f"runner.cluster={cluster}"}) == []
    await later.close()


async def test_a_save_and_a_restore_that_podman_refuses_are_told_and_leave_no_file(
    cluster, provider, client, tmp_path, monkeypatch
) -> None:
    """Here CRIU is said to work and does not: Podman takes the requests, and fails in CRIU."""
    if (await asyncio.to_thread(find_criu)).works:
        pytest.skip("CRIU works here: nothing is refused")
    if "Podman" not in str(client.version()["Components"]):
        pytest.skip("only Podman saves containers")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "criu").write_text(CRIU)
    (tmp_path / "bin" / "criu").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin", prepend=os.pathsep)
    made = await provider.create(make_spec(cluster, M1))
    assert provider.capabilities().suspend_kind == "snapshot"
    with pytest.raises(
        ProviderError, match="suspend of machine m-1 failed: it could not be saved: Podman answered 500: "
    ):
        await provider.suspend(M1)
    assert await provider.get(M1) == made
    assert _inspect(client, cluster)["State"]["Status"] == "running"
    assert os.listdir(tmp_path / "snapshots") == []
    await provider.destroy(M1)
    (tmp_path / "snapshots" / "m-1.tar").write_text("no archive")
    (tmp_path / "snapshots" / "m-1.json").write_text('{"id": "x", "created_unix_s": 1.0, "criu": "4.2"}')
    with pytest.raises(
        ProviderError, match="start of machine m-1 failed: it could not be restored: Podman answered 500: "
    ):
        await provider.start(M1)
    assert await provider.get(M1) is None
    assert os.listdir(tmp_path / "snapshots") == []
