"""Values that an agent gets for its executors: one copy for all of them, also where the machine that has it cannot be reached."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from runner.rpc.gen import fleet_pb2
from runner.rpc.security import Authority, make_csr
from runner.worker import neighbours
from runner.worker.agent.output import Output
from runner.worker.agent.transfers import Transfers
from runner.worker.frames import Kind, decode_packet
from runner.worker.local_store import LocalStore
from runner.worker.neighbours import Neighbours
from tests.integration.coordinator.harness import submit
from tests.integration.coordinator.test_bulk import LARGE, machine, through_proxy
from tests.integration.helpers import until


class Said:
    """An executor as the agent sees it, as far as files go: what it is told is kept."""

    def __init__(self) -> None:
        self.attempt: Any = SimpleNamespace(key=("t-2", 1))
        self.serial = 1
        self.link = self
        self.frames: list[Any] = []

    def send(self, data: bytes) -> None:
        self.frames.append(decode_packet(data))


async def test_executors_that_want_one_value_share_one_download(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    (tmp_path / "store").mkdir()
    async with machine(tmp_path) as it, through_proxy(it) as (client, proxy):
        segment = (await client.upload(("t-1", 1), str(source), len(LARGE), object_id="t-1.0")).segment
        await it.client.send(submit("t-2"))
        await it.end_with(segment)
        await it.agent.next_start("t-2")
        store = LocalStore(str(tmp_path / "store"), 10 * len(LARGE))
        nobody = Neighbours(b"", b"", b"", b"")
        transfers = Transfers(client, nobody, store, str(tmp_path), Output("m-1"), machine_id="m-1", host_id="h-1")
        fetch = transfers.frames()[Kind.FETCH]
        before = proxy.relayed_bytes
        executors: list[Any] = [Said(), Said(), Said()]
        for number, executor in enumerate(executors):
            fetch(executor, [Kind.FETCH, number, 1, "t-1.0", segment.path, len(LARGE)])
        await until(lambda: all(each.frames for each in executors), 20, "three answers")
        paths = {each.frames[0][2][0] for each in executors}
        assert [each.frames[0][1] for each in executors] == [0, 1, 2]
        assert [Path(path).read_bytes() == LARGE for path in paths] == [True]
        assert proxy.relayed_bytes - before < 1.5 * len(LARGE)


async def test_a_machine_that_cannot_be_reached_is_gone_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "CONNECT_S", 0.3)
    source, target = tmp_path / "source", tmp_path / "store" / "target"
    source.write_bytes(LARGE)
    (tmp_path / "store").mkdir()
    authority = Authority.create()
    key_pem, csr_pem = make_csr("m-1")
    puller = neighbours.Neighbours(authority.ca_pem, key_pem, authority.sign_csr(csr_pem, "m-1"), b"")
    async with machine(tmp_path) as it, through_proxy(it) as (client, _):
        segment = (await client.upload(("t-1", 1), str(source), len(LARGE), object_id="t-1.0")).segment
        await it.client.send(submit("t-2"))
        await it.end_with(segment)
        await it.agent.next_start("t-2")
        store = LocalStore(str(tmp_path / "store"), 10 * len(LARGE))
        transfers = Transfers(client, puller, store, str(tmp_path), Output("m-1"), machine_id="m-1", host_id="h-1")
        place = fleet_pb2.LocateReply(
            total_bytes=len(LARGE), path="/there", machine_id="m-9", generation=1, address="127.0.0.1:9"
        )
        assert await transfers._get(("t-2", 1), "t-1.0", str(target), place) == segment.path
        assert target.read_bytes() == LARGE
        assert not puller.can_reach(place)
