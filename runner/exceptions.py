"""Ray's names of the errors, for programs that say `import runner as ray`: each is one of `runner.errors`.

Where Ray tells more kinds apart than there are here, several names are one class.
"""

from __future__ import annotations

from runner.errors import (
    ActorDiedError,
    ActorUnavailableError,
    AuthenticationError,
    GetTimeoutError,
    ObjectLostError,
    OutOfMemoryError,
    OwnerDiedError,
    TaskCancelledError,
    WorkerCrashedError,
)
from runner.errors import ActorError as RayActorError
from runner.errors import CoordinatorUnreachableError as LocalRayletDiedError
from runner.errors import InternalError as RaySystemError
from runner.errors import MachineLostError as NodeDiedError
from runner.errors import NotSerializableError as UnserializableException
from runner.errors import ObjectLostError as ObjectFetchTimedOutError
from runner.errors import ObjectLostError as ObjectFreedError
from runner.errors import ObjectLostError as ObjectReconstructionFailedError
from runner.errors import ObjectLostError as ObjectReconstructionFailedLineageEvictedError
from runner.errors import ObjectLostError as ObjectReconstructionFailedMaxAttemptsExceededError
from runner.errors import PendingCallsLimitExceededError as PendingCallsLimitExceeded
from runner.errors import PlacementGroupRemovedError as ActorPlacementGroupRemoved
from runner.errors import PlacementGroupRemovedError as TaskPlacementGroupRemoved
from runner.errors import RunnerError as RayError
from runner.errors import StoreFullError as ObjectStoreFullError
from runner.errors import StoreFullError as OutOfDiskError
from runner.errors import TaskError as RayTaskError
from runner.errors import TaskSetupError as RuntimeEnvSetupError
from runner.errors import UnschedulableError as ActorUnschedulableError
from runner.errors import UnschedulableError as TaskUnschedulableError

__all__ = [
    "ActorDiedError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AuthenticationError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectReconstructionFailedLineageEvictedError",
    "ObjectReconstructionFailedMaxAttemptsExceededError",
    "ObjectStoreFullError",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "WorkerCrashedError",
]
