"""How far a suspend or a resume of one machine has come."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Stage(enum.IntEnum):
    """Finer than the machine's state, which stands in front of each. Numbers are in journals."""

    QUIETING = 1  # suspending: the agent lets what runs end
    EMPTYING = 2  # suspending: nothing runs; what only this machine has is brought away
    PREPARING = 3  # suspending: hooks run, the last reports come
    SAVING = 4  # suspending: the agent has hung up, the provider saves
    CALLED_OFF = 5  # suspending: no snapshot is to be used; the agent will register again
    SAVED = 6  # suspended
    STARTING = 7  # resuming: the snapshot counts as used up, the provider starts the machine
    WAKING = 8  # resuming: the agent has registered, hooks run


# The agent is connected, and has not hung up.
CONNECTED = frozenset({Stage.QUIETING, Stage.EMPTYING, Stage.PREPARING, Stage.WAKING})
# Nothing has happened that a word to the agent does not undo.
REVOCABLE = frozenset({Stage.QUIETING, Stage.EMPTYING})


@dataclass(slots=True)
class Sleep:
    """One suspend of one machine, from its beginning to its end."""

    snapshot: int
    stage: Stage = Stage.QUIETING
    due_s: float = 0.0  # of its one valid timer; volatile, as leases are
    suspended_s: float = 0.0  # core time; 0: not yet
    slept_s: float = 0.0  # once it is resumed
    is_started: bool = False  # the provider has said so; volatile too
    is_wanted: bool = False  # somebody wants it back, as soon as that can be
