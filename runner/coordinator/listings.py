"""Pages of machines and tasks for people."""

from __future__ import annotations

from runner.coordinator.admission import Boot
from runner.coordinator.boot_story import since_requested
from runner.coordinator.conversion import checkpoint_message, failure_message, resources_message
from runner.coordinator.cost_keeper import CostKeeper
from runner.coordinator.engine import CoreClock
from runner.coordinator.fleet import Fleet
from runner.core.cluster import Cluster
from runner.core.views import MachineView, TaskView
from runner.ids import TaskId
from runner.rpc.gen import client_pb2
from runner.rpc.limits import cut_text

PAGE_DEFAULT = 100
PAGE_MAX = 1000
_TEXT_BYTES_MAX = 1000  # of a failure in a page
_LINES_MAX = 2
_REASON_BYTES_MAX = 2000  # holds the last words of a machine


def machines(
    cluster: Cluster, clock: CoreClock, fleet: Fleet, costs: CostKeeper, request: client_pb2.ListMachinesRequest
) -> client_pb2.ListMachinesReply:
    """One page of machines."""
    views, token = cluster.machines(after=request.page_token, limit=_limit(request.page_size))
    infos = [_machine(view, clock, fleet.boot(view.machine_id), costs.of_machine(view.machine_id)) for view in views]
    return client_pb2.ListMachinesReply(machines=infos, next_page_token=token)


def tasks(cluster: Cluster, clock: CoreClock, request: client_pb2.ListTasksRequest) -> client_pb2.ListTasksReply:
    """One page of tasks in order of submission."""
    if request.task_id:
        view = cluster.task(TaskId(request.task_id))
        return client_pb2.ListTasksReply(tasks=[] if view is None else [_task(cluster, clock, view)])
    views, token = cluster.tasks(
        state=request.state,
        name=request.name,
        runs_only=request.runs_only,
        after=request.page_token,
        limit=_limit(request.page_size),
    )
    return client_pb2.ListTasksReply(tasks=[_task(cluster, clock, view) for view in views], next_page_token=token)


def groups(cluster: Cluster, request: client_pb2.ListGroupsRequest) -> client_pb2.ListGroupsReply:
    """One placement group, or all."""
    reply = client_pb2.ListGroupsReply()
    for view in cluster.groups(request.group_id):
        reply.groups.add(
            group_id=view.record.group_id,
            name=view.record.name,
            state=view.state,
            strategy=view.record.strategy,
            bundles=[resources_message(bundle) for bundle in view.record.bundles],
            machine_ids=view.machine_ids,
            attempt=view.attempt,
            reason=cut_text(view.reason, _REASON_BYTES_MAX),
        )
    return reply


def pools(cluster: Cluster) -> list[client_pb2.PoolInfo]:
    """All pools."""
    return [
        client_pb2.PoolInfo(
            name=view.record.name,
            machine=resources_message(view.record.shape),
            min=view.record.min,
            max=view.record.max,
            coming=view.coming,
            ready=view.ready,
            asleep=view.asleep,
            idle=view.idle,
            going=view.going,
            problem=cut_text(view.problem, _REASON_BYTES_MAX),
            hopeless=view.is_hopeless,
        )
        for view in cluster.pools()
    ]


def _limit(page_size: int) -> int:
    return min(page_size, PAGE_MAX) if page_size else PAGE_DEFAULT


def _machine(view: MachineView, clock: CoreClock, boot: Boot | None, cost: float | None) -> client_pb2.MachineInfo:
    info = client_pb2.MachineInfo(
        machine_id=view.machine_id,
        state=view.state,
        pool=view.pool,
        generation=view.generation,
        total=resources_message(view.total),
        available=resources_message(view.available),
        provider=view.provider,
        provider_machine_id=view.provider_machine_id,
        host_id=view.host_id,
        reason=cut_text(view.reason, _REASON_BYTES_MAX),
        running_tasks=view.running_tasks,
        pid=0 if boot is None else boot.pid,
        size="" if boot is None else boot.size,
        region="" if boot is None else boot.region,
        labels=dict(view.labels),
        cost=cost,
        snapshot=view.snapshot,
        sleep=view.sleep,
        wake=view.wake,
        slept_s=view.slept_s if view.suspended_s is None else max(0.0, clock.now_s() - view.suspended_s),
    )
    # What the agent told when it registered is kept for ever; what it told later only as long as it is there.
    phases = view.phases if boot is None else {**view.phases, **boot.phases}
    for name, seconds in since_requested(phases).items():
        info.phases[name] = seconds
    return info


def _task(cluster: Cluster, clock: CoreClock, view: TaskView) -> client_pb2.TaskInfo:
    info = client_pb2.TaskInfo(
        task_id=view.task_id,
        name=view.name,
        function_name=view.function_name,
        state=view.state,
        attempt=view.attempt,
        machine_id=view.machine_id or "",
        submitted_s=view.submitted_unix_s,
        why_waiting=cluster.why_waiting(view.task_id),
        num_returns=view.num_returns,
    )
    if view.started_s is not None:
        info.started_s = clock.unix_s(view.started_s)
    if view.ended_s is not None:
        info.ended_s = clock.unix_s(view.ended_s)
    if view.checkpoint is not None:
        info.checkpoint.CopyFrom(checkpoint_message(view.checkpoint))
    if view.failure is not None:
        # A page of whole failures would not fit in a message; who wants one reads the task's events.
        failure = failure_message(view.failure)
        failure.ClearField("exception")
        failure.message = cut_text(failure.message, _TEXT_BYTES_MAX)
        failure.traceback = cut_text(failure.traceback, _TEXT_BYTES_MAX)
        del failure.history[_LINES_MAX:]
        info.failure.CopyFrom(failure)
    return info
