"""What people read: status, machines, and what `up` prints."""

from __future__ import annotations

import json

import pytest

from runner.cli import machines, output, status, timings, up
from runner.coordinator.config import CoordinatorConfig, CoordinatorReady
from runner.core.values import UNIT
from runner.pools import fixed_pool
from runner.rpc.gen import client_pb2, types_pb2
from runner.rpc.version import PROTOCOL

GIB = 1024**3


def test_durations():
    texts = [output.duration_text(seconds) for seconds in (-1, 0.04, 9.96, 12.7, 59.9, 200, 7500, 90000)]
    assert texts == ["0.0 s", "0.0 s", "10.0 s", "12 s", "59 s", "3 min 20 s", "2 h 5 min", "1 d 1 h"]


def test_amounts_are_whole_things():
    shown = output.amounts({"CPU": 5000, "GPU": 2 * UNIT, "memory": 3 * GIB})
    assert shown == {"CPU": 0.5, "GPU": 2.0, "memory": 3.0 * GIB}
    assert output.amount_text("memory", 3.5 * GIB) == "3.5 GiB"
    assert output.used_of_total("CPU", {"CPU": 4.0}, {"CPU": 0.5}) == "3.5/4"
    assert output.used_of_total("GPU", {}, {}) == ""


def test_a_table_in_a_pipe_is_plain_and_not_folded(capsys):
    output.print_table(("NAME", "N"), [("lr=[red]1e-5[/red]", "1"), ("x" * 300, "20")], right=("N",))
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["lr=[red]1e-5[/red]", "1"]
    assert len(lines) == 3
    assert "\x1b" not in "".join(lines)


class Stub:
    """Answers as a coordinator with one running and 30 queued tasks would."""

    cost: client_pb2.Cost | None = None
    pools: tuple[client_pb2.PoolInfo, ...] = ()

    async def GetStatus(self, request, timeout):
        return client_pb2.GetStatusReply(
            cluster_id="5f2a9c01d3e4",
            peer=types_pb2.Peer(protocol=PROTOCOL, runner_version="0.1.0", python_version="3.11.7"),
            uptime_s=200.0,
            total=types_pb2.Resources(amounts={"CPU": 4 * UNIT, "GPU": UNIT}),
            available=types_pb2.Resources(amounts={"CPU": UNIT, "GPU": UNIT}),
            tasks_by_state={"running": 3, "queued": 30, "backoff": 1},
            machines_by_state={"ready": 2, "lost": 1},
            objects=7,
            clients=1,
            pid=4711,
            state_dir="/home/u/.runner/clusters/5f2a9c01d3e4",
            cost=self.cost,
            pools=self.pools,
        )

    async def ListTasks(self, request, timeout):
        if request.state == "backoff":
            info = client_pb2.TaskInfo(task_id="t-b", name="sweep", state="backoff", why_waiting="retried in 2.0 s")
            return client_pb2.ListTasksReply(tasks=[info])
        first = int(request.page_token or 0)
        tasks = [
            client_pb2.TaskInfo(
                task_id=f"t-{n}",
                function_name="train.finetune",
                state="queued",
                why_waiting="needs 1 GPU: all 1 in use",
            )
            for n in range(first, first + 10)
        ]
        return client_pb2.ListTasksReply(tasks=tasks, next_page_token=str(first + 10) if first < 20 else "")

    async def ListMachines(self, request, timeout):
        ready = client_pb2.MachineInfo(
            machine_id="m-1",
            state="ready",
            generation=1,
            total=types_pb2.Resources(amounts={"CPU": 4 * UNIT}),
            available=types_pb2.Resources(amounts={"CPU": UNIT}),
            provider="local",
            phases={"registered": 0.25, "created": 0.01},
            running_tasks=3,
        )
        lost = client_pb2.MachineInfo(machine_id="m-2", state="lost", provider="local", reason="silent for 61 s")
        return client_pb2.ListMachinesReply(machines=[ready, lost])


@pytest.fixture
def connection():
    from runner.cli.connection import Connection

    return Connection("127.0.0.1:7420", Stub())


async def test_status_text(connection, capsys):
    status._print(await status.read_status(connection))
    lines = capsys.readouterr().out.splitlines()
    assert lines[:9] == [
        "cluster   5f2a9c01d3e4 at 127.0.0.1:7420 (standing)",
        "up        3 min 20 s, pid 4711, runner 0.1.0, Python 3.11.7",
        "state in  /home/u/.runner/clusters/5f2a9c01d3e4",
        "machines  1 lost, 2 ready (why: runner machines --all)",
        "in use    3 of 4 CPU, 0 of 1 GPU",
        "tasks     1 backoff, 30 queued, 3 running",
        "clients   1, 7 objects",
        "",
        "PENDING         TASK  STATE   WHY",
    ]
    assert lines[9].split(maxsplit=3) == ["train.finetune", "t-0", "queued", "needs 1 GPU: all 1 in use"]
    assert lines[-1] == "… and 11 more"
    assert len(lines) == 9 + status.PENDING_MAX + 1


async def test_status_json_has_stable_keys(connection):
    shown = json.loads(json.dumps(await status.read_status(connection)))
    assert list(shown) == [
        "cluster_id", "address", "embedded", "uptime_s", "runner_version", "python_version", "protocol", "pid",
        "state_dir", "resources", "machines", "tasks", "objects", "clients", "pools", "cost", "pending", "pending_total",
    ]  # fmt: skip
    assert shown["resources"]["CPU"] == {"total": 4.0, "available": 1.0}
    assert list(shown["pending"][0]) == ["task_id", "name", "function_name", "state", "submitted_s", "why_waiting"]
    assert shown["pending_total"] == 31


async def test_machines_text_and_json(connection, capsys):
    listed = await machines._read(connection)
    machines._print(listed)
    lines = capsys.readouterr().out.splitlines()
    assert lines == [
        "MACHINE  STATE  TASKS  CPU  PROVIDER    BOOT  NOTE",
        "m-1      ready      3  3/4  local     0.25 s",
        "m-2      lost       0       local             silent for 61 s",
    ]
    assert list(listed[0]) == [
        "machine_id", "state", "generation", "total", "available", "running_tasks", "pool", "provider",
        "provider_machine_id", "pid", "host_id", "phases_s", "size", "region", "cost", "reason", "snapshot", "sleep", "wake",
        "slept_s",
    ]  # fmt: skip
    assert listed[0]["phases_s"] == {"created": 0.01, "registered": 0.25}


async def test_status_tells_the_cost_where_there_is_one(connection, capsys):
    assert (await status.read_status(connection))["cost"] is None
    connection.stub.cost = client_pb2.Cost(spent=1.234, per_hour=11.7338, spent_by_pool={"default": 1.234})
    status._print(await status.read_status(connection))
    assert capsys.readouterr().out.splitlines()[5] == "cost      $1.23 so far, $11.73 per hour"
    connection.stub.cost = client_pb2.Cost(spent=19.9, max_cost=20.0, is_budget_spent=True, unpriced_machines=1)
    shown = await status.read_status(connection)
    assert status.cost_text(shown["cost"]) == (
        "$19.90 so far, $0.00 per hour, of at most $20.00: too near for more machines, "
        "without 1 machine whose price is not known"
    )
    assert shown["cost"]["spent_by_pool"] == {}


def a_pool(**changed):
    pool = client_pb2.PoolInfo(name="default", min=2, max=2, ready=2, idle=1)
    for name, value in changed.items():
        setattr(pool, name, value)
    return pool


async def test_status_tells_of_pools_that_have_something_to_tell(connection, capsys):
    async def shown(*pools):
        connection.stub.pools = pools
        status._print(await status.read_status(connection))
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("pool ")]

    assert await shown(a_pool()) == []
    assert await shown(a_pool(max=8, coming=1)) == ["pool      default: 1 coming, 2 ready, 1 idle, of 2 to 8"]
    assert await shown(a_pool(max=8, asleep=3)) == ["pool      default: 3 asleep, 2 ready, 1 idle, of 2 to 8"]
    assert await shown(a_pool(), a_pool(name="gpu", min=0, max=0, ready=0, idle=0)) == [
        "pool      default: 2 ready, 1 idle, of 2",
        "pool      gpu: none, 0 idle, of 0",
    ]
    assert await shown(a_pool(problem="no image\n  a line", hopeless=True)) == [
        "pool      default: 2 ready, 1 idle, of 2; no image … (no more are tried)"
    ]


async def test_machines_of_a_provider_show_pool_size_region_cost_and_one_line_of_why(capsys):
    info = client_pb2.MachineInfo(
        machine_id="m-1",
        state="boot_failed",
        provider="fly",
        pool="gpu",
        size="performance-4x",
        region="iad",
        cost=0.031,
        reason="boot of machine m-1 failed: exit status 1\n  line one\n  line two",
    )
    listed = machines._as_map(info)
    machines._print([listed])
    assert capsys.readouterr().out.splitlines() == [
        "MACHINE  STATE        TASKS  POOL  PROVIDER  SIZE            REGION    COST  NOTE",
        "m-1      boot_failed      0  gpu   fly       performance-4x  iad     $0.031  boot of machine m-1 failed: exit status 1 …",
    ]
    assert listed["reason"].endswith("line two")
    assert listed["cost"] == 0.031


async def test_timings_are_read_by_pool(connection):
    assert await timings.read_phases(connection) == [("", {"registered": 0.25, "created": 0.01})]


READY = CoordinatorReady(
    address="127.0.0.1:7420",
    cluster_id="5f2a9c01d3e4",
    ca_pem=b"PEM",
    token="the-token",
    state_dir="/home/a b/5f2a9c01d3e4",
    pid=4711,
)


def test_up_text_has_all_that_is_needed_and_no_secret():
    config = CoordinatorConfig(home="/home/u", embedded=False, pools=(fixed_pool(4, num_cpus=2.0, num_gpus=1),))
    assert (
        up.ready_text(config, READY, foreground=False)
        == """\
cluster 5f2a9c01d3e4 serves at 127.0.0.1:7420 (4 machines of 2 CPU, 1 GPU)

connect on this host:
    runner.init("127.0.0.1:7420")
or from anywhere, with a copy of the two files:
    export RUNNER_ADDRESS=127.0.0.1:7420
    export RUNNER_TOKEN_FILE='/home/a b/5f2a9c01d3e4/token'
    export RUNNER_CA='/home/a b/5f2a9c01d3e4/ca.pem'

look:  runner status
stop:  runner down
log:   /home/a b/5f2a9c01d3e4/coordinator.log"""
    )
    assert "stop:  Ctrl-C" in up.ready_text(config, READY, foreground=True)
    assert "the-token" not in json.dumps(up.ready_map(READY))
