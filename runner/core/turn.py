"""One event's decision in the making."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from runner.core.apply.actors import ACTOR_FACTS
from runner.core.apply.clients import CLIENT_FACTS
from runner.core.apply.fleet import FLEET_FACTS
from runner.core.apply.groups import GROUP_FACTS
from runner.core.apply.lineage import LINEAGE_FACTS
from runner.core.apply.streams import STREAM_FACTS
from runner.core.apply.tasks import TASK_FACTS
from runner.core.facts import Fact
from runner.core.state import State

APPLY: dict[type[Any], Callable[[State, Any], None]] = {
    **CLIENT_FACTS,
    **ACTOR_FACTS,
    **GROUP_FACTS,
    **FLEET_FACTS,
    **STREAM_FACTS,
    **LINEAGE_FACTS,
    **TASK_FACTS,
}


class Turn:
    """Deciders read `state`, and change it only by recording facts."""

    __slots__ = ("facts", "now_s", "state")

    def __init__(self, state: State, now_s: float) -> None:
        self.state = state
        self.now_s = now_s
        self.facts: list[Fact] = []

    def record(self, fact: Fact) -> None:
        self.facts.append(fact)
        APPLY[type(fact)](self.state, fact)
