"""Making actors, finding them by name, ending them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgpack

from runner.client.actors.classes import check_groups
from runner.client.actors.client import find_operation, handle_id
from runner.client.actors.handle import ActorHandle
from runner.client.actors.meta import ActorMeta
from runner.client.calls import PreparedCall
from runner.client.parameters import Parameters
from runner.client.wire import bounded, encode_submit
from runner.errors import BadOptionsError, BadTypeError
from runner.ids import TaskId, random_id
from runner.objects.refs import ObjectRef
from runner.rpc.gen import client_pb2, types_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from runner.client.actors.classes import ActorClass
    from runner.client.actors.options import ActorOptions
    from runner.client.session import Session


def create(
    session: Session, actor_class: ActorClass[Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> ActorHandle[Any]:
    """See `ActorClass.remote`."""
    session._check_usable()
    options = actor_class._options
    if options.task.lifetime == "detached" and session.info.embedded:
        raise BadOptionsError(
            'lifetime="detached" needs a cluster that outlives this process: start one with `runner up` and connect'
            " with runner.init(address)."
        )
    check_groups(actor_class.__wrapped__, options)
    Parameters.of(actor_class.__wrapped__).check(args, dict(kwargs))
    if options.get_if_exists:
        found = find(session, options.name or "", options.namespace or "")
        if found is not None:
            return found
    function = actor_class.pickled(session)
    meta = ActorMeta.of(actor_class.__wrapped__, options)
    env = options.task.runtime_env.over(session.info.runtime_env)
    task = replace(options.task, max_retries=options.max_restarts)  # its lives are the attempts of its creation
    call = PreparedCall.of(function, task, env, is_executor=session.info.is_executor)
    session.outgoing.register(function)
    actor_id = TaskId(session.outgoing.new_id("t"))
    spec, keep = session.outgoing.spec(call, actor_id, args, dict(kwargs), "")
    # What it prints goes by its name. Set here, since a name in the options would make it a run.
    spec += types_pb2.TaskSpec(name=options.name or "", actor=_actor_spec(options, meta)).SerializeToString()
    operation = bounded(encode_submit(spec), f"The creation of {meta.class_name}", keep[1])
    with session._lock:
        session.machine.created([handle_id(actor_id)])
        if not options.name:
            session.machine.operate(operation)
    ref: ObjectRef[Any] = ObjectRef(handle_id(actor_id), session)
    if options.name:
        return _named(session, ref, actor_id, operation, options, meta)
    del keep  # refs inside the arguments had to live until the operation was queued
    session.transport.wake()
    return ActorHandle(ref, meta)


def _actor_spec(options: ActorOptions, meta: ActorMeta) -> types_pb2.ActorSpec:
    told: dict[str, Any] = {"concurrency_groups": dict(options.concurrency_groups)}
    if options.grace_s is not None:
        told["grace_s"] = options.grace_s
    return types_pb2.ActorSpec(
        name=options.name or "",
        namespace=options.namespace or "",
        get_if_exists=options.get_if_exists,
        max_concurrency=options.max_concurrency or 0,
        meta=meta.packed,
        options=msgpack.packb(told),
    )


def _named(
    session: Session, ref: ObjectRef[Any], actor_id: TaskId, operation: bytes, options: ActorOptions, meta: ActorMeta
) -> ActorHandle[Any]:
    """Wait for the word on the name."""
    name, namespace = options.name or "", options.namespace or ""
    found = session.actors.search(actor_id, operation, find_operation(actor_id, name, namespace))
    if found.actor_id == actor_id:
        return ActorHandle(ref, meta)
    if found.actor_id and options.get_if_exists:
        return _handle(session, found)
    failure = types_pb2.Failure.FromString(found.failure)
    if failure.kind == types_pb2.FAILURE_KIND_ACTOR_DIED:  # asked again after a loss: it was made, and is dead by now
        return ActorHandle(ref, meta)
    taken = failure.message or f"the name {name!r} is taken by actor {found.actor_id}"
    raise BadOptionsError(f"{meta.class_name} was not made: {taken}.")


def get_actor(session: Session, name: str, namespace: str | None) -> ActorHandle[Any]:
    """See `runner.get_actor`."""
    if not name:
        raise BadOptionsError(f"get_actor({name!r}) cannot work: expected the name of an actor.")
    found = find(session, name, namespace or "")
    if found is None:
        where = f" in namespace {namespace!r}" if namespace else ""
        raise BadOptionsError(
            f"Failed to look up actor {name!r}{where}: there is none with this name. It was never made, or it has died;"
            " a handle must be kept until it is detached or looked up."
        )
    return found


def find(session: Session, name: str, namespace: str) -> ActorHandle[Any] | None:
    """A handle of the actor with this name, if there is one."""
    session._check_usable()
    request_id = random_id("find")
    operation = find_operation(request_id, name, namespace)
    found = session.actors.search(request_id, operation, operation)
    return _handle(session, found) if found.actor_id else None


def _handle(session: Session, found: client_pb2.FoundActor) -> ActorHandle[Any]:
    return handle_of(session, found.actor_id, found.meta)


def handle_of(session: Session, actor_id: str, meta: bytes) -> ActorHandle[Any]:
    """One more handle of an actor that is known to be there; `meta` is its packed ActorMeta."""
    object_id = handle_id(TaskId(actor_id))
    session.borrow(object_id)
    ref: ObjectRef[Any] = ObjectRef(object_id, session)
    session.transport.wake()
    return ActorHandle(ref, ActorMeta.unpack(meta))


def kill(session: Session, handle: Any, *, no_restart: bool) -> None:
    """See `runner.kill`."""
    if not isinstance(handle, ActorHandle):
        raise BadTypeError(f"kill() takes a handle of an actor, not a {type(handle).__name__}.")
    session._check_usable()
    session.actors.kill(handle._ref, handle._actor_id, no_restart=no_restart)
