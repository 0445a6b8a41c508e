from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from runner.client.session import Session
from runner.errors import (
    BadOptionsError,
    ClusterError,
    CoordinatorUnreachableError,
    UsageError,
)
from runner.objects.serialization import serialize
from tests.unit.client.memory import MemoryTransport, open_session, remote, soon


# ---- refs ----
def test_refs_are_hashable_and_compare_by_object(session: Session) -> None:
    ref = session.put(1)
    assert ref == copy.copy(ref) == copy.deepcopy(ref)
    assert len({ref, copy.copy(ref)}) == 1
    assert ref != session.put(1)
    assert repr(ref) == f"ObjectRef({ref.id})"


@pytest.mark.parametrize("dumps", [pickle.dumps, cloudpickle.dumps])
def test_a_copy_made_by_plain_pickle_is_held_until_the_session_ends(
    session: Session, transport: MemoryTransport, dumps: Callable[[Any], bytes]
) -> None:
    ref = session.put(7)
    object_id = ref.id
    data = dumps({"inside": ref})
    dumps(ref)
    del ref
    gc.collect()
    transport.wake()
    assert session.held() == [object_id]
    again = pickle.loads(data)["inside"]
    assert again.id == object_id
    assert session.get(again) == 7
    del again
    transport.wake()
    assert "release_refs" not in transport.kinds()


def test_a_ref_from_another_cluster_is_refused_by_name(session: Session) -> None:
    ref = session.put(1)
    data = pickle.dumps(ref)
    result = remote().remote()
    other, _ = open_session(cluster_id="k-other")
    says = "a ref from another cluster: it is of k-1, and this session is of k-other"
    calls: list[Callable[[], Any]] = [
        lambda: pickle.loads(data),
        lambda: other.get(ref),
        lambda: other.get([other.put(1), ref]),
        lambda: other.wait([ref], 1, 0),
        lambda: other.cancel(result, force=False, recursive=True),
        lambda: other.put([ref]),
        lambda: remote().remote(ref),
        lambda: remote().remote([ref]),
    ]
    for call in calls:
        with pytest.raises(UsageError, match=says):
            call()


def test_a_ref_of_a_session_that_is_over_is_refused(session: Session) -> None:
    ref = session.put(1)
    other, _ = open_session()
    with pytest.raises(UsageError, match="shut down; make the value again"):
        other.get(ref)


def test_what_rays_refs_can_tell(session: Session) -> None:
    ref, value = remote().remote(), session.put(1)
    assert ref.hex() == ref.id
    assert ref.binary() == ref.id.encode()
    assert ref.task_id().hex() == ref.task_id() == ref.id.removesuffix(".0")
    assert value.task_id() == ""


def test_a_dropped_ref_is_released_after_what_used_it(session: Session, transport: MemoryTransport) -> None:
    ref = session.put(1)
    result = remote().remote([ref])
    object_id = ref.id
    del ref
    gc.collect()
    transport.wake()
    assert transport.kinds()[-1] == "release_refs"
    assert list(transport.sent[-1].release_refs.object_ids) == [object_id]
    assert result is not None


def test_a_ref_inside_a_value_is_borrowed(session: Session, transport: MemoryTransport) -> None:
    inner = session.put(1)
    object_id = inner.id
    outer = session.put([inner])
    del inner
    transport.wake()
    (back,) = session.get(outer)
    assert back.id == object_id
    transport.wake()
    assert [kind for kind in transport.kinds() if kind != "put"] == ["release_refs", "add_refs"]
    session.machine.want([object_id])
    transport.wake()
    transport.succeed(object_id, 1)
    assert session.get(back) == 1


async def test_refs_are_awaitable(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    now, later, failing = function.remote(), function.remote(), function.remote()
    transport.succeed(now.id, 1)
    soon(lambda: transport.succeed(later.id, 2))
    soon(lambda: transport.fail(failing.id, OSError(2, "no")))
    assert await now == 1
    assert await later == 2
    with pytest.raises(FileNotFoundError):
        await failing
    assert await asyncio.gather(now, later) == [1, 2]


def test_futures(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    ref, failing = function.remote(), function.remote()
    future, bad = ref.future(), failing.future()
    object_id = ref.id
    del ref
    gc.collect()
    soon(lambda: transport.succeed(object_id, 9))
    assert future.result(5) == 9
    transport.fail(failing.id, ValueError("x"))
    with pytest.raises(ValueError, match="x"):
        bad.result(5)
    assert session.put(4).future().result(5) == 4


# ---- cancelling and ending ----
def test_cancel(session: Session, transport: MemoryTransport) -> None:
    ref = remote().remote()
    session.cancel(ref, force=True, recursive=False)
    cancel = transport.sent[-1].cancel
    assert (f"{cancel.task_id}.0", cancel.force, cancel.recursive) == (ref.id, True, False)
    with pytest.raises(UsageError, match="no task to cancel"):
        session.cancel(session.put(1), force=False, recursive=True)
    with pytest.raises(BadOptionsError):
        session.cancel("t-1", force=False, recursive=True)  # type: ignore[arg-type]


def test_a_lost_session_raises_everywhere(session: Session) -> None:
    ref = remote().remote()
    soon(lambda: session.fail(CoordinatorUnreachableError("it is gone")))
    with pytest.raises(CoordinatorUnreachableError, match="it is gone"):
        session.get(ref)
    for call in (lambda: session.put(1), lambda: remote().remote(), lambda: session.wait([ref], 1, None)):
        with pytest.raises(ClusterError, match="it is gone"):
            call()


def test_after_the_end_calls_say_what_to_do(session: Session) -> None:
    session.close(0.1)
    with pytest.raises(UsageError, match=r"shut down. Call runner.init\(\)"):
        session.put(1)
    session.close(0.1)


def test_flush_waits_for_acknowledgements(session: Session, transport: MemoryTransport) -> None:
    transport.acks = False
    ref = session.put(1)
    assert not session.flush(0.01)
    soon(lambda: transport.deliver(acked_seq=1))
    assert session.flush(5)
    assert ref is not None


def test_a_forked_child_gets_a_clear_error_and_its_refs_do_nothing(
    session: Session, transport: MemoryTransport
) -> None:
    ref = session.put(1)
    result = remote().remote()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            errors = []
            for call in (lambda: session.get(ref), lambda: remote().remote(), lambda: ref.future()):
                try:
                    call()
                except UsageError as error:
                    errors.append("forked" in str(error))
            del result
            gc.collect()
            os.write(write, b"ok" if errors == [True] * 3 else b"no")
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        assert file.read() == b"ok"
    os.waitpid(pid, 0)
    assert session.get(ref) == 1  # the parent's session is whole


def test_an_executor_session_asks_and_makes_no_runs(tmp_path: Path) -> None:
    session, transport = open_session(str(tmp_path), is_executor=True)
    ref = remote(name="child").remote()
    assert not transport.submits()[0].is_run
    assert "resolve" not in transport.kinds()
    soon(lambda: transport.succeed(ref.id, 1))
    assert session.get(ref, 5) == 1
    assert transport.kinds()[-1] == "resolve"
    session.replies_lost()
    session.close(0)


def test_values_that_arrive_hold_until_their_ref_is_gone(session: Session, transport: MemoryTransport) -> None:
    ref = remote().remote()
    transport.succeed(ref.id, "v")
    assert list(session.machine.outcomes) == [ref.id]
    del ref
    gc.collect()
    transport.wake()
    assert session.machine.outcomes == {}


def test_serialized_refs_are_collected(session: Session) -> None:
    refs = [session.put(index) for index in range(3)]
    assert {ref.id for ref in serialize({"a": refs}).contained_refs} == {ref.id for ref in refs}
