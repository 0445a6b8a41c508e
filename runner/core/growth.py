"""More memory for what was killed for memory, where its owner said `on_oom="grow"`."""

from __future__ import annotations

from runner.core.facts import TaskReshaped
from runner.core.feasibility import fits_kind, kinds
from runner.core.resources import amount_of, describe_amount
from runner.core.task import Task
from runner.core.turn import Turn
from runner.core.values import MEMORY, Shape, make_shape
from runner.core.wants import key_of

FACTOR = 2


def grow(turn: Turn, task: Task, used_bytes: int) -> str:
    """Have its next attempt ask for more, if it may and some machine has more; says so for its history.

    Twice what it asked for, or what it used if it asked for nothing; at most what the largest machine has that can hold
    the rest of its needs. In a placement group there is only the bundle: nothing changes.
    """
    wishes = task.record.wishes
    if wishes is None or not wishes.grow_on_oom or wishes.group_id:
        return ""
    had = amount_of(task.shape, MEMORY)
    wanted = min(FACTOR * (had or used_bytes), _largest(turn, task))
    if wanted <= had:
        return ""
    turn.record(TaskReshaped(task.task_id, _with_memory(task.shape, wanted)))
    return f"; the next attempt asks for {describe_amount(MEMORY, wanted)}"


def _with_memory(shape: Shape, amount: int) -> Shape:
    return make_shape({**dict(shape), MEMORY: amount})


def _largest(turn: Turn, task: Task) -> int:
    rest = key_of(_with_memory(task.shape, 0), task.record.wishes)
    able = (kind for kind in kinds(turn.state) if fits_kind(rest, kind.shape, kind.labels, kind.unknown))
    return max((amount_of(kind.shape, MEMORY) for kind in able), default=0)
