"""Containers that Podman saves with CRIU, on a stand-in for both: a snapshot is taken once, and nothing goes back in time."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from runner.core.values import CPU, GPU, UNIT, make_shape
from runner.errors import ProviderError
from runner.ids import MachineId
from runner.providers.base import MachineState, Wanted
from runner.providers.container.snapshots import why_none
from runner.providers.criu import Criu, find_criu
from tests.contract.providers.harness import Exits, make_spec
from tests.contract.providers.podman import PodmanHarness, running_podman

M1 = MachineId("m-1")
PODMAN = {"Components": [{"Name": "Podman Engine"}]}
WORKS = Criu("4.2", "")


@pytest.fixture
async def podman(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PodmanHarness]:
    async with running_podman(tmp_path, monkeypatch) as (engine, socket):
        made = PodmanHarness(engine, socket, tmp_path)
        await made.provider.prepare(())
        try:
            yield made
        finally:
            engine.refuses = ""
            if not made.made._is_closed:
                for machine in await made.provider.list(made.cluster_id):
                    await made.provider.destroy(machine.name)
                await made.provider.close()
            assert made.left_over() == []


async def later(podman: PodmanHarness, tmp_path: Path) -> PodmanHarness:
    """The same cluster after a restart of its coordinator."""
    await podman.provider.close()
    socket = f"unix://{tmp_path}/podman.sock"
    made = PodmanHarness(podman.engine, socket, tmp_path, podman.cluster_id)
    await made.provider.prepare(())
    return made


async def test_capabilities_name_what_saves(podman: PodmanHarness) -> None:
    can = podman.provider.capabilities()
    assert (can.suspend_kind, can.suspend_reason) == ("snapshot", "saved by Podman with CRIU 4.2")
    with_gpu = Wanted("default", make_shape({CPU: UNIT, GPU: UNIT}), "", 1, 1)
    assert "CRIU saves no GPU's memory" in podman.provider.suspend_obstacle(with_gpu)


async def test_memory_comes_back_and_the_file_is_gone(podman: PodmanHarness) -> None:
    await podman.provider.create(make_spec(podman.cluster_id, M1))
    podman.container(M1).memory = 42
    await podman.provider.suspend(M1)
    assert podman.engine.containers == {}
    saved = podman.snapshots / "m-1.tar"
    assert (stat.S_IMODE(saved.stat().st_mode), stat.S_IMODE(podman.snapshots.stat().st_mode)) == (0o600, 0o700)
    await podman.provider.start(M1)
    assert podman.container(M1).memory == 42
    assert os.listdir(podman.snapshots) == []
    assert [(each.path.rpartition("/")[2], each.query) for each in podman.engine.seen] == [
        ("checkpoint", {"export": "true", "leaveRunning": "true", "tcpEstablished": "true", "fileLocks": "true"}),
        ("restore", {"import": "true", "tcpEstablished": "true", "fileLocks": "true"}),
    ]


async def test_an_end_after_a_resume_is_an_exit(podman: PodmanHarness) -> None:
    exits = Exits(podman.provider)
    await podman.provider.create(make_spec(podman.cluster_id, M1))
    await podman.provider.suspend(M1)
    await podman.provider.start(M1)
    await podman.end_machine(M1)
    assert (await exits.first())[0] == M1
    assert len(exits.seen) == 1


async def test_a_save_that_is_refused_changes_nothing(podman: PodmanHarness) -> None:
    made = await podman.provider.create(make_spec(podman.cluster_id, M1))
    podman.engine.refuses = "criu failed: type NOTIFY errno 0"
    with pytest.raises(ProviderError, match="suspend of machine m-1 failed: it could not be saved: .*type NOTIFY"):
        await podman.provider.suspend(M1)
    assert await podman.provider.get(M1) == made
    assert podman.running(M1) == 1
    assert os.listdir(podman.snapshots) == []


async def test_a_save_that_is_cut_off_changes_nothing(podman: PodmanHarness) -> None:
    made = await podman.provider.create(make_spec(podman.cluster_id, M1))
    podman.engine.cuts = True
    with pytest.raises(ProviderError, match="it could not be saved"):
        await podman.provider.suspend(M1)
    assert await podman.provider.get(M1) == made
    assert os.listdir(podman.snapshots) == []


async def test_a_full_disk_changes_nothing(podman: PodmanHarness) -> None:
    made = await podman.provider.create(make_spec(podman.cluster_id, M1))
    podman.snapshots.mkdir()
    (podman.snapshots / "m-1.new").symlink_to("/dev/full")
    with pytest.raises(ProviderError, match="No space left on device"):
        await podman.provider.suspend(M1)
    assert await podman.provider.get(M1) == made
    assert os.listdir(podman.snapshots) == []


async def test_a_resume_that_fails_uses_the_snapshot_up(podman: PodmanHarness) -> None:
    await podman.provider.create(make_spec(podman.cluster_id, M1))
    await podman.provider.suspend(M1)
    podman.engine.refuses = "criu failed"
    with pytest.raises(ProviderError, match="start of machine m-1 failed: it could not be restored"):
        await podman.provider.start(M1)
    assert await podman.provider.get(M1) is None
    assert os.listdir(podman.snapshots) == []
    podman.engine.refuses = ""
    with pytest.raises(ProviderError, match="a container that ended is gone"):
        await podman.provider.start(M1)


async def test_a_truncated_snapshot_is_refused_and_gone(podman: PodmanHarness) -> None:
    await podman.provider.create(make_spec(podman.cluster_id, M1))
    await podman.provider.suspend(M1)
    os.truncate(podman.snapshots / "m-1.tar", 5)
    with pytest.raises(ProviderError, match="start of machine m-1 failed"):
        await podman.provider.start(M1)
    assert await podman.provider.get(M1) is None


async def test_a_restarted_coordinator_knows_resumes_and_destroys_them(podman: PodmanHarness, tmp_path: Path) -> None:
    spec = make_spec(podman.cluster_id, M1)
    made = await podman.provider.create(spec)
    await podman.provider.suspend(M1)
    second = await later(podman, tmp_path)
    (seen,) = await second.provider.list(podman.cluster_id)
    assert (seen.state, seen.provider_machine_id) == (MachineState.SUSPENDED, made.provider_machine_id)
    assert (seen.created_unix_s, seen.detail) == (made.created_unix_s, "saved by CRIU 4.2")
    assert (await second.provider.create(spec)).state is MachineState.SUSPENDED
    await second.provider.start(M1)
    exits = Exits(second.provider)
    await second.end_machine(M1)
    assert (await exits.first())[0] == M1
    await second.provider.create(spec)
    await second.provider.suspend(M1)
    third = await later(second, tmp_path)
    await third.provider.destroy(M1)
    assert third.left_over() == []
    await third.provider.close()


async def test_what_was_saved_but_went_on_never_goes_back(podman: PodmanHarness, tmp_path: Path) -> None:
    """The coordinator was killed after the file was whole and before the container was ended."""
    spec = make_spec(podman.cluster_id, M1)
    await podman.provider.create(spec)
    container = podman.container(M1)
    await podman.provider.suspend(M1)
    podman.engine.containers[container.name] = container
    second = await later(podman, tmp_path)
    assert [each.state for each in await second.provider.list(podman.cluster_id)] == [MachineState.RUNNING]
    assert (await second.provider.create(spec)).state is MachineState.RUNNING
    assert os.listdir(podman.snapshots) == []
    await second.provider.destroy(M1)
    await second.provider.close()


async def test_a_snapshot_in_use_when_the_coordinator_was_killed_is_gone_with_its_machine(
    podman: PodmanHarness, tmp_path: Path
) -> None:
    await podman.provider.create(make_spec(podman.cluster_id, M1))
    await podman.provider.suspend(M1)
    (podman.snapshots / "m-1.tar").rename(podman.snapshots / "m-1.taken")
    second = await later(podman, tmp_path)
    assert await second.provider.get(M1) is None, "it is used up"
    await second.provider.destroy(M1)
    assert os.listdir(podman.snapshots) == []
    await second.provider.close()


# ---- who can ----
@pytest.mark.parametrize(
    ("version", "info", "is_local", "criu", "words"),
    [
        (PODMAN, {}, True, WORKS, ""),
        ({"Components": [{"Name": "Engine"}]}, {}, True, WORKS, "only Podman"),
        ({}, {}, True, WORKS, "only Podman"),
        (PODMAN, {}, False, WORKS, "on another host"),
        (PODMAN, {"SecurityOptions": ["name=seccomp", "name=rootless"]}, True, WORKS, "only as root"),
        (PODMAN, {}, True, Criu("", "criu is not installed"), "criu is not installed"),
    ],
)
def test_why_containers_cannot_be_saved(version, info, is_local, criu, words) -> None:
    reason = why_none((version, info), criu, is_local=is_local)
    assert words in reason
    assert bool(reason) == bool(words)


def script(folder: Path, check: str, version: str = "echo 'Version: 3.17.1'") -> str:
    path = folder / "criu"
    path.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ {version}; exit 0; }}\n[ "$1" = check ] || exit 64\n{check}\n'
    )
    path.chmod(0o755)
    return str(path)


def test_a_criu_that_works(tmp_path: Path) -> None:
    found = find_criu(script(tmp_path, "echo 'Looks good.'", "printf 'Version: 4.2\\nGitID: v4.2\\n'"))
    assert (found, found.works) == (Criu("4.2", ""), True)


def test_a_criu_that_does_not_work_says_why(tmp_path: Path) -> None:
    """As Debian 12's does on Linux 6.18."""
    errors = (
        "echo 'Error (criu/vdso.c:381): vdso: Unexpected rt vDSO area bounds' >&2\n"
        "echo 'Error (criu/crtools.c:260): Could not initialize kernel features detection.' >&2\nexit 1"
    )
    found = find_criu(script(tmp_path, errors))
    assert not found.works
    assert found.problem == (
        "CRIU 3.17.1 does not work on this kernel: `criu check` says: vdso: Unexpected rt vDSO area bounds"
    )


@pytest.mark.parametrize(
    ("check", "words"), [("echo 'needs root'; exit 1", "says: needs root"), ("exit 3", "exit code 3")]
)
def test_whatever_a_criu_says_is_told(tmp_path: Path, check: str, words: str) -> None:
    assert words in find_criu(script(tmp_path, check)).problem


def test_no_criu(tmp_path: Path) -> None:
    assert find_criu(str(tmp_path / "criu")) == Criu("", f"{tmp_path}/criu is not installed")
    (tmp_path / "criu").write_text("no program")
    assert "--version failed" in find_criu(str(tmp_path / "criu")).problem


async def test_all_at_once(podman: PodmanHarness) -> None:
    names = [MachineId(f"m-{number}") for number in range(6)]
    await asyncio.gather(*(podman.provider.create(make_spec(podman.cluster_id, name)) for name in names))
    for number, name in enumerate(names):
        podman.container(name).memory = number
    await asyncio.gather(*map(podman.provider.suspend, names))
    assert podman.engine.containers == {}
    await asyncio.gather(*map(podman.provider.start, names))
    assert [podman.container(name).memory for name in names] == list(range(6))
