"""QEMU's control protocol: JSON objects, one a line, over a Unix socket (docs/interop/qmp-spec.txt in QEMU)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

_MESSAGE_BYTES_MAX = 1 << 20
_ANSWER_S = 30.0


class QmpError(Exception):
    """A command was refused, or nobody answers any more; says what was seen."""


class Qmp:
    """One conversation; commands go one after the other. QEMU talks with one client at a time."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._unread = b""

    async def execute(self, command: str, *, answer_s: float = _ANSWER_S, **arguments: Any) -> Any:
        """Have a command carried out; its result.

        Raises:
            QmpError: it was refused, or the answer did not come in time.
        """
        await self._send(command, arguments)
        return await self._answer(command, answer_s)

    async def give(self, name: str, fd: int) -> None:
        """Lend a descriptor to QEMU, which calls it `fd:NAME`.

        Raises:
            QmpError: it does not take it.
        """
        message = _message("getfd", {"fdname": name})
        try:
            # One small message into an empty buffer: it is never taken in part.
            socket.send_fds(self._link, [message], [fd])
        except OSError as error:
            raise _gone(error) from None
        await self._answer("getfd", _ANSWER_S)

    async def greet(self) -> None:
        """Read the greeting and answer it; first of all.

        Raises:
            QmpError: this is no QEMU, or it does not answer.
        """
        async with _limit("the greeting", _ANSWER_S):
            if "QMP" not in await self._read():
                raise QmpError("its control socket did not greet as QEMU does")
        await self.execute("qmp_capabilities")

    async def _send(self, command: str, arguments: dict[str, Any]) -> None:
        try:
            await self._loop.sock_sendall(self._link, _message(command, arguments))
        except OSError as error:
            raise _gone(error) from None

    async def _answer(self, command: str, answer_s: float) -> Any:
        async with _limit(command, answer_s):
            while True:
                said = await self._read()
                if "error" in said:
                    raise QmpError(f"{command}: {said['error'].get('desc', said['error'])}")
                if "return" in said:
                    return said["return"]
                # Else an event: whoever waits for something asks for it.

    async def _read(self) -> dict[str, Any]:
        while b"\n" not in self._unread:
            try:
                chunk = await self._loop.sock_recv(self._link, 1 << 16)
            except OSError as error:
                raise _gone(error) from None
            if not chunk or len(self._unread) > _MESSAGE_BYTES_MAX:
                raise QmpError("QEMU closed its control socket")
            self._unread += chunk
        line, _, self._unread = self._unread.partition(b"\n")
        said: dict[str, Any] = json.loads(line)
        return said


@contextlib.asynccontextmanager
async def connected(path: Path) -> AsyncIterator[Qmp]:
    """A conversation with the QEMU that listens at `path`, however long the path.

    Raises:
        QmpError: nobody listens, or it is no QEMU.
    """
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        await _connect(link, path)
        qmp = Qmp(link)
        await qmp.greet()
        yield qmp
    finally:
        link.close()


async def _connect(link: socket.socket, path: Path) -> None:
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise _gone(error) from None
    try:
        # An address has 107 bytes at most, and state directories may lie deep.
        await asyncio.get_running_loop().sock_connect(link, f"/proc/self/fd/{folder}/{path.name}")
    except OSError as error:
        raise _gone(error) from None
    finally:
        os.close(folder)


def _message(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n"


@contextlib.asynccontextmanager
async def _limit(what: str, limit_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(limit_s):
            yield
    except TimeoutError:
        raise QmpError(f"{what}: QEMU did not answer within {limit_s:g} s") from None


def _gone(error: OSError) -> QmpError:
    return QmpError(f"QEMU does not answer on its control socket: {error.strerror or error}")
