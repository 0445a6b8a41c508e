"""Lanes: who may connect, what their bytes hold, and messages that the other end is slow to read."""

from __future__ import annotations

import asyncio
import os
import socket

import msgpack
import pytest

from runner.errors import ProtocolViolationError
from runner.rpc import lanes
from runner.rpc.gen import types_pb2
from runner.rpc.lanes import LaneDecoder, LaneServer, connect, pack
from runner.rpc.link import Link
from tests.integration.helpers import until

pytestmark = pytest.mark.asyncio


async def test_an_offer_is_good_for_one_connection() -> None:
    server = LaneServer()
    server.start()
    try:
        offer = server.offer()
        assert offer is not None
        first, second = connect(offer), connect(offer)
        assert first is not None
        assert second is not None
        accepted = await server.taken(offer)
        accepted.sendall(b"x")
        with first, second, accepted:
            ends = [await asyncio.to_thread(_read, each) for each in (first, second)]
        assert sorted(ends) == [b"", b"x"]
    finally:
        server.close()


async def test_who_does_not_know_the_secret_is_cut_off() -> None:
    server = LaneServer()
    server.start()
    try:
        offer = server.offer()
        assert offer is not None
        sock = connect(types_pb2.Lane(address=offer.address, secret=bytes(lanes.SECRET_BYTES)))
        assert sock is not None
        with sock:
            assert await asyncio.to_thread(_read, sock) == b""
    finally:
        server.close()


async def test_an_offer_that_nobody_takes_up_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "OFFER_S", 0.05)
    server = LaneServer()
    assert server.offer() is None, "nobody listens yet"
    server.start()
    offer = server.offer()
    assert offer is not None
    with pytest.raises(ProtocolViolationError, match=r"within 0\.05 s; connect again"):
        await server.taken(offer)
    assert not server._offers
    server.close()
    assert connect(offer) is None
    assert server.offer() is None


async def test_an_offer_for_which_nobody_waits_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "OFFER_S", 0.05)
    server = LaneServer()
    server.start()
    try:
        offer = server.offer()
        assert offer is not None
        sock = connect(offer)
        assert sock is not None
        with sock:
            assert await asyncio.to_thread(_read, sock) == b""
        assert not server._offers
        with pytest.raises(ProtocolViolationError, match="was not told to its peer"):
            await server.taken(offer)
    finally:
        server.close()


async def test_another_user_who_has_taken_the_name_is_told_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    server = LaneServer()
    server.start()
    user = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    try:
        offer = server.offer()
        assert offer is not None
        assert connect(offer) is None
    finally:
        server.close()


async def test_a_connection_that_says_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "OFFER_S", 0.05)
    server = LaneServer()
    server.start()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(f"\0{server._address}")
        await until(lambda: server._waiting, 5, "the connection")
        await until(lambda: not server._waiting, 5, "its end")
        assert _read(sock) == b""
    server.close()


async def test_messages_come_out_whole_and_in_order() -> None:
    decoder = LaneDecoder()
    data = b"".join(pack(bytes([number]) * number * 100) for number in range(10))
    got = [message for index in range(0, len(data), 7) for message in decoder.feed(data[index : index + 7])]
    assert got == [bytes([number]) * number * 100 for number in range(10)]


@pytest.mark.parametrize("data", [b"\xc1", msgpack.packb(5), msgpack.packb("text"), msgpack.packb([b"x"])])
async def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolViolationError, match="lane"):
        LaneDecoder().feed(data)


async def test_what_does_not_fit_into_the_socket_follows_in_order() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    loop = asyncio.get_running_loop()
    got: list[bytes] = []
    drained: list[bool] = []
    sender = Link(loop, ours, LaneDecoder(), lambda _: None, lambda _: None)
    sender.on_drained = lambda: drained.append(sender.is_clogged)
    messages = [bytes([number]) * 300_000 for number in range(10)]
    for message in messages:
        sender.send(pack(message))
    assert sender.is_clogged
    reader = Link(loop, theirs, LaneDecoder(), got.extend, lambda _: None)
    await until(lambda: len(got) == 10, 10, "all messages")
    assert got == messages
    assert drained[-1:] == [False]
    sender.close()
    reader.close()


def _read(sock: socket.socket) -> bytes:
    sock.settimeout(5)
    try:
        return sock.recv(1)
    except ConnectionResetError:  # closed with something unread
        return b""
