"""The client of QEMU's control protocol, against a socket that speaks it."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from runner.providers.qemu.qmp import QmpError, connected

GREETING = {"QMP": {"version": {"qemu": {"major": 7}}, "capabilities": []}}


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """A peer that greets and answers each command with what `answer(command)` gives: messages, or None to hang up."""
    servers: list[asyncio.Server] = []

    async def start(answer: Callable[[dict[str, Any]], list[Any] | None], greeting: Any = GREETING) -> Path:
        # Deeper than an address of a Unix socket may be long.
        folder = tmp_path / ("deep" * 30)
        folder.mkdir()
        here = os.open(folder, os.O_PATH)

        async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(json.dumps(greeting).encode() + b"\r\n")
            while line := await reader.readline():
                said = json.loads(line)
                messages = [{"return": {}}] if said["execute"] == "qmp_capabilities" else answer(said)
                if messages is None:
                    break
                for message in messages:
                    writer.write(json.dumps(message).encode() + b"\r\n")
            writer.close()

        servers.append(await asyncio.start_unix_server(talk, f"/proc/self/fd/{here}/control"))
        os.close(here)
        return folder / "control"

    yield start
    for server in servers:
        server.close()
        await server.wait_closed()


async def test_events_between_a_command_and_its_answer_are_passed_over(serve) -> None:
    path = await serve(lambda said: [{"event": "STOP"}, {"return": {"asked": said["execute"], **said["arguments"]}}])
    async with connected(path) as qmp:
        assert await qmp.execute("query-status", verbose=True) == {"asked": "query-status", "verbose": True}
        assert await qmp.execute("cont") == {"asked": "cont"}


async def test_a_refusal_says_which_command_and_why(serve) -> None:
    path = await serve(lambda _: [{"error": {"class": "GenericError", "desc": "there is a migration process"}}])
    async with connected(path) as qmp:
        with pytest.raises(QmpError, match="migrate: there is a migration process"):
            await qmp.execute("migrate", uri="fd:memory")


async def test_one_that_hangs_up_or_says_nothing_is_an_error(serve) -> None:
    path = await serve(lambda said: None if said["execute"] == "quit" else [])
    async with connected(path) as qmp:
        with pytest.raises(QmpError, match=r"query-status: QEMU did not answer within 0\.05 s"):
            await qmp.execute("query-status", answer_s=0.05)
        with pytest.raises(QmpError, match="QEMU closed its control socket"):
            await qmp.execute("quit")


async def test_something_else_that_listens_there(serve) -> None:
    path = await serve(lambda _: [], greeting={"hello": "world"})
    with pytest.raises(QmpError, match="did not greet as QEMU does"):
        async with connected(path):
            pass


async def test_nobody_listens(tmp_path: Path) -> None:
    for path in (tmp_path / "control", tmp_path / "absent" / "control"):
        with pytest.raises(QmpError, match="does not answer on its control socket: No such file"):
            async with connected(path):
                pass


async def test_a_descriptor_goes_along(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "control"))
    listener.listen()

    def talk() -> bytes:
        link, _ = listener.accept()
        with link:
            link.sendall(json.dumps(GREETING).encode() + b"\n")
            link.recv(1 << 12)
            link.sendall(b'{"return": {}}\n')
            message, fds, _, _ = socket.recv_fds(link, 1 << 12, 1)
            os.write(fds[0], message)
            os.close(fds[0])
            link.sendall(b'{"return": {}}\n')
            return message

    talking = asyncio.create_task(asyncio.to_thread(talk))
    read_fd, write_fd = os.pipe()
    async with connected(tmp_path / "control") as qmp:
        await qmp.give("memory", write_fd)
    os.close(write_fd)
    assert os.read(read_fd, 1 << 12) == await talking
    os.close(read_fd)
    listener.close()
    assert json.loads(talking.result()) == {"execute": "getfd", "arguments": {"fdname": "memory"}}
