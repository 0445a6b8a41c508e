"""Values from machine to machine: only machines of the cluster, only the machine's own values, and what cannot be reached."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

from runner.errors import ObjectLostError, RunnerError
from runner.objects import spill
from runner.rpc.gen import fleet_pb2
from runner.rpc.security import Authority, MachineIdentity, make_csr
from runner.worker import neighbours
from runner.worker.local_store import LocalStore
from runner.worker.neighbours import Neighbours, own_address

DATA = bytes(range(256)) * 10_000


class Served(NamedTuple):
    authority: Authority
    store: LocalStore
    path: str
    place: fleet_pb2.LocateReply


def member(authority: Authority, machine_id: str) -> Neighbours:
    key_pem, csr_pem = make_csr(machine_id)
    cert_pem = authority.sign_csr(csr_pem, machine_id, generation=1)
    peer_pem = authority.sign_peer(csr_pem, MachineIdentity(machine_id, 1))
    return Neighbours(authority.ca_pem, key_pem, cert_pem, peer_pem)


@contextlib.asynccontextmanager
async def serving(tmp_path: Path) -> AsyncIterator[Served]:
    """Machine m-1 has one value of its own."""
    authority = Authority.create()
    folder = tmp_path / "m-1"
    folder.mkdir()
    store = LocalStore(str(folder), 10 * len(DATA))
    path = store.reserve("t-1.0", len(DATA))
    Path(path).write_bytes(DATA)
    store.hold(path)
    server = member(authority, "m-1")
    address = await server.serve(store, "127.0.0.1")
    place = fleet_pb2.LocateReply(total_bytes=len(DATA), path=path, machine_id="m-1", generation=1, address=address)
    try:
        yield Served(authority, store, path, place)
    finally:
        await server.close()


async def test_another_machine_of_the_cluster_gets_the_value(tmp_path: Path) -> None:
    async with serving(tmp_path) as it:
        await member(it.authority, "m-2").pull(it.place, "t-1.0", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == DATA


async def test_a_value_that_was_moved_to_disk_is_served_too(tmp_path: Path) -> None:
    async with serving(tmp_path) as it:
        folder = tmp_path / "spilled"
        spill.set_bounds(it.store.path, spill.Bounds(len(DATA), str(folder)))
        spill.place(f"{it.store.path}/another", len(DATA), spill.Bounds(len(DATA), str(folder)))
        assert Path(it.path).is_symlink()
        await member(it.authority, "m-2").pull(it.place, "t-1.0", str(tmp_path / "copy"))
        assert (tmp_path / "copy").read_bytes() == DATA


async def test_a_machine_of_another_cluster_gets_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CONNECT_S", 1.0)
    async with serving(tmp_path) as it:
        foreign = member(Authority.create(), "m-2")
        mixed = Neighbours(it.authority.ca_pem, foreign._key_pem, foreign._cert_pem, b"")
        for stranger in (foreign, mixed):
            with pytest.raises(RunnerError):
                await stranger.pull(it.place, "t-1.0", str(tmp_path / "copy"))
        assert not (tmp_path / "copy").exists()


async def test_who_poses_as_another_machine_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CONNECT_S", 1.0)
    async with serving(tmp_path) as it:
        it.place.machine_id = "m-3"
        with pytest.raises(ObjectLostError, match="m-3 cannot be reached"):
            await member(it.authority, "m-2").pull(it.place, "t-1.0", str(tmp_path / "copy"))


async def test_only_own_values_are_served(tmp_path: Path) -> None:
    secret = tmp_path / "m-1" / "secret"
    async with serving(tmp_path) as it:
        secret.write_bytes(DATA)
        for path in (str(secret), f"{it.path}/../secret", "/etc/passwd"):
            it.place.path = path
            with pytest.raises(ObjectLostError, match="is not, or no longer"):
                await member(it.authority, "m-2").pull(it.place, "t-1.0", str(tmp_path / "copy"))
        it.place.path = it.path
        it.store.drop(it.path)
        with pytest.raises(ObjectLostError, match="is not, or no longer"):
            await member(it.authority, "m-2").pull(it.place, "t-1.0", str(tmp_path / "copy"))


async def test_who_cannot_be_reached_is_not_tried_again_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "CONNECT_S", 0.5)
    puller = member(Authority.create(), "m-2")
    place = fleet_pb2.LocateReply(total_bytes=1, path="/p", machine_id="m-1", generation=1, address="127.0.0.1:9")
    assert puller.can_reach(place)
    with pytest.raises(ObjectLostError, match="cannot be reached at 127.0.0.1:9"):
        await puller.pull(place, "t-1.0", str(tmp_path / "copy"))
    assert not puller.can_reach(place)
    assert not puller.can_reach(fleet_pb2.LocateReply(path="/p", machine_id="m-1"))


async def test_where_nothing_can_be_bound_nothing_is_served(tmp_path: Path) -> None:
    authority = Authority.create()
    assert await member(authority, "m-1").serve(LocalStore(str(tmp_path), 1), "192.0.2.1") == ""
    assert own_address("127.0.0.1:1") == "127.0.0.1"
    assert own_address("nothing") == ""
