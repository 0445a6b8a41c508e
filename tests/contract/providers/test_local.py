"""Local machines that behave badly; every one is real processes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.core.values import GPU, UNIT
from runner.errors import ProviderError
from runner.ids import ClusterId, MachineId, random_id
from runner.providers.base import BootConfig, MachineState
from runner.providers.gpus import Gpu
from runner.providers.local import LocalProvider
from runner.providers.machine_log import describe_status
from runner.providers.process_tag import find_tagged
from tests.contract.providers.harness import Exits, make_spec
from tests.contract.providers.scripted import IGNORES_SIGTERM, LEAVES_CHILDREN, ScriptForker

M1, M2, M3 = MachineId("m-1"), MachineId("m-2"), MachineId("m-3")
GPUS = [Gpu("GPU-a", "Test GPU", 1 << 30), Gpu("GPU-b", "Test GPU", 1 << 30)]


@pytest.fixture
def cluster() -> ClusterId:
    return ClusterId(random_id("c"))


@pytest.fixture
def forker() -> ScriptForker:
    return ScriptForker()


@pytest.fixture
async def provider(cluster: ClusterId, forker: ScriptForker, tmp_path: Path) -> AsyncIterator[LocalProvider]:
    made = LocalProvider(forker, cluster_id=cluster, log_dir=tmp_path / "logs", gpus=GPUS, term_grace_s=0.05)
    yield made
    await made.close()
    assert find_tagged(cluster) == []


async def test_a_machine_that_ignores_sigterm_is_killed(cluster, forker, provider) -> None:
    forker.script = IGNORES_SIGTERM
    await provider.create(make_spec(cluster, M1))
    await provider.destroy(M1)
    assert forker.children[M1].returncode == -signal.SIGKILL


async def test_a_frozen_machine_is_killed(cluster, forker, provider) -> None:
    await provider.create(make_spec(cluster, M1))
    os.kill(forker.children[M1].pid, signal.SIGSTOP)
    await provider.destroy(M1)
    assert find_tagged(cluster) == []


async def test_destroy_leaves_no_child_even_in_another_session(cluster, forker, provider) -> None:
    forker.script = LEAVES_CHILDREN
    await provider.create(make_spec(cluster, M1))
    assert len(find_tagged(cluster)) == 4
    await provider.destroy(M1)
    assert find_tagged(cluster) == []


async def test_an_exit_is_reported_only_when_nothing_of_the_machine_runs(cluster, forker, provider) -> None:
    forker.script = LEAVES_CHILDREN
    left_at_report: list[int] = []
    provider.on_exit(lambda *_: left_at_report.append(len(find_tagged(cluster))))
    exits = Exits(provider)
    await provider.create(make_spec(cluster, M1))
    os.kill(forker.children[M1].pid, signal.SIGKILL)
    await exits.first()
    assert left_at_report == [0]


async def test_the_reason_of_an_exit_has_the_last_lines(cluster, forker, provider) -> None:
    forker.script = "print('cannot reach 127.0.0.1:9', flush=True); signal.sigwait([signal.SIGUSR1]); sys.exit(3)"
    exits = Exits(provider)
    await provider.create(make_spec(cluster, M1))
    os.kill(forker.children[M1].pid, signal.SIGUSR1)
    _, reason = await exits.first()
    assert reason.startswith("agent exited with code 3")
    assert "cannot reach 127.0.0.1:9" in reason


async def test_a_boot_that_ends_at_once_is_an_error_with_the_last_lines(cluster, forker, provider) -> None:
    fork = forker.boot

    async def fork_and_wait(boot: BootConfig) -> int:
        pid = await fork(boot)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return pid

    forker.script = "print('no such module', flush=True); sys.exit(3)"
    forker.boot = fork_and_wait
    with pytest.raises(ProviderError, match="boot of machine m-1 failed: it ended at once") as caught:
        await provider.create(make_spec(cluster, M1))
    assert caught.value.phase == "boot"
    assert "no such module" in caught.value.log_lines
    assert await provider.get(M1) is None


async def test_the_end_is_noticed_when_the_forker_is_gone(cluster, forker, provider) -> None:
    exits = Exits(provider)
    await provider.create(make_spec(cluster, M1))
    forker._on_exit = None
    forker.on_lost()
    os.kill(forker.children[M1].pid, signal.SIGKILL)
    name, reason = await exits.first()
    assert name == M1
    assert reason.startswith("agent ended; its exit status is not known; ")
    with pytest.raises(ProviderError, match="the process that forks machines is gone"):
        await provider.create(make_spec(cluster, M2))


async def test_a_host_that_cannot_fork_is_a_typed_error(cluster, forker, provider) -> None:
    forker.is_broken = True
    with pytest.raises(ProviderError, match="could not be forked: out of processes") as caught:
        await provider.create(make_spec(cluster, M1))
    assert caught.value.phase == "create"
    assert await provider.get(M1) is None


async def test_machines_of_a_dead_coordinator_are_found_and_destroyed(cluster, forker, provider, tmp_path) -> None:
    forker.script = LEAVES_CHILDREN
    await provider.create(make_spec(cluster, M1))
    later = LocalProvider(ScriptForker(), cluster_id=cluster, log_dir=tmp_path / "logs", gpus=())
    (orphan,) = await later.list(cluster)
    assert (orphan.name, orphan.state) == (M1, MachineState.RUNNING)
    assert orphan == await later.create(make_spec(cluster, M1))  # adopted, not made twice
    await later.destroy(M1)
    assert find_tagged(cluster) == []
    assert await later.list(cluster) == ()
    await later.close()


async def test_what_outlived_its_agent_is_listed_as_stopped(cluster, forker, provider, tmp_path) -> None:
    forker.script = LEAVES_CHILDREN
    await provider.create(make_spec(cluster, M1))
    other = LocalProvider(ScriptForker(), cluster_id=ClusterId("c-other"), log_dir=tmp_path, gpus=())
    os.kill(forker.children[M1].pid, signal.SIGKILL)
    os.waitid(os.P_PID, forker.children[M1].pid, os.WEXITED | os.WNOWAIT)
    (seen,) = await other.list(cluster)  # before the sweep had a turn
    assert seen.state is MachineState.STOPPED
    assert "its agent is gone" in seen.detail
    await other.close()


async def test_gpus_are_handed_out_whole_and_come_back(cluster, forker, provider) -> None:
    boots: list[tuple[str, ...]] = []
    fork = forker.boot

    async def note_and_fork(boot: BootConfig) -> int:
        boots.append(boot.gpus)
        return await fork(boot)

    forker.boot = note_and_fork
    for name in (M1, M2):
        await provider.create(make_spec(cluster, name, **{GPU: UNIT}))
    assert sorted(boots) == [("GPU-a",), ("GPU-b",)]
    with pytest.raises(ProviderError, match=r"it needs 1 GPUs; this host has 2, of which 0 are free"):
        await provider.create(make_spec(cluster, M3, **{GPU: UNIT}))
    await provider.destroy(M1)
    await provider.create(make_spec(cluster, M3, **{GPU: UNIT}))
    assert boots[2] == boots[0]


async def test_gpus_of_a_machine_that_died_or_never_came_up_are_free_again(cluster, forker, provider) -> None:
    both = {GPU: 2 * UNIT}
    forker.is_broken = True
    with pytest.raises(ProviderError):
        await provider.create(make_spec(cluster, M1, **both))
    forker.is_broken = False
    exits = Exits(provider)
    await provider.create(make_spec(cluster, M1, **both))
    os.kill(forker.children[M1].pid, signal.SIGKILL)
    await exits.first()
    await provider.create(make_spec(cluster, M2, **both))


async def test_half_a_gpu_is_refused_for_a_machine(cluster, provider) -> None:
    with pytest.raises(ProviderError, match=r"it needs 0\.5 GPUs"):
        await provider.create(make_spec(cluster, M1, **{GPU: UNIT // 2}))


async def test_close_destroys_and_creates_nothing_more(cluster, provider) -> None:
    creating = [asyncio.ensure_future(provider.create(make_spec(cluster, name))) for name in (M1, M2)]
    await asyncio.sleep(0)
    await provider.close()
    await asyncio.wait(creating)
    [creation.exception() for creation in creating]
    assert find_tagged(cluster) == []
    with pytest.raises(ProviderError, match="the provider is closed"):
        await provider.create(make_spec(cluster, M3))


async def test_capabilities_name_the_gpus(provider) -> None:
    capabilities = provider.capabilities()
    assert (capabilities.gpu_kinds, capabilities.gpus_total) == (("Test GPU",), 2)


async def test_long_logs_show_their_end(cluster, provider, tmp_path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "m-1.log").write_text("".join(f"line {number}\n" for number in range(20_000)))
    lines = await provider.logs(M1)
    assert lines[-1] == "line 19999"
    assert lines[0].startswith("line ")
    assert len(lines) <= 200


@pytest.mark.parametrize(
    ("status", "words"),
    [(0, "exited with code 0"), (3 << 8, "exited with code 3"), (9, "was killed by signal 9 (SIGKILL)")],
)
def test_statuses_in_words(status, words) -> None:
    assert describe_status(status) == words
