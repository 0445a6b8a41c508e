"""What a task can ask: where it runs, and what the cluster has and does."""

from __future__ import annotations

from typing import Any

import pytest

import runner

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


def test_the_runtime_context_has_what_rays_has() -> None:
    @runner.remote
    def look(depth: int) -> dict[str, Any]:
        context = runner.get_runtime_context()
        mine = {
            "task": context.get_task_id(),
            "name": context.get_task_name(),
            "function": context.get_task_function_name(),
            "job": context.get_job_id(),
            "node": context.get_node_id(),
            "worker": context.get_worker_id(),
            "actor": (context.get_actor_id(), context.get_actor_name()),
            "group": (
                context.get_placement_group_id(),
                context.should_capture_child_tasks_in_placement_group,
            ),
            "resources": context.get_assigned_resources(),
            "gpus": (context.get_accelerator_ids(), runner.get_gpu_ids()),
            "address": context.gcs_address,
            "canceled": context.is_canceled(),
        }
        return mine if depth == 0 else {"outer": mine, **runner.get(look.remote(depth - 1))}

    here = runner.get_runtime_context()
    ref = look.remote(1)
    inner = runner.get(ref, timeout=30)
    outer = inner.pop("outer")
    assert outer["task"] == ref.task_id().hex()
    assert inner["task"] != outer["task"]
    assert outer["job"] == inner["job"] == here.get_job_id() == here.get_worker_id()
    assert outer["worker"] != here.get_worker_id()
    assert outer["node"] in {node["NodeID"] for node in runner.nodes() if node["Alive"]}
    assert outer["name"].endswith("look")
    assert outer["function"] == f"{__name__}.{outer['name']}"
    assert (outer["actor"], outer["resources"]) == ((None, None), {"CPU": 1.0})
    assert outer["group"] == (None, False)
    assert outer["gpus"] == ({"GPU": []}, [])
    assert outer["address"] == here.address != ""
    assert outer["canceled"] is False
    with pytest.raises(runner.errors.UsageError, match="only while a method of an actor runs"):
        _ = here.current_actor
    assert (here.get_task_id(), here.get_task_name(), here.get_node_id()) == (None, None, None)


def test_a_named_task_tells_its_name() -> None:
    @runner.remote
    def name() -> str | None:
        return runner.get_runtime_context().get_task_name()

    assert runner.get(name.options(name="called so").remote(), timeout=30) == "called so"


def test_a_task_sees_the_cluster() -> None:
    @runner.remote(num_cpus=1)
    def look() -> tuple[list[str], dict[str, float], float]:
        ids = [node.machine_id for node in runner.nodes()]
        return ids, runner.cluster_resources(), runner.available_resources()["CPU"]

    ids, total, available = runner.get(look.remote(), timeout=30)
    assert ids == [node.machine_id for node in runner.nodes()]
    assert total == runner.cluster_resources()
    assert available <= total["CPU"] - 1


def test_a_task_streams_a_run_and_its_own_children() -> None:
    @runner.remote
    def reports(count: int) -> int:
        for step in range(count):
            runner.report({"loss": step})
        return count

    @runner.remote
    def watches(run: str) -> tuple[list[Any], list[str]]:
        steps = [event.values["loss"] for event in runner.stream(run, kinds="metrics")]
        child = reports.remote(0)
        states = [event.state for event in runner.stream([child], kinds="state")]
        return steps, states

    ref = reports.options(name="watched from a task").remote(20)
    steps, states = runner.get(watches.remote("watched from a task"), timeout=40)
    assert steps == list(range(20))
    assert states[-1] == "succeeded"
    assert runner.get(ref, timeout=30) == 20


def test_what_only_clients_may_do_says_so() -> None:
    @runner.remote
    def boot() -> None:
        from runner.client.context import current_session
        from runner.client.requests import ask
        from runner.rpc.gen import client_pb2

        ask(current_session(), "AddMachines", client_pb2.AddMachinesRequest(count=1), client_pb2.AddMachinesReply)

    with pytest.raises(runner.errors.UsageError, match="AddMachines works in clients only, not inside a task"):
        runner.get(boot.remote(), timeout=30)
