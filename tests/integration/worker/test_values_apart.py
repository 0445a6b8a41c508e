"""Large values of machines that share no files with anybody: they stay where they were made, and go where they are needed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import runner
from runner.client.context import session_or_none
from runner.client.streams import client_transport
from runner.errors import ObjectLostError
from runner.ids import ClusterId
from runner.providers.process_tag import find_tagged, send_signal
from runner.rpc.gen import client_pb2
from runner.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from tests.integration.helpers import wait_until

pytestmark = pytest.mark.timeout(60)

SHM = Path("/dev/shm")
COUNT = 200_000
TOTAL = COUNT * (COUNT - 1) // 2


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Three machines, each a host of its own with a label of its own."""
    patch = pytest.MonkeyPatch()
    patch.setenv("RUNNER_HOME", str(tmp_path_factory.mktemp("home")))
    with runner.init(machines=3, num_cpus=1, provider_options={"apart": True}, log_to_driver=False) as session:
        wait_until(lambda: sum(each.is_alive for each in runner.nodes()) == 3, 30, "three machines")
        yield session
    patch.undo()


def machines() -> list[str]:
    return sorted(each.machine_id for each in runner.nodes() if each.is_alive)


def on(machine_id: str, function: Any, **options: Any) -> Any:
    strategy = NodeAffinitySchedulingStrategy(node_id=machine_id, soft=False)
    return runner.remote(function).options(scheduling_strategy=strategy, **options)


def make(log: str = "") -> Any:
    if log:
        with open(log, "a", encoding="ascii") as file:
            file.write("made\n")
    return np.arange(COUNT)


def total(array: Any) -> int:
    return int(array.sum())


def ready(ref: Any) -> Any:
    done, _ = runner.wait([ref], timeout=30, fetch_local=False)
    assert done
    return ref


def files(cluster: Any, machine_id: str, object_id: str) -> list[str]:
    return [path.name for path in SHM.glob(f"runner-{cluster.cluster_id}-{machine_id}/store/{object_id}-*")]


def at_coordinator(cluster: Any, object_id: str) -> list[str]:
    return [name for name in os.listdir(SHM / f"runner-{cluster.cluster_id}") if name.startswith(object_id)]


def kill(cluster: Any, machine_id: str) -> None:
    agents = [each for each in find_tagged(ClusterId(cluster.cluster_id)) if each.is_agent]
    agent = next(each for each in agents if each.machine_id == machine_id)
    send_signal(agent.process, signal.SIGKILL)
    wait_until(lambda: machine_id not in machines(), 20, f"{machine_id} to be seen to be gone")


def replace(cluster: Any) -> None:
    """Until there are three machines again: a lost one is replaced."""
    wait_until(lambda: len(machines()) >= 3, 30, "another machine in place of the lost one")


def test_a_result_goes_from_machine_to_machine_once_and_not_through_the_coordinator(cluster: Any) -> None:
    first, second, third = machines()[:3]
    ref = ready(on(first, make).remote())
    assert at_coordinator(cluster, ref.id) == []
    assert len(files(cluster, first, ref.id)) == 1
    readers = [on(machine_id, total).remote(ref) for machine_id in (second, third, second)]
    assert runner.get(readers, timeout=30) == [TOTAL] * 3
    assert runner.get(on(second, lambda held: total(runner.get(held[0]))).remote([ref]), timeout=30) == TOTAL
    assert [len(files(cluster, each, ref.id)) for each in (first, second, third)] == [1, 1, 1]
    assert at_coordinator(cluster, ref.id) == [], "the coordinator has carried nothing of it"
    object_id = ref.id
    del ref, readers
    wait_until(
        lambda: not any(files(cluster, each, object_id) for each in (first, second, third)), 20, "all copies to go"
    )


def test_the_client_has_it_brought_and_it_is_safe_from_then_on(cluster: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    holder = machines()[0]
    ref = on(holder, make).remote(log)
    assert total(runner.get(ref, timeout=30)) == TOTAL
    assert len(at_coordinator(cluster, ref.id)) == 1
    kill(cluster, holder)
    assert total(runner.get(ref, timeout=30)) == TOTAL
    assert Path(log).read_text() == "made\n", "it was not made again"
    replace(cluster)


def test_a_result_that_is_lost_is_made_again_for_its_readers(cluster: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    base = ready(runner.remote(make).remote(log))
    both = ready(runner.remote(lambda array: array + 1).remote(base))
    holders = [m for m in machines() if files(cluster, m, both.id)] + [
        m for m in machines() if files(cluster, m, base.id)
    ]
    for holder in set(holders):
        kill(cluster, holder)
    assert runner.get(runner.remote(total).remote(both), timeout=40) == TOTAL + COUNT
    assert total(runner.get(base, timeout=40)) == TOTAL
    assert Path(log).read_text() == "made\nmade\n"
    replace(cluster)


def test_what_cannot_be_made_again_is_lost_with_the_reason(cluster: Any) -> None:
    holder = machines()[0]
    once = ready(on(holder, make, max_retries=0).remote())
    [put] = runner.get(on(holder, lambda: [runner.put(np.arange(COUNT))]).remote(), timeout=30)
    kill(cluster, holder)
    with pytest.raises(ObjectLostError, match=rf"machine {holder}, which alone had it, was lost.*max_retries=0"):
        runner.get(once, timeout=30)
    with pytest.raises(ObjectLostError, match=rf"machine {holder}, which alone had it, was lost.*it was put"):
        runner.get(put, timeout=30)
    with pytest.raises(ObjectLostError, match="it was put"):
        runner.get(runner.remote(total).remote(put), timeout=30)
    replace(cluster)


def test_a_machine_that_ends_hands_over_what_it_has(cluster: Any, tmp_path: Path) -> None:
    log = str(tmp_path / "log")
    holder = machines()[0]
    made = ready(on(holder, make).remote(log))
    [put] = runner.get(on(holder, lambda: [runner.put(np.arange(COUNT))]).remote(), timeout=30)
    session = session_or_none()
    assert session is not None
    transport = client_transport(session)
    transport.request(
        "RemoveMachine", client_pb2.RemoveMachineRequest(machine_id=holder), client_pb2.RemoveMachineReply
    )
    wait_until(lambda: holder not in machines(), 30, "the machine to end")
    assert (total(runner.get(made, timeout=30)), total(runner.get(put, timeout=30))) == (TOTAL, TOTAL)
    assert Path(log).read_text() == "made\n"
    transport.request("AddMachines", client_pb2.AddMachinesRequest(count=1), client_pb2.AddMachinesReply)
    replace(cluster)
