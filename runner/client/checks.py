"""What `get`, `wait` and `mark_phase` accept."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

from runner.client.generators import ObjectRefGenerator
from runner.errors import BadOptionsError, BadTypeError, GetTimeoutError
from runner.objects.refs import ObjectRef, RefOwner, foreign
from runner.rpc.phases import NAME_CHARS_MAX, RESERVED


def check_get(refs: Any) -> None:
    """Refuse anything but a list of refs.

    Raises:
        BadTypeError: says what was given.
    """
    if not isinstance(refs, list):
        raise BadTypeError(f"get() takes an ObjectRef or a list of them, not a {type(refs).__name__}.")
    _check_items("get", refs)


def check_wait(refs: Any, num_returns: Any, timeout_s: Any) -> None:
    """Refuse anything but a list of different refs, and counts that can never be reached. No refs are fine.

    Raises:
        BadTypeError: says what was given.
        BadOptionsError: says what is wrong.
    """
    if not isinstance(refs, list):
        raise BadTypeError(f"wait() takes a list of ObjectRefs, not a {type(refs).__name__}.")
    if timeout_s is not None and timeout_s < 0:
        raise BadOptionsError(f"timeout={timeout_s} cannot work: expected seconds >= 0, or None to wait for ever.")
    _check_items("wait", refs)
    if not refs:
        return
    if len(set(refs)) != len(refs):
        raise BadOptionsError("wait() was given the same ref twice.")
    if not 0 < num_returns <= len(refs):
        raise BadOptionsError(f"num_returns={num_returns} cannot work: expected 1 to {len(refs)}, the number of refs.")


def check_own(owner: RefOwner, refs: Sequence[ObjectRef[Any]]) -> None:
    """Refuse refs of other sessions: this one can neither count nor read them.

    Raises:
        UsageError: says whose it is.
    """
    for ref in refs:
        if ref._owner is not owner:
            raise foreign(ref, owner)


def not_ready(ids: Sequence[str], outcomes: Container[str], timeout_s: float | None) -> GetTimeoutError:
    """What `get` raises when the time is over."""
    waiting = [each for each in ids if each not in outcomes]
    shown = ", ".join(waiting[:3]) + (", ..." if len(waiting) > 3 else "")
    return GetTimeoutError(
        f"get() waited {timeout_s} s; {len(waiting)} of {len(ids)} values are not ready ({shown})."
        " The tasks go on: call get() again, or cancel them."
    )


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


def _check_items(function: str, refs: list[Any]) -> None:
    for index, ref in enumerate(refs):
        if type(ref) is not ObjectRef and not (function == "wait" and type(ref) is ObjectRefGenerator):
            raise BadTypeError(f"{function}() takes ObjectRefs; item {index} is a {type(ref).__name__}.")
