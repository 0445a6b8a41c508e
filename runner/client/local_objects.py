"""Objects that only this process knows: results of calls that go straight to an actor, until a ref to one leaves.

They are counted here and cost the server nothing. `share` makes one known: its outcome is told, or promised.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping
from typing import Any, Protocol

from runner.rpc.gen import client_pb2, types_pb2


class ActorListener(Protocol):
    """Who handles actors in a session. Called under the session's lock."""

    def told(self, frame: client_pb2.ServerFrame) -> None:
        """The server tells of actors."""

    def ask_again(self) -> None:
        """What the server told may have been lost: ask for it again."""

    def released(self, object_id: str) -> None:
        """The last ref of this process to this object is gone."""


class LocalObjects:
    """The local objects of one session, and those that it has promised to the server."""

    def __init__(
        self,
        counts: MutableMapping[str, int],
        outcomes: Mapping[str, Any],
        add_to_batch: Callable[[str, str], None],
        operate: Callable[[bytes], None],
        store: Callable[[str, bytes, bool], None],
    ) -> None:
        """All of them are the session machine's: live refs, outcomes, and how it queues operations and takes outcomes."""
        self._counts = counts
        self._outcomes = outcomes
        self._add_to_batch = add_to_batch
        self._operate = operate
        self._store = store
        self._local: set[str] = set()
        self._promised: set[str] = set()
        self._expected: set[str] = set()

    def __contains__(self, object_id: object) -> bool:
        """Whether this process settles it: nobody else can be asked."""
        return object_id in self._local or object_id in self._promised or object_id in self._expected

    def has_none_of(self, object_ids: set[str]) -> bool:
        """Whether the server settles all of these."""
        return all(object_ids.isdisjoint(each) for each in (self._local, self._promised, self._expected))

    def has_all_of(self, object_ids: set[str]) -> bool:
        """Whether this process settles all of these."""
        return object_ids <= self._local or all(object_id in self for object_id in list(object_ids))

    def created(self, object_ids: Iterable[str]) -> None:
        """New ones, one ref to each."""
        for object_id in object_ids:
            self._counts[object_id] = 1
            self._local.add(object_id)

    def expect(self, object_id: str) -> None:
        """This one may come into being: the next item of a stream."""
        self._expected.add(object_id)

    def expected(self, object_id: str) -> None:
        """It came, or never will."""
        self._expected.discard(object_id)

    def forget(self, object_id: str) -> bool:
        """The last ref here is gone; False: the server knows the object and must be told."""
        if object_id in self._local:
            self._local.remove(object_id)
            return True
        return False

    def share(self, object_id: str) -> None:
        """A ref to it is about to leave this process: from now on the server knows it. Nothing for other objects."""
        if object_id not in self._local:
            return
        self._local.remove(object_id)
        self._add_to_batch("promise", object_id)  # who promises is a holder
        outcome = self._outcomes.get(object_id)
        if outcome is None:
            self._promised.add(object_id)
        else:
            self._operate(_fulfil(object_id, outcome.payload, is_failure=outcome.is_failure))

    def settle(self, object_id: str, payload: bytes, *, is_failure: bool, is_registered: bool = False) -> None:
        """The outcome of a local or promised object. `is_registered`: who made it has put it at the server."""
        if object_id in self._promised:
            self._promised.remove(object_id)
            self._operate(_fulfil(object_id, payload, is_failure=is_failure))
        elif is_registered and object_id in self._local:
            self._local.remove(object_id)
            self._add_to_batch("add_refs", object_id)
        self._store(object_id, payload, is_failure)


def _fulfil(object_id: str, payload: bytes, *, is_failure: bool) -> bytes:
    """A serialised operation that ends a promise."""
    message = client_pb2.Fulfil(object_id=object_id)
    if is_failure:
        message.failure = payload
    else:
        message.value.CopyFrom(types_pb2.Value.FromString(payload))
    return client_pb2.Operation(fulfil=message).SerializeToString()
