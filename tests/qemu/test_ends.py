"""How guests end: with their agent, with an embedded coordinator, and not with a standing one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from runner.ids import ClusterId, MachineId
from runner.providers.base import MachineState
from runner.providers.process_tag import find_tagged
from runner.providers.qemu.provider import QemuProvider
from tests.contract.providers.harness import Exits, make_spec
from tests.integration.helpers import let_pass, until
from tests.qemu.conftest import IMAGE, end_all

M1 = MachineId("m-1")


async def test_a_guest_ends_with_its_agent_and_says_why(provider: QemuProvider, cluster: ClusterId) -> None:
    """Nobody listens where it should register: the dead-man's switch, and what the agent says of it."""
    exits = Exits(provider)
    spec = make_spec(cluster, M1)
    await provider.create(replace(spec, boot=replace(spec.boot, lost_after_s=0.5, destroy_after_s=1.0)))
    await until(lambda: exits.seen, 60, "the guest powers off")
    ((name, reason),) = exits.seen
    assert name == M1
    assert reason.startswith("micro-VM powered off")
    assert "could not join its cluster: no coordinator answers at 10.0.2.2:9" in reason
    assert "the agent exited with code 1" in reason
    assert await provider.list(cluster) == ()
    assert not (provider._folders / M1).exists()


async def test_the_join_token_is_in_one_file_for_its_owner(provider: QemuProvider, cluster: ClusterId) -> None:
    spec = make_spec(cluster, M1)
    await provider.create(spec)
    folder = provider._folders / M1
    token = spec.boot.join_token.encode()
    assert [path.name for path in folder.iterdir() if path.is_file() and token in path.read_bytes()] == ["boot"]
    assert (folder.stat().st_mode & 0o777, (folder / "boot").stat().st_mode & 0o777) == (0o700, 0o600)
    (process,) = (each.process for each in find_tagged(cluster))
    for name in ("cmdline", "environ"):
        assert token not in Path(f"/proc/{process.pid}/{name}").read_bytes()


OWNER = """
import asyncio, sys
from pathlib import Path
from runner.providers.qemu.options import parse
from runner.providers.qemu.provider import QemuProvider
from runner.providers.registry import Place
from tests.contract.providers.harness import make_spec
folder, cluster, image, embedded = sys.argv[1:]
place = Place(cluster, embedded == "True", dict(image=image, default_memory="384MiB"), Path(folder) / "logs", folder, folder, "h")
async def main():
    await QemuProvider(parse(place.options), place).create(make_spec(cluster, "m-1"))
    print("created", flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.parametrize("embedded", [True, False])
async def test_a_guest_dies_with_an_embedded_coordinator_and_outlives_a_standing_one(
    embedded: bool, make_provider: Callable[..., QemuProvider], cluster: ClusterId, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", OWNER, str(tmp_path), cluster, IMAGE, str(embedded)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "created\n"
        process.kill()
    later = make_provider(cluster, embedded=embedded)
    if embedded:
        await until(lambda: not find_tagged(cluster), 5, "the kernel ends the guest")
        expected = MachineState.STOPPED
    else:
        await let_pass(0.5, "a signal would have come by now")
        expected = MachineState.RUNNING
    assert [(each.name, each.state) for each in await later.list(cluster)] == [(M1, expected)]
    await end_all(later, cluster)
