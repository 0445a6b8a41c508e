"""`@runner.remote` on a class: `Class.remote(...)` makes an actor, a process of its own with one instance."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from runner.client.actors.options import ActorOptions, check_method_options, parse_actor_options
from runner.errors import BadOptionsError, BadTypeError, DirectCallError

if TYPE_CHECKING:
    from typing import Unpack

    from runner.client.actors.handle import ActorHandle
    from runner.client.actors.options import RemoteOptionsDict
    from runner.client.calls import PickledFunction
    from runner.client.session import Session

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class ActorClass(Generic[T]):
    """A class with options. `C.remote(...)` makes an actor; `C.options(...)` changes the options."""

    def __init__(self, cls: type[T], options: ActorOptions, pickle: _Pickle | None = None) -> None:
        self.__name__ = cls.__name__
        self.__qualname__ = cls.__qualname__
        self.__module__ = cls.__module__
        self.__doc__ = cls.__doc__
        self.__wrapped__ = cls
        self.__runner_function__ = cls
        self._options = options
        self._pickle = pickle or _Pickle(cls)  # shared by all variants with other options

    def remote(self, *args: Any, **kwargs: Any) -> ActorHandle[T]:
        """Make an actor and return a handle at once; with a name, when the name is known to be free.

        The constructor runs on a machine. What it raises is the cause of the ActorDiedError that calls get.

        Raises:
            BadOptionsError: the name is taken (also a ValueError).
            BadTypeError: the constructor cannot take these arguments.
            NotSerializableError: an argument, or something the class uses, cannot be sent; says which.
        """
        from runner.client.actors.creation import create
        from runner.client.context import current_session

        return create(current_session(), self, args, kwargs)

    def options(self, **options: Unpack[RemoteOptionsDict]) -> ActorClass[T]:
        """The same class with other options; this one stays as it is.

        Raises:
            BadOptionsError: an unknown option or a bad value.
        """
        return ActorClass(self.__wrapped__, parse_actor_options(options, self._options), self._pickle)

    def pickled(self, session: Session) -> PickledFunction:
        """The class as it is sent, with what it needs; pickled once."""
        function = self._pickle.get()
        env = self._options.task.runtime_env.over(session.info.runtime_env)
        if env.working_dir or env.py_modules or session.env_packages:
            from runner.client.runtime_packages import with_runtime_env

            function = with_runtime_env(function, env, session.env_packages)
        if templates := self._options.task.template or function.templates:
            from runner.client.template_shipping import with_templates

            function = with_templates(function, templates, env)
        return function

    def __call__(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        name = self.__qualname__
        raise DirectCallError(
            f"{name}() is an actor class: call {name}.remote(...), which returns a handle. For an instance here, call"
            f" {name}.__wrapped__(...)."
        )

    def __mro_entries__(self, _bases: tuple[Any, ...]) -> NoReturn:
        name = self.__qualname__
        raise BadTypeError(
            f"{name} is an actor class, which has no subclasses: make a plain class the base, and decorate those that are"
            f" to be actors; or inherit from {name}.__wrapped__."
        )

    def __repr__(self) -> str:
        return f"<actor class {self.__qualname__}>"

    def __reduce__(self) -> tuple[Any, ...]:
        return ActorClass, (self.__wrapped__, self._options)


class _Pickle:
    """The pickled form of one class, made when its first actor is."""

    def __init__(self, cls: type) -> None:
        self._cls = cls
        self._pickled: PickledFunction | None = None
        self._lock = threading.Lock()

    def get(self) -> PickledFunction:
        from runner.client.remote_function import pickle_function

        with self._lock:
            if self._pickled is None:
                self._pickled = pickle_function(self._cls)
            return self._pickled


def actor_class(cls: type, options: ActorOptions) -> ActorClass[Any]:
    """`cls` as an actor class."""
    return ActorClass(cls, options)


def check_groups(cls: type, options: ActorOptions) -> None:
    """Refuse methods in concurrency groups that the actor does not have.

    Raises:
        BadOptionsError: names one.
    """
    for name in dir(cls):
        marked = getattr(getattr(cls, name, None), "__runner_method__", None)
        group = marked.get("concurrency_group") if isinstance(marked, dict) else None
        if group and group not in options.concurrency_groups:
            raise BadOptionsError(
                f"{cls.__qualname__}.{name} is in the concurrency group {group!r}, which the actor does not have: add it to"
                " concurrency_groups= of @runner.remote."
            )


def method(**options: Any) -> Callable[[F], F]:
    """Options of a method of an actor: num_returns, concurrency_group, max_task_retries, retry_exceptions.

    Raises:
        BadOptionsError: an unknown option or a bad value.
    """
    checked = check_method_options(options)

    def mark(function: F) -> F:
        setattr(function, "__runner_method__", checked)  # noqa: B010  no function has such an attribute for mypy
        return function

    return mark
