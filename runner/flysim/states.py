"""The states of a machine and the moves between them: one table that code, tests and the page in docs read."""

from __future__ import annotations

import enum


class State(enum.Enum):
    """Where a machine is in its life. [1.5 states]"""

    CREATING = "creating"  # the create call is under way
    CREATED = "created"
    STARTING = "starting"
    STARTED = "started"  # the VM has booted; its program may not serve yet
    STOPPING = "stopping"
    STOPPED = "stopped"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"
    RESTARTING = "restarting"
    UPDATING = "updating"  # gets a new version while it does not run
    REPLACING = "replacing"  # gets a new version while it runs
    LAUNCH_FAILED = "launch_failed"
    FAILED = "failed"
    DESTROYING = "destroying"
    DESTROYED = "destroyed"
    REPLACED = "replaced"  # of old versions only
    MIGRATED = "migrated"  # of old hosts only


_S = State
# [1.5 states] the diagram; a forced delete leads from any state to destroying, a stuck move to failed.
TRANSITIONS: dict[State, frozenset[State]] = {
    _S.CREATING: frozenset({_S.CREATED, _S.DESTROYING}),
    _S.CREATED: frozenset({_S.STARTING, _S.UPDATING, _S.DESTROYING}),
    _S.STARTING: frozenset({_S.STARTED, _S.LAUNCH_FAILED, _S.STOPPING, _S.REPLACING, _S.FAILED, _S.DESTROYING}),
    _S.STARTED: frozenset(
        {_S.STOPPING, _S.SUSPENDING, _S.RESTARTING, _S.REPLACING, _S.STOPPED, _S.STARTING, _S.DESTROYING}
    ),
    _S.STOPPING: frozenset({_S.STOPPED, _S.FAILED, _S.DESTROYING}),
    _S.STOPPED: frozenset({_S.STARTING, _S.UPDATING, _S.DESTROYING}),
    _S.SUSPENDING: frozenset({_S.SUSPENDED, _S.STARTED, _S.STOPPING, _S.STOPPED, _S.REPLACING, _S.DESTROYING}),
    _S.SUSPENDED: frozenset({_S.STARTING, _S.STOPPED, _S.UPDATING, _S.DESTROYING}),
    _S.RESTARTING: frozenset({_S.STARTING, _S.FAILED, _S.DESTROYING}),
    _S.UPDATING: frozenset({_S.STOPPED, _S.FAILED, _S.DESTROYING}),
    _S.REPLACING: frozenset({_S.STARTING, _S.FAILED, _S.DESTROYING}),
    _S.LAUNCH_FAILED: frozenset({_S.FAILED, _S.DESTROYED, _S.DESTROYING}),
    _S.FAILED: frozenset({_S.UPDATING, _S.DESTROYING}),
    _S.DESTROYING: frozenset({_S.DESTROYED}),
    _S.DESTROYED: frozenset(),
    _S.REPLACED: frozenset(),
    _S.MIGRATED: frozenset(),
}

# [1.5 states] persistent; a wait for `settled` ends in these or in a terminal one.
PERSISTENT = frozenset({_S.CREATED, _S.STARTED, _S.STOPPED, _S.SUSPENDED, _S.FAILED})
TERMINAL = frozenset({_S.DESTROYED, _S.REPLACED, _S.MIGRATED})
# [1.5 states] what holds its place on a host; [1.7 capacity] a suspended machine frees nothing.
HOLDS_PLACE = frozenset(_S) - TERMINAL - {_S.STOPPED, _S.FAILED, _S.LAUNCH_FAILED, _S.UPDATING}
# [1.5 stuck] a move that takes longer is stuck (seconds).
STUCK_AFTER_S = {
    _S.STARTING: 300.0,
    _S.STOPPING: 300.0,
    _S.RESTARTING: 300.0,
    _S.DESTROYING: 300.0,
    _S.UPDATING: 600.0,
    _S.REPLACING: 600.0,
}
