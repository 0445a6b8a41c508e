"""`@runner.remote`: a function whose calls run on a machine of the cluster."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, ParamSpec, TypeVar, overload

from runner.errors import BadOptionsError, DirectCallError
from runner.options import TaskOptions, parse_options

if TYPE_CHECKING:
    from typing import Unpack

    from runner.client.calls import PickledFunction, PreparedCall
    from runner.client.generators import ObjectRefGenerator
    from runner.client.parameters import Parameters
    from runner.client.session import Session
    from runner.objects.refs import ObjectRef
    from runner.options import OptionsDict

P = ParamSpec("P")
R = TypeVar("R")

_CLOSURE_WARN_BYTES = 10 * 1024 * 1024


class RemoteFunction(Generic[P, R]):
    """A function with options. `f.remote(...)` runs it on a machine; `f.options(...)` changes the options."""

    def __init__(self, function: Callable[P, R], options: TaskOptions, pickle: _Pickle | None = None) -> None:
        functools.update_wrapper(self, function)
        self.__runner_function__ = function
        self._options = options
        self._pickle = pickle or _Pickle(function)  # shared by all variants with other options
        self._call: tuple[Session, PreparedCall] | None = None

    # A ref may stand for any positional argument. Type checkers cannot say "the parameters, or refs to them", so the
    # arguments of a call with a ref in it are not checked.
    @overload
    def remote(self, *args: P.args, **kwargs: P.kwargs) -> ObjectRef[R]: ...
    @overload
    def remote(self, a: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...
    @overload
    def remote(self, a: Any, b: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...
    @overload
    def remote(self, a: Any, b: Any, c: ObjectRef[Any], /, *args: Any, **kwargs: Any) -> ObjectRef[R]: ...
    def remote(self, /, *args: Any, **kwargs: Any) -> Any:  # type: ignore[misc]  # "self" may be an argument's name
        """Submit a call and return at once: a ref, or a list of `num_returns` refs (None for 0).

        A generator function returns an ObjectRefGenerator: refs to what it yields, as they come.

        Refs among the arguments are replaced by their values; refs inside other arguments stay refs. Blocks only
        while very many calls wait for their acknowledgement.

        Raises:
            BadTypeError: the function does not take such arguments.
            NotSerializableError: an argument, or something the function uses, cannot be sent; says which.
        """
        from runner.client.context import current_session

        parameters = self._pickle.parameters
        if parameters is None:
            parameters = self._pickle.find_parameters()
        parameters.check(args, kwargs)
        session = current_session()
        prepared = self._call
        if prepared is None or prepared[0] is not session:
            prepared = self._call = (session, self.prepare(session))
        refs = session.submit(prepared[1], args, kwargs)
        if prepared[1].is_streaming:
            return _reader(session, refs[0])
        if len(refs) == 1:
            return refs[0]
        return refs or None  # as in Ray: the type speaks of one return

    def options(self, **options: Unpack[OptionsDict]) -> RemoteFunction[P, R]:
        """The same function with other options; this one stays as it is.

        Raises:
            BadOptionsError: an unknown option or a bad value.
        """
        return RemoteFunction(self.__runner_function__, parse_options(options, self._options), self._pickle)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        name = getattr(self, "__qualname__", repr(self.__runner_function__))
        raise DirectCallError(
            f"{name}() is a remote function: call {name}.remote(...), which returns an ObjectRef for runner.get()."
            f" To run it here, call {name}.__wrapped__(...)."
        )

    def __repr__(self) -> str:
        return f"<remote function {getattr(self, '__qualname__', self.__runner_function__)}>"

    def __reduce__(self) -> tuple[Any, ...]:
        # Inside a task a remote function is a remote function too; what was prepared for a session stays behind.
        return _rebuild, (self.__runner_function__, self._options)

    @property
    def task_name(self) -> str:
        """The run's name, or the function's."""
        name: str = getattr(self, "__name__", type(self.__runner_function__).__name__)
        return self._options.name or name

    def prepare(self, session: Session) -> PreparedCall:
        """Everything about a call in `session` but its arguments; pickles the function the first time."""
        from runner.client.calls import PreparedCall

        if self._options.lifetime == "detached" and session.info.embedded:
            raise BadOptionsError(
                'lifetime="detached" needs a cluster that outlives this process: start one with `runner up` and connect'
                " with runner.init(address)."
            )
        env = self._options.runtime_env.over(session.info.runtime_env)
        function = self._pickle.get()
        if env.working_dir or env.py_modules or session.env_packages:
            from runner.client.runtime_packages import with_runtime_env

            function = with_runtime_env(function, env, session.env_packages)
        if templates := self._options.template or function.templates:
            from runner.client.template_shipping import with_templates

            function = with_templates(function, templates, env)
        return PreparedCall.of(
            function,
            self._options,
            env,
            is_executor=session.info.is_executor,
            is_generator=_is_generator(self.__runner_function__),
        )


class _Pickle:
    """The pickled form of one function, made at its first call."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.parameters: Parameters | None = None
        self._pickled: PickledFunction | None = None
        self._lock = threading.Lock()

    def find_parameters(self) -> Parameters:
        from runner.client.parameters import Parameters

        self.parameters = Parameters.of(self._function)
        return self.parameters

    def get(self) -> PickledFunction:
        with self._lock:
            if self._pickled is None:
                self._pickled = pickle_function(self._function)
            return self._pickled


def pickle_function(function: Callable[..., Any]) -> PickledFunction:
    """A function, or class, as it is sent, with the modules that it needs."""
    from runner.client.calls import PickledFunction
    from runner.client.code_shipping import needs_of
    from runner.client.pickling_errors import not_serializable

    short_name = getattr(function, "__name__", type(function).__name__)
    module = getattr(function, "__module__", "__main__")
    qualname = getattr(function, "__qualname__", short_name)
    name = qualname if module == "__main__" else f"{module}.{qualname}"
    needs = needs_of(function)
    try:
        pickled = PickledFunction.of(function, name, needs)
    except Exception as error:
        raise not_serializable(function, short_name, error) from None
    if len(pickled.blob) > _CLOSURE_WARN_BYTES:
        _warn_large(function, short_name, len(pickled.blob))
    return pickled


def _warn_large(function: Callable[..., Any], name: str, size_bytes: int) -> None:
    import logging

    from runner.client.pickling_errors import largest_part

    path, part_bytes = largest_part(function, name)
    logging.getLogger("runner").warning(
        "%s is %.1f MB when pickled, because it uses %s (%.1f MB), which is sent along with the function."
        " Pass it as an argument, once stored with runner.put().",
        name,
        size_bytes / 1e6,
        path,
        part_bytes / 1e6,
    )


def _is_generator(function: Callable[..., Any]) -> bool:
    import inspect

    return inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)


def _reader(session: Session, completion: ObjectRef[Any]) -> ObjectRefGenerator[Any]:
    from runner.client.generators import ObjectRefGenerator
    from runner.ids import task_of

    stream = session.machine.streams.get(task_of(completion.id) or "")
    assert stream is not None, "opened with the call"
    return ObjectRefGenerator(session, stream, completion)


def _rebuild(function: Callable[..., Any], options: TaskOptions) -> RemoteFunction[..., Any]:
    return RemoteFunction(function, options)
