"""Items of generators: stored once and in order, told to their reader, gone when nobody reads."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.stream_events import ItemsYielded, StreamDropped, StreamRead
from runner.core.streams import NO_LIMIT, index_of
from runner.core.values import ValueRecord
from runner.ids import ObjectId, item_id
from tests.unit.core.script import T1, VALUE, A, B, Script, cpus, crash, of, oid, segment, user_error


def item(index: int) -> ObjectId:
    return item_id(T1, index)


def streaming(**options: Any) -> Script:
    s = Script(m_1=cpus(1))
    s.submit("t-1", subscribe=True, is_streaming=True, **options)
    s.start("t-1")
    return s


def yielded(s: Script, first_index: int, *values: ValueRecord) -> list[c.Command]:
    return s.feed(ItemsYielded(*s.fence("t-1"), first_index, values))


def values(*names: str) -> tuple[ValueRecord, ...]:
    return tuple(ValueRecord(name.encode()) for name in names)


def test_items_are_objects_of_the_reader_told_unasked() -> None:
    s = streaming()
    a, b = values("a", "b")
    assert yielded(s, 0, a, b) == [c.NotifyItems(A, T1, 0, (a, b))]
    assert yielded(s, 2, a) == [c.NotifyItems(A, T1, 2, (a,))]
    assert s.cluster.object_outcome(item(2)) == a
    commands = s.succeed("t-1")
    end = c.NotifyItems(A, T1, 3, (), is_over=True)
    assert [x for x in commands if isinstance(x, c.NotifyReady | c.NotifyItems)] == [
        c.NotifyReady(A, oid("t-1"), VALUE, None),
        end,
    ]
    s.release(oid("t-1"), item(0), item(1))
    assert s.state("t-1") == "succeeded", "kept while one of its items is"
    s.release(item(2))
    assert s.state("t-1") == "forgotten"
    assert s.cluster.object_count() == 0


def test_what_a_later_attempt_repeats_changes_nothing() -> None:
    s = streaming()
    first, again, new = segment("first"), segment("again"), segment("new")
    yielded(s, 0, first)
    old = s.fence("t-1")
    (start,) = of(c.StartAttempt, s.fail("t-1", crash()))
    assert (start.attempt, start.items_done) == (2, 1)
    assert s.feed(ItemsYielded(*old, 1, (VALUE,))) == [], "an attempt that is over says nothing"
    assert again.segment is not None
    assert yielded(s, 0, again, new) == [c.FreeSegment(item(0), again.segment), c.NotifyItems(A, T1, 1, (new,))]
    assert s.cluster.object_outcome(item(0)) == first
    assert yielded(s, 3, VALUE) == [], "nothing is stored behind a gap"


def test_the_failure_comes_after_the_items() -> None:
    s = streaming()
    yielded(s, 0, VALUE)
    commands = s.fail("t-1", user_error())
    kinds = [type(x) for x in commands if isinstance(x, c.NotifyReady | c.NotifyItems)]
    assert kinds == [c.NotifyReady, c.NotifyItems]
    assert of(c.NotifyItems, commands) == [c.NotifyItems(A, T1, 1, (), is_over=True)]


@pytest.mark.parametrize("go_on", [False, True])
def test_a_reader_that_drops_frees_what_it_has_not_read(go_on: bool) -> None:
    s = streaming()
    read, unread, late = segment("read"), segment("unread"), segment("late")
    yielded(s, 0, read, unread)
    commands = s.feed(StreamDropped(A, T1, 1, go_on))
    assert unread.segment is not None
    assert late.segment is not None
    assert of(c.FreeSegment, commands) == [c.FreeSegment(item(1), unread.segment)]
    assert len(of(c.StopAttempt, commands)) == (not go_on)
    assert yielded(s, 2, late) == [c.FreeSegment(item(2), late.segment)]
    assert s.cluster.object_outcome(item(0)) == read, "what it has taken stays until it is released"
    assert s.feed(StreamDropped(A, T1, 0)) == []
    assert of(c.NotifyItems, s.succeed("t-1")) == []


def test_the_end_of_its_reader_drops_a_stream() -> None:
    s = streaming(detached=True, backpressure=1)
    yielded(s, 0, VALUE, VALUE)
    (told,) = of(c.TellItemsRead, s.feed(e.ClientClosed(A)))
    assert told.count == NO_LIMIT, "it goes on, and waits for nobody"
    assert s.cluster.object_count() == 1
    assert yielded(s, 2, VALUE) == []
    s.feed(e.ClientConnected(A))
    assert yielded(s, 3, VALUE) == [], "who comes later under its name is another reader"
    s.succeed("t-1")
    assert s.cluster.object_count() == 0


def test_only_the_reader_reads_and_drops() -> None:
    s = streaming(backpressure=2)
    s.feed(e.ClientConnected(B))
    yielded(s, 0, VALUE, VALUE)
    assert s.feed(StreamRead(B, T1, 1)) == []
    assert s.feed(StreamDropped(B, T1, 0)) == []
    assert [x.count for x in of(c.TellItemsRead, s.feed(StreamRead(A, T1, 1)))] == [1]
    assert s.feed(StreamRead(A, T1, 1)) == [], "counts only rise"
    (start,) = of(c.StartAttempt, s.fail("t-1", crash()))
    assert (start.items_done, start.items_read) == (2, 1)
    s.feed(StreamDropped(A, T1, 1, go_on=True))
    (start,) = of(c.StartAttempt, s.fail("t-1", crash()) + s.after(10.0))
    assert start.items_read == NO_LIMIT


def test_a_reader_that_lost_replies_gets_all_from_its_next_item_on() -> None:
    s = streaming()
    a, b, d = values("a", "b", "d")
    yielded(s, 0, a, b, d)
    assert s.feed(e.ObjectsResolved(A, (item(1),))) == [c.NotifyItems(A, T1, 1, (b, d))]
    assert s.feed(e.ObjectsResolved(A, (item(3),))) == [], "it is told when there is one"
    s.release(item(0))
    s.succeed("t-1")
    assert s.feed(e.ObjectsResolved(A, (item(3),))) == [
        c.NotifyReady(A, oid("t-1"), VALUE, None),
        c.NotifyItems(A, T1, 3, (), is_over=True),
    ]
    assert of(c.NotifyItems, s.feed(e.ObjectsResolved(A, (item(1),))))[0].values == (b, d)


def test_others_that_hold_an_item_ask_for_it_as_for_any_object() -> None:
    s = streaming()
    s.feed(e.ClientConnected(B))
    yielded(s, 0, VALUE)
    s.feed(e.RefsAdded(B, (item(0),)))
    assert s.feed(e.ObjectsResolved(B, (item(0),))) == [c.NotifyReady(B, item(0), VALUE, None)]
    (lost,) = of(c.NotifyReady, s.feed(e.ObjectsResolved(B, (item(1),))))
    assert lost.failure is not None


def test_what_items_contain_lives_with_them() -> None:
    s = streaming()
    s.feed(e.ObjectPut(A, oid("put"), VALUE))
    yielded(s, 0, ValueRecord(b"v", (oid("put"),)))
    s.release(oid("put"))
    assert s.cluster.object_outcome(oid("put")) == VALUE
    s.release(item(0))
    assert s.cluster.object_count() == 1


def test_a_replay_knows_what_is_stored_and_read() -> None:
    s = streaming(backpressure=3)
    yielded(s, 0, VALUE, segment("x"))
    s.feed(StreamRead(A, T1, 1))
    assert s.replayed().snapshot() == s.cluster.snapshot()
    s.feed(StreamDropped(A, T1, 1))
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_a_task_that_never_runs_ends_its_stream() -> None:
    s = Script(m_1=cpus(1))
    commands = s.submit("t-1", subscribe=True, is_streaming=True, shape=cpus(1, GPU=10_000))
    if not of(c.NotifyItems, commands):
        commands = s.cancel("t-1")
    assert of(c.NotifyItems, commands) == [c.NotifyItems(A, T1, 0, (), is_over=True)]


@pytest.mark.parametrize(("name", "index"), [("t-1.i0", 0), ("t-1.i12", 12), ("t-1.0", None), ("o-1", None)])
def test_items_are_known_by_their_names(name: str, index: int | None) -> None:
    assert index_of(ObjectId(name)) == index
