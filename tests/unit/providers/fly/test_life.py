"""Machines after their boot: ends that are noticed once, suspend, stop, destroy, what is kept about them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId
from runner.providers.base import MachineState
from runner.providers.fly.provider import FlyProvider
from tests.unit.providers.fly.scripted import (
    CLUSTER,
    M1,
    OK,
    ONE,
    Answer,
    ScriptedFly,
    exit_event,
    machine,
    make_spec,
    refused,
)
from tests.unit.providers.fly.test_boot import CREATE, DELETE, GET, LIST, WAIT, with_provider

MISSING = refused(404, "machine not found")


@pytest.fixture
def fly() -> ScriptedFly:
    """One machine of ours runs."""
    fly = ScriptedFly().on(CREATE, Answer(200, machine("created"))).on(WAIT, Answer(200, OK))
    return fly.on(GET, Answer(200, machine())).on(LIST, Answer(200, [machine()])).on(DELETE, Answer(200, OK))


class Ends:
    def __init__(self, provider: FlyProvider) -> None:
        self.seen: list[tuple[MachineId, str]] = []
        provider.on_exit(lambda name, reason: self.seen.append((name, reason)))


def test_an_end_is_noticed_once_with_its_reason(fly: ScriptedFly, tmp_path: Path) -> None:
    gone = machine("destroyed", events=[exit_event(exit_code=1)])

    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        await asyncio.sleep(30)
        assert ends.seen == []
        fly.on(LIST, Answer(200, [])).on(GET, Answer(200, gone))
        await asyncio.sleep(60)
        assert ends.seen == [(M1, "its main process exited with code 1")]
        assert await provider.get(M1) is None
        assert "exited with code 1" in "\n".join(await provider.logs(M1))
        await provider.destroy(M1)
        assert len(ends.seen) == 1

    with_provider(fly, tmp_path, work)
    assert len(fly.calls(LIST)) <= 9  # one in five seconds while there is a machine, none after


def test_an_end_that_only_the_deleted_machines_tell(fly: ScriptedFly, tmp_path: Path) -> None:
    """1.2 list, include_deleted; 0.5: after destroy GET is 404."""

    def listed(request: httpx.Request) -> Answer:
        if "include_deleted" not in request.url.params:
            return Answer(200, [])
        return Answer(200, [machine("destroyed", events=[exit_event(guest_signal=9, exit_code=0)])])

    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        fly.on(LIST, listed).on(GET, MISSING)
        await asyncio.sleep(10)
        assert ends.seen == [(M1, "its main process was killed by signal 9 (SIGKILL)")]

    with_provider(fly, tmp_path, work)


def test_a_list_that_lags_is_no_end_and_an_end_without_a_trace_is_one(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.5: eventually consistent."""

    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        fly.on(LIST, Answer(200, []))
        await provider.create(make_spec())
        await asyncio.sleep(30)
        assert ends.seen == []  # GET shows it
        fly.on(GET, MISSING)
        await asyncio.sleep(30)
        assert ends.seen == [(M1, "the machine is gone; Fly keeps no event that says why")]

    with_provider(fly, tmp_path, work)


def test_a_machine_that_nobody_sees_yet_is_no_end(fly: ScriptedFly, tmp_path: Path) -> None:
    """0.5: get straight after create may 404."""
    fly.on(LIST, Answer(200, [])).on(GET, MISSING)

    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        await asyncio.sleep(5)
        fly.on(LIST, Answer(200, [machine()])).on(GET, Answer(200, machine()))
        await asyncio.sleep(60)
        assert ends.seen == []

    with_provider(fly, tmp_path, work, poll_s=1, lag_s=10)


def test_a_provider_that_is_down_is_no_end(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        fly.on(LIST, refused(503, "down")).on(GET, refused(503, "down"))
        await asyncio.sleep(300)
        assert ends.seen == []
        fly.on(LIST, Answer(200, [machine("stopped", events=[exit_event(oom_killed=True)])]))
        await asyncio.sleep(120)
        assert [name for name, _ in ends.seen] == [M1]

    with_provider(fly, tmp_path, work)


def test_a_machine_that_was_destroyed_is_no_end(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        await provider.destroy(M1)
        await provider.list(CLUSTER)  # it is still listed
        await asyncio.sleep(60)
        assert ends.seen == []
        assert await provider.list(CLUSTER) == ()
        assert "destroyed" in (await provider.logs(M1))[-1]

    with_provider(fly, tmp_path, work)
    assert [call.query for call in fly.calls(DELETE)] == [{"force": "true"}]
    assert fly.calls(WAIT)[-1].query["state"] == "destroyed"


def test_destroy_of_a_name_that_never_was(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        await asyncio.gather(*(provider.destroy(MachineId(f"never-{number}")) for number in range(64)))

    assert with_provider(fly, tmp_path, work, rates={}) < 5
    assert len(fly.calls(LIST)) <= 2  # they share the listing
    assert fly.calls(DELETE) == []


def test_an_orphan_is_destroyed_by_its_name(fly: ScriptedFly, tmp_path: Path) -> None:
    """A coordinator that was started again knows the name from the list."""

    async def work(provider: FlyProvider) -> None:
        await provider.destroy(M1)

    with_provider(fly, tmp_path, work)
    assert len(fly.calls(DELETE)) == 1


def test_a_destroy_that_fails_says_so_and_may_be_repeated(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        fly.on(DELETE, refused(500, "flyd is down"))
        with pytest.raises(ProviderError, match="flyd is down") as caught:
            await provider.destroy(M1)
        assert (caught.value.phase, caught.value.is_permanent) == ("destroy", False)
        fly.on(DELETE, Answer(200, OK))
        await provider.destroy(M1)
        await provider.destroy(M1)

    with_provider(fly, tmp_path, work)


def test_machines_of_an_earlier_coordinator_are_watched(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        (found,) = await provider.list(CLUSTER)
        assert (found.name, found.state) == (M1, MachineState.RUNNING)
        fly.on(LIST, Answer(200, [])).on(GET, Answer(200, machine("destroyed", events=[exit_event(exit_code=3)])))
        await asyncio.sleep(30)
        assert [name for name, _ in ends.seen] == [M1]

    with_provider(fly, tmp_path, work)


def test_another_clusters_machines_are_listed_by_their_tag(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        assert await provider.list(ClusterId("c-other")) == ()

    with_provider(fly, tmp_path, work)
    assert fly.calls(LIST)[0].query == {"metadata.runner_cluster": "c-other"}


def test_capabilities(fly: ScriptedFly, tmp_path: Path) -> None:
    async def small(provider: FlyProvider) -> None:
        can = provider.capabilities()
        assert (can.suspend, can.suspend_reason, can.is_remote, can.gpu_kinds, can.gpus_total) == (
            True,
            "",
            True,
            (),
            0,
        )
        assert can.regions == ("iad",)

    async def large(provider: FlyProvider) -> None:
        can = provider.capabilities()
        assert not can.suspend
        assert "2048 MB" in can.suspend_reason

    with_provider(fly, tmp_path, small, regions="iad")
    with_provider(fly, tmp_path, large, sizes=["performance-2x", "performance-4x"])


@pytest.mark.parametrize("end", ["stopped", "destroyed", "gone"])
def test_a_stop_ends_in_stopped_or_with_auto_destroy_in_nothing(end: str, fly: ScriptedFly, tmp_path: Path) -> None:
    """1.2 wait: stopped needs instance_id; 1.5: auto_destroy -> destroyed, then 404."""
    fly.on(f"POST {ONE}/stop", Answer(200, OK))

    async def work(provider: FlyProvider) -> None:
        ends = Ends(provider)
        await provider.create(make_spec())
        if end == "destroyed":
            fly.on(WAIT, refused(408, "currently destroyed", after_s=5))
            fly.on(GET, Answer(200, machine()), Answer(200, machine("destroyed")))
        elif end == "gone":
            fly.on(WAIT, MISSING)
        await provider.stop(M1)
        fly.on(LIST, Answer(200, []))
        await asyncio.sleep(60)
        assert ends.seen == []

    with_provider(fly, tmp_path, work)
    asked = fly.calls(WAIT)[1].query
    assert (asked["state"], asked["instance_id"]) == ("stopped", machine()["instance_id"])


def test_start_of_what_is_gone(fly: ScriptedFly, tmp_path: Path) -> None:
    async def work(provider: FlyProvider) -> None:
        fly.on(LIST, Answer(200, []))
        with pytest.raises(ProviderError, match="no machine has this name") as caught:
            await provider.start(M1)
        assert (caught.value.phase, caught.value.machine_id) == ("start", "m-1")

    with_provider(fly, tmp_path, work)


def test_logs_are_the_last_fifty_lines_and_survive(fly: ScriptedFly, tmp_path: Path) -> None:
    events = [{"id": str(at), "type": "start", "status": f"try {at}", "timestamp": 1000 * at} for at in range(80)]
    fly.on(GET, Answer(200, machine(events=events)))

    async def work(provider: FlyProvider) -> None:
        await provider.create(make_spec())
        first = await provider.logs(M1)
        assert len(first) == 50
        assert "try 79" in first[-1]
        assert await provider.logs(M1) == first  # an event is noted once
        assert await provider.logs(MachineId("never-was")) == ()

    with_provider(fly, tmp_path, work)
