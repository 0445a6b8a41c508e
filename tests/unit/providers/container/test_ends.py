"""The engine's events, from a server on a socket of the test."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from runner.providers.container import ends
from runner.providers.container.ends import EndWatch
from runner.providers.container.engine import Engine
from runner.rpc.security import Authority

WAIT_S = 5.0
OK = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n"
DIED = {"Type": "container", "Action": "die", "Actor": {"ID": "c-1", "Attributes": {"exitCode": "137"}}}
PODMAN_DIED = {"status": "die", "id": "c-2", "Actor": {"ID": "c-2", "Attributes": {"containerExitCode": 3}}}
OOM = {"Type": "container", "Action": "oom", "Actor": {"ID": "c-3"}}


class Server:
    """An engine that knows `GET /events`; says `pieces` to each who asks, and then waits for their end."""

    def __init__(self, *pieces: bytes, hangs_up: bool = False) -> None:
        self.pieces = pieces
        self.hangs_up = hangs_up
        self.requests: list[bytes] = []
        self.ended = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests.append(await reader.readuntil(b"\r\n\r\n"))
        for piece in self.pieces:
            writer.write(piece)
            await asyncio.sleep(0)
        if not self.hangs_up:
            await reader.read()
        writer.close()
        self.ended.set()


@asynccontextmanager
async def listening(server: Server, tmp_path: Path) -> AsyncIterator[Engine]:
    path = str(tmp_path / "engine.sock")
    listener = await asyncio.start_unix_server(server.serve, path)
    engine = Engine(f"unix://{path}")
    async with listener:
        yield engine
    engine.close()


class Watched:
    """An EndWatch and what it told."""

    def __init__(self, engine: Engine) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._changed = asyncio.Event()
        self.watch = EndWatch(engine, "runner.cluster=c", self._tells("died"), self._tells("oom"), self._tells("gap"))

    def _tells(self, kind: str) -> Callable[..., None]:
        def tell(*args: Any) -> None:
            self.told.append((kind, *args))
            self._changed.set()

        return tell

    async def until_told(self, *wanted: tuple[Any, ...]) -> None:
        async with asyncio.timeout(WAIT_S):
            while self.told != [*wanted]:
                self._changed.clear()
                await self._changed.wait()


def lines(*events: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(each).encode() + b"\n" for each in events)


@pytest.mark.parametrize("cut", [1, 20, 10_000])
async def test_ends_are_told_after_the_opening_however_they_are_cut(tmp_path: Path, cut: int) -> None:
    data = OK + lines(DIED, {"Action": "start"}, OOM, PODMAN_DIED)
    server = Server(*(data[start : start + cut] for start in range(0, len(data), cut)))
    async with listening(server, tmp_path) as engine:
        watched = Watched(engine)
        await watched.until_told(("gap",), ("died", "c-1", 137), ("oom", "c-3"), ("died", "c-2", 3))
        await watched.watch.close()
    assert b"runner.cluster%3Dc" in server.requests[0]


@pytest.mark.parametrize("pieces", [(), (OK[:20],), (OK,), (OK + b'{"half": ',)])
async def test_close_ends_it_wherever_it_waits(tmp_path: Path, pieces: tuple[bytes, ...]) -> None:
    """For an answer, within one, for an event, within one."""
    server = Server(*pieces)
    async with listening(server, tmp_path) as engine:
        watched = Watched(engine)
        async with asyncio.timeout(WAIT_S):
            while not server.requests:
                await asyncio.sleep(0)
            await watched.watch.close()
            await server.ended.wait()  # the connection is closed
            await watched.watch.close()


@pytest.mark.parametrize("turns", range(6))
async def test_close_ends_it_while_it_connects(tmp_path: Path, turns: int) -> None:
    """To one who never accepts. What would be left is seen by the check for leaks."""
    path = str(tmp_path / "engine.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(0)
        engine = Engine(f"unix://{path}")
        watched = Watched(engine)
        for _ in range(turns):
            await asyncio.sleep(0)
        async with asyncio.timeout(WAIT_S):
            await watched.watch.close()
        engine.close()
    assert watched.told == []


@pytest.mark.parametrize(
    "pieces", [(OK,), (b"HTTP/1.0 500 Internal Server Error\r\n\r\n",), (OK + b"no event\n",), (OK + b"x" * (2 << 20),)]
)
async def test_a_stream_that_breaks_is_opened_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(ends, "RETRY_S", 0.0)
    server = Server(*pieces, hangs_up=True)
    async with listening(server, tmp_path) as engine:
        watched = Watched(engine)
        async with asyncio.timeout(WAIT_S):
            while len(server.requests) < 3:
                await asyncio.sleep(0)
        await watched.watch.close()
    assert len(watched.told) >= 2
    assert set(watched.told) == {("gap",)}


async def test_an_engine_that_is_away_is_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ends, "RETRY_S", 0.0)
    engine = Engine(f"unix://{tmp_path}/nothing")
    watched = Watched(engine)
    async with asyncio.timeout(WAIT_S):
        while len(watched.told) < 2:
            await asyncio.sleep(0)
    await watched.watch.close()
    engine.close()


async def test_events_over_tls(tmp_path: Path) -> None:
    authority = Authority.create()
    key, certificate = authority.issue_server()
    for name, data in (("ca", authority.ca_pem), ("cert", certificate), ("key", key)):
        (tmp_path / f"{name}.pem").write_bytes(data)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server(OK + lines(DIED))
    async with await asyncio.start_server(server.serve, "127.0.0.1", 0, ssl=context) as listener:
        port = listener.sockets[0].getsockname()[1]
        engine = Engine(f"tcp://127.0.0.1:{port}", str(tmp_path))
        watched = Watched(engine)
        await watched.until_told(("gap",), ("died", "c-1", 137))
        await watched.watch.close()
        engine.close()
