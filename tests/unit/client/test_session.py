from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runner.client import context, session_machine
from runner.client.remote_function import RemoteFunction
from runner.client.session import Session
from runner.errors import (
    GetTimeoutError,
    NotSerializableError,
    ObjectLostError,
    TaskError,
    UsageError,
)
from runner.objects import arguments
from runner.objects.serialization import deserialize
from runner.objects.values import from_wire
from runner.options import parse_options
from tests.unit.client.memory import MemoryTransport, open_session, remote, soon


# ---- submitting ----
def test_a_function_is_sent_once_and_before_its_calls(transport: MemoryTransport) -> None:
    function = remote()
    refs = [function.remote(), function.options(num_cpus=2).remote(), function.remote(3)]
    assert transport.kinds() == ["register_function", "submit", "submit", "submit"]
    registered = transport.sent[0].register_function
    assert deserialize(registered.blob)(4) == 8
    assert registered.name.endswith("double")
    assert {spec.function_id for spec in transport.submits()} == {registered.function_id}
    assert len({ref.id for ref in refs}) == 3


def test_equal_functions_share_one_registration(transport: MemoryTransport) -> None:
    refs = [remote().remote(), remote().remote()]
    assert transport.kinds().count("register_function") == 1
    assert len(refs) == 2


def test_options_reach_the_wire(transport: MemoryTransport) -> None:
    function = remote(num_cpus=0.5, num_gpus=1, memory="1GiB", resources={"disk": 2}, max_calls=0)
    function = function.options(retry_exceptions=[ValueError], max_retries=-1, timeout_s=5, startup_timeout_s=9)
    function = function.options(runtime_env={"env_vars": {"A": "b"}, "config": {"setup_timeout_seconds": 8}})
    ref = function.remote()
    (spec,) = transport.submits()
    assert dict(spec.resources.amounts) == {"CPU": 5000, "GPU": 10000, "memory": 2**30, "disk": 20000}
    assert (spec.max_retries, spec.timeout_s, spec.reuse_gpu_worker) == (-1, 5.0, True)
    assert spec.startup_timeout_s == 9
    assert spec.retry_user_errors
    assert deserialize(spec.retry_exceptions) == (ValueError,)
    assert dict(spec.env_vars) == {"A": "b"}
    assert not spec.is_run
    assert ref.id == f"{spec.task_id}.0"


def test_a_name_makes_a_run(session: Session, transport: MemoryTransport) -> None:
    ref = remote(name="lr=1e-5").remote()
    (spec,) = transport.submits()
    assert (spec.name, spec.is_run) == ("lr=1e-5", True)
    assert session.runs == {spec.task_id: "lr=1e-5"}
    assert ref.id.startswith(spec.task_id)


def test_return_counts(transport: MemoryTransport) -> None:
    assert remote(num_returns=0).remote() is None
    both: Any = remote(num_returns=2).remote()
    first, second = both
    assert first.id.endswith(".0")
    assert second.id.endswith(".1")
    assert [spec.num_returns for spec in transport.submits()] == [0, 2]


def test_top_level_refs_are_dependencies_and_nested_ones_are_not(session: Session, transport: MemoryTransport) -> None:
    one, two = session.put(1), session.put(2)
    ref = remote().remote(one, [two], key=one)
    (spec,) = transport.submits()
    assert list(spec.dependencies) == [one.id]
    assert list(spec.args.contained_refs) == [two.id]
    args, kwargs = arguments.unpack(spec.args, ["first"])
    assert args[0] == "first"
    assert args[1] == [two]
    assert kwargs == {"key": "first"}
    assert ref is not None


def test_large_arguments_become_an_object(session: Session, transport: MemoryTransport, tmp_path: Path) -> None:
    one = session.put(1)
    ref = remote().remote(one, np.zeros(100_000), inner=[one])
    (spec,) = transport.submits()
    assert spec.args.inline == arguments.WHOLE
    assert spec.dependencies[0] == one.id
    put = next(
        op.put for op in transport.sent if op.WhichOneof("op") == "put" and op.put.object_id == spec.dependencies[1]
    )
    assert list(put.value.contained_refs) == [one.id]
    whole = from_wire(put.value, lambda segment: b"", "here")
    args, kwargs = arguments.unpack(spec.args, ["first", whole])
    assert args[0] == "first"
    assert args[1].shape == (100_000,)
    assert kwargs["inner"] == [one]
    assert ref is not None


def test_a_long_plain_argument_is_large_too(transport: MemoryTransport) -> None:
    ref = remote().remote("x" * 200_000)
    assert transport.submits()[0].args.inline == arguments.WHOLE
    assert ref is not None


def test_a_function_above_the_message_limit_travels_as_an_object(transport: MemoryTransport, session: Session) -> None:
    data = os.urandom(1_000_000)
    ref = RemoteFunction(lambda: len(data), parse_options({})).remote()
    # Our own ref goes: the registered function pins the object.
    assert transport.kinds() == ["put", "register_function", "submit", "release_refs"]
    registered = transport.sent[1].register_function
    assert len(registered.blob) < 1000
    assert list(registered.contained_refs) == [transport.sent[0].put.object_id]
    from runner.objects.functions import load_function

    stored = transport.sent[0].put.value
    assert load_function(registered.blob, lambda ref: from_wire(stored, lambda segment: b"", "here"))() == 1_000_000
    assert ref is not None


def test_a_client_on_another_host_uploads(tmp_path: Path) -> None:
    session, transport = open_session("")
    ref = session.put(np.arange(100_000))
    assert transport.sent[0].put.value.segment.host_id == "elsewhere"
    np.testing.assert_array_equal(session.get(ref), np.arange(100_000))
    session.close(0)


def test_submitting_blocks_while_too_much_is_unacknowledged(
    transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_machine, "UNACKED_MAX_OPERATIONS", 4)
    transport.acks = False
    function = remote()
    refs = [function.remote() for _ in range(2)]  # with the registration: three operations
    started = time.monotonic()
    soon(lambda: transport.deliver(acked_seq=len(transport.seqs)))
    refs.append(function.remote())
    assert time.monotonic() - started > 0.015
    assert len(transport.submits()) == 3


def test_an_argument_that_cannot_be_sent_is_named(session: Session) -> None:
    class Model:
        def __init__(self) -> None:
            self.handle = threading.Lock()

    with pytest.raises(NotSerializableError, match=r"args\[1\]\.model\.handle cannot be sent") as caught:
        remote().remote(1, _holder(Model()))
    assert caught.value.path == "args[1].model.handle"
    with pytest.raises(NotSerializableError, match=r"kwargs\['lock'\]"):
        remote().remote(lock=threading.Lock())
    with pytest.raises(NotSerializableError, match=r"value\['a'\]\[0\]"):
        session.put({"a": [threading.Lock()]})


def _holder(model: object) -> object:
    class Holder:
        pass

    holder = Holder()
    holder.model = model  # type: ignore[attr-defined]
    return holder


def test_a_ref_of_a_session_that_ended_cannot_be_sent(session: Session) -> None:
    old, _ = open_session("")
    ref = old.put(1)
    context.set_session(session)
    with pytest.raises(UsageError, match="has been shut down"):
        remote().remote(ref, [ref])
    old.close(0)


# ---- getting ----
def test_get_gives_values_in_order(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    refs = [function.remote() for _ in range(3)]
    for ref in reversed(refs):
        transport.succeed(ref.id, f"value of {ref.id}")
    assert session.get(refs) == [f"value of {ref.id}" for ref in refs]
    assert session.get(refs[1]) == f"value of {refs[1].id}"
    assert session.get([]) == []
    assert transport.calls == []  # nothing had to wait


def test_get_waits_and_tells_the_transport(session: Session, transport: MemoryTransport) -> None:
    ref = remote().remote()
    soon(lambda: transport.succeed(ref.id, 5))
    assert session.get(ref, 5) == 5
    assert transport.calls == ["blocked", "unblocked"]


def test_a_put_value_is_there_at_once_and_is_no_alias(session: Session) -> None:
    value = [1, 2]
    ref = session.put(value)
    value.append(3)
    assert session.get(ref) == [1, 2]
    assert session.get(ref) is not session.get(ref)


def test_get_gives_up_in_time_and_leaves_no_waiter(session: Session, transport: MemoryTransport) -> None:
    ref = remote().remote()
    with pytest.raises(GetTimeoutError, match=rf"0.01 s; 1 of 1 values are not ready \({ref.id}\)") as caught:
        session.get(ref, 0.01)
    assert isinstance(caught.value, TimeoutError)
    assert session.machine._waiters == []
    transport.succeed(ref.id, 1)
    assert session.get(ref, 0) == 1


def test_get_raises_both_types_and_again(session: Session, transport: MemoryTransport) -> None:
    ref = remote().remote()
    transport.fail(ref.id, ValueError("bad", 7))
    for _ in range(2):
        with pytest.raises(ValueError, match="bad") as caught:
            session.get(ref)
        assert isinstance(caught.value, TaskError)
        assert caught.value.args == ("bad", 7)


def test_get_raises_the_first_known_error_while_others_run(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    running, failing = function.remote(), function.remote()
    soon(lambda: transport.fail(failing.id, KeyError("k")))
    with pytest.raises(KeyError):
        session.get([running, failing], 5)
    with pytest.raises(KeyError):
        session.get([running, failing], 5)


@pytest.mark.parametrize(("refs", "says"), [(5, "not a int"), ((), "not a tuple"), (["x"], "item 0 is a str")])
@pytest.mark.parametrize("kind", [ValueError, TypeError])  # Ray raises one or the other
def test_get_refuses_other_things(session: Session, refs: Any, says: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=says):
        session.get(refs)


def test_get_takes_duplicates_nothing_and_no_time(session: Session, transport: MemoryTransport) -> None:
    ref, pending = remote().remote(), remote().remote()
    transport.succeed(ref.id, [1])
    first, second = session.get([ref, ref], 0)
    assert first == second == [1]
    assert session.get([]) == []
    with pytest.raises(GetTimeoutError, match=r"waited 0 s; 1 of 2"):
        session.get([ref, pending], 0)


def test_put_refuses_refs(session: Session) -> None:
    ref = session.put(1)
    with pytest.raises(TypeError, match="is a ref already"):
        session.put(ref)
    (inner,) = session.get(session.put([ref]))
    assert inner == ref


def test_many_threads_get_at_once(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    refs = [function.remote() for _ in range(20)]
    found: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda index=index: found.update({index: session.get(refs[index], 10)}))
        for index in range(20)
    ]
    for thread in threads:
        thread.start()
    for index, ref in enumerate(refs):
        transport.succeed(ref.id, index)
    for thread in threads:
        thread.join()
    assert found == {index: index for index in range(20)}


def test_a_segment_that_is_gone_is_a_lost_object(session: Session, tmp_path: Path) -> None:
    ref = session.put(np.zeros(100_000))
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)
    with pytest.raises(ObjectLostError, match="is gone"):
        session.get(ref)


def test_ctrl_c_ends_get_promptly_and_the_session_goes_on(session: Session, transport: MemoryTransport) -> None:
    ref = remote().remote()
    main = threading.main_thread().ident
    assert main is not None
    soon(lambda: signal.pthread_kill(main, signal.SIGINT))
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        session.get(ref)
    assert time.monotonic() - started < 1
    assert session.machine._waiters == []
    transport.succeed(ref.id, 3)
    assert session.get(ref) == 3


# ---- waiting ----
def test_wait_keeps_order_and_count(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    refs = [function.remote() for _ in range(4)]
    for index in (3, 1, 2):
        transport.succeed(refs[index].id, index)
    assert session.wait(refs, 2, None) == ([refs[1], refs[2]], [refs[0], refs[3]])
    assert session.wait(refs, 4, 0.0) == ([refs[1], refs[2], refs[3]], [refs[0]])
    transport.fail(refs[0].id, ValueError())
    assert session.wait(refs, 4, None) == (refs, [])


def test_wait_blocks_until_enough(session: Session, transport: MemoryTransport) -> None:
    function = remote()
    refs = [function.remote() for _ in range(2)]
    soon(lambda: transport.succeed(refs[1].id, 1))
    assert session.wait(refs, 1, 5) == ([refs[1]], [refs[0]])


def test_wait_refuses_what_cannot_work(session: Session) -> None:
    ref = session.put(1)
    with pytest.raises(ValueError, match="same ref twice"):
        session.wait([ref, ref], 1, None)
    for count in (2, 0, -1):
        with pytest.raises(ValueError, match="expected 1 to 1"):
            session.wait([ref], count, None)
    with pytest.raises(ValueError, match="timeout=-1"):
        session.wait([ref], 1, -1)
    for other in (ref, (ref,), {ref}):
        with pytest.raises(TypeError, match="list of ObjectRefs"):
            session.wait(other, 1, None)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="item 1 is a int"):
        session.wait([ref, 1], 1, None)  # type: ignore[list-item]
    assert session.wait([], 1, None) == ([], [])
