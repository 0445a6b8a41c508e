"""What memory is in use, who uses it, and who goes when there is none left."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from runner.core.values import FailureKind
from runner.worker import process
from runner.worker.agent import events as ev
from runner.worker.agent import memory_watch
from runner.worker.agent.machine import AgentMachine, AgentSettings
from runner.worker.agent.memory_watch import SETTLE_S, HostLock, MemoryWatch, User, describe_users

GIB = 1 << 30


def attempt(name: str, slot: int, *, may_retry: bool) -> ev.Attempt:
    return ev.Attempt((name, 1), slot, ev.Environment(), "f", f"task {name} (work) attempt 1", may_retry=may_retry)


def agent_with(*attempts: ev.Attempt) -> AgentMachine:
    agent = AgentMachine(AgentSettings("m-1", cpus=4, is_leased=False))
    for each in attempts:
        for command in agent.handle(ev.AttemptAssigned(each), 0.0):
            if isinstance(command, ev.SpawnExecutor):
                agent.handle(ev.ExecutorReady(command.number, 100 + command.number), 0.0)
    agent.check()
    return agent


def low() -> ev.MemoryLow:
    return ev.MemoryLow(96 * GIB, 100 * GIB, "pid 101 task t-1 (work) attempt 1 5 MiB", {101: 5, 102: 6, 103: 7})


def killed(agent: AgentMachine) -> list[int]:
    return [each.number for each in agent.handle(low(), 1.0) if isinstance(each, ev.SignalGroup)]


def test_the_newest_attempt_goes_that_can_be_tried_again() -> None:
    agent = agent_with(
        attempt("t-1", 1, may_retry=True), attempt("t-2", 2, may_retry=True), attempt("t-3", 3, may_retry=False)
    )
    assert killed(agent) == [2]
    ended = agent.handle(ev.ExecutorExited(2, ev.ExitCause(signal_number=9, signal_name="SIGKILL"), False), 1.0)
    fault = next(each.fault for each in ended if isinstance(each, ev.ReportEnded))
    assert fault is not None
    assert fault.kind is FailureKind.OUT_OF_MEMORY
    assert fault.used_bytes == 6
    assert "98304 of the machine's 102400 MiB of memory were in use" in fault.message
    assert "the newest attempt there that can be retried" in fault.message
    assert "top memory users: pid 101 task t-1 (work) attempt 1 5 MiB" in fault.message
    assert killed(agent) == [1]
    assert killed(agent) == [3], "the kernel would take something in any case"
    assert killed(agent) == [], "those that are on their way out are enough"


def test_users_are_named_with_pid_task_and_bytes() -> None:
    users = [User(n << 20, n, f"task t-{n} (work) attempt 1") for n in range(9, 1, -1)]
    text = describe_users(users)
    assert text.startswith("pid 9 task t-9 (work) attempt 1 9 MiB, pid 8 ")
    assert text.endswith("and 3 more")


def test_the_machine_is_looked_at_and_one_attempt_told_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    used = [94]
    monkeypatch.setattr(memory_watch, "machine_memory", lambda: (used[0], 100))
    busy: Any = SimpleNamespace(pid=os.getpid(), serial=1, number=1, attempt=attempt("t-1", 1, may_retry=True))
    told: list[Any] = []
    watch = MemoryWatch(told.append, lambda: [busy], guard_share=0.95)
    watch.look_at_machine(10.0)
    assert told == []
    used[0] = 96
    other = HostLock()
    assert other.take()
    watch.look_at_machine(11.0)
    assert told == [], "another agent of this host is at it"
    other.drop()
    watch.look_at_machine(12.0)
    watch.look_at_machine(12.0 + SETTLE_S / 2)
    assert len(told) == 1, "memory is not free at once"
    assert not other.take()
    assert f"pid {os.getpid()} task t-1 (work) attempt 1" in told[0].users
    assert told[0].used_by[os.getpid()] > 0
    used[0] = 50
    watch.look_at_machine(20.0)
    assert other.take()
    other.drop()


def test_memory_of_the_machine_is_that_of_its_control_group_when_that_is_fuller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = {
        "/sys/fs/cgroup/memory.max": f"{GIB}\n",
        "/sys/fs/cgroup/memory.current": f"{GIB - 1000}\n",
        "/sys/fs/cgroup/memory.stat": "anon 5\ninactive_file 4000\n",
    }
    real = process._read

    def read(path: str) -> str:
        if not path.startswith("/sys/fs/cgroup/"):
            return real(path)
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    monkeypatch.setattr(process, "_read", read)
    assert process.machine_memory() == (GIB - 5000, GIB)
    files["/sys/fs/cgroup/memory.max"] = "max\n"
    used, total = process.machine_memory()
    assert 0 < used < total
