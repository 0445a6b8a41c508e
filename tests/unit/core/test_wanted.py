"""Whether anybody wants the cluster: a connected client, or work that no client's end cancels."""

from __future__ import annotations

from runner.core import events as e
from tests.unit.core.script import T1, A, B, Script, cpus


def test_a_connected_client_is_enough() -> None:
    s = Script()
    assert s.cluster.is_wanted()

    s.feed(e.ClientDisconnected(A))
    assert not s.cluster.is_wanted()

    s.feed(e.ClientConnected(B))
    assert s.cluster.is_wanted()


def test_the_work_of_a_client_that_is_away_is_not() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1")
    s.submit("t-2", parent=(T1, 1))

    s.feed(e.ClientDisconnected(A))

    assert not s.cluster.is_wanted()


def test_detached_work_is_until_it_has_ended() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-1", detached=True)
    s.feed(e.ClientClosed(A))
    assert s.cluster.is_wanted()

    s.succeed("t-1")
    assert not s.cluster.is_wanted()


def test_children_of_detached_work_are_too() -> None:
    s = Script(m_1=cpus(2))
    s.submit("t-1", detached=True)
    s.submit("t-2", parent=(T1, 1))
    s.feed(e.ClientClosed(A))

    assert s.cluster.is_wanted()
