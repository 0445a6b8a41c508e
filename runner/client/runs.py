"""`runner.get_run`: a run of the cluster by its name or id, from any process that is connected to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runner.client.context import current_session
from runner.client.requests import ask
from runner.client.task_errors import exception_from_failure
from runner.errors import RunnerError, UsageError
from runner.ids import TaskId, return_id
from runner.objects.refs import ObjectRef, load_ref
from runner.rpc.gen import client_pb2

if TYPE_CHECKING:
    from collections.abc import Iterable

    from runner.client.streams import EventStream

_FINAL = frozenset({"succeeded", "failed", "cancelled"})


class Run:
    """A task with a name, whoever submitted it. Its state is read anew each time."""

    def __init__(self, info: client_pb2.TaskInfo) -> None:
        self.id: str = info.task_id
        self.name: str = info.name
        self.refs: list[ObjectRef[Any]] = [
            load_ref(return_id(TaskId(info.task_id), index)) for index in range(info.num_returns)
        ]

    @property
    def state(self) -> str:
        """ "waiting", "queued", "assigned", "running", "backoff", "succeeded", "failed" or "cancelled"."""
        return self._info().state

    @property
    def is_done(self) -> bool:
        """Whether it has settled."""
        return self.state in _FINAL

    @property
    def attempt(self) -> int:
        """The number of the newest attempt; 0 before the first."""
        return self._info().attempt

    @property
    def machine_id(self) -> str:
        """Where that is or was; empty before."""
        return self._info().machine_id

    @property
    def failure(self) -> RunnerError | None:
        """Why it failed, shortened; `result` raises the whole of it."""
        info = self._info()
        return exception_from_failure(info.failure) if info.HasField("failure") else None

    def result(self, timeout: float | None = None) -> Any:
        """What it returned (a list of `num_returns` values); blocks until then, and raises what it raised.

        Small results are kept as long as the run's record. A large one is kept while a ref to it lives, or if the run
        is detached.

        Raises:
            GetTimeoutError: it is not over after `timeout` seconds.
            ObjectLostError: it was large, and nobody held it.
        """
        values = current_session().get(self.refs, timeout)
        return values[0] if len(values) == 1 else values

    def events(self, *, kinds: str | Iterable[str] | None = None) -> EventStream:
        """What has happened to it and happens, see `runner.stream`."""
        from runner.client.streams import open_stream

        return open_stream(current_session(), self.refs[0] if self.refs else self.name, kinds)

    def cancel(self, *, force: bool = False, recursive: bool = True) -> None:
        """Ask for its end."""
        if self.refs:
            current_session().cancel(self.refs[0], force=force, recursive=recursive)

    def __repr__(self) -> str:
        return f"<run {self.name!r}, {self.id}>"

    def _info(self) -> client_pb2.TaskInfo:
        found = _list(client_pb2.ListTasksRequest(task_id=self.id))
        if not found:
            raise UsageError(f"Run {self.id} ({self.name}) is not known to this cluster any more.")
        return found[0]


def find_run(name_or_id: str) -> Run:
    """The newest run of that name, or the one with that id.

    Raises:
        UsageError: there is none.
    """
    found = [info for info in _list(client_pb2.ListTasksRequest(task_id=name_or_id)) if info.name]
    found = found or _list(client_pb2.ListTasksRequest(name=name_or_id, runs_only=True, page_size=1000))
    if not found:
        raise UsageError(
            f"There is no run {name_or_id!r} in cluster {current_session().info.cluster_id}."
            " `runner runs` lists those of this host's clusters, with their ids."
        )
    return Run(found[-1])


def _list(request: client_pb2.ListTasksRequest) -> list[client_pb2.TaskInfo]:
    found: list[client_pb2.TaskInfo] = []
    while True:
        reply = ask(current_session(), "ListTasks", request, client_pb2.ListTasksReply)
        found += reply.tasks
        if not reply.next_page_token:
            return found
        request.page_token = reply.next_page_token
