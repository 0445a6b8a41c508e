"""The lane of a client's session: used on the coordinator's host, opened again when it breaks, done without otherwise."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.client import context
from runner.client.grpc_transport import GrpcTransport
from runner.client.lane import ClientLane
from runner.rpc import lanes
from tests.integration.client.serving import serving
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    with serving(tmp_path_factory.mktemp("home")) as found:
        yield found


def connect(coordinator: tuple[str, str, Path]) -> Any:
    address, token, ca = coordinator
    return runner.init(address, token=token, ca=ca, log_to_driver=False)


def current_lane() -> ClientLane | None:
    transport = context.current_session().transport
    assert isinstance(transport, GrpcTransport)
    return transport._lane


def test_calls_survive_broken_lanes(coordinator: tuple[str, str, Path]) -> None:
    double = runner.remote(lambda x: 2 * x)
    with connect(coordinator):
        refs: list[Any] = []
        for _ in range(5):
            refs += [double.remote(len(refs) + index) for index in range(100)]
            lane = current_lane()
            if lane is not None:
                with contextlib.suppress(OSError):  # it has just ended by itself
                    lane._sock.shutdown(socket.SHUT_RDWR)
        assert runner.get(refs, timeout=60) == [2 * index for index in range(500)]
        wait_until(lambda: current_lane() is not None, 10, "a new lane")
        assert current_lane() is not lane


def test_threads_and_callbacks_share_a_lane(coordinator: tuple[str, str, Path]) -> None:
    double = runner.remote(lambda x: 2 * x)
    with connect(coordinator):
        got: list[int] = []

        def calls(first: int) -> None:
            got.extend(runner.get(double.remote(first + index)) for index in range(50))

        threads = [threading.Thread(target=calls, args=(1000 * number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        futures = [double.remote(index).future() for index in range(50)]
        assert [future.result(30) for future in futures] == [2 * index for index in range(50)]
        for thread in threads:
            thread.join()
        assert sorted(got) == sorted(2 * (1000 * number + index) for number in range(4) for index in range(50))


def test_a_client_that_cannot_reach_the_lane_does_without(
    coordinator: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lanes, "connect", lambda _offer: None)
    with connect(coordinator):
        assert current_lane() is None
        assert runner.get(runner.remote(lambda: "by gRPC").remote(), timeout=30) == "by gRPC"
