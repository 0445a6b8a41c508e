"""ActorHandle: calls the methods of an actor from anywhere. It can be passed to tasks and other actors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from runner.client.actors.options import check_method_options
from runner.client.context import current_session
from runner.errors import DirectCallError
from runner.ids import TaskId, task_of
from runner.objects.refs import ObjectRef, foreign

if TYPE_CHECKING:
    from runner.client.actors.meta import ActorMeta, MethodMeta
    from runner.client.session import Session

T_co = TypeVar("T_co", covariant=True)


class ActorMethod:
    """A method of an actor: `handle.method.remote(...)` calls it."""

    __slots__ = ("_handle", "_method")

    def __init__(self, handle: ActorHandle[Any], method: MethodMeta) -> None:
        self._handle = handle
        self._method = method

    def remote(self, *args: Any, **kwargs: Any) -> Any:
        """Call it and return at once: a ref, a list of `num_returns` refs (None for 0), or an ObjectRefGenerator.

        Calls of one caller begin in the order in which they were made. Refs among the arguments are replaced by their
        values; refs inside other arguments stay refs.

        Raises:
            BadTypeError: the method cannot take these arguments.
            PendingCallsLimitExceededError: the actor has `max_pending_calls` unanswered calls of this process.
            NotSerializableError: an argument cannot be sent; says which.
        """
        handle = self._handle
        if (parameters := self._method.parameters) is not None:
            parameters.check(args, kwargs)
        session = _session_of(handle)
        return session.actors.call(handle._ref, handle._meta, self._method, args, kwargs)

    def options(self, **options: Any) -> ActorMethod:
        """The same method with other options for its calls: num_returns, concurrency_group, max_task_retries, ...

        Raises:
            BadOptionsError: an unknown option or a bad value.
        """
        return ActorMethod(self._handle, self._method.with_options(check_method_options(options)))

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        name = f"{self._handle._meta.class_name}.{self._method.name}"
        raise DirectCallError(
            f"{name}() is a method of an actor: call .{self._method.name}.remote(...), which returns an ObjectRef for"
            " runner.get()."
        )

    def __repr__(self) -> str:
        return f"<method {self._method.name} of {self._handle!r}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorMethod, (self._handle, self._method)


class ActorHandle(Generic[T_co]):
    """A handle of an actor of class `T_co`. The actor ends when the last handle in the cluster is gone, unless it is
    detached. Handles are equal when their actor is the same.
    """

    __slots__ = ("__weakref__", "_meta", "_ref")

    def __init__(self, ref: ObjectRef[Any], meta: ActorMeta) -> None:
        """`ref` is to the actor's handle object: holding it keeps the actor."""
        self._ref = ref
        self._meta = meta

    def __getattr__(self, name: str) -> ActorMethod:
        method = self._meta.methods.get(name)
        if method is None:
            raise AttributeError(f"the actor class {self._meta.class_name} has no method {name!r}")
        return ActorMethod(self, method)

    @property
    def _actor_id(self) -> TaskId:
        actor_id = task_of(self._ref.id)
        assert actor_id is not None
        return actor_id

    @property
    def _ray_actor_id(self) -> ObjectRef[Any]:
        """As in Ray it has `hex()` and `binary()`."""
        return self._ref

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *self._meta.methods})

    def __hash__(self) -> int:
        return hash(self._ref)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and other._ref == self._ref

    def __repr__(self) -> str:
        return f"Actor({self._meta.class_name}, {self._actor_id})"

    def __copy__(self) -> ActorHandle[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> ActorHandle[T_co]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return load_handle, (self._ref, self._meta.packed)


def load_handle(ref: ObjectRef[Any], packed: bytes) -> ActorHandle[Any]:
    """A handle from what travels of it."""
    from runner.client.actors.meta import ActorMeta

    return ActorHandle(ref, ActorMeta.unpack(packed))


def _session_of(handle: ActorHandle[Any]) -> Session:
    session = current_session()
    if handle._ref._owner is not session:
        raise foreign(handle._ref, session)
    session._check_usable()
    return session
