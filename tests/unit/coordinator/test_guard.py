"""What the guard of a killed coordinator does with the machines that are left."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runner.coordinator.guard import Charge, Guard, _await_end, destroy_all
from runner.core.values import CPU, UNIT, make_shape
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, MachineSpec, ProviderMachine
from runner.providers.fake import FakeProvider
from runner.testing import FakeClock

OURS, OTHERS = ClusterId("ours"), ClusterId("others")


def spec(name: str, cluster: ClusterId = OURS) -> MachineSpec:
    boot = BootConfig("127.0.0.1:9", b"", "token", MachineId(name), cluster)
    return MachineSpec(cluster, MachineId(name), make_shape({CPU: UNIT}), boot)


def test_what_carries_the_tag_goes_also_what_turns_up_late_and_nothing_else():
    clock = FakeClock()
    provider = FakeProvider(clock)

    async def scene() -> None:
        for name in ("m-1", "m-2"):
            provider.put_orphan(spec(name))
        provider.put_orphan(spec("m-3", OTHERS))
        await destroy_all(provider, OURS)

    class Late(FakeProvider):
        async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
            if 15 < clock.monotonic_s() - 1000.0 < 18:
                self.put_orphan(spec("m-4"))  # a create that was on its way
            return await FakeProvider.list(self, cluster_id)

    provider = Late(clock)
    clock.run(scene())
    assert [machine.record.name for machine in provider._machines.values()] == ["m-3"]


def test_a_provider_that_does_not_answer_is_asked_again():
    clock = FakeClock()
    failures = iter(range(20))

    class Down(FakeProvider):
        async def list(self, cluster_id: ClusterId) -> tuple[ProviderMachine, ...]:
            if next(failures, None) is not None:
                raise ProviderError("connection refused")
            return await FakeProvider.list(self, cluster_id)

    provider = Down(clock)
    provider.put_orphan(spec("m-1"))
    clock.run(destroy_all(provider, OURS))
    assert provider._machines == {}


def test_it_gives_up_after_ten_minutes():
    clock = FakeClock()

    class Stuck(FakeProvider):
        async def destroy(self, name: MachineId) -> None:
            raise ProviderError("no")

    provider = Stuck(clock)
    provider.put_orphan(spec("m-1"))
    with pytest.raises(TimeoutError):
        clock.run(destroy_all(provider, OURS))
    assert 600 <= clock.monotonic_s() - 1000.0 < 610


@pytest.mark.parametrize(("said", "in_order"), [(b"done", True), (b"", False), (b"do", False)])
def test_an_end_in_order_is_told_from_any_other(said: bytes, in_order: bool):
    read_fd, write_fd = os.pipe()
    os.write(write_fd, said)
    os.close(write_fd)
    assert _await_end(read_fd) is in_order
    os.close(read_fd)


def test_its_charge_shows_no_secret():
    charge = Charge("fly", "c", "/logs", "/store", "/artefacts", "host", {"token": "secret"})
    assert "secret" not in repr(charge)
    packed: dict[str, Any] = charge.to_dict()
    assert Charge(**packed) == charge


def test_a_guard_that_was_killed_does_not_fail_an_end_in_order(tmp_path: Path):
    charge = Charge("fake", "c", str(tmp_path), "", "", "host")
    guard = Guard.start(charge)
    guard._process.kill()
    guard._process.wait()
    guard.release(all_gone=True)


def test_a_guard_that_cannot_begin_says_so_in_its_log(tmp_path: Path):
    guard = Guard.start(Charge("nobody", "c", str(tmp_path), "", "", "host"))
    guard.release(all_gone=False)
    assert guard._process.wait(20) == 1
    assert "machines of cluster c may be left" in (tmp_path / "guard.log").read_text()
