"""A whole cluster whose machines are containers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import runner
from runner.coordinator.state_dir import sweep_stores
from runner.errors import RunnerError
from runner.rpc.version import host_id
from tests.container.conftest import IMAGE
from tests.integration.guards import kill_guards
from tests.integration.helpers import pause, wait_until

pytestmark = pytest.mark.timeout(120)
Containers = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def start(options: dict[str, Any], containers: Containers) -> Iterator[Callable[..., Any]]:
    """`runner.init` on containers; ends with the test, and then no container is left."""

    def init(machines: int = 1, **more: Any) -> Any:
        return runner.init(
            provider="container", provider_options=options, machines=machines, log_to_driver=False, **more
        )

    yield init
    runner.shutdown()
    assert containers() == []


def test_tasks_run_in_containers_as_this_user(start) -> None:
    @runner.remote
    def where() -> tuple[str, int, bool]:
        return os.readlink("/proc/self/ns/mnt"), os.getuid(), os.path.exists("/opt/code/runner")

    start(2)
    namespace, uid, is_in_image = runner.get(where.remote())
    assert namespace != os.readlink("/proc/self/ns/mnt")
    assert (uid, is_in_image) == (os.getuid(), True)


def test_a_large_value_is_shared_without_a_copy(start) -> None:
    @runner.remote
    def double(value: bytes) -> bytes:
        return value * 2

    start()
    large = os.urandom(1 << 20)
    assert runner.get(double.remote(runner.put(large))) == large * 2
    (node,) = runner.nodes()
    assert node.host_id == host_id()


def test_a_killed_container_is_replaced_and_its_run_goes_on_from_its_checkpoint(start, client, containers) -> None:
    @runner.remote
    def train(steps: int) -> int:
        restored = runner.get_checkpoint()
        first = 0 if restored is None else restored["next"]
        for step in range(first, steps):
            print(f"step {step}")
            runner.report({"step": step}, checkpoint={"next": step + 1})
            if first == 0 and step == 1:
                time.sleep(60)  # the test takes the machine away here
        return first

    start()
    run = train.options(name="trained").remote(4)
    seen = []
    for event in runner.stream(run):
        seen.append((event.kind, event))
        if sum(kind == "checkpoint" for kind, _ in seen) == 2:
            (first,) = containers()
            client.kill(first["Id"], "SIGKILL")
            break
    assert runner.get(run, timeout=60) == 2
    (second,) = containers()
    assert second["Id"] != first["Id"]
    lines = [event.text for event in runner.stream(run, kinds="log")]
    assert lines == ["step 0", "step 1", "step 2", "step 3"]


def test_a_task_over_its_containers_memory_is_told_as_such(start) -> None:
    @runner.remote(max_retries=0)
    def eat(size_bytes: int) -> int:
        return len(b"x" * size_bytes)

    start(memory="300MiB")
    with pytest.raises(RunnerError, match=r"(?i)memory"):
        runner.get(eat.remote(1 << 30), timeout=60)
    assert runner.get(eat.remote(10)) == 10


def test_eight_machines_at_once(start, containers) -> None:
    @runner.remote
    def double(value: int) -> int:
        return value * 2

    start(8)
    wait_until(lambda: sum(node.is_alive for node in runner.nodes()) == 8, 60, "not all registered")
    assert len(containers()) == 8
    assert runner.get([double.remote(number) for number in range(16)]) == [2 * number for number in range(16)]


def test_an_image_that_cannot_work_is_an_error_that_says_so(options) -> None:
    @runner.remote
    def nothing() -> None: ...

    with pytest.raises(RunnerError, match=r"runner-absent:cpu is not on the engine"):
        with runner.init(provider="container", provider_options={**options, "image": "runner-absent:cpu"}):
            runner.get(nothing.remote(), timeout=30)


CLIENT = """
import sys, time
from runner.client.embedded import start
from runner.pools import fixed_pool
home, socket, image, machines = sys.argv[1:]
cluster = start(dict(
    home=home, provider="container", provider_options=dict(socket=socket, image=image),
    pools=(fixed_pool(int(machines), num_cpus=1.0),), heartbeat_s=0.5, lost_after_s=3.0, destroy_after_s=4.0,
), 30.0, lambda: None)
print(cluster.ready.pid, cluster.ready.cluster_id, flush=True)
time.sleep(600)
"""


def _kill_9(tmp_path: Path, options: dict[str, Any], after_s: float, *, guard_too: bool) -> str:
    """Start a cluster of four machines, and kill client and coordinator; the cluster's id."""
    command = [sys.executable, "-c", CLIENT, str(tmp_path), options["socket"], IMAGE, "4"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, cluster = process.stdout.readline().split()
        pause(after_s, "the boots are then where the test wants them")
        if guard_too:
            kill_guards()
        os.kill(int(pid), signal.SIGKILL)
        process.kill()
    return cluster


@pytest.fixture
def clean_after() -> Iterator[None]:
    """What a killed cluster leaves on purpose: a guard that waits for late creations, a store for the next start to sweep."""
    yield
    kill_guards()
    sweep_stores()


@pytest.mark.parametrize("after_s", [0.0, 0.3, 4.0])
def test_kill_9_of_client_and_coordinator_leaves_no_container(
    after_s: float, containers: Containers, options: dict[str, Any], tmp_path: Path, clean_after: None
) -> None:
    """Before, amid and after the boots."""
    cluster = _kill_9(tmp_path, options, after_s, guard_too=False)
    pause(1.0, "what was on its way to the engine arrives")
    took_s = wait_until(lambda: not containers(cluster), 20, "containers are left")
    print(f"killed {after_s} s after the start of the boots: gone {1.0 + took_s:.1f} s later")


def test_machines_whose_whole_cluster_was_killed_end_by_themselves(
    containers: Containers, options: dict[str, Any], tmp_path: Path, clean_after: None
) -> None:
    """The guard too: what is left is the agents' dead-man's switch, and the engine's removal of what has ended."""
    cluster = _kill_9(tmp_path, options, 4.0, guard_too=True)
    assert len(containers(cluster)) == 4
    # destroy_after_s (4) from the last heartbeat, and the agent's time to end what it runs.
    took_s = wait_until(lambda: not containers(cluster), 15, "containers are running")
    assert took_s > 2.0, "something else than the switch has ended them"
    print(f"gone after {took_s:.1f} s")
