"""Real processes, because /proc is what is tested; each is ended by closing its pipe."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from runner.ids import ClusterId, MachineId, random_id
from runner.providers.process_tag import Process, find_process, find_tagged, send_signal, survey

MACHINE = """
import os, subprocess, sys
from runner.providers.process_tag import tag_this_process
os.setsid()
tagged = tag_this_process(sys.argv[1], sys.argv[2])
child = os.fork()
if child:
    executed = subprocess.Popen([sys.executable, "-c", "input()"], start_new_session=True)
    print(tagged, child, executed.pid, flush=True)
sys.stdin.read()
if child:
    os.waitpid(child, 0)
    executed.wait()
"""


@pytest.fixture
def cluster() -> ClusterId:
    return ClusterId(random_id("c"))


@pytest.fixture
def machine(cluster):
    with subprocess.Popen(
        [sys.executable, "-c", MACHINE, cluster, "m-1"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as leader:
        assert leader.stdin is not None
        assert leader.stdout is not None
        tagged, forked, executed = leader.stdout.readline().split()
        assert tagged == "True"
        yield leader.pid, int(forked), int(executed)
        leader.stdin.close()


def test_forks_and_executed_children_carry_the_tag(cluster, machine) -> None:
    leader, forked, executed = machine
    found = {tagged.process.pid: tagged for tagged in find_tagged(cluster)}
    assert set(found) == {leader, forked, executed}
    assert {tagged.machine_id for tagged in found.values()} == {MachineId("m-1")}
    assert found[leader].process.is_session_leader
    assert [pid for pid, tagged in found.items() if tagged.is_agent] == [leader]


def test_other_clusters_are_not_found(cluster, machine) -> None:
    assert find_tagged(ClusterId(cluster[:-1])) == []


def test_people_see_the_machine_in_ps(cluster, machine) -> None:
    command = Path(f"/proc/{machine[0]}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    assert command == [b"runner-machine", cluster.encode(), b"m-1"]
    assert Path(f"/proc/{machine[0]}/comm").read_text().strip() == "runner m-1"


def test_the_session_holds_forks_but_not_children_that_left_it(cluster, machine) -> None:
    leader, forked, _ = machine
    assert {seen.process.pid for seen in survey(cluster) if seen.process.session == leader} == {leader, forked}


def test_a_signal_reaches_exactly_the_process_that_was_meant() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = find_process(child.pid)
        assert process is not None
        later = Process(process.pid, process.start_ticks + 1, process.session, process.state)
        assert not send_signal(later, signal.SIGKILL)
        assert child.poll() is None
        assert send_signal(process, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
        assert not send_signal(process, signal.SIGKILL)


def test_a_zombie_is_no_live_process() -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert find_process(child) is None
    os.waitpid(child, 0)


def test_start_times_tell_when_the_process_began() -> None:
    import time

    process = find_process(os.getpid())
    assert process is not None
    assert -1 <= time.time() - process.started_unix_s() < 24 * 3600
    assert process.identity == f"{os.getpid()}:{process.start_ticks}"
