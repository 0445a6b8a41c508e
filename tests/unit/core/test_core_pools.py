"""How pools grow and shrink."""

from __future__ import annotations

from runner.core import commands as c
from runner.core import events as e
from runner.core.values import GPU, UNIT, PoolRecord
from runner.ids import MachineId
from tests.unit.core.script import Script, cpus, of

GPU_MACHINE = cpus(2, **{GPU: UNIT})


class Fleet(Script):
    """A script whose machines come from pools."""

    def __init__(self, *pools: PoolRecord, **start: int) -> None:
        super().__init__()
        self.feed(e.PoolsConfigured(pools, start, "fake"))

    def living(self) -> list[str]:
        """Machines that are coming or ready."""
        views = self.cluster.machines(limit=1000)[0]
        return [v.machine_id for v in views if v.state in {"requested", "creating", "booting", "ready"}]

    def states(self) -> dict[str, str]:
        return {view.machine_id: view.state for view in self.cluster.machines(limit=1000)[0]}

    def join(self, *names: str) -> None:
        for name in names:
            view = self.cluster.machine(MachineId(name))
            assert view is not None
            self.feed(e.MachineCreated(view.machine_id, f"pid-{name}"))
            self.register(name, view.total)

    def gone(self, *names: str) -> None:
        for name in names:
            self.feed(e.MachineDestroyed(MachineId(name)))

    def fail_boot(self, name: str, reason: str = "no", **kind: bool) -> list[c.Command]:
        commands = self.feed(e.MachineBootFailed(MachineId(name), reason, **kind))
        self.gone(name)
        return commands

    def wait(self, seconds: float) -> None:
        """In small steps, as leases and plans are timers; machines are heard."""
        end_s = self.now_s + seconds
        while self.now_s < end_s:
            for view in self.cluster.machines(limit=1000)[0]:
                if view.state in {"ready", "draining"}:
                    self.feed(e.MachineHeard(view.machine_id, view.generation))
            self.after(min(1.0, end_s - self.now_s))


def fixed(count: int, name: str = "default", shape: tuple[tuple[str, int], ...] = cpus(1)) -> PoolRecord:
    return PoolRecord(name, shape, count, count)


def elastic(most: int, least: int = 0, *, idle_s: float = 30.0, buffer: int = 0) -> PoolRecord:
    return PoolRecord("default", cpus(1), least, most, buffer, idle_s)


# ---- a fixed number ----
def test_a_start_asks_for_all_machines_at_once() -> None:
    s = Fleet(fixed(3))
    assert s.living() == ["m-1", "m-2", "m-3"]


def test_a_lost_machine_is_replaced_once_it_is_gone_and_its_work_waits_for_that() -> None:
    s = Fleet(fixed(1))
    s.join("m-1")
    s.submit("t-1")
    s.wait(20)
    s.feed(e.MachineExited(MachineId("m-1"), "killed"))
    s.wait(1)
    assert s.living() == [], "never more than `max`: the old one may still be there"
    s.gone("m-1")
    s.wait(1)
    assert s.living() == ["m-2"]
    assert s.state("t-1") == "queued"
    s.join("m-2")
    assert s.fence("t-1")[0] == "m-2"


def test_a_machine_that_is_told_to_end_is_replaced_and_one_that_is_removed_is_not() -> None:
    s = Fleet(fixed(2))
    s.join("m-1", "m-2")
    s.feed(e.MachineRemovalRequested(MachineId("m-1"), force=False, by_itself=True))
    s.gone("m-1")
    s.wait(1)
    assert s.living() == ["m-2", "m-3"]
    s.feed(e.MachineRemovalRequested(MachineId("m-2"), force=False))
    s.gone("m-2")
    s.wait(100)
    assert s.living() == ["m-3"]


def test_machines_that_are_added_are_kept_and_survive_a_restart() -> None:
    s = Fleet(fixed(1))
    commands = s.feed(e.MachinesWanted("default", 2))
    assert [command.machine_id for command in of(c.CreateMachine, commands)] == ["m-2", "m-3"]
    s.cluster = s.replayed()
    s.feed(e.CoordinatorRestarted())
    s.gone("m-1", "m-2", "m-3")
    s.feed(e.PoolsConfigured((fixed(1),), {"default": 1}, "fake"))
    s.wait(1)
    assert s.living() == ["m-4", "m-5", "m-6"]
    s.cluster = s.replayed()
    s.feed(e.CoordinatorRestarted())
    s.gone("m-4", "m-5", "m-6")
    s.feed(e.PoolsConfigured((fixed(2),), {"default": 2}, "fake"))
    s.wait(1)
    assert s.living() == ["m-7", "m-8"], "another number was said at the start"


def test_what_is_added_to_an_elastic_pool_and_removed_again_leaves_it_as_it_was() -> None:
    s = Fleet(elastic(1))
    s.feed(e.MachinesWanted("default", 1))
    s.join("m-1")
    s.feed(e.MachineRemovalRequested(MachineId("m-1"), force=False))
    s.gone("m-1")
    record = s.cluster.pools()[0].record
    assert (record.min, record.max) == (0, 1)
    s.submit("t-1")
    s.wait(0.1)
    assert s.living() == ["m-2"]
    s.feed(e.MachinesWanted("default", 2))
    record = s.cluster.pools()[0].record
    assert (record.min, record.max) == (2, 2)


# ---- growing and shrinking ----
def test_a_queue_makes_it_grow_to_its_maximum_and_idleness_shrink_to_nothing() -> None:
    s = Fleet(elastic(3, idle_s=10))
    assert s.living() == []
    for number in range(5):
        s.submit(f"t-{number}")
    s.wait(0.1)
    assert s.living() == ["m-1", "m-2", "m-3"]
    s.join("m-1", "m-2", "m-3")
    for name in ("t-0", "t-1", "t-2", "t-3", "t-4"):
        s.succeed(name)
    s.wait(9)
    assert len(s.living()) == 3
    s.wait(2)
    assert s.living() == []
    s.gone("m-1", "m-2", "m-3")
    s.submit("t-9")
    s.wait(0.1)
    assert s.living() == ["m-4"], "and back from zero"


def test_no_more_machines_than_the_queue_can_use() -> None:
    s = Fleet(PoolRecord("default", cpus(4), 0, 10))
    for number in range(6):
        s.submit(f"t-{number}", shape=cpus(2))
    s.wait(5)
    assert len(s.living()) == 3


def test_a_buffer_of_idle_machines_is_kept_while_there_is_work() -> None:
    s = Fleet(elastic(5, idle_s=5, buffer=2))
    s.wait(1)
    assert s.living() == [], "not without work"
    s.submit("t-1")
    s.wait(0.1)
    assert len(s.living()) == 3
    s.join(*s.living())
    s.wait(60)
    assert len(s.living()) == 3, "idle for longer than idle_shutdown_s, but spares"
    s.submit("t-2")
    s.wait(0.1)
    assert len(s.living()) == 4, "a spare was taken: another one comes"
    s.join("m-4")
    s.succeed("t-1")
    s.succeed("t-2")
    s.wait(6)
    assert s.living() == []


def test_a_busy_machine_never_goes_for_idleness_and_min_stays() -> None:
    s = Fleet(elastic(4, 1, idle_s=5))
    for name in ("t-1", "t-2", "t-3"):
        s.submit(name)
    s.wait(0.1)
    s.join(*s.living())
    busy = s.fence("t-1")[0]
    s.succeed("t-2")
    s.succeed("t-3")
    s.wait(30)
    assert s.living() == [busy]
    s.succeed("t-1")
    s.wait(30)
    assert s.living() == [busy]


def test_start_boots_more_than_min_and_they_may_go() -> None:
    s = Fleet(elastic(8, 1, idle_s=5), default=4)
    assert len(s.living()) == 4
    s.join(*s.living())
    s.wait(6)
    assert len(s.living()) == 1


def test_what_is_queued_chooses_among_pools() -> None:
    s = Fleet(PoolRecord("gpu", GPU_MACHINE, 0, 2), PoolRecord("cpu", cpus(1), 0, 2))
    s.submit("t-1", shape=cpus(1, **{GPU: UNIT}))
    s.submit("t-2")
    s.wait(0.1)
    pools = {view.pool for view in s.cluster.machines()[0]}
    assert pools == {"gpu", "cpu"}
    assert len(s.living()) == 2
    for number in range(4):
        s.submit(f"u-{number}")
    s.wait(0.1)
    counts = [(view.record.name, view.coming) for view in s.cluster.pools()]
    assert counts == [("gpu", 2), ("cpu", 2)], "where the plain pool is full, the other one helps"


def test_a_machine_for_single_use_serves_one_task_and_goes() -> None:
    s = Fleet(PoolRecord("default", cpus(4), 0, 2, is_single_use=True))
    for name in ("t-1", "t-2", "t-3"):
        s.submit(name)
    s.wait(0.1)
    assert s.living() == ["m-1", "m-2"]
    s.join("m-1", "m-2")
    assert {s.fence("t-1")[0], s.fence("t-2")[0]} == {"m-1", "m-2"}
    assert s.state("t-3") == "queued", "a machine has room, and is taken"
    s.succeed("t-1", duration_s=0.001)
    s.wait(0.1)
    assert s.states()["m-1"] == "stopping"
    assert s.living() == ["m-2"], "`max` counts those on their way out"
    s.gone("m-1")
    s.wait(0.1)
    assert s.living() == ["m-2", "m-3"]
