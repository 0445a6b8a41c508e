"""`runner.get_runtime_context()`: where the calling code runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.client.context import current_session, current_task
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.client.actors.handle import ActorHandle


@dataclass(frozen=True, slots=True)
class RuntimeContext:
    """The session and, inside a task, the task. Outside tasks the task's fields are empty."""

    cluster_id: str
    client_id: str
    task_id: str
    task_name: str
    attempt: int
    machine_id: str
    gpu_ids: tuple[int, ...]
    actor_id: str = ""
    actor_name: str = ""
    address: str = ""  # of the coordinator, for clients
    owner_id: str = ""  # the client for which the task runs

    def get_task_id(self) -> str | None:
        """The id of the running task, or None outside tasks."""
        return self.task_id or None

    def get_task_name(self) -> str | None:
        """Its name, or its function's where it has none; None outside tasks."""
        return self.task_name or _name_of_function("__qualname__") or None

    def get_task_function_name(self) -> str | None:
        """Module and name of the running function, or None outside tasks."""
        module, name = _name_of_function("__module__"), _name_of_function("__qualname__")
        return f"{module}.{name}" if name else None

    def get_worker_id(self) -> str:
        """The process that this code runs in: a worker process, or a client."""
        return self.client_id

    @property
    def job_id(self) -> str:
        """See `get_job_id`."""
        return self.get_job_id()

    @property
    def node_id(self) -> str | None:
        """See `get_node_id`."""
        return self.get_node_id()

    @property
    def gcs_address(self) -> str:
        """Ray's name of `address`."""
        return self.address

    @property
    def namespace(self) -> str:
        """Where names of actors are looked up that are given without one."""
        return str(getattr(current_session().info, "namespace", ""))

    @property
    def runtime_env(self) -> dict[str, Any]:
        """What this process was given of the runtime_env of its session or task: the variables."""
        return {"env_vars": dict(current_session().info.runtime_env.env_vars)}

    def get_actor_id(self) -> str | None:
        """The actor whose method runs, or None outside actors."""
        return self.actor_id or None

    def get_actor_name(self) -> str | None:
        """The name under which the actor can be found, empty without one; None outside actors."""
        return self.actor_name if self.actor_id else None

    @property
    def current_actor(self) -> ActorHandle[Any]:
        """A handle of the actor whose method runs. An actor that keeps one keeps itself alive.

        Raises:
            UsageError: outside actors.
        """
        from runner.client.actors.creation import handle_of

        if not self.actor_id:
            raise UsageError("get_runtime_context().current_actor is there only while a method of an actor runs.")
        return handle_of(current_session(), self.actor_id, getattr(current_task(), "actor_meta", b""))

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor was restarted: this is not its first life."""
        return bool(self.actor_id) and self.attempt > 1

    def get_node_id(self) -> str | None:
        """The machine that this code runs on, or None in a client."""
        return self.machine_id or None

    def get_job_id(self) -> str:
        """The session for which the work is done."""
        return self.owner_id or self.client_id

    def get_placement_group_id(self) -> str | None:
        """The placement group that the task or actor is in, or None."""
        return getattr(current_task(), "group_id", "") or None

    @property
    def should_capture_child_tasks_in_placement_group(self) -> bool:
        """Whether what the task or actor submits goes to its placement group too."""
        return bool(getattr(current_task(), "is_group_for_children", False))

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task was given; empty outside tasks."""
        task = current_task()
        return dict(task.resources) if task is not None else {}

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """The GPUs of the running task, as numbers on its machine."""
        return {"GPU": [str(gpu_id) for gpu_id in self.gpu_ids]}

    def is_canceled(self) -> bool:
        """Whether somebody has asked the running task to stop."""
        task = current_task()
        return task is not None and task.is_canceled()


def _name_of_function(attribute: str) -> str:
    return str(getattr(getattr(current_task(), "function", None), attribute, ""))


def runtime_context() -> RuntimeContext:
    """The context of the caller.

    Raises:
        NotInitializedError: there is no session.
    """
    info = current_session().info
    task = current_task()
    return RuntimeContext(
        cluster_id=info.cluster_id,
        client_id=info.client_id,
        task_id=task.task_id if task is not None else "",
        task_name=task.task_name if task is not None else "",
        attempt=task.attempt if task is not None else 0,
        machine_id=task.machine_id if task is not None else "",
        gpu_ids=task.gpu_ids if task is not None else (),
        actor_id=task.actor_id if task is not None else "",
        actor_name=task.actor_name if task is not None else "",
        address=info.address,
        owner_id=getattr(task, "owner_id", ""),
    )
