"""Labels, named machines, spreading, warm machines, data, priorities, and memory that grows."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core import commands as c
from runner.core import events as e
from runner.core.values import MEMORY, FailureKind, FailureRecord, Labels, PoolRecord, SegmentRecord, ValueRecord
from runner.core.values import WishRecord as Wish
from runner.core.wants import matches
from runner.ids import MachineId, ObjectId
from tests.unit.core.script import A, Script, cpus, oid, started

GIB = 1 << 30
NEW = MachineId("m-new")


def join(s: Script, name: str, labels: Labels = (), *, host: str = "host", shape: Any = None) -> list[c.Command]:
    shape = cpus(2) if shape is None else shape
    s.request(name, shape)
    return s.feed(e.MachineRegistered(MachineId(name), "agent", shape, host, labels=labels))


def places(commands: list[c.Command]) -> dict[str, str]:
    return {task: machine for task, _, machine, _ in started(commands)}


def failure(s: Script, name: str) -> FailureRecord:
    found = s.cluster.object_outcome(oid(name))
    assert isinstance(found, FailureRecord), s.cluster.story(name)
    return found


@pytest.mark.parametrize(
    ("rule", "fits_a", "fits_b", "fits_none"),
    [
        ("a", True, False, False),
        ("!a", False, True, True),
        ("in(a, b)", True, True, False),
        ("!in(a,c)", False, True, True),
    ],
)
def test_rules_for_labels(rule: str, fits_a: bool, fits_b: bool, fits_none: bool) -> None:
    selector = (("zone", rule),)
    assert [matches((("zone", zone),), selector) for zone in "ab"] == [fits_a, fits_b]
    assert matches((("other", "a"),), selector) is fits_none
    assert matches((), selector, unknown=("zone",)), "what is not known yet may turn out right"


def test_a_task_goes_where_the_labels_are() -> None:
    s = Script(m_1=cpus(8))
    join(s, "m-2", (("disk", "fast"),), shape=cpus(1))
    wish = Wish(labels=(("disk", "fast"),))
    assert places(s.submit("t-1", wishes=wish)) == {"t-1": "m-2"}
    assert places(s.submit("t-2", wishes=wish)) == {}, "m-1 has room, and not the label"
    assert places(s.submit("t-3")) == {"t-3": "m-1"}, "nobody waits behind it"
    s.start("t-1")
    assert places(s.succeed("t-1")) == {"t-2": "m-2"}
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_labels_that_nobody_has_fail_at_once_and_say_so() -> None:
    s = Script(m_1=cpus(8))
    s.submit("t-1", wishes=Wish(labels=(("disk", "fast"),)))
    assert failure(s, "t-1").kind is FailureKind.UNSCHEDULABLE
    text = failure(s, "t-1").message
    assert "needs CPU 1 where disk=fast" in text
    assert "missing: a machine with these labels" in text
    assert "1 x (CPU 8)" in text


def test_a_pool_grows_for_its_labels_and_one_whose_labels_are_not_known_counts() -> None:
    s = Script()
    pools = (
        PoolRecord("plain", cpus(4), 0, 2),
        PoolRecord("near", cpus(4), 0, 2, labels=(("disk", "fast"),), unknown_labels=("region",)),
    )
    s.feed(e.PoolsConfigured(pools, {}, "fake"))
    commands = s.submit("t-1", wishes=Wish(labels=(("disk", "fast"), ("region", "iad")))) + s.after(0.1)
    assert [each.pool for each in commands if isinstance(each, c.CreateMachine)] == ["near"]
    s.feed(e.MachineRegistered(MachineId("m-1"), "agent", cpus(4), "host", labels=(("region", "iad"),)))
    assert s.state("t-1") == "assigned"
    s.submit("t-2", wishes=Wish(labels=(("disk", "slow"),)))
    assert s.state("t-2") == "failed"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_a_named_machine_and_no_other() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(1))
    wish = Wish(machine_id="m-2")
    assert places(s.submit("t-1", wishes=wish)) == {"t-1": "m-2"}
    assert places(s.submit("t-2", wishes=wish)) == {}
    s.submit("t-3", wishes=wish, shape=cpus(2))
    assert "needs CPU 2 on machine m-2" in failure(s, "t-3").message
    s.submit("t-4", wishes=Wish(machine_id="m-9"))
    assert "on machine m-9, which is not there" in failure(s, "t-4").message
    soft = Wish(machine_id="m-2", is_machine_soft=True)
    assert places(s.submit("t-5", wishes=soft)) == {"t-5": "m-1"}, "another one will do"
    s.feed(e.MachineExited(MachineId("m-2"), "killed"))
    assert failure(s, "t-2").kind is FailureKind.UNSCHEDULABLE
    assert failure(s, "t-1").kind is FailureKind.UNSCHEDULABLE, "its retry has nowhere to go"


def test_spread_goes_by_the_number_of_tasks() -> None:
    s = Script(m_1=cpus(16), m_2=cpus(2))
    spread = Wish(spread=True)
    went = [places(s.submit(f"t-{index}", wishes=spread))[f"t-{index}"] for index in range(4)]
    assert sorted(went) == ["m-1", "m-1", "m-2", "m-2"]
    assert [places(s.submit("t-9"))["t-9"]] == ["m-1"], "others go by load"


def test_spread_goes_past_an_actor_without_cpus_rather_than_past_a_task() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(2))
    s.submit("actor", shape=(), wishes=Wish(machine_id="m-2"))
    spread = Wish(spread=True)
    assert [places(s.submit(name, wishes=spread))[name] for name in ("t-1", "t-2")] == ["m-1", "m-2"]


def test_a_key_goes_where_it_is_warm() -> None:
    s = Script(m_1=cpus(2), m_2=cpus(2))
    wish = Wish(affinity_key="model-a")
    first = places(s.submit("t-1", wishes=wish))["t-1"]
    assert places(s.submit("t-2", wishes=wish)) == {"t-2": first}, "though the other one has more room"
    other = ({"m-1", "m-2"} - {first}).pop()
    assert places(s.submit("t-3", wishes=wish)) == {"t-3": other}, "it does not wait for a warm place"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_a_task_goes_to_its_large_inputs() -> None:
    s = Script()
    join(s, "m-1", host="far", shape=cpus(8))
    join(s, "m-2", host="near", shape=cpus(2))
    for name, host, size in (("large", "near", 8 << 20), ("small", "near", 1000)):
        value = ValueRecord(b"s", (), SegmentRecord(host, f"/dev/shm/{name}", size))
        s.feed(e.ObjectPut(A, ObjectId(name), value))
    assert places(s.submit("t-1", dependencies=(ObjectId("small"),))) == {"t-1": "m-1"}
    assert places(s.submit("t-2", dependencies=(ObjectId("large"),))) == {"t-2": "m-2"}
    assert places(s.submit("t-3", dependencies=(ObjectId("large"),))) == {"t-3": "m-2"}
    assert places(s.submit("t-4", dependencies=(ObjectId("large"),))) == {"t-4": "m-1"}, "it does not wait for m-2"


def test_higher_priority_first_also_across_needs() -> None:
    s = Script(m_1=cpus(1))
    s.submit("t-0")
    s.submit("low", priority=-1)
    s.submit("plain")
    s.submit("high", priority=5, wishes=Wish(spread=True))
    order = []
    current = "t-0"
    for _ in range(3):
        s.start(current)
        current = next(iter(places(s.succeed(current))))
        order.append(current)
    assert order == ["high", "plain", "low"]


def oom(used: int = 0) -> FailureRecord:
    return FailureRecord(FailureKind.OUT_OF_MEMORY, "too much", used_bytes=used)


def memory_of(s: Script, name: str) -> int:
    return dict(s.cluster._state.tasks[name].shape).get(MEMORY, 0)  # type: ignore[index]


def test_memory_grows_up_to_the_largest_machine() -> None:
    s = Script(m_1=cpus(4, memory=5 * GIB))
    s.submit("t-1", shape=cpus(1, memory=2 * GIB), wishes=Wish(grow_on_oom=True), max_retries=9)
    starts = [each for each in s.fail("t-1", oom()) if isinstance(each, c.StartAttempt)]
    assert [each.memory_bytes for each in starts] == [4 * GIB], "the machine is told its new limit"
    assert "asks for memory 4 GiB" in s.cluster.story("t-1")
    s.fail("t-1", oom())
    assert memory_of(s, "t-1") == 5 * GIB, "no more than there is"
    assert s.replayed().snapshot() == s.cluster.snapshot()


def test_memory_grows_from_what_was_used_and_only_where_it_was_asked_for() -> None:
    s = Script(m_1=cpus(4, memory=64 * GIB))
    s.submit("t-1", wishes=Wish(grow_on_oom=True))
    s.fail("t-1", oom(3 * GIB))
    assert memory_of(s, "t-1") == 6 * GIB
    s.submit("t-2", shape=cpus(1, memory=GIB))
    starts = [each for each in s.fail("t-2", oom()) if isinstance(each, c.StartAttempt)]
    assert [each.memory_bytes for each in starts] == [0]
    assert memory_of(s, "t-2") == GIB
