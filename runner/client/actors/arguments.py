"""Refs among the arguments of an actor's call: when the call may be sent, and which values travel with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from runner.client.session_machine import SessionMachine
from runner.ids import ObjectId
from runner.objects.refs import ObjectRef
from runner.rpc.actor_frames import encode
from runner.rpc.gen import types_pb2
from runner.rpc.limits import ITEM_BYTES_MAX

Refs = Sequence[ObjectRef[Any]]


@dataclass(slots=True)
class Draft:
    """A CALL frame without its dependencies."""

    start: tuple[Any, ...]
    end: tuple[Any, ...]
    refs: Refs  # top-level arguments
    must_wait: bool  # it contains refs of which the server has to know first

    def frame(self, dependencies: Sequence[tuple[str, bytes]]) -> bytes:
        """The frame with these."""
        return encode(*self.start, dependencies, *self.end)


def when_final(machine: SessionMachine, refs: Refs, then: Callable[[], None]) -> bool:
    """Call back once when all of them are final; False if they already are. Both under the session's lock.

    A call that needs a value waits for it at the caller, as in Ray: at the actor it would hold up the very calls on
    which the value may depend. When the session ends first, `then` is not called.
    """
    left = set(machine.want([ref.id for ref in refs]))
    if not left:
        return False

    def came(object_id: str) -> None:
        left.discard(object_id)
        if not left and all(ref.id in machine.outcomes for ref in refs):
            then()

    for object_id in tuple(left):
        machine.when_ready(object_id, partial(came, object_id))
    return True


def values_of(
    machine: SessionMachine, refs: Refs, share: Callable[[ObjectId], None], *, reads_files: bool
) -> tuple[list[tuple[str, bytes]], bool]:
    """Ids of final refs with their values as far as these are small, and whether the server has to know any of them
    first: the actor asks it for the others. `reads_files`: the actor can map what lies on this host.
    """
    must_wait = False
    room_bytes = ITEM_BYTES_MAX // 2
    found: list[tuple[str, bytes]] = []
    for ref in refs:
        outcome = machine.outcomes[ref.id]
        payload = b""
        if not outcome.is_failure:
            value = types_pb2.Value.FromString(outcome.payload)
            if (reads_files or value.WhichOneof("body") != "segment") and len(outcome.payload) < room_bytes:
                payload = outcome.payload
                room_bytes -= len(payload)
            must_wait = must_wait or bool(value.contained_refs)
        if not payload:
            share(ref.id)
            must_wait = True
        found.append((ref.id, payload))
    return found, must_wait
