from __future__ import annotations

from typing import Any

import pytest

import runner
from runner.client.actors.classes import ActorClass
from runner.client.actors.meta import ActorMeta
from runner.client.actors.options import ActorOptions, check_method_options, parse_actor_options
from runner.client.session import Session
from runner.client.waiting import Waiter
from runner.errors import ActorDiedError, BadOptionsError, DirectCallError
from runner.rpc.actor_frames import STREAMING
from runner.rpc.gen import client_pb2, types_pb2
from tests.unit.client.memory import MemoryTransport


class Plain:
    def work(self) -> int:
        return 1

    def items(self) -> Any:
        yield 1

    async def aitems(self) -> Any:
        yield 1

    @runner.method(num_returns=2, concurrency_group="io", max_task_retries=5, retry_exceptions=[OSError])
    def pair(self) -> tuple[int, int]:
        return 1, 2

    @staticmethod
    def static() -> int:
        return 1


def test_defaults_are_rays() -> None:
    options = ActorOptions()
    assert (options.task.num_cpus, options.max_restarts, options.max_task_retries) == (0, 0, 0)
    assert (options.max_pending_calls, options.max_concurrency, options.name) == (-1, None, None)
    assert parse_actor_options(dict.fromkeys(["num_cpus", "name", "max_restarts", "lifetime"])) == options


def test_options_are_laid_over_each_other() -> None:
    base = parse_actor_options({"num_gpus": 0.5, "max_restarts": 3, "resources": {"disk": 1}})
    options = parse_actor_options({"max_restarts": -1, "num_cpus": 2}, base)
    assert (options.task.num_gpus, options.task.num_cpus, options.max_restarts) == (0.5, 2, -1)
    assert base.max_restarts == 3
    groups = parse_actor_options({"concurrency_groups": [{"name": "io", "max_concurrency": 2}]}).concurrency_groups
    assert groups == {"io": 2}


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_restart": 1}, "Did you mean 'max_restarts'"),
    ({"max_retries": 1}, "Unknown option 'max_retries' of an actor"),
    ({"get_if_exists": True}, "without a name"),
    ({"namespace": "n"}, "without a name"),
    ({"max_restarts": -2}, "-1 for no limit"),
    ({"max_restarts": "1"}, "max_restarts='1'"),
    ({"max_pending_calls": 0}, "max_pending_calls=0"),
    ({"max_concurrency": 0}, "max_concurrency=0"),
    ({"concurrency_groups": {"io": 0}}, "io"),
    ({"concurrency_groups": {"a@b": 1}}, "no @"),
    ({"lifetime": "long"}, "detached"),
    ({"name": ""}, "name=''"),
    ({"num_cpus": -1}, "num_cpus"),
    ({"grace_s": 0}, "grace_s"),
]


@pytest.mark.parametrize(("given", "says"), BAD)
def test_bad_options_are_value_errors_at_their_place(given: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        parse_actor_options(given)
    with pytest.raises(BadOptionsError, match=says):
        runner.remote(Plain).options(**given)


def test_bad_options_of_methods() -> None:
    for given in ({"num_return": 1}, {"num_returns": -1}, {"max_task_retries": -2}, {"concurrency_group": ""}):
        with pytest.raises(ValueError, match=r"Unknown|cannot work"):
            check_method_options(given)


def test_a_method_in_a_group_that_the_actor_does_not_have(session: Session) -> None:
    with pytest.raises(BadOptionsError, match="concurrency group 'io', which the actor does not have"):
        runner.remote(Plain).remote()


def make(**options: Any) -> ActorClass[Any]:
    made: ActorClass[Any] = runner.remote(concurrency_groups={"io": 1}, **options)(Plain)
    return made


def test_what_a_handle_knows_survives_the_wire() -> None:
    options = parse_actor_options({"max_task_retries": 2, "max_pending_calls": 7})
    meta = ActorMeta.unpack(ActorMeta.of(Plain, options).packed)
    assert (meta.class_name, meta.max_pending_calls) == ("Plain", 7)
    assert {"work", "items", "aitems", "pair", "static", "__ray_ready__"} <= set(meta.methods)
    assert "__init__" not in meta.methods
    assert (meta.methods["work"].num_returns, meta.methods["work"].retries) == (1, 2)
    assert meta.methods["items"].num_returns == meta.methods["aitems"].num_returns == STREAMING
    pair = meta.methods["pair"]
    assert (pair.num_returns, pair.wire_name, pair.retries, pair.retry_exceptions) == (2, "pair@io", 5, (OSError,))
    assert pair.with_options({"num_returns": "streaming"}).num_returns == STREAMING
    assert meta.methods["__runner_ready__"].wire_name == "__ray_ready__"


def test_an_actor_is_made_by_one_operation(session: Session, transport: MemoryTransport) -> None:
    handle = make(max_restarts=4, num_gpus=1, max_concurrency=3).remote()
    (spec,) = transport.submits()
    assert (spec.max_retries, spec.actor.max_concurrency, spec.num_returns) == (4, 3, 1)
    assert dict(spec.resources.amounts) == {"GPU": 10_000}
    assert spec.task_id == handle._actor_id
    make().remote()
    assert transport.submits()[1].max_retries == 0


def test_a_name_is_waited_for(session: Session, transport: MemoryTransport, monkeypatch: pytest.MonkeyPatch) -> None:
    failure = types_pb2.Failure(kind=types_pb2.FAILURE_KIND_SETUP, message="the name 'n' is taken by t-9")

    def answer(actor_id: str, failure: bytes) -> None:
        found = client_pb2.FoundActor(request_id=transport.submits()[-1].task_id, failure=failure)
        found.actor_id = actor_id or found.request_id
        if failure:
            found.actor_id = ""
        frame = client_pb2.ServerFrame(found_actors=[found])
        session.deliver(client_pb2.SessionReply(frame=frame).SerializeToString())

    def wait_for(failure: bytes) -> Any:
        def wait(waiter: Waiter, timeout_s: float | None) -> bool:
            assert not waiter.done
            answer("", failure)
            return waiter.block(timeout_s)

        return wait

    monkeypatch.setattr(transport, "wait", wait_for(b""))
    assert make(name="n").remote() is not None
    monkeypatch.setattr(transport, "wait", wait_for(failure.SerializeToString()))
    with pytest.raises(ValueError, match="Plain was not made: the name 'n' is taken"):
        make(name="n").remote()


def test_a_dead_actor_answers_for_its_cause(session: Session, transport: MemoryTransport) -> None:
    handle = make().remote()
    ref = handle.work.remote()
    assert transport.kinds()[-1] == "watch_actors"
    failure = types_pb2.Failure(kind=types_pb2.FAILURE_KIND_ACTOR_DIED, message="it fell", traceback="line 1")
    update = client_pb2.ActorUpdate(actor_id=handle._actor_id, state="dead", failure=failure.SerializeToString())
    frame = client_pb2.ServerFrame(actors=[update])
    session.deliver(client_pb2.SessionReply(frame=frame).SerializeToString())
    with pytest.raises(ActorDiedError, match=r"(?s)Plain.work has no result.*it fell\..*line 1"):
        session.get(ref)


def test_classes_and_methods_are_not_called_directly(session: Session) -> None:
    cls = make()
    with pytest.raises(DirectCallError, match=r"Plain\(\) is an actor class"):
        cls()
    handle = cls.remote()
    with pytest.raises(DirectCallError, match=r"Plain.work\(\) is a method of an actor"):
        handle.work()
    with pytest.raises(BadOptionsError, match="actor class already"):
        runner.remote(cls)
    assert repr(handle).startswith("Actor(Plain, t-")


def test_an_actor_class_as_a_base_is_refused_in_words() -> None:
    base = runner.remote(Plain)
    with pytest.raises(TypeError, match="Plain is an actor class, which has no subclasses"):

        class Kid(base):  # type: ignore[misc,valid-type]
            pass

    assert runner.remote(type("Kid", (base.__wrapped__,), {})).__name__ == "Kid"
