"""Connections that break: nothing that was called, reported or printed is lost or told twice."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.client import context
from runner.errors import ClusterError, CoordinatorUnreachableError
from tests.integration.client.proxy import Proxy
from tests.integration.client.serving import serving
from tests.integration.helpers import pause

pytestmark = pytest.mark.timeout(90)


@pytest.fixture(scope="module")
def coordinator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    with serving(tmp_path_factory.mktemp("home")) as found:
        yield found


@pytest.fixture
def proxy(coordinator: tuple[str, str, Path]) -> Iterator[Proxy]:
    address, token, ca = coordinator
    with Proxy(address) as proxy:
        with runner.init(proxy.address, token=token, ca=ca, lost_after_s=20):
            yield proxy


def test_calls_survive_cuts(proxy: Proxy) -> None:
    double = runner.remote(lambda x: 2 * x)
    refs: list[Any] = []
    for round_number in range(5):
        refs += [double.remote(len(refs) + index) for index in range(100)]
        if round_number % 2:
            proxy.cut()
    assert runner.get(refs, timeout=60) == [2 * index for index in range(500)]
    assert proxy.connections > 1


@pytest.mark.long
def test_a_session_outlives_a_pause_shorter_than_its_limit(proxy: Proxy) -> None:
    @runner.remote
    def rest() -> str:
        time.sleep(1)
        return "done"

    slow = rest.remote()
    assert context.current_session().flush(10)
    proxy.refuses = True
    proxy.cut()
    more = runner.remote(lambda: "submitted meanwhile").remote()
    pause(1.5, "the outage, longer than the task")
    proxy.refuses = False
    assert runner.get([slow, more], timeout=30) == ["done", "submitted meanwhile"]


def test_a_stream_has_no_gap_and_no_repeat(proxy: Proxy, capsys: pytest.CaptureFixture[str]) -> None:
    def train() -> None:
        for step in range(60):
            runner.report({"step": step}, step=step)
            print("line", step)
            time.sleep(0.02)

    refs = [runner.remote(train).options(name=f"r{index}").remote() for index in range(2)]
    stopping = threading.Event()

    def cut_often() -> None:
        while not stopping.wait(0.3):
            proxy.cut()

    cutter = threading.Thread(target=cut_often)
    cutter.start()
    try:
        events = list(runner.stream(refs))
    finally:
        stopping.set()
        cutter.join()
    for index in range(2):
        mine = [event for event in events if event.name == f"r{index}"]
        assert [event.step for event in mine if event.kind == "metrics"] == list(range(60))
        assert [event.text for event in mine if event.kind == "log"] == [f"line {step}" for step in range(60)]
        assert sum(event.is_settled for event in mine) == 1
    runner.shutdown()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("(r0)")]
    assert printed == [f"(r0) line {step}" for step in range(60)]


def test_a_coordinator_that_stays_away_is_told_in_time(coordinator: tuple[str, str, Path]) -> None:
    address, token, ca = coordinator
    with Proxy(address) as proxy, runner.init(proxy.address, token=token, ca=ca, lost_after_s=1, log_to_driver=False):
        ref = runner.remote(lambda: time.sleep(100)).remote()
        assert context.current_session().flush(10)
        proxy.refuses = True
        proxy.cut()
        started = time.monotonic()
        with pytest.raises(CoordinatorUnreachableError, match="for 1 s"):
            runner.get(ref)
        assert time.monotonic() - started < 6
        assert not runner.is_initialized()


@pytest.mark.long
def test_a_session_whose_lease_ended_says_so(tmp_path: Path) -> None:
    with serving(tmp_path, client_lost_after_s=0.5) as (address, token, ca), Proxy(address) as proxy:
        with runner.init(proxy.address, token=token, ca=ca, lost_after_s=60, log_to_driver=False):
            ref = runner.remote(lambda: time.sleep(100)).remote()
            assert context.current_session().flush(10)
            proxy.refuses = True
            proxy.cut()
            pause(2, "the lease of the session")
            proxy.refuses = False
            with pytest.raises(ClusterError, match=r"lease of this session ended.*init\(\) again"):
                runner.get(ref, timeout=30)
            assert not runner.is_initialized()
        with runner.init(proxy.address, token=token, ca=ca, log_to_driver=False):
            assert runner.get(runner.remote(lambda: 1).remote(), timeout=30) == 1


def test_large_values_go_on_where_the_connection_was_cut(
    coordinator: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from runner.rpc import version

    address, token, ca = coordinator
    monkeypatch.setattr(version, "host_id", lambda: "another-host")
    with Proxy(address) as proxy, runner.init(proxy.address, token=token, ca=ca, log_to_driver=False):
        value = os.urandom(1_000_000) * 32
        proxy.cut_after(20_000_000)
        ref = runner.put(value)
        assert proxy.connections == 2
        assert runner.get(runner.remote(len).remote(ref), timeout=30) == len(value)
        before_bytes = proxy.relayed_bytes
        proxy.cut_after(24_000_000)
        assert runner.get(ref) == value
        assert proxy.connections == 3
        # Where it was, not from the start: that would be 24 MB more.
        assert proxy.relayed_bytes - before_bytes < 44_000_000


def test_another_host_uploads_and_fetches(coordinator: tuple[str, str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that cannot map the cluster's memory: large values go through the connection, in chunks."""
    numpy = pytest.importorskip("numpy")
    from runner.rpc import version

    address, token, ca = coordinator
    monkeypatch.setattr(version, "host_id", lambda: "another-host")
    with runner.init(address, token=token, ca=ca, log_to_driver=False):
        values = numpy.arange(1_000_000)
        ref = runner.put(values)
        doubled = runner.remote(lambda array: array * 2).remote(ref)
        assert (runner.get(doubled, timeout=30) == 2 * values).all()
        assert (runner.get(ref) == values).all()
        assert (runner.get(runner.remote(lambda a: a + 1).remote(values), timeout=30) == values + 1).all()


def test_a_generator_has_no_gap_and_no_repeat(proxy: Proxy) -> None:
    @runner.remote
    def count() -> Iterator[int]:
        for index in range(300):
            yield index
            time.sleep(0.005)

    items: Any = count.remote()
    seen = []
    for ref in items:
        seen.append(runner.get(ref, timeout=30))
        if len(seen) % 60 == 0:
            proxy.cut()
    assert seen == list(range(300))
    assert proxy.connections > 3
