"""ObjectRef: the handle to an immutable value."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from runner.errors import NotInitializedError, UsageError
from runner.ids import ObjectId, task_of

if TYPE_CHECKING:
    from concurrent.futures import Future

T_co = TypeVar("T_co", covariant=True)


class RefOwner(Protocol):
    """The session that counts the refs of this process."""

    # Ids of refs that were collected. `__del__` may run inside any lock, so it only appends; the session drains.
    dropped: deque[ObjectId]

    @property
    def cluster_id(self) -> str:
        """The cluster that has the objects."""

    def keep(self, object_id: ObjectId) -> None:
        """Hold this object for as long as the session lives."""

    def share(self, object_id: ObjectId) -> None:
        """A ref to this object is about to leave this process."""

    def borrow(self, object_id: ObjectId) -> None:
        """One more ref to this object exists in this process."""

    def await_ref(self, object_id: ObjectId) -> Generator[Any, None, Any]:
        """Wait for the value inside the running asyncio loop."""

    def future_of(self, object_id: ObjectId) -> Future[Any]:
        """A future that gets the value or the error."""


class TaskIdText(str):
    """The id of a task, with the method that Ray's ids have."""

    __slots__ = ()

    def hex(self) -> str:
        """The id as text."""
        return str(self)


class ObjectRef(Generic[T_co]):
    """A reference to a value that a task makes or that was put.

    Hashable, comparable, awaitable. The value lives at least as long as a ref to it. Refs travel inside arguments,
    results and functions of remote calls. A copy made by plain pickle is counted by nobody: the session that pickled
    it holds the value until it ends. Such a copy can be loaded in any session of the same cluster.
    """

    __slots__ = ("__weakref__", "_owner", "id")

    id: ObjectId

    def __init__(self, object_id: ObjectId, owner: RefOwner) -> None:
        # The caller has already counted this ref (see RefOwner.borrow).
        self.id = object_id
        self._owner = owner

    def hex(self) -> str:
        """The id as text."""
        return str(self.id)

    def binary(self) -> bytes:
        """The id as bytes."""
        return self.id.encode()

    def task_id(self) -> TaskIdText:
        """The id of the task that makes the value; empty for what was put."""
        return TaskIdText(task_of(self.id) or "")

    def future(self) -> Future[T_co]:
        """A `concurrent.futures.Future` of the value; cancelling it does not cancel the task."""
        return self._owner.future_of(self.id)

    def __await__(self) -> Generator[Any, None, T_co]:
        result: T_co = yield from self._owner.await_ref(self.id)
        return result

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectRef) and other.id == self.id

    def __repr__(self) -> str:
        return f"ObjectRef({self.id})"

    def __copy__(self) -> ObjectRef[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ObjectRef[T_co]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        self._owner.keep(self.id)
        return load_copy, (self._owner.cluster_id, str(self.id))

    def __del__(self) -> None:
        self._owner.dropped.append(self.id)


def _no_owner() -> RefOwner | None:
    return None


_current_owner: Callable[[], RefOwner | None] = _no_owner


def set_owner_lookup(lookup: Callable[[], RefOwner | None]) -> None:
    """Say who owns refs that are unpickled in this process."""
    global _current_owner
    _current_owner = lookup


def check_sendable(ref: ObjectRef[Any]) -> None:
    """Refuse a ref whose session has ended: its object may be gone.

    Raises:
        UsageError: it is not of the present session.
    """
    owner = _current_owner()
    if ref._owner is not owner:
        raise foreign(ref, owner)


def foreign(ref: ObjectRef[Any], owner: RefOwner | None) -> UsageError:
    """Why this session can do nothing with `ref`."""
    if owner is not None and ref._owner.cluster_id != owner.cluster_id:
        return _of_another_cluster(ref.id, ref._owner.cluster_id, owner)
    return UsageError(f"{ref!r} belongs to a session that has been shut down; make the value again in this one.")


def _of_another_cluster(object_id: str, cluster_id: str, owner: RefOwner) -> UsageError:
    return UsageError(
        f"ObjectRef({object_id}) is a ref from another cluster: it is of {cluster_id}, and this session is of"
        f" {owner.cluster_id}. Get the value there and send it, or connect to that cluster with runner.init(address)."
    )


def load_ref(object_id: ObjectId) -> ObjectRef[Any]:
    """Unpickle a ref: the session of this process becomes a holder of the object."""
    owner = _current_owner()
    if owner is None:
        raise NotInitializedError(f"ObjectRef({object_id}) was loaded where no session is. Call runner.init() first.")
    owner.borrow(object_id)
    return ObjectRef(object_id, owner)


def load_copy(cluster_id: str, object_id: str) -> ObjectRef[Any]:
    """Unpickle a ref that plain pickle has written.

    Raises:
        UsageError: it is of another cluster.
    """
    owner = _current_owner()
    if owner is not None and owner.cluster_id != cluster_id:
        raise _of_another_cluster(object_id, cluster_id, owner)
    return load_ref(ObjectId(object_id))
