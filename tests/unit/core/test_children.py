"""Tasks that tasks submit: what ends with their parents, and what with the client."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core import events as e
from runner.core.values import FailureKind
from runner.ids import ClientId, TaskId
from tests.unit.core.script import M1, T1, T2, VALUE, A, Script, X, cpus, crash, oid, user_error


def test_a_recursive_cancellation_reaches_children_but_not_detached_ones() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    for name, detached in (("t-2", False), ("t-3", True)):
        s.submit(name, parent=(T1, 1), detached=detached)
    s.submit("t-4", parent=(T2, 1))
    s.cancel("t-1")
    s.submit("t-5", parent=(T1, 1))
    s.submit("t-6", parent=(T1, 1), detached=True)
    states = {name: s.state(name) for name in ("t-1", "t-2", "t-3", "t-4", "t-5", "t-6")}
    assert states == {
        "t-1": "assigned",
        "t-2": "cancelled",
        "t-3": "queued",
        "t-4": "cancelled",
        "t-5": "cancelled",
        "t-6": "queued",
    }


def test_children_survive_a_cancellation_that_is_not_recursive() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.submit("t-2", parent=(T1, 1))
    s.cancel("t-1", recursive=False)
    s.fail("t-1", crash()._replace(kind=FailureKind.CANCELLED))
    assert s.state("t-2") == "assigned"


def test_a_crash_ends_the_children_of_that_attempt_only() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-1", max_retries=2, retry_user_errors=True)
    s.submit("t-2", parent=(T1, 1))
    s.fail("t-1", user_error(), retryable=True)
    s.submit("t-3", parent=(T1, 2))
    s.fail("t-1", crash())
    assert (s.state("t-2"), s.state("t-3")) == ("assigned", "cancelled")


def test_an_attempt_that_is_over_has_no_new_children() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-1", max_retries=1)
    s.fail("t-1", crash())
    s.submit("t-2", parent=(T1, 1))
    s.submit("t-3", parent=(T1, 1), detached=True)
    s.succeed("t-1")
    s.submit("t-4", parent=(T1, 2))
    assert [s.state(name) for name in ("t-2", "t-3", "t-4")] == ["cancelled", "assigned", "cancelled"]


def executor_with_child(**parent: Any) -> tuple[Script, ClientId]:
    """Task t-1 runs and has submitted t-2 through its executor's session."""
    s = Script(m_1=cpus(2))
    session = ClientId(X)
    s.feed(e.ClientConnected(session, X))
    s.submit("t-1", **parent)
    s.submit("t-2", client=session, parent=(T1, 1))
    return s, session


def test_children_of_a_success_outlive_the_executor_but_not_the_client() -> None:
    s, session = executor_with_child()
    s.succeed("t-1", VALUE._replace(contained=(oid("t-2"),)))
    s.feed(e.ClientClosed(session))
    assert not s.cluster._state.tasks[T2].is_cancelling
    s.feed(e.ClientClosed(A))
    assert s.cluster._state.tasks[T2].is_cancelling
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_children_of_a_detached_task_outlive_the_client() -> None:
    s, session = executor_with_child(detached=True)
    s.feed(e.ClientClosed(A))
    s.submit("t-3", client=session, parent=(T2, 1))
    s.succeed("t-1")
    s.feed(e.ClientClosed(session))
    assert [s.cluster._state.tasks[TaskId(name)].is_cancelling for name in ("t-2", "t-3")] == [False, False]


@pytest.mark.parametrize("way", ["given back", "removed"])
def test_children_of_an_attempt_without_outcome_are_cancelled(way: str) -> None:
    s, _ = executor_with_child()
    if way == "given back":
        s.feed(e.AttemptReturned(*s.fence("t-1")))
    else:
        s.feed(e.MachineRemovalRequested(M1, True))
    child = s.cluster._state.tasks.get(T2)
    assert child is None or child.is_cancelling or child.is_settled()


def test_sessions_that_end_before_their_tasks_are_placed_leave_nothing_behind() -> None:
    s, session = executor_with_child()
    s.submit("t-3", client=session, parent=(T1, 1))
    s.feed(e.ClientClosed(session))
    s.succeed("t-1")
    assert s.state("t-3") == "assigned"
    assert session not in s.cluster._state.queues.turns
