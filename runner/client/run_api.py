"""The public functions about runs: inside one, and of any. As light as `runner.client.api`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from runner.client.context import current_session, current_task
from runner.errors import UsageError

if TYPE_CHECKING:
    from runner.client.runs import Run
    from runner.client.streams import EventStream
    from runner.hooks import ResumeContext
    from runner.objects.refs import ObjectRef

_SUBMITS_ACKED_S = 30.0


def report(values: Mapping[str, Any], *, step: int | None = None, checkpoint: Any = None) -> None:
    """Inside a task: send metrics (numbers, texts, bools) and keep a checkpoint, any value that can be pickled.

    Without `step` the steps count 0, 1, 2, ... Returns when the checkpoint is safe on the machine; blocks while too
    much is waiting to be sent.

    Raises:
        NotScalarError: a value is not a number, text, bool or None.
        UsageError: called outside a task.
    """
    task = current_task()
    if task is None:
        raise UsageError(
            "report() works inside a remote function only: here there is no run to report for."
            " Call it in a function that was started with .remote()."
        )
    task.report(values, step=step, checkpoint=checkpoint)


def get_checkpoint() -> Any:
    """Inside a task: what the last committed checkpoint of an earlier attempt holds; None when there is none.

    Raises:
        UsageError: called outside a task.
    """
    task = current_task()
    if task is None:
        raise UsageError(
            "get_checkpoint() works inside a remote function only: here there is no run to go on with."
            " Call it in a function that was started with .remote()."
        )
    return task.get_checkpoint()


def mark_phase(name: str) -> None:
    """Inside a task: this machine has come so far, as in `mark_phase("weights on CPU")`; only its first time counts.

    `runner machines timings` shows it among the phases of the machine's boot. At most 32 names count on one machine.

    Raises:
        BadOptionsError: the name is empty, longer than 64 characters, or one that runner itself uses.
        UsageError: called outside a task.
    """
    from runner.client.checks import check_phase

    check_phase(name)
    task = current_task()
    if task is None:
        raise UsageError(
            "mark_phase() works inside a remote function only: here there is no machine that boots."
            " Call it in a function that was started with .remote()."
        )
    task.mark_phase(name)


def ready_to_snapshot() -> ResumeContext | None:
    """Inside a task or an actor's method: this is a good moment to suspend the machine, as after a warm-up.

    When a suspend waits, it takes place now, once nothing else runs on the machine; the call returns after the resume, or when the
    suspend was called off, with what hooks are told. Else it returns None at once. What the task has in memory goes on, on a machine
    of the same name; after a cold start it runs again from its beginning, uncharged.

    Raises:
        UsageError: called outside a task, in another thread than its own, or in an actor with coroutines.
    """
    task = current_task()
    if task is None:
        raise UsageError(
            "ready_to_snapshot() works inside a remote function only: here there is no machine that could be suspended."
            " Call it in a function that was started with .remote()."
        )
    return task.ready_to_snapshot()


def stream(
    runs: ObjectRef[Any] | str | Iterable[ObjectRef[Any] | str] | None = None,
    *,
    kinds: str | Iterable[str] | None = None,
) -> EventStream:
    """What happens to `runs` (refs or names; None: all runs of this session), from their start, as it happens.

    An iterator, plain or async, of `Event`s; ends when all of them have settled. Each event comes once and in order
    within its run, across reconnects. `kinds` chooses among "state", "attempt", "metrics", "log", "log_gap",
    "checkpoint", "machine" (boots and losses of the cluster's machines) and "fleet" (why there are fewer of them than
    there should be); default: all.
    """
    from runner.client.streams import open_stream

    return open_stream(current_session(), runs, kinds)


def get_run(name_or_id: str) -> Run:
    """The run of that id, or the newest one of that name: submitted by this session or any other of the cluster.

    Raises:
        UsageError: there is none.
    """
    from runner.client.runs import find_run

    current_session().flush(_SUBMITS_ACKED_S)  # those of this session may still be on their way
    return find_run(name_or_id)
