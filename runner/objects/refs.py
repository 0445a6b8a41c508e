"""ObjectRef: the handle to an immutable value."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from runner.errors import NotInitializedError, NotSerializableError, UsageError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from runner.ids import ObjectId

T_co = TypeVar("T_co", covariant=True)


class RefOwner(Protocol):
    """The session that counts the refs of this process."""

    # Ids of refs that were collected. `__del__` may run inside any lock, so it only appends; the session drains.
    dropped: deque[ObjectId]

    def borrow(self, object_id: ObjectId) -> None:
        """One more ref to this object exists in this process."""

    def await_ref(self, object_id: ObjectId) -> Generator[Any, None, Any]:
        """Wait for the value inside the running asyncio loop."""

    def future_of(self, object_id: ObjectId) -> Future[Any]:
        """A future that gets the value or the error."""


class ObjectRef(Generic[T_co]):
    """A reference to a value that a task makes or that was put.

    Hashable, comparable, awaitable. The value lives at least as long as a ref to it. Refs travel inside arguments,
    results and functions of remote calls; plain pickle refuses them, because nobody would count such a copy.
    """

    __slots__ = ("__weakref__", "_owner", "id")

    id: ObjectId

    def __init__(self, object_id: ObjectId, owner: RefOwner) -> None:
        # The caller has already counted this ref (see RefOwner.borrow).
        self.id = object_id
        self._owner = owner

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

    def __reduce__(self) -> NoReturn:
        error = NotSerializableError(
            f"{self!r} cannot be pickled here: a ref can only travel in arguments, results and functions of remote calls"
            " of its own session. Send the value instead: runner.get(ref)."
        )
        error.path = repr(self)
        raise error

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
    if ref._owner is not _current_owner():
        raise UsageError(f"{ref!r} belongs to a session that has been shut down; make the value again in this one.")


def load_ref(object_id: ObjectId) -> ObjectRef[Any]:
    """Unpickle a ref: the session of this process becomes a holder of the object."""
    owner = _current_owner()
    if owner is None:
        raise NotInitializedError(f"ObjectRef({object_id}) was loaded where no session is. Call runner.init() first.")
    owner.borrow(object_id)
    return ObjectRef(object_id, owner)
