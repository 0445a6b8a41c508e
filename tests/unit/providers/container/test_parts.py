"""The parts of the container provider that need no engine."""

from __future__ import annotations

import asyncio
import io
import socket
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgpack
import pytest

from runner.core.values import CPU, GPU, UNIT, make_shape
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, MachineSpec, MachineState
from runner.providers.container import recipe
from runner.providers.container.devices import Devices
from runner.providers.container.ends import exit_in_words
from runner.providers.container.images import client_python, has_registry, why_unfit
from runner.providers.container.options import ContainerOptions
from runner.providers.container.output import OutputPump
from runner.providers.container.recipe import Recipe, default_user, record_of, wanted_gpus
from runner.providers.registry import Place
from runner.rpc.version import PROTOCOL

M1 = MachineId("m-1")
FIT = {"runner.python": client_python(), "runner.protocol": str(PROTOCOL), "runner.version": "0.1.0"}
NVIDIA: dict[str, Any] = {"Runtimes": {"nvidia": {}}}


def _spec(gpus: int = 0) -> MachineSpec:
    boot = BootConfig(
        coordinator_address="127.0.0.1:9", ca_pem=b"", join_token="secret", machine_id=M1, cluster_id=ClusterId("c-1")
    )
    return MachineSpec(ClusterId("c-1"), M1, make_shape({CPU: UNIT, GPU: gpus * UNIT}), boot)


def _recipe(tmp_path: Path, *, shares_host: bool = True, user: str = "1000:1000") -> Recipe:
    place = Place(
        cluster_id=ClusterId("c-1"),
        embedded=True,
        options={},
        log_dir=tmp_path,
        store_path="/dev/shm/runner-c-1",
        artefact_path="/state/artefacts",
        host_id="this-host",
    )
    return Recipe(ContainerOptions(), place, shares_host=shares_host, user=user, host_memory=8 << 30)


# ---- images ----
@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, "is no worker image: it has no label runner.python, runner.protocol"),
        (FIT | {"runner.python": "3.9"}, "has Python 3.9, this client runs Python"),
        (FIT | {"runner.protocol": "99"}, "with protocol 99, this client has runner"),
    ],
)
def test_an_image_that_cannot_serve_says_why_and_what_to_do(labels, words) -> None:
    reason = why_unfit("some:image", labels)
    assert words in reason
    assert "runner image build" in reason


def test_an_image_that_can_serve() -> None:
    assert why_unfit("some:image", FIT) == ""


@pytest.mark.parametrize(
    ("image", "has"),
    [
        ("runner-worker:cpu", False),
        ("localhost/runner-worker:cpu", False),
        ("me/runner-worker:cpu", True),
        ("registry.example.com:5000/runner-worker@sha256:ab", True),
    ],
)
def test_names_that_say_where_an_image_is(image, has) -> None:
    assert has_registry(image) is has


# ---- the container ----
def test_the_boot_configuration_is_readable_by_its_user_only(tmp_path) -> None:
    spec = _spec()
    folder, archive = _recipe(tmp_path).boot_archive(spec, ("GPU-a", "3"))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        (entry,) = tar.getmembers()
        packed = tar.extractfile(entry)
        assert packed is not None
        boot = BootConfig.from_dict(msgpack.unpackb(packed.read()))
    assert (folder, entry.mode, entry.uid, entry.gid) == ("/tmp", 0o400, 1000, 1000)
    # An index is of the host's devices; inside they count from 0. A UUID is the same everywhere.
    assert boot == replace(spec.boot, host_id="this-host", gpus=("GPU-a", "1"))
    assert len(archive) % 10240 != 0, "padded: Podman's reader hangs up on the rest"


def test_a_machine_that_shares_nothing_is_a_host_of_its_own(tmp_path) -> None:
    made = _recipe(tmp_path, shares_host=False, user="")
    _, archive = made.boot_archive(_spec(), ())
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        packed = tar.extractfile(tar.getmembers()[0])
        assert packed is not None
        assert msgpack.unpackb(packed.read())["host_id"] == ""
    assert made._binds() == []
    assert _recipe(tmp_path)._binds() == [
        "/dev/shm/runner-c-1:/dev/shm/runner-c-1",
        "/state/artefacts:/state/artefacts",
    ]


def test_without_root_on_the_host_root_inside_is_this_user(monkeypatch) -> None:
    monkeypatch.setattr("os.getuid", lambda: 1000)
    monkeypatch.setattr("os.getgid", lambda: 100)
    assert default_user(["name=seccomp,profile=default"]) == "1000:100"
    assert default_user(["name=seccomp", "name=rootless"]) == "0:0"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("created", MachineState.CREATING),
        ("running", MachineState.RUNNING),
        ("paused", MachineState.SUSPENDED),
        ("exited", MachineState.STOPPED),
        ("stopped", MachineState.STOPPED),
    ],
)
def test_what_inspect_and_list_say_is_the_same_machine(status, state) -> None:
    labels = {recipe.MACHINE_LABEL: "m-1", recipe.CREATED_LABEL: "12.5"}
    inspected = {"Id": "ab" * 32, "Config": {"Labels": labels}, "State": {"Status": status}}
    listed = {"Id": "ab" * 32, "Labels": labels, "State": status}
    assert record_of(inspected, {}) == record_of(listed, {})
    assert (record_of(listed, {}).state, record_of(listed, {}).created_unix_s) == (state, 12.5)


# ---- ends ----
@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, "exited with code 0"),
        (1, "exited with code 1"),
        (137, "was killed by signal 9 (SIGKILL)"),
        (143, "was killed by signal 15 (SIGTERM)"),
        (255, "exited with code 255"),
        (-1, "ended; its exit code is not known"),
    ],
)
def test_exit_codes_in_words(code, words) -> None:
    assert exit_in_words(code) == words


def test_out_of_memory_in_words() -> None:
    said = exit_in_words(137, was_oom=True, memory_bytes=512 << 20)
    assert said == "was killed by signal 9 (SIGKILL); it ran out of memory (limit 512 MiB)"


# ---- output ----
def _frame(stream: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", stream, len(data)) + data


@pytest.mark.parametrize("cut", [1, 3, 8, 11, 1000])
async def test_output_arrives_whole_however_it_is_cut(tmp_path, cut) -> None:
    ours, theirs = socket.socketpair()
    pump = OutputPump(ours, tmp_path / "log")
    data = _frame(1, b"out\n") + _frame(2, b"err\n") + _frame(1, b"end")
    for start in range(0, len(data), cut):
        theirs.sendall(data[start : start + cut])
        await asyncio.sleep(0)
    theirs.close()
    async with asyncio.timeout(5):
        await pump.ended.wait()
    pump.close()
    assert (tmp_path / "log").read_bytes() == b"out\nerr\nend"


async def test_output_without_frames_is_taken_as_it_is(tmp_path) -> None:
    ours, theirs = socket.socketpair()
    pump = OutputPump(ours, tmp_path / "log")
    theirs.sendall(b"a terminal says this\n")
    theirs.close()
    async with asyncio.timeout(5):
        await pump.ended.wait()
    assert (tmp_path / "log").read_bytes() == b"a terminal says this\n"


# ---- GPUs ----
def _devices(*named: str, info: dict[str, Any] | None = None, podman: bool = False, is_local: bool = False) -> Devices:
    version = {"Components": [{"Name": "Podman Engine" if podman else "Engine"}]}
    return Devices(named, info=NVIDIA if info is None else info, version=version, is_local=is_local)


def test_gpus_are_handed_out_once_and_come_back() -> None:
    devices = _devices("GPU-a", "GPU-b")
    assert devices.take(_spec(), 0) == ()
    assert devices.take(_spec(), 1) == ("GPU-a",)
    assert devices.take(_spec(), 1) == ("GPU-b",)
    with pytest.raises(ProviderError, match=r"needs 1 GPUs; the engine's host has 2, of which 0 are free") as caught:
        devices.take(_spec(), 1)
    assert (caught.value.is_permanent, caught.value.is_capacity) == (False, True)
    devices.give_back(("GPU-a",))
    assert devices.take(_spec(), 1) == ("GPU-a",)
    with pytest.raises(ProviderError) as caught:
        devices.take(_spec(), 3)
    assert caught.value.is_permanent


@pytest.mark.parametrize(
    ("devices", "why"),
    [
        (_devices(), "which devices it has was not said: name them in the option gpus"),
        (_devices("GPU-a", podman=True), "Podman's Docker API hands no GPUs"),
        (_devices("GPU-a", info={"Runtimes": {"runc": {}}}), "the engine has no NVIDIA runtime"),
    ],
)
def test_gpus_that_cannot_be_had_say_why(devices, why) -> None:
    with pytest.raises(ProviderError, match=why) as caught:
        devices.check()
    assert caught.value.is_permanent


def test_half_a_gpu_is_refused() -> None:
    half = replace(_spec(), shape=make_shape({GPU: UNIT // 2}))
    with pytest.raises(ProviderError, match="a part of a GPU"):
        wanted_gpus(half)
    assert wanted_gpus(_spec(2)) == 2
