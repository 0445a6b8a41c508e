"""Why something cannot be pickled, and where the offending object sits."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from typing import Any

from runner.errors import NotSerializableError, RunnerError
from runner.objects.serialization import serialize

_DEPTH_MAX = 12
_CHILDREN_MAX = 2_000  # the search stops somewhere in a list of a million items
_HINTS = {
    "lock": "Make it inside the function instead.",
    "RLock": "Make it inside the function instead.",
    "TextIOWrapper": "Open the file inside the function instead.",
    "BufferedReader": "Open the file inside the function instead.",
    "BufferedWriter": "Open the file inside the function instead.",
    "socket": "Connect inside the function instead.",
    "Connection": "Connect inside the function instead.",
    "generator": "Pass a list, or make the generator inside the function.",
    "module": "Import it inside the function instead.",
}


def not_serializable(obj: Any, name: str, error: BaseException) -> RunnerError:
    """The error for `obj`, called `name` in the path, whose pickling raised `error`."""
    if isinstance(error, RunnerError) and not isinstance(error, NotSerializableError):
        return error  # it could be pickled, but must not be: the error says why
    path, culprit, cause = _search(obj, name, error, set(), _DEPTH_MAX)
    kind = type(culprit)
    hint = _HINTS.get(kind.__name__, "Leave it out, or make it inside the function.")
    result = NotSerializableError(
        f"{path} cannot be sent: it is a {kind.__module__}.{kind.__qualname__} ({type(cause).__name__}: {cause}). {hint}"
    )
    result.path = path
    return result


def bad_argument(name: str, args: tuple[Any, ...], kwargs: dict[str, Any], error: BaseException) -> RunnerError:
    """The error for a call of `name` whose arguments could not be pickled."""
    for index, value in enumerate(args):
        cause = _pickling_error(value)
        if cause is not None:
            return not_serializable(value, f"args[{index}]", cause)
    for key, value in kwargs.items():
        cause = _pickling_error(value)
        if cause is not None:
            return not_serializable(value, f"kwargs[{key!r}]", cause)
    return not_serializable((args, kwargs), f"the arguments of {name}", error)


def _search(obj: Any, path: str, error: BaseException, seen: set[int], depth: int) -> tuple[str, Any, BaseException]:
    """Go down into the first part that cannot be pickled either, until none of the parts is to blame."""
    seen.add(id(obj))
    if depth:
        for index, (child_path, child) in enumerate(_children(obj, path)):
            if index > _CHILDREN_MAX:
                break
            if id(child) in seen:
                continue
            child_error = _pickling_error(child)
            if child_error is not None:
                return _search(child, child_path, child_error, seen, depth - 1)
    return path, obj, error


def _pickling_error(obj: Any) -> BaseException | None:
    try:
        serialize(obj)
    except Exception as error:
        return error
    return None


def _children(obj: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(obj, types.FunctionType):
        yield from _function_parts(obj, path)
    elif isinstance(obj, types.MethodType):
        yield f"{path}.__self__", obj.__self__
    elif isinstance(obj, Mapping):
        for key, value in obj.items():
            yield f"{path}[{key!r}]", value
            yield f"{path}.<key>", key
    elif isinstance(obj, list | tuple):
        for index, value in enumerate(obj):
            yield f"{path}[{index}]", value
    elif isinstance(obj, set | frozenset):
        for value in obj:
            yield f"{path}.<item>", value
    elif isinstance(obj, type):
        for name, value in list(vars(obj).items()):
            if not name.startswith("__"):
                yield f"{path}.{name}", value
    else:
        yield from _attributes(obj, path)


def _function_parts(function: types.FunctionType, path: str) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield f"{path}.<closure>.{name}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for name in sorted(_names(function.__code__)):
        if name in function.__globals__:
            yield f"{path}.<globals>.{name}", function.__globals__[name]
    for index, value in enumerate(function.__defaults__ or ()):
        yield f"{path}.<defaults>[{index}]", value
    for name, value in (function.__kwdefaults__ or {}).items():
        yield f"{path}.<defaults>.{name}", value
    for name, value in vars(function).items():
        yield f"{path}.{name}", value


def _attributes(obj: Any, path: str) -> Iterator[tuple[str, Any]]:
    """What pickle itself would write: the object's own state, or its attributes."""
    try:
        state = obj.__getstate__()
    except Exception:
        state = getattr(obj, "__dict__", None)
    for part in state if isinstance(state, tuple) else (state,):
        if isinstance(part, Mapping):
            for name, value in part.items():
                yield f"{path}.{name}", value


def _names(code: types.CodeType) -> set[str]:
    """Global names that this code and the functions inside it use."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def largest_part(function: Any, name: str) -> tuple[str, int]:
    """The part of a function that takes most room when pickled: its path and size in bytes."""
    sizes = [(path, _size_bytes(part)) for path, part in _children(function, name)]
    return max(sizes, key=lambda each: each[1], default=(name, 0))


def _size_bytes(obj: Any) -> int:
    try:
        return serialize(obj).total_bytes
    except Exception:
        return 0
