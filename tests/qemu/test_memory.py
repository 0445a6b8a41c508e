"""Suspending and resuming at the provider, with nobody else acting: the same memory comes back, once."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import MachineState
from runner.providers.process_tag import find_tagged
from runner.providers.qemu import memory, snapshot
from runner.providers.qemu.provider import QemuProvider
from runner.providers.qemu.qmp import connected
from runner.rpc.gen import fleet_pb2
from tests.integration.helpers import let_pass
from tests.qemu.conftest import IMAGE, end_all
from tests.qemu.registrations import Registrations

M1, M2 = MachineId("m-1"), MachineId("m-2")


async def state_of(provider: QemuProvider, name: MachineId = M1) -> MachineState:
    machine = await provider.get(name)
    assert machine is not None
    return machine.state


def life(request: fleet_pb2.RegisterRequest) -> tuple[str, str]:
    """Of the guest's kernel, and of the agent in it."""
    return request.peer.host_id, request.agent_instance_id


@pytest.fixture
async def asking(provider: QemuProvider, cluster: ClusterId, registrations: Registrations) -> fleet_pb2.RegisterRequest:
    """The first request of machine m-1, which has booted and goes on asking."""
    await provider.create(registrations.spec(cluster, M1))
    return await registrations.next()


@pytest.fixture
async def booting(provider: QemuProvider, cluster: ClusterId, registrations: Registrations) -> None:
    """Machine m-1, wherever it is in its boot."""
    await provider.create(registrations.spec(cluster, M1))


async def test_the_same_memory_comes_back_and_is_consumed(asking, provider, cluster, registrations) -> None:
    before = await provider.get(M1)
    await provider.suspend(M1)
    assert await state_of(provider) is MachineState.SUSPENDED
    assert find_tagged(cluster) == [], "its memory and CPU are free"
    folder = provider._folders / M1
    assert oct((folder / "snapshot").stat().st_mode & 0o777) == "0o600"
    count = len(registrations.seen)

    await provider.start(M1)
    assert not (folder / "snapshot").exists()
    assert await provider.get(M1) == before
    request = await registrations.next()
    assert life(request) == life(asking)
    assert len(registrations.seen) > count
    lines = [line for line in await provider.logs(M1) if "suspended" in line or "resumed" in line]
    print(*lines, sep="\n")

    # And a second time: each suspend makes a snapshot of its own.
    await provider.suspend(M1)
    await provider.start(M1)
    assert life(await registrations.next()) == life(asking)


async def test_stop_discards_the_snapshot_and_start_is_then_cold(asking, provider, registrations) -> None:
    made = await provider.get(M1)
    await provider.suspend(M1)
    await provider.stop(M1)
    assert await state_of(provider) is MachineState.STOPPED
    await provider.start(M1)
    request = await registrations.next()
    assert life(request) != life(asking)
    assert request.machine_id == asking.machine_id
    assert request.provider_machine_id == made.provider_machine_id


async def test_a_truncated_snapshot_is_refused_and_gone(booting, provider) -> None:
    await provider.suspend(M1)
    path = provider._folders / M1 / "snapshot"
    os.truncate(path, path.stat().st_size - 4096)
    with pytest.raises(
        ProviderError, match=r"resume of machine m-1 failed: the snapshot has \d+ bytes of \d+"
    ) as caught:
        await provider.start(M1)
    assert "boots it cold" in str(caught.value)
    assert await state_of(provider) is MachineState.STOPPED
    assert not path.exists()
    await provider.start(M1)
    assert await state_of(provider) is MachineState.RUNNING


async def test_a_damaged_snapshot_is_refused_by_qemu_and_gone(booting, provider, cluster) -> None:
    await provider.suspend(M1)
    path = provider._folders / M1 / "snapshot"
    with path.open("r+b") as file:
        file.seek(snapshot.HEADER_BYTES)
        file.write(b"\xff" * 4096)
    with pytest.raises(ProviderError, match="resume of machine m-1 failed: QEMU .*its memory is gone") as caught:
        await provider.start(M1)
    assert any("migration" in line for line in caught.value.log_lines), caught.value.log_lines
    assert await state_of(provider) is MachineState.STOPPED
    assert not path.exists()
    assert find_tagged(cluster) == []


async def test_a_snapshot_of_another_qemu_is_refused_and_gone(booting, provider) -> None:
    await provider.suspend(M1)
    path = provider._folders / M1 / "snapshot"
    with path.open("r+b") as file:
        head = file.read(snapshot.HEADER_BYTES)
        version = snapshot.read_header(file.fileno()).build.qemu
        file.seek(0)
        file.write(head.replace(f'"qemu": "{version}"'.encode(), f'"qemu": "{"9" * len(version)}"'.encode()))
    with pytest.raises(ProviderError, match=rf"saved with qemu 9+, here {version}"):
        await provider.start(M1)
    assert await state_of(provider) is MachineState.STOPPED
    assert not path.exists()


async def test_a_snapshot_of_another_build_of_the_image_is_refused(
    make_provider: Callable[..., QemuProvider], cluster: ClusterId, registrations: Registrations, tmp_path: Path
) -> None:
    """What the memory knows of its disk would not be true any more. The image was built anew while the cluster ran."""
    folder = tmp_path / "image"
    shutil.copytree(IMAGE, folder, copy_function=os.link)
    provider = make_provider(cluster, image=str(folder))
    await provider.create(registrations.spec(cluster, M1))
    await provider.suspend(M1)
    manifest = folder / "image.json"
    text = manifest.read_text()
    manifest.unlink()  # it is a link
    manifest.write_text(text.replace(json.loads(text)["image_id"], "another"))
    with pytest.raises(ProviderError, match="saved with image_id .*, here another"):
        await provider.start(M1)
    await provider.start(M1)
    assert await state_of(provider) is MachineState.RUNNING
    await end_all(provider, cluster)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A state directory on a file system that no guest's memory fits into."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(folder)], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def test_a_full_disk_fails_the_suspend_and_the_guest_goes_on(
    small_disk: Path, make_provider: Callable[..., QemuProvider], cluster: ClusterId, registrations: Registrations
) -> None:
    provider = make_provider(cluster, state=small_disk)
    await provider.create(registrations.spec(cluster, M1))
    before = await registrations.next()
    with pytest.raises(ProviderError, match="suspend of machine m-1 failed: .*[Nn]o space left on device") as caught:
        await provider.suspend(M1)
    assert "goes on as before" in str(caught.value)
    assert await state_of(provider) is MachineState.RUNNING
    assert sorted(path.name for path in (small_disk / "qemu" / M1).iterdir()) == ["boot", "control", "machine.json"]
    assert life(await registrations.next()) == life(before)
    await end_all(provider, cluster)


async def test_a_suspended_machine_outlives_its_coordinator(
    make_provider: Callable[..., QemuProvider], cluster: ClusterId, registrations: Registrations
) -> None:
    first = make_provider(cluster, embedded=False)
    await first.create(registrations.spec(cluster, M1))
    before = await registrations.next()
    await first.suspend(M1)
    await first.close()
    later = make_provider(cluster, embedded=False)
    assert [(each.name, each.state) for each in await later.list(cluster)] == [(M1, MachineState.SUSPENDED)]
    await later.start(M1)
    assert life(await registrations.next()) == life(before)
    await end_all(later, cluster)


async def test_a_suspend_that_a_coordinator_did_not_live_to_finish(
    make_provider: Callable[..., QemuProvider], cluster: ClusterId, registrations: Registrations
) -> None:
    """It died between `stop` and the end of the save: there is no snapshot, and whoever takes over lets the guest go on."""
    first = make_provider(cluster, embedded=False)
    spec = registrations.spec(cluster, M1)
    made = await first.create(spec)
    before = await registrations.next()
    async with connected(first._folders / M1 / "control") as qmp:
        await qmp.execute("stop")
    (first._folders / M1 / snapshot.PARTIAL).write_bytes(b"half")
    await first.close()
    later = make_provider(cluster, embedded=False)
    adopted = await later.create(spec)
    assert adopted.provider_machine_id == made.provider_machine_id
    assert life(await registrations.next()) == life(before)
    await end_all(later, cluster)


async def test_a_guest_whose_snapshot_is_complete_never_runs_on(
    make_provider: Callable[..., QemuProvider], cluster: ClusterId, registrations: Registrations
) -> None:
    """It died between the snapshot's name and the end of QEMU: the machine is suspended, and resumes from the file."""
    first = make_provider(cluster, embedded=False)
    await first.create(registrations.spec(cluster, M1))
    before = await registrations.next()
    folder = first._folders / M1
    build = first._machines[M1].made.build
    await memory.save(folder / "control", folder, build, to_file=False)
    (stopped,) = find_tagged(cluster)
    await first.close()
    later = make_provider(cluster, embedded=False)
    assert await state_of(later) is MachineState.SUSPENDED
    await later.start(M1)
    (running,) = find_tagged(cluster)
    assert running.process.pid != stopped.process.pid
    assert life(await registrations.next()) == life(before)
    await end_all(later, cluster)


async def test_the_guests_clock_stands_still_meanwhile(asking, provider, registrations) -> None:
    """Nothing in the guest tells that it slept: whoever resumes it has to say so."""
    behind_s = time.time() - asking.sent_unix_s
    await provider.suspend(M1)
    await let_pass(3.0, "the machine sleeps")
    await provider.start(M1)
    request = await registrations.next()
    slept_s = time.time() - request.sent_unix_s - behind_s
    assert 2.5 < slept_s < 10
    print(f"the clock is {slept_s:.1f} s behind")


async def test_two_callers_at_once_make_one_snapshot_and_one_resume(asking, provider, registrations) -> None:
    await asyncio.gather(provider.suspend(M1), provider.suspend(M1))
    assert await state_of(provider) is MachineState.SUSPENDED
    await asyncio.gather(provider.start(M1), provider.start(M1))
    assert life(await registrations.next()) == life(asking)


async def test_several_machines_suspended_and_resumed_at_once(provider, cluster, registrations) -> None:
    names = (M1, M2, MachineId("m-3"))
    await asyncio.gather(*(provider.create(registrations.spec(cluster, name)) for name in names))
    await asyncio.gather(*map(provider.suspend, names))
    assert find_tagged(cluster) == []
    await asyncio.gather(*map(provider.start, names))
    assert [machine.state for machine in await provider.list(cluster)] == [MachineState.RUNNING] * 3


async def test_destroying_a_suspended_machine_leaves_nothing(booting, provider) -> None:
    await provider.suspend(M1)
    await provider.destroy(M1)
    assert await provider.get(M1) is None
    assert not (provider._folders / M1).exists()


async def test_a_guest_whose_folder_is_gone_is_listed_and_ended_before_its_name_is_used(
    make_provider: Callable[..., QemuProvider], cluster: ClusterId, registrations: Registrations
) -> None:
    first = make_provider(cluster, embedded=False)
    spec = registrations.spec(cluster, M1)
    await first.create(spec)
    (stray,) = find_tagged(cluster)
    await first.close()
    shutil.rmtree(first._folders)
    later = make_provider(cluster, embedded=False)
    (listed,) = await later.list(cluster)
    assert (listed.name, listed.state, listed.provider_machine_id) == (M1, MachineState.RUNNING, stray.process.identity)
    await later.create(spec)
    (running,) = find_tagged(cluster)
    assert running.process.pid != stray.process.pid
    await end_all(later, cluster)
