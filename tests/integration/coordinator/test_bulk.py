"""Files of machines on other hosts: who may bring and take what, and what is left when it does not work out."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import zlib
from collections import namedtuple
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from runner.coordinator import bulk as coordinator_bulk
from runner.errors import (
    AuthenticationError,
    ObjectLostError,
    ProtocolViolationError,
    RunnerError,
    StoreFullError,
    UsageError,
)
from runner.rpc.channels import fleet_channel
from runner.rpc.gen import fleet_pb2, fleet_pb2_grpc, types_pb2
from runner.rpc.status import from_rpc_error
from runner.worker.bulk import BulkClient, Identity, send_file
from tests.integration.client.proxy import Proxy
from tests.integration.coordinator.harness import Agent, Client, Harness, function, key, running, started, submit
from tests.integration.helpers import let_pass, until

CHUNK = 1 << 20
DATA = os.urandom(3 * CHUNK + 17)


class Machine:
    """A registered agent with task `t-1` assigned to it, and calls for files made by hand."""

    def __init__(self, cluster: Harness, agent: Agent, client: Client) -> None:
        self.cluster = cluster
        self.agent = agent
        self.client = client
        assert agent._channel is not None
        self.stub = fleet_pb2_grpc.FleetStub(agent._channel)
        state = cluster.coordinator._state
        self.store, self.artefacts = Path(state.store), Path(state.artefacts)

    def header(self, **fields: Any) -> fleet_pb2.UploadHeader:
        given = {"object_id": "t-1.0"} if "checkpoint_step" not in fields else {}
        agent = self.agent
        return fleet_pb2.UploadHeader(
            **{
                "machine_id": agent.boot.machine_id,
                "generation": agent.reply.generation,
                "key": key("t-1"),
                "total_bytes": len(DATA),
                **given,
                **fields,
            }
        )

    async def upload(self, parts: list[fleet_pb2.UploadPart] | None = None, **fields: Any) -> fleet_pb2.UploadReply:
        """Raises the typed error."""
        try:
            return await send_file(
                self.stub.Upload(), self.header(**fields), _each(chunks() if parts is None else parts)
            )
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "here") from None

    async def download(self, **fields: Any) -> tuple[bytes, str]:
        """Bytes and digest. Raises the typed error."""
        agent = self.agent
        request = fleet_pb2.DownloadRequest(
            **{
                "machine_id": agent.boot.machine_id,
                "generation": agent.reply.generation,
                "key": key("t-1"),
                **fields,
            }
        )
        data, digest = b"", ""
        try:
            async for part in self.stub.Download(request):
                assert zlib.crc32(part.data) == part.crc32
                data += part.data
                digest = part.sha256
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, "here") from None
        return data, digest

    async def end_with(self, segment: types_pb2.Segment) -> None:
        """Task t-1 returns this value; its client holds it."""
        returns = fleet_pb2.Returns(values=[types_pb2.Value(segment=segment)])
        ended = fleet_pb2.AttemptEnded(key=key("t-1"), returns=returns, executor_id="e-1")
        await self.agent.report(fleet_pb2.ReportItem(ended=ended))
        await self.client.until_ready("t-1.0")

    async def commit(self, uri: str, size_bytes: int) -> None:
        """Have the checkpoint at `uri` committed for task t-1."""
        checkpoint = types_pb2.Checkpoint(step=1, uri=uri, sha256="", size_bytes=size_bytes, attempt=1)
        saved = fleet_pb2.CheckpointSaved(key=key("t-1"), checkpoint=checkpoint)
        await self.agent.report(fleet_pb2.ReportItem(checkpoint=saved))
        await self.agent.until(lambda: any(each.HasField("checkpoint_committed") for each in self.agent.commands))

    def stored(self) -> list[str]:
        return sorted(name for name in os.listdir(self.store) if not name.startswith("."))

    def saved(self) -> list[str]:
        return sorted(str(path.relative_to(self.artefacts)) for path in self.artefacts.rglob("*") if path.is_file())


async def _each(parts: list[fleet_pb2.UploadPart]) -> AsyncIterator[fleet_pb2.UploadPart]:
    for part in parts:
        yield part


def chunks(data: bytes = DATA, *, sha256: str | None = None) -> list[fleet_pb2.UploadPart]:
    parts = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digest = hashlib.sha256(data).hexdigest() if sha256 is None else sha256
    return [
        *(fleet_pb2.UploadPart(data=part, crc32=zlib.crc32(part)) for part in parts),
        fleet_pb2.UploadPart(sha256=digest),
    ]


@contextlib.asynccontextmanager
async def machine(home: Path, **spec: Any) -> AsyncIterator[Machine]:
    async with running(home) as cluster, cluster.client() as client, cluster.agent() as agent:
        await client.send(function(), submit("t-1", **spec))
        await agent.next_start("t-1")
        await agent.report(started("t-1"))
        await agent.until_acked()
        yield Machine(cluster, agent, client)


async def test_a_value_comes_up_and_goes_down_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as it:
        segment = (await it.upload(object_id="o-1")).segment
        assert Path(segment.path).read_bytes() == DATA
        assert (Path(segment.path).parent, segment.size_bytes) == (it.store, len(DATA))
        segment = (await it.upload()).segment
        await it.client.send(submit("t-2"))
        await it.end_with(segment)
        start = await it.agent.next_start("t-2")
        assert await it.download(key=start.key, object_id="t-1.0") == (DATA, hashlib.sha256(DATA).hexdigest())
        rest = DATA[2 * CHUNK + 5 :]
        found = await it.download(key=start.key, object_id="t-1.0", offset=2 * CHUNK + 5)
        assert found == (rest, hashlib.sha256(rest).hexdigest())


async def test_a_checkpoint_comes_up_and_goes_down_again(tmp_path: Path) -> None:
    async with machine(tmp_path) as it:
        uri = (await it.upload(checkpoint_step=7)).uri
        assert [name.startswith("t-1/1-7-") for name in it.saved()] == [True]
        with pytest.raises(UsageError, match="is not the last committed checkpoint of task t-1"):
            await it.download(checkpoint_uri=uri)
        await it.commit(uri, len(DATA))
        assert (await it.download(checkpoint_uri=uri))[0] == DATA


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"generation": 2}, AuthenticationError, "cannot speak for machine m-1 generation 2"),
        ({"machine_id": "m-2"}, AuthenticationError, "cannot speak for machine m-2"),
        ({"key": key("t-1", 2)}, UsageError, "attempt 2 of task t-1 is not, or no longer, assigned"),
        ({"key": key("t-9")}, UsageError, "attempt 1 of task t-9 is not, or no longer, assigned"),
        ({"object_id": "../../etc/passwd"}, ProtocolViolationError, "is no object id"),
        ({"object_id": "/etc/passwd"}, ProtocolViolationError, "is no object id"),
        ({"object_id": "t-2.0"}, ProtocolViolationError, "task t-1 cannot make object t-2.0"),
    ],
)
async def test_who_may_bring_what(tmp_path: Path, fields: dict[str, Any], error: type[RunnerError], text: str) -> None:
    async with machine(tmp_path) as it:
        with pytest.raises(error, match=text):
            await it.upload(**fields)
        assert it.stored() == []


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"generation": 2, "object_id": "t-1.0"}, AuthenticationError, "cannot speak for machine m-1 generation 2"),
        ({"key": key("t-9"), "object_id": "t-1.0"}, UsageError, "task t-9 is not, or no longer, assigned"),
        ({"object_id": "../ca-key.pem"}, ProtocolViolationError, "is no object id"),
        ({"object_id": "o-none"}, ObjectLostError, "has no value"),
        ({"object_id": "t-1.0"}, UsageError, "is not ready"),
        ({"checkpoint_uri": "/etc/hostname"}, UsageError, "is not the last committed checkpoint"),
    ],
)
async def test_who_may_take_what(tmp_path: Path, fields: dict[str, Any], error: type[RunnerError], text: str) -> None:
    async with machine(tmp_path) as it:
        with pytest.raises(error, match=text):
            await it.download(**fields)


@pytest.mark.parametrize("way", ["outside", "dots", "link"])
async def test_a_committed_path_outside_the_artefacts_is_not_read(tmp_path: Path, way: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    async with machine(tmp_path) as it:
        uri = str(secret) if way == "outside" else f"{it.artefacts}/t-1/../../../../secret"
        if way == "link":
            uri = f"{it.artefacts}/t-1/link.ckpt"
            Path(uri).parent.mkdir()
            Path(uri).symlink_to(secret)
        await it.commit(uri, 6)
        with pytest.raises((UsageError, ObjectLostError), match=r"is not in the folder of artefacts|is gone"):
            await it.download(checkpoint_uri=uri)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([fleet_pb2.UploadPart(data=b"abc", crc32=1)], "is damaged after byte 0"),
        (chunks(sha256="0" * 64), "another digest"),
        (chunks()[:-1], "another digest"),
        (chunks(DATA[:CHUNK]), f"ended after {CHUNK} of {len(DATA)} bytes"),
        (chunks(DATA + b"x"), f"beyond the announced {len(DATA)} bytes"),
    ],
)
async def test_of_a_damaged_upload_nothing_stays(tmp_path: Path, parts: list[Any], text: str) -> None:
    async with machine(tmp_path) as it:
        with pytest.raises(ProtocolViolationError, match=text):
            await it.upload(parts)
        with pytest.raises(ProtocolViolationError, match=text):
            await it.upload(parts, checkpoint_step=1)
        assert (it.stored(), it.saved()) == ([], [])


async def test_an_upload_that_outlives_its_attempt_is_refused(tmp_path: Path) -> None:
    async with machine(tmp_path) as it:
        requests: asyncio.Queue[fleet_pb2.UploadPart | None] = asyncio.Queue()

        async def parts() -> AsyncIterator[fleet_pb2.UploadPart]:
            while (part := await requests.get()) is not None:
                yield part

        call = it.stub.Upload(parts())
        requests.put_nowait(fleet_pb2.UploadPart(header=it.header(checkpoint_step=3)))
        for part in chunks()[:-1]:
            requests.put_nowait(part)
        await until(it.saved, 5, "the first chunks")
        failure = types_pb2.Failure(kind=types_pb2.FAILURE_KIND_USER, message="no")
        ended = fleet_pb2.AttemptEnded(key=key("t-1"), failure=failure)
        await it.agent.report(fleet_pb2.ReportItem(ended=ended))
        await it.client.until_ready("t-1.0")
        requests.put_nowait(chunks()[-1])
        requests.put_nowait(None)
        with pytest.raises(grpc.aio.AioRpcError) as info:
            await call
        assert "is not, or no longer, assigned" in str(info.value.details())
        assert it.saved() == []


async def test_what_an_attempt_uploaded_and_never_named_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coordinator_bulk, "SWEEP_S", 0.05)
    async with machine(tmp_path) as it:
        lost = (await it.upload(object_id="o-lost")).segment
        kept = (await it.upload()).segment
        await let_pass(0.2, "several sweeps")
        assert len(it.stored()) == 2  # the attempt runs: it may yet name them
        await it.end_with(kept)
        await until(lambda: not os.path.exists(lost.path), 5, "the end of what was not named")
        await let_pass(0.2, "several sweeps")
        assert it.stored() == [Path(kept.path).name]


async def test_what_would_eat_the_reserve_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with machine(tmp_path) as it:
        usage = namedtuple("usage", "total used free")
        reserve_bytes = 64 << 20
        monkeypatch.setattr(
            "runner.objects.file_chunks.shutil.disk_usage", lambda _path: usage(0, 0, reserve_bytes + len(DATA) - 1)
        )
        with pytest.raises(StoreFullError, match="has no room for the checkpoint of step 5 of t-1"):
            await it.upload(checkpoint_step=5)
        assert it.saved() == []
        monkeypatch.setattr(
            "runner.objects.file_chunks.shutil.disk_usage", lambda _path: usage(0, 0, reserve_bytes + len(DATA))
        )
        assert (await it.upload(checkpoint_step=5)).uri


# ---- the agent's end, over connections that break ----
@contextlib.asynccontextmanager
async def through_proxy(it: Machine) -> AsyncIterator[tuple[BulkClient, Proxy]]:
    agent = it.agent
    with Proxy(agent.reply.fleet_address) as proxy:
        channel = fleet_channel(proxy.address, agent.boot.ca_pem, agent.key_pem, agent.reply.certificate_pem)
        client = BulkClient(channel, proxy.address, Identity(agent.boot.machine_id, agent.reply.generation))
        try:
            yield client, proxy
        finally:
            await client.close()


LARGE = os.urandom(CHUNK) * 24


async def test_an_upload_that_is_cut_begins_anew(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    async with machine(tmp_path) as it, through_proxy(it) as (client, proxy):
        proxy.cut_after(10 * CHUNK)
        reply = await client.upload(("t-1", 1), str(source), len(LARGE), object_id="t-1.0")
        assert proxy.connections >= 2
        assert proxy.relayed_bytes > len(LARGE) + 9 * CHUNK
        assert Path(reply.segment.path).read_bytes() == LARGE
        await until(lambda: len(it.stored()) == 1, 5, "the coordinator to notice the end of the first try")


async def test_a_download_that_is_cut_goes_on_where_it_was(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(LARGE)
    async with machine(tmp_path) as it, through_proxy(it) as (client, proxy):
        uri = (await client.upload(("t-1", 1), str(source), len(LARGE), step=4)).uri
        await it.commit(uri, len(LARGE))
        before = proxy.relayed_bytes
        proxy.cut_after(16 * CHUNK)
        target = tmp_path / "target"
        await client.download(("t-1", 1), str(target), len(LARGE), uri=uri)
        assert target.read_bytes() == LARGE
        assert proxy.connections >= 2
        assert proxy.relayed_bytes - before < len(LARGE) + 12 * CHUNK


async def test_what_is_refused_is_not_tried_again(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    async with machine(tmp_path) as it, through_proxy(it) as (client, _):
        async with asyncio.timeout(5):
            with pytest.raises(UsageError, match="no longer, assigned"):
                await client.upload(("t-9", 1), str(source), len(DATA), object_id="o-1")
            with pytest.raises(ObjectLostError):
                await client.download(("t-1", 1), str(tmp_path / "target"), 5, object_id="o-none")
        assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["source"]
