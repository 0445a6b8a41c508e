from __future__ import annotations

import gc
import pickle
from collections.abc import Callable
from typing import Any

import pytest

from runner.client.session import Session
from runner.ids import ObjectId
from runner.objects.refs import ObjectRef
from runner.objects.serialization import serialize
from runner.rpc.gen import types_pb2
from tests.unit.client.memory import MemoryTransport, remote

VALUE = types_pb2.Value(inline=serialize(7).to_bytes()).SerializeToString()
FAILURE = types_pb2.Failure(kind=types_pb2.FAILURE_KIND_CANCELLED, message="no").SerializeToString()


def local(session: Session, name: str = "c-1-1.0") -> ObjectRef[Any]:
    session.machine.local.created([name])
    return ObjectRef(ObjectId(name), session)


def told(transport: MemoryTransport) -> list[str]:
    transport.wake()
    return transport.kinds()


def test_a_local_object_costs_the_server_nothing(session: Session, transport: MemoryTransport) -> None:
    ref = local(session)
    assert session.wait([ref], 1, 0) == ([], [ref])
    session.machine.local.settle(ref.id, VALUE, is_failure=False)
    assert session.get(ref) == 7
    del ref
    gc.collect()
    session.replies_lost()
    assert told(transport) == []
    assert not session.held()
    assert session.machine.outcomes == {}


ESCAPES: list[Callable[[Session, ObjectRef[Any]], Any]] = [
    lambda session, ref: session.put([ref]),
    lambda session, ref: remote().remote(ref),
    lambda session, ref: remote().remote([ref]),
    lambda session, ref: serialize({"inside": ref}),
    lambda session, ref: pickle.dumps(ref),
]


@pytest.mark.parametrize("escape", ESCAPES)
def test_a_ref_that_leaves_is_promised_first_and_then_fulfilled(
    session: Session, transport: MemoryTransport, escape: Callable[[Session, ObjectRef[Any]], Any]
) -> None:
    ref = local(session)
    kept = [escape(session, ref), escape(session, ref)]
    assert next(kind for kind in told(transport) if kind in {"promise", "submit", "put"}) == "promise"
    assert transport.kinds().count("promise") == 1
    session.machine.local.settle(ref.id, VALUE, is_failure=False)
    assert told(transport)[-1] == "fulfil"
    assert transport.sent[-1].fulfil.object_id == ref.id
    assert transport.sent[-1].fulfil.value.inline == serialize(7).to_bytes()
    assert session.get(ref) == 7
    del kept


@pytest.mark.parametrize("is_failure", [True, False])
def test_a_settled_object_is_promised_and_fulfilled_at_once(
    session: Session, transport: MemoryTransport, is_failure: bool
) -> None:
    ref = local(session)
    session.machine.local.settle(ref.id, FAILURE if is_failure else VALUE, is_failure=is_failure)
    kept = session.put([ref])
    assert told(transport) == ["promise", "fulfil", "put"]
    assert transport.sent[1].fulfil.WhichOneof("outcome") == ("failure" if is_failure else "value")
    del ref, kept
    gc.collect()
    assert told(transport)[3:] == ["release_refs"]


def test_a_promise_is_kept_though_the_ref_is_gone_here(session: Session, transport: MemoryTransport) -> None:
    ref = local(session)
    object_id = ref.id
    remote().remote(ref)
    del ref
    gc.collect()
    assert "release_refs" in told(transport)
    session.machine.local.settle(object_id, FAILURE, is_failure=True)
    assert told(transport)[-1] == "fulfil"
    assert session.machine.outcomes == {}


def test_what_its_maker_has_registered_is_borrowed(session: Session, transport: MemoryTransport) -> None:
    ref = local(session)
    session.machine.local.settle(ref.id, VALUE, is_failure=False, is_registered=True)
    kept = session.put([ref])
    assert told(transport) == ["add_refs", "put"]
    del ref, kept
    gc.collect()
    assert told(transport)[2:] == ["release_refs"]


def test_what_nobody_wants_any_more_is_not_borrowed(session: Session, transport: MemoryTransport) -> None:
    ref = local(session)
    object_id = ref.id
    del ref
    gc.collect()
    session.held()
    session.machine.local.settle(object_id, VALUE, is_failure=False, is_registered=True)
    assert told(transport) == []


def test_after_ack_waits_for_what_is_queued(session: Session, transport: MemoryTransport) -> None:
    done: list[int] = []
    assert not session.machine.after_ack(lambda: done.append(0))
    transport.acks = False
    kept = [session.put(1)]
    assert session.machine.after_ack(lambda: done.append(1))
    kept.append(session.put(2))
    assert session.machine.after_ack(lambda: done.append(2))
    transport.deliver(acked_seq=1)
    assert done == [1]
    transport.deliver(acked_seq=2)
    assert done == [1, 2]
