"""A whole cluster whose machines are micro-VMs."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.coordinator.state_dir import sweep_stores
from runner.errors import RunnerError
from runner.ids import ClusterId
from runner.providers.process_tag import find_tagged
from tests.integration.guards import kill_guards
from tests.integration.helpers import wait_until
from tests.qemu.conftest import IMAGE, left_over

CAP_SYS_TIME = 1 << 25  # a guest's clock stands still while it is suspended: its agent may set it


def test_a_task_runs_in_a_guest_of_its_own(start) -> None:
    @runner.remote
    def where() -> dict[str, Any]:
        return {
            "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text(),
            "user": os.getuid(),
            "is_in_image": os.path.exists("/opt/code/runner"),
            "sees_token": any(
                os.access(path, os.R_OK)
                for path in ("/sys/firmware/qemu_fw_cfg/by_name/opt/runner/boot/raw", "/run/runner/boot")
            ),
            "capabilities": re.findall(r"CapEff:\s+(\w+)", Path("/proc/self/status").read_text()),
        }

    start()
    seen = runner.get(where.remote())
    assert seen.pop("boot_id") != Path("/proc/sys/kernel/random/boot_id").read_text()
    assert seen == {"user": 10001, "is_in_image": True, "sees_token": False, "capabilities": [f"{CAP_SYS_TIME:016x}"]}
    (node,) = runner.nodes()
    print(f"registered {node.phases['registered']:.1f} s after it was asked for")


def test_a_large_value_goes_through_the_coordinator(start) -> None:
    @runner.remote
    def double(value: bytes) -> bytes:
        return value * 2

    start()
    large = os.urandom(1 << 20)
    assert runner.get(double.remote(runner.put(large)), timeout=60) == large * 2


def test_no_image_is_an_error_that_says_how_to_build_one(options, tmp_path: Path) -> None:
    @runner.remote
    def nothing() -> None: ...

    absent = str(tmp_path / "absent")
    with pytest.raises(RunnerError, match=r"there is no image for micro-VMs in .*runner image build --engine qemu"):
        with runner.init(provider="qemu", provider_options={**options, "image": absent}):
            runner.get(nothing.remote(), timeout=30)


CLIENT = """
import sys, time
from runner.client.embedded import start
from runner.pools import fixed_pool
home, image, machines = sys.argv[1:]
cluster = start(dict(
    home=home, provider="qemu", provider_options=dict(image=image, default_memory="384MiB"),
    pools=(fixed_pool(int(machines), num_cpus=1.0),),
), 30.0, lambda: None)
print(cluster.ready.pid, cluster.ready.cluster_id, cluster.ready.state_dir, flush=True)
time.sleep(600)
"""


@pytest.fixture
def clean_after() -> Iterator[None]:
    """What a killed cluster leaves on purpose: a guard that waits for late creations, a store for the next start to sweep."""
    yield
    kill_guards()
    sweep_stores()


@pytest.mark.parametrize("guard_too", [False, True])
def test_kill_9_of_client_and_coordinator_leaves_nothing(guard_too: bool, tmp_path: Path, clean_after: None) -> None:
    command = [sys.executable, "-c", CLIENT, str(tmp_path), IMAGE, "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, cluster, state = process.stdout.readline().split()
        wait_until(lambda: len(find_tagged(ClusterId(cluster))) == 2, 30, "two micro-VMs")
        if guard_too:
            kill_guards()
        os.kill(int(pid), signal.SIGKILL)
        process.kill()
    took_s = wait_until(lambda: not find_tagged(ClusterId(cluster)), 5, "micro-VMs run on")
    print(f"gone {took_s:.2f} s after the coordinator")
    if not guard_too:
        wait_until(lambda: not left_over(Path(state) / "qemu", ClusterId(cluster)), 10, "files of them are left")
