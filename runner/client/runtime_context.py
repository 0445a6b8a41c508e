"""`runner.get_runtime_context()`: where the calling code runs."""

from __future__ import annotations

from dataclasses import dataclass

from runner.client.context import current_session, current_task


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

    def get_task_id(self) -> str | None:
        """The id of the running task, or None outside tasks."""
        return self.task_id or None

    def get_task_name(self) -> str | None:
        """Its name, or None outside tasks."""
        return self.task_name or None

    def get_actor_id(self) -> str | None:
        """The actor whose method runs, or None outside actors."""
        return self.actor_id or None

    def get_actor_name(self) -> str | None:
        """The name under which the actor can be found, or None."""
        return self.actor_name or None

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether the actor was restarted: this is not its first life."""
        return bool(self.actor_id) and self.attempt > 1

    def get_node_id(self) -> str | None:
        """The machine that this code runs on, or None in a client."""
        return self.machine_id or None

    def get_job_id(self) -> str:
        """The session that submitted the work."""
        return self.client_id

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
    )
