"""Local machines that stand still: nothing of them runs, the same goes on, and they end with whoever froze them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId, random_id
from runner.providers import freezing
from runner.providers.base import MachineState
from runner.providers.local import LocalProvider
from runner.providers.process_tag import Process, find_tagged
from tests.contract.providers.harness import Exits, groups_left, make_spec, stands_still
from tests.contract.providers.scripted import LEAVES_CHILDREN, ScriptForker
from tests.integration.helpers import let_pass, until, wait_until

M1 = MachineId("m-1")
BUSY = """
for kwargs in ({}, {"start_new_session": True}):
    child = subprocess.Popen([sys.executable, "-c", "print('child', flush=True)\\nwhile True: pass"], stdout=subprocess.PIPE, **kwargs)
    child.stdout.readline()
print('deaf', flush=True)
signal.sigwait([signal.SIGTERM])
"""
FORKS = """
import time
print('deaf', flush=True)
def go_on():
    while os.fork():
        os.waitpid(-1, os.WNOHANG)
        signal.sigtimedwait([], 0.002)
    signal.sigtimedwait([], 0.05)
    os._exit(0)
go_on()
"""
BY = pytest.mark.parametrize("by_group", [True, False], ids=["by group", "by signals"])


@pytest.fixture
def cluster() -> ClusterId:
    return ClusterId(random_id("c"))


@pytest.fixture
def forker() -> ScriptForker:
    return ScriptForker()


@pytest.fixture
async def make(cluster: ClusterId, forker: ScriptForker, tmp_path: Path) -> AsyncIterator[Callable[..., LocalProvider]]:
    made: list[LocalProvider] = []

    def one(by_group: bool) -> LocalProvider:
        made.append(
            LocalProvider(
                forker,
                cluster_id=cluster,
                log_dir=tmp_path / "logs",
                gpus=(),
                term_grace_s=0.05,
                freezes_by_group=by_group,
            )
        )
        return made[-1]

    yield one
    for each in made:
        await each.close()
    assert find_tagged(cluster) == []
    assert groups_left(cluster) == []


def ticks(pids: list[int]) -> int:
    """CPU time of these processes so far."""
    return sum(sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])) for pid in pids)


@BY
async def test_a_frozen_machine_takes_no_cpu_also_in_other_sessions(by_group, cluster, forker, make) -> None:
    forker.script = BUSY
    provider = make(by_group)
    await provider.create(make_spec(cluster, M1))
    pids = [each.process.pid for each in find_tagged(cluster)]
    assert len(pids) == 3
    await provider.suspend(M1)
    before = ticks(pids)
    await let_pass(0.2, "what ran would have taken some of it")
    assert ticks(pids) == before
    await provider.start(M1)
    await until(lambda: ticks(pids) > before, 10, "the machine takes CPU time again")
    assert sorted(each.process.pid for each in find_tagged(cluster)) == sorted(pids)


@BY
async def test_a_machine_that_forks_all_the_time_stands_still_whole(by_group, cluster, forker, make) -> None:
    forker.script = FORKS
    provider = make(by_group)
    await provider.create(make_spec(cluster, M1))
    for _ in range(5):
        await provider.suspend(M1)
        assert [each for each in find_tagged(cluster) if not stands_still(each.process)] == []
        await provider.start(M1)


async def test_machines_that_are_frozen_side_by_side_do_not_sweep_each_others_groups(cluster, forker, make) -> None:
    forker.script = LEAVES_CHILDREN
    provider = make(True)
    names = [MachineId(f"m-{number}") for number in range(4)]
    await asyncio.gather(*[provider.create(make_spec(cluster, name)) for name in names])
    await asyncio.gather(*[provider.suspend(name) for name in names])
    how = {line.partition("is frozen by ")[2] for name in names for line in await provider.logs(name)} - {""}
    assert len(how) == 1  # SIGSTOP for some would say that their groups went away


def test_a_later_process_with_the_pid_of_one_that_ended_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "cgroup.procs").touch()
    ended = Process(os.getpid(), start_ticks=1, session=os.getpid(), state="S")
    freezing._enter(tmp_path, ended)
    assert (tmp_path / "cgroup.procs").read_text() == ""


@BY
async def test_a_frozen_machine_that_is_killed_from_outside_is_an_exit(by_group, cluster, forker, make) -> None:
    provider = make(by_group)
    exits = Exits(provider)
    await provider.create(make_spec(cluster, M1))
    await provider.suspend(M1)
    os.kill(forker.children[M1].pid, signal.SIGKILL)
    assert (await exits.first())[0] == M1
    await until(lambda: groups_left(cluster) == [], 10, "its control group is removed")


@BY
async def test_close_ends_what_is_frozen(by_group, cluster, forker, make) -> None:
    forker.script = LEAVES_CHILDREN
    provider = make(by_group)
    await provider.create(make_spec(cluster, M1))
    await provider.suspend(M1)
    await provider.close()
    assert find_tagged(cluster) == []
    assert groups_left(cluster) == []


@BY
async def test_a_machine_that_an_earlier_coordinator_froze_is_known_resumed_and_destroyed(
    by_group, cluster, forker, make
) -> None:
    forker.script = LEAVES_CHILDREN
    first = make(by_group)
    made = await first.create(make_spec(cluster, M1))
    await first.suspend(M1)
    later = make(by_group)
    (seen,) = await later.list(cluster)
    assert (seen.state, seen.provider_machine_id) == (MachineState.SUSPENDED, made.provider_machine_id)
    await later.suspend(M1)
    await later.start(M1)
    assert [each for each in find_tagged(cluster) if stands_still(each.process)] == []
    assert [each.state for each in await later.list(cluster)] == [MachineState.RUNNING]
    await later.suspend(M1)
    await make(by_group).destroy(M1)
    assert find_tagged(cluster) == []


@BY
async def test_what_the_user_has_stopped_stays_stopped(by_group, cluster, forker, make) -> None:
    forker.script = LEAVES_CHILDREN
    provider = make(by_group)
    await provider.create(make_spec(cluster, M1))
    child = next(each.process for each in find_tagged(cluster) if not each.process.is_session_leader)
    os.kill(child.pid, signal.SIGSTOP)
    await provider.start(M1)  # it runs: nothing to do
    await provider.suspend(M1)
    await provider.start(M1)
    assert [each.process.pid for each in find_tagged(cluster) if each.process.state == "T"] == [child.pid]


@BY
async def test_a_machine_whose_agent_somebody_stopped_is_not_taken_for_frozen(by_group, cluster, forker, make) -> None:
    forker.script = BUSY
    provider = make(by_group)
    await provider.create(make_spec(cluster, M1))
    os.kill(forker.children[M1].pid, signal.SIGSTOP)
    await provider.suspend(M1)
    assert [each for each in find_tagged(cluster) if not stands_still(each.process)] == []


@pytest.mark.parametrize("has", ["no group", "no right", "no freezer"])
async def test_without_a_freezer_signals_do(has, cluster, forker, make, monkeypatch, tmp_path) -> None:
    """On hosts with control groups of version 1, in containers whose groups cannot be written, and before Linux 5.2."""
    root = {"no group": None, "no right": Path("/proc/sys"), "no freezer": tmp_path}[has]
    monkeypatch.setattr(freezing, "_root", lambda: root)
    monkeypatch.setattr(freezing, "_group_of", lambda pid: root)
    provider = make(True)
    await provider.create(make_spec(cluster, M1))
    await provider.suspend(M1)
    assert [each.process.state for each in find_tagged(cluster)] == ["T"]
    assert "is frozen by SIGSTOP" in "\n".join(await provider.logs(M1))
    await provider.start(M1)
    assert [each for each in find_tagged(cluster) if stands_still(each.process)] == []
    assert list(tmp_path.glob("runner-frozen-*")) == []


async def test_what_does_not_stand_still_in_time_goes_on(cluster, forker, make, monkeypatch) -> None:
    provider = make(False)
    await provider.create(make_spec(cluster, M1))
    provider._freezer._within_s = 0.02
    process = find_tagged(cluster)[0].process

    async def members(*_: object) -> tuple[Process, ...]:
        return (replace(process, state="D"),)  # as one that waits for a disk

    monkeypatch.setattr(provider._reaper, "members", members)
    with pytest.raises(ProviderError, match=r"did not stand still in 0.02 s: \d+ \(state D\)") as caught:
        await provider.suspend(M1)
    assert caught.value.phase == "suspend"
    monkeypatch.undo()
    assert not stands_still(process)
    assert [each.state for each in await provider.list(cluster)] == [MachineState.RUNNING]


COORDINATOR = """
import asyncio, sys
from pathlib import Path
from runner.ids import ClusterId, MachineId
from runner.providers.base import BootConfig, MachineSpec
from runner.providers.local import LocalProvider
from runner.worker.zygote import Zygote

cluster, log_dir, embedded, by_group = ClusterId(sys.argv[1]), sys.argv[2], sys.argv[3] == "True", sys.argv[4] == "True"
zygote = Zygote.fork()

async def main():
    provider = LocalProvider(zygote, cluster_id=cluster, log_dir=log_dir, gpus=(), freezes_by_group=by_group)
    for name in ("m-1", "m-2"):
        boot = BootConfig("127.0.0.1:9", b"", "nobody checks it", MachineId(name), cluster, embedded=embedded)
        await provider.create(MachineSpec(cluster, MachineId(name), boot.shape(), boot))
    await provider.suspend(MachineId("m-1"))
    print("frozen", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@BY
@pytest.mark.parametrize("embedded", [True, False], ids=["embedded", "with a lease"])
def test_a_frozen_machine_ends_when_its_coordinator_is_killed(by_group, embedded, cluster, tmp_path) -> None:
    """It cannot see the end of its life pipe, and counts no lease."""
    command = [sys.executable, "-c", COORDINATOR, cluster, str(tmp_path), str(embedded), str(by_group)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as coordinator:
        assert coordinator.stdout is not None
        assert coordinator.stdout.readline() == b"frozen\n"
        coordinator.kill()

    def names() -> set[str]:
        return {each.machine_id for each in find_tagged(cluster)}

    try:
        wait_until(lambda: "m-1" not in names(), 10, "nothing of the frozen machine is left")
        wait_until(lambda: groups_left(cluster) == [], 10, "its control group is removed")
        # The other one lives until its own lease ends, as if nothing had been frozen.
        assert embedded or "m-2" in names()
    finally:
        for each in find_tagged(cluster):
            os.kill(each.process.pid, signal.SIGKILL)
    wait_until(lambda: find_tagged(cluster) == [], 10, "the test leaves nothing")
