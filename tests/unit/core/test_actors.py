"""Actors: incarnations, names, who is told, how they end. And promises: values that a session makes itself."""

from __future__ import annotations

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.values import ActorRecord, CoreConfig, FailureKind
from runner.ids import ClientId, ObjectId, TaskId
from tests.unit.core.script import T1, VALUE, A, B, Script, cpus, crash, oid, segment, user_error


def make(s: Script, name: str = "t-1", *, called: str = "", get_if_exists: bool = False, **options) -> list[c.Command]:
    options.setdefault("max_retries", 0)
    return s.submit(name, actor=ActorRecord(called, "", get_if_exists, b"meta"), **options)


def come_up(s: Script, name: str = "t-1") -> list[c.Command]:
    return s.feed(e.ActorCameUp(*s.fence(name), "address", b"secret"))


def alive(max_restarts: int = 0, **options) -> Script:
    s = Script(m_1=cpus(2))
    make(s, max_retries=max_restarts, **options)
    s.feed(e.ActorsWatched(A, (T1,)))
    come_up(s)
    return s


def told(commands: list[c.Command]) -> list[tuple[str, str, int]]:
    notices = [each for each in commands if isinstance(each, c.NotifyActor)]
    return [(each.client_id, each.state, each.incarnation) for each in notices]


def found(commands: list[c.Command]) -> list[c.NotifyFound]:
    return [each for each in commands if isinstance(each, c.NotifyFound)]


def stops(commands: list[c.Command]) -> list[tuple[str, bool]]:
    return [(each.reason, each.force) for each in commands if isinstance(each, c.StopAttempt)]


def freed(commands: list[c.Command]) -> list[str]:
    return [each.object_id for each in commands if isinstance(each, c.FreeSegment)]


# ---- lives ----
def test_a_watcher_is_told_where_it_is_and_when_that_changes() -> None:
    s = Script(m_1=cpus(2))
    make(s)
    assert told(s.feed(e.ActorsWatched(A, (T1,)))) == [(A, "pending", 1)]
    (notice,) = [each for each in come_up(s) if isinstance(each, c.NotifyActor)]
    assert (notice.state, notice.incarnation, notice.host_id, notice.address) == ("alive", 1, "host", "address")
    assert notice.secret == b"secret"
    assert told(s.fail("t-1", crash())) == [(A, "dead", 1)]


def test_one_that_crashes_is_restarted_as_often_as_allowed() -> None:
    s = alive(max_restarts=1)
    assert told(s.fail("t-1", crash())) == [(A, "restarting", 1)]
    assert told(come_up(s)) == [(A, "alive", 2)]
    (notice,) = [each for each in s.fail("t-1", crash()) if isinstance(each, c.NotifyActor)]
    assert notice.state == "dead"
    assert notice.failure is not None
    assert notice.failure.kind is FailureKind.ACTOR_DIED
    assert "SIGKILL" in notice.failure.message
    assert "max_restarts=1" in notice.failure.message


def test_one_that_may_always_be_restarted_is_no_poison() -> None:
    s = Script(CoreConfig(use_leases=False), m_1=cpus(2))
    make(s, max_retries=-1)
    for _ in range(6):
        come_up(s)
        s.fail("t-1", crash())
        s.after(60.0)
    come_up(s)
    assert s.state("t-1") == "running"


def test_a_constructor_that_raises_is_the_end_whatever_the_restarts() -> None:
    s = Script(m_1=cpus(2))
    make(s, max_retries=5)
    s.feed(e.ActorsWatched(A, (T1,)))
    (notice,) = [each for each in s.fail("t-1", user_error()) if isinstance(each, c.NotifyActor)]
    assert notice.state == "dead"
    assert notice.failure is not None
    assert notice.failure.kind is FailureKind.ACTOR_DIED
    assert "constructor raised: ValueError: no" in notice.failure.message
    assert notice.failure.payload == b"pickled"


def test_a_lost_machine_restarts_it_elsewhere() -> None:
    s = alive(max_restarts=1)
    s.boot("m-2", cpus(1))
    s.feed(e.MachineExited(s.fence("t-1")[0], "gone"))
    assert s.fence("t-1")[0] == "m-2"
    assert told(come_up(s)) == [(A, "alive", 2)]


def test_reports_of_an_older_incarnation_count_for_nothing() -> None:
    s = alive(max_restarts=1)
    old = s.fence("t-1")
    s.fail("t-1", crash())
    assert told(s.feed(e.ActorCameUp(*old, "old", b""))) == []
    assert s.cluster.actor_place(T1, 1) is None


# ---- ends ----
def test_without_a_handle_it_ends_gracefully_and_is_not_restarted() -> None:
    s = alive(max_restarts=-1)
    assert stops(s.release(oid("t-1"))) == [("released", False)]
    assert told(s.succeed("t-1")) == [(A, "dead", 1)]
    assert s.state("t-1") == "forgotten"


def test_a_handle_in_an_argument_keeps_it() -> None:
    s = alive()
    s.submit("t-2", contained=(oid("t-1"),))
    assert stops(s.release(oid("t-1"))) == []
    assert stops(s.succeed("t-2")) == [("released", False)]


def test_released_while_it_waits_for_a_machine_it_never_starts() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-2")
    make(s, shape=cpus(1))
    s.release(oid("t-1"))
    assert s.state("t-1") == "forgotten"


def test_a_detached_one_needs_no_handle_and_no_client() -> None:
    s = alive(detached=True)
    assert stops(s.release(oid("t-1"))) == []
    assert stops(s.feed(e.ClientClosed(A))) == []
    assert s.state("t-1") == "running"


def test_the_end_of_its_session_ends_it_gracefully() -> None:
    s = alive()
    assert stops(s.feed(e.ClientClosed(A))) == [("released", False)]


def test_kill_ends_it_at_once_for_good() -> None:
    s = alive(max_restarts=-1)
    assert stops(s.feed(e.ActorKillRequested(T1, True))) == [("cancelled", True)]
    (notice,) = [each for each in s.fail("t-1", crash()) if isinstance(each, c.NotifyActor)]
    assert notice.failure is not None
    assert "runner.kill()" in notice.failure.message


def test_kill_with_restart_charges_a_restart() -> None:
    s = alive(max_restarts=1)
    assert stops(s.feed(e.ActorKillRequested(T1, False))) == [("killed", True)]
    assert stops(s.feed(e.ActorKillRequested(T1, False))) == []
    cancelled = crash()._replace(kind=FailureKind.CANCELLED)
    s.fail("t-1", cancelled)
    come_up(s)
    s.feed(e.ActorKillRequested(T1, False))
    (notice,) = [each for each in s.fail("t-1", cancelled) if isinstance(each, c.NotifyActor)]
    assert notice.state == "dead"


def test_exit_is_no_fault() -> None:
    s = alive(max_restarts=-1)
    (notice,) = [each for each in s.succeed("t-1") if isinstance(each, c.NotifyActor)]
    assert notice.state == "dead"
    assert notice.failure is not None
    assert "exit_actor" in notice.failure.message


def test_one_that_is_forgotten_is_dead_to_who_asks() -> None:
    s = alive()
    s.release(oid("t-1"))
    s.succeed("t-1")
    assert told(s.feed(e.ActorsWatched(A, (T1,)))) == [(A, "dead", 0)]


# ---- names ----
def test_a_name_finds_it_for_everybody_and_makes_them_holders() -> None:
    s = alive(called="counter")
    s.feed(e.ClientConnected(B))
    (answer,) = found(s.feed(e.ActorSought(B, "r-1", "counter", "")))
    assert (answer.request_id, answer.actor_id, answer.meta) == ("r-1", T1, b"meta")
    assert stops(s.release(oid("t-1"))) == []
    assert stops(s.release(oid("t-1"), client=B)) == [("released", False)]


def test_a_taken_name_is_refused_or_answered_with_the_one_that_is_there() -> None:
    s = alive(called="counter")
    (answer,) = found(make(s, "t-2", called="counter"))
    assert answer.request_id == "t-2"
    assert answer.failure is not None
    assert "'counter' is taken by actor t-1" in answer.failure.message
    assert s.state("t-2") == "forgotten"
    (answer,) = found(make(s, "t-3", called="counter", get_if_exists=True))
    assert (answer.request_id, answer.actor_id) == ("t-3", T1)


def test_death_frees_the_name() -> None:
    s = alive(called="counter")
    s.fail("t-1", crash())
    (answer,) = found(s.feed(e.ActorSought(A, "r-1", "counter", "")))
    assert answer.failure is not None
    (answer,) = found(make(s, "t-2", called="counter"))
    assert answer.actor_id == "t-2"


@pytest.mark.parametrize("how", ["killed", "released"])
def test_one_that_is_being_ended_has_no_name_any_more(how: str) -> None:
    s = alive(called="counter")
    if how == "killed":
        s.feed(e.ActorKillRequested(T1, True))
    else:
        s.release(oid("t-1"))
    (answer,) = found(s.feed(e.ActorSought(A, "r-1", "counter", "")))
    assert answer.failure is not None
    (answer,) = found(make(s, "t-2", called="counter"))
    assert answer.actor_id == "t-2"
    s.fail("t-1", crash())  # the end of the old one leaves the name to the new one
    (answer,) = found(s.feed(e.ActorSought(A, "r-2", "counter", "")))
    assert answer.actor_id == "t-2"


def test_a_restart_keeps_the_name() -> None:
    s = alive(max_restarts=1, called="counter")
    s.feed(e.ActorKillRequested(T1, False))
    (answer,) = found(s.feed(e.ActorSought(A, "r-1", "counter", "")))
    assert answer.actor_id == T1


# ---- resources ----
def test_many_without_cpus_fit_on_one_and_nothing_is_chained_to_them() -> None:
    s = Script(m_1=cpus(1))
    for number in range(5):
        make(s, f"t-{number}", shape=())
    assert [s.state(f"t-{number}") for number in range(5)] == ["assigned"] * 5
    s.submit("t-9")
    assert s.state("t-9") == "assigned"


def test_those_without_cpus_are_spread_all_the_same() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(2))
    for number in range(4):
        make(s, f"t-{number}", shape=())
    assert sorted(s.fence(f"t-{number}")[0] for number in range(4)) == ["m-1", "m-1", "m-2", "m-2"]


# ---- promises ----
def test_a_promise_lets_others_wait_for_what_its_session_makes() -> None:
    s = Script(m_1=cpus(2))
    s.feed(e.ObjectsPromised(A, (ObjectId("c-1.0"),)))
    s.submit("t-2", dependencies=(ObjectId("c-1.0"),))
    assert s.state("t-2") == "waiting"
    s.feed(e.PromiseFulfilled(A, ObjectId("c-1.0"), VALUE, None))
    assert s.state("t-2") == "assigned"


@pytest.mark.parametrize("ends", [True, False], ids=["its session ends", "it fails"])
def test_a_promise_that_comes_to_nothing_fails_who_waits(ends: bool) -> None:
    s = Script(m_1=cpus(2))
    s.feed(e.ClientConnected(B))
    s.feed(e.ObjectsPromised(B, (ObjectId("c-1.0"),)))
    s.submit("t-2", dependencies=(ObjectId("c-1.0"),))
    if ends:
        s.feed(e.ClientClosed(B))
    else:
        s.feed(e.PromiseFulfilled(B, ObjectId("c-1.0"), None, user_error()))
    view = s.cluster.task(TaskId("t-2"))
    assert view is not None
    assert view.failure is not None
    assert view.failure.kind is (FailureKind.OWNER_DIED if ends else FailureKind.USER)


def test_a_promise_nobody_holds_is_freed_when_it_is_kept() -> None:
    s = Script()
    s.feed(e.ObjectsPromised(A, (ObjectId("c-1.0"),)))
    s.release(ObjectId("c-1.0"))
    commands = s.feed(e.PromiseFulfilled(A, ObjectId("c-1.0"), segment("s"), None))
    assert freed(commands) == ["c-1.0"]
    assert s.cluster.object_count() == 0


@pytest.mark.parametrize("is_first", [True, False], ids=["the promise comes first", "the value comes first"])
def test_who_promises_what_another_session_stores_is_a_holder_all_the_same(is_first: bool) -> None:
    """A large result of an actor: its process stores it, while the caller has passed the ref on."""
    s = Script(m_1=cpus(2))
    s.feed(e.ClientConnected(B))
    object_id = ObjectId("c-1.0")
    promise, put = e.ObjectsPromised(A, (object_id,)), e.ObjectPut(B, object_id, segment("s"))
    for event in (promise, put) if is_first else (put, promise):
        s.feed(event)
    s.submit("t-2", dependencies=(object_id,))
    assert s.state("t-2") == "assigned"
    assert not freed(s.feed(e.PromiseFulfilled(A, object_id, segment("s"), None)))
    assert not freed(s.release(object_id, client=B))
    s.succeed("t-2")
    assert freed(s.release(object_id)) == [object_id]


def test_what_an_actor_has_stored_is_freed_also_when_it_dies_before_its_caller_knows() -> None:
    s = Script(m_1=cpus(2))
    s.feed(e.ClientConnected(B))
    object_id = ObjectId("c-1.0")
    s.feed(e.ObjectsPromised(A, (object_id,)))
    s.feed(e.ObjectPut(B, object_id, segment("s")))
    s.feed(e.ClientClosed(B))
    s.feed(e.PromiseFulfilled(A, object_id, None, crash()))
    assert freed(s.release(object_id)) == [object_id]


def test_replay_knows_actors_and_promises() -> None:
    s = alive(max_restarts=1, called="counter")
    s.feed(e.ClientConnected(ClientId("c-z")))
    s.feed(e.ObjectsPromised(A, (ObjectId("c-1.0"),)))
    s.fail("t-1", crash())
    copy = s.replayed()
    assert copy.snapshot() == s.cluster.snapshot()
    copy.check()
