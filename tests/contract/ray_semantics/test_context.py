"""What code can ask about where it runs."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.contract.ray_semantics.adapter import system


@system.remote
def context() -> dict[str, Any]:
    here = system.get_runtime_context()
    return {
        "task": here.get_task_id(),
        "node": here.get_node_id(),
        "job": here.get_job_id(),
        "worker": here.get_worker_id(),
        "actor": here.get_actor_id(),
        "pid": os.getpid(),
    }


class Telling:
    def context(self) -> dict[str, Any]:
        here = system.get_runtime_context()
        return {
            "task": here.get_task_id(),
            "node": here.get_node_id(),
            "job": here.get_job_id(),
            "worker": here.get_worker_id(),
            "actor": here.get_actor_id(),
            "name": here.get_actor_name(),
            "namespace": here.namespace,
            "reconstructed": here.was_current_actor_reconstructed,
        }

    def me(self) -> Any:
        return system.get_runtime_context().current_actor

    def number(self) -> int:
        return 7


def test_a_session_is_there() -> None:
    assert system.is_initialized()


def test_a_client_runs_no_task() -> None:
    here = system.get_runtime_context()
    assert here.get_task_id() is None
    assert here.get_actor_id() is None
    assert here.get_job_id()


def test_each_task_has_an_id_of_its_own() -> None:
    first, second = system.get([context.remote(), context.remote()])
    assert first["task"]
    assert first["task"] != second["task"]


def test_tasks_know_their_machine_and_their_job() -> None:
    told = system.get(context.remote())
    assert told["node"] in system.machine_ids()
    assert told["job"] == system.get_runtime_context().get_job_id()
    assert told["worker"]


def test_a_plain_task_is_no_actor() -> None:
    assert system.get(context.remote())["actor"] is None


def test_nested_tasks_are_of_the_same_job() -> None:
    @system.remote
    def outer() -> Any:
        return system.get(context.remote())

    assert system.get(outer.remote())["job"] == system.get_runtime_context().get_job_id()


def test_actors_know_who_they_are() -> None:
    actor = system.remote(Telling).options(name="knows-itself", namespace="of-the-test").remote()
    first, second = system.get([actor.context.remote(), actor.context.remote()])
    assert first["actor"]
    assert first["actor"] == second["actor"]
    assert first["task"] != second["task"]
    assert first["worker"] == second["worker"]
    assert first["name"] == "knows-itself"
    assert first["node"] in system.machine_ids()
    assert first["reconstructed"] is False


def test_an_actor_can_hand_out_its_own_handle() -> None:
    actor = system.remote(Telling).remote()
    me = system.get(actor.me.remote())
    assert system.get(me.number.remote()) == 7


def test_there_is_no_current_actor_outside_one() -> None:
    with pytest.raises(Exception):
        _ = system.get_runtime_context().current_actor


def test_nodes_tells_of_each_machine() -> None:
    assert len(system.nodes()) >= 1
    assert len(system.machine_ids()) == 1


def test_tasks_can_ask_about_the_cluster() -> None:
    @system.remote
    def look() -> Any:
        return system.cluster_resources()["CPU"], len(system.machine_ids())

    assert system.get(look.remote()) == (system.cluster_resources()["CPU"], 1)


def test_a_second_init_gives_the_same_session_where_that_is_asked_for() -> None:
    job = system.get_runtime_context().get_job_id()
    system.init(ignore_reinit_error=True)
    assert system.get_runtime_context().get_job_id() == job
