"""What `get`, `wait` and `mark_phase` accept."""

from __future__ import annotations

from typing import Any

from runner.errors import BadOptionsError
from runner.objects.refs import ObjectRef
from runner.rpc.phases import NAME_CHARS_MAX, RESERVED


def check_get(refs: Any) -> None:
    """Refuse anything but a list of refs.

    Raises:
        BadOptionsError: says what was given.
    """
    if not isinstance(refs, list | tuple):
        raise BadOptionsError(f"get() takes an ObjectRef or a list of them, not a {type(refs).__name__}.")
    _check_items("get", refs)


def check_wait(refs: Any, num_returns: int) -> None:
    """Refuse anything but a list of different refs, and counts that can never be reached.

    Raises:
        BadOptionsError: says what is wrong.
    """
    if not isinstance(refs, list | tuple):
        raise BadOptionsError(f"wait() takes a list of ObjectRefs, not a {type(refs).__name__}.")
    _check_items("wait", refs)
    if len(set(refs)) != len(refs):
        raise BadOptionsError("wait() was given the same ref twice.")
    if not 0 < num_returns <= len(refs):
        raise BadOptionsError(f"num_returns={num_returns} cannot work: expected 1 to {len(refs)}, the number of refs.")


def check_phase(name: Any) -> None:
    """Refuse what cannot be the name of a phase.

    Raises:
        BadOptionsError: says what is wrong.
    """
    if not isinstance(name, str) or not 0 < len(name) <= NAME_CHARS_MAX or not name.isprintable() or "+" in name:
        raise BadOptionsError(
            f"mark_phase({name!r}) cannot work: expected a name of 1 to {NAME_CHARS_MAX} printable characters, no '+'."
        )
    if name in RESERVED:
        raise BadOptionsError(f"mark_phase({name!r}) cannot work: runner itself tells of that phase. Use another name.")


def _check_items(function: str, refs: list[Any] | tuple[Any, ...]) -> None:
    for index, ref in enumerate(refs):
        if type(ref) is not ObjectRef:
            raise BadOptionsError(f"{function}() takes ObjectRefs; item {index} is a {type(ref).__name__}.")
