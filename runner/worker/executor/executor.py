"""The process in which user code runs: takes attempts one by one, runs them, tells how they ended. Never starts gRPC."""

from __future__ import annotations

import ctypes
import faulthandler
import gc
import inspect
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn

from runner.client import context, fork_guard
from runner.client.session import Session
from runner.client.session_info import SessionInfo
from runner.client.task_errors import MESSAGE_BYTES_MAX, TRACEBACK_BYTES_MAX, failure_from_exception
from runner.client.template_function import leave_template_process
from runner.core.values import CPU
from runner.errors import ObjectLostError, StoreFullError
from runner.hooks import reseed, run_cold
from runner.ids import ObjectId, TaskId
from runner.objects import arguments, refs
from runner.objects.functions import load_function
from runner.objects.packages import CWD, is_of_environment, unpack
from runner.objects.serialization import deserialize
from runner.objects.store import Store
from runner.objects.values import from_wire, to_wire
from runner.rpc.gen import fleet_pb2, types_pb2
from runner.rpc.limits import cut_text
from runner.runtime_env import RuntimeEnv
from runner.worker.actors.host import ActorHost
from runner.worker.executor.api import RunningTask
from runner.worker.executor.channel import ExecutorSocket
from runner.worker.executor.files import AgentFiles
from runner.worker.executor.generating import run_generator
from runner.worker.executor.interrupts import CancelPage, InterruptGate, TaskInterrupt
from runner.worker.executor.item_sender import ItemSender
from runner.worker.executor.returns import Place, drop_returns, fill_returns
from runner.worker.executor.sleep import Sleeper
from runner.worker.executor.spawn_support import pickle_by_value, replace_main
from runner.worker.executor.threads import use_threads
from runner.worker.executor.transport import RelayedTransport
from runner.worker.frames import INTERRUPTED, LEFT_CHILDREN, Frame, Kind
from runner.worker.process import become_subreaper, has_child

_libc = ctypes.CDLL(None)
Settings = dict[str, Any]


def main(sock: socket.socket, page_fd: int) -> NoReturn:
    """Serve the agent at the other end of `sock` until it says EXIT or is gone. Single-threaded on entry."""
    become_subreaper()
    leave_template_process()
    _prepare_streams()
    faulthandler.enable()
    replace_main()
    pickle_by_value()
    gate = InterruptGate(CancelPage(page_fd))
    os.close(page_fd)
    gate.install()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    channel = ExecutorSocket(sock, gate)
    fork_guard.guard(channel)
    gc.collect()
    gc.freeze()
    channel.send(Kind.READY, os.getpid())
    sleeper = Sleeper(channel)
    while (frame := channel.next_frame())[0] != Kind.SETUP:
        if frame[0] == Kind.EXIT:
            os._exit(0)
        sleeper.handle(frame)
    Executor(channel, gate, frame[1], sleeper).serve()


class Executor:
    """Runs attempts in the main thread."""

    def __init__(self, channel: ExecutorSocket, gate: InterruptGate, settings: Settings, sleeper: Sleeper) -> None:
        self._channel = channel
        self._sleeper = sleeper
        self._has_begun = False  # an attempt: code that templates have left to each process has run
        self._gate = gate
        self._settings = settings
        self._functions: dict[str, tuple[str, bytes]] = {}
        self._loaded: dict[str, Callable[..., Any]] = {}
        self._host_id: str = settings["host_id"]
        # None: what lies on this host can be read by the coordinator, and the other way round.
        self._files = AgentFiles(channel, settings["machine_id"]) if settings["is_apart"] else None
        store = Store(settings["store_path"])
        self._place: Place = partial(to_wire, store=store, host_id=self._host_id)
        if self._files is not None:
            self._place = self._files.place
        self._task: RunningTask | None = None
        self._items: ItemSender | None = None
        self._keep: list[Any] = []  # refs in a result, until it is told
        self._transport = RelayedTransport(channel, settings["executor_id"], self._files)
        info = SessionInfo(
            client_id=settings["executor_id"],
            cluster_id=settings["cluster_id"],
            host_id=self._host_id,
            store_path="" if settings["is_apart"] else settings["store_path"],
            embedded=settings["embedded"],
            is_executor=True,
            address=settings.get("address", ""),
            runtime_env=RuntimeEnv(env_vars=dict(settings["env_vars"])),  # what the task submits has it too
        )
        self._session = Session(info, self._transport)
        self._transport.attach(self._session)
        context.set_session(self._session)
        refs.set_owner_lookup(context.session_or_none)
        sleeper.before_answer = self._say_all
        channel.on(Kind.COMMITTED, self._committed)
        channel.on(Kind.ITEMS_READ, self._items_read)
        self._apply_environment()

    def serve(self) -> NoReturn:
        """Until EXIT."""
        while True:
            frame = self._channel.next_frame()
            kind = frame[0]
            if kind == Kind.RUN:
                self._run(frame[1], frame[2])
            elif kind == Kind.FUNCTION:
                self._functions[frame[1]] = (frame[2], frame[3])
            elif kind == Kind.PACKAGE:
                self._add_package(frame[1], frame[2])
            elif kind == Kind.EXIT:
                self._exit()
            else:
                self._sleeper.handle(frame)

    # ---- one attempt ----
    def _run(self, serial: int, payload: bytes) -> None:
        assignment = fleet_pb2.Assignment.FromString(payload)
        spec = types_pb2.TaskSpec.FromString(assignment.spec)
        self._transport.begin(serial, has_cpus=not spec.HasField("actor") or CPU in spec.resources.amounts)
        if self._files is not None:
            # What runs leave behind is to last, and the items of a generator are not made again.
            self._files.keeps = not (spec.is_run or spec.is_streaming)
        task = RunningTask(self._channel, self._gate, serial, assignment, spec, self._settings, self._files)
        task.park = self._sleeper.park
        self._task = task
        self._sleeper.is_idle = False
        ended = fleet_pb2.AttemptEnded(key=assignment.key)
        was_interrupted = False
        started_s = time.perf_counter()
        context.set_task(task)
        try:
            try:
                self._gate.open(serial)
                self._call(assignment, spec, ended)
                task.settle()
            except BaseException as error:
                if not isinstance(error, TaskInterrupt):  # one that is to end waits for nothing
                    task.settle(is_failed=True)
                raise
            finally:
                was_interrupted = self._gate.shut()
        except BaseException as error:
            if isinstance(error, SystemExit) and error.code:
                self._end_as_asked(error)
            drop_returns(ended, self._host_id)
            _fill_failure(ended, error, spec)
        task.finish()
        context.set_task(None)
        ended.duration_s = time.perf_counter() - started_s
        if ended.WhichOneof("outcome") == "failure":
            failure = ended.failure
            failure.task_id, failure.task_name, failure.attempt = spec.task_id, spec.name, assignment.key.attempt
            failure.machine_id = task.machine_id
        flags = (INTERRUPTED if was_interrupted else 0) | (LEFT_CHILDREN if has_child() else 0)
        _flush_streams()
        self._transport.wake()  # refs that live on here are told before the arguments may go
        self._channel.send(Kind.ENDED, serial, ended.SerializeToString(), flags)
        self._task = self._items = None
        self._sleeper.is_idle = True
        self._keep.clear()
        self._transport.wake()

    def _call(self, assignment: fleet_pb2.Assignment, spec: types_pb2.TaskSpec, ended: fleet_pb2.AttemptEnded) -> None:
        tell = self._tell_stage if spec.startup_timeout_s > 0 else _tell_nobody
        try:
            if not self._has_begun:
                # Hooks of the template that this process was forked from.
                run_cold(**self._settings.get("cold", {}))
                self._has_begun = True
            tell("loading its function")
            function = self._load(spec.function_id)
            if self._task is not None:
                self._task.function = function
            tell("loading its arguments")
            args, kwargs = self._arguments(assignment, spec)
            tell("")
        except Exception as error:
            _fill_setup_failure(ended, error, self._functions.get(spec.function_id, ("", b""))[0])
            return
        if spec.HasField("actor"):
            assert self._task is not None
            assert isinstance(function, type)
            host = ActorHost(self._channel, self._task, self._session, self._value, self._sleeper)
            host.construct(function, args, kwargs)
            del args, kwargs, function  # not held as long as the actor lives
            host.serve(spec.actor)
            ended.returns.SetInParent()
            return
        result = function(*args, **kwargs)
        del args, kwargs
        if spec.is_streaming:
            self._yield_all(result, assignment, spec)
            result = None
        values = _split(result, spec)
        fill_returns(ended, values, TaskId(spec.task_id), self._place, self._keep)

    def _tell_stage(self, text: str) -> None:
        if self._task is not None:
            self._channel.send(Kind.STAGE, self._task.serial, text)

    def _yield_all(self, result: Any, assignment: fleet_pb2.Assignment, spec: types_pb2.TaskSpec) -> None:
        assert self._task is not None
        serial = self._task.serial
        self._items = ItemSender(
            spec, assignment, self._place, self._transport, lambda items: self._channel.send(Kind.ITEMS, serial, items)
        )
        try:
            run_generator(result, self._items)
        finally:
            self._items.close()

    def _load(self, function_id: str) -> Callable[..., Any]:
        function = self._loaded.get(function_id)
        if function is None:
            _, blob = self._functions[function_id]
            function = self._loaded[function_id] = load_function(blob, self._session.get)
        return function

    def _arguments(
        self, assignment: fleet_pb2.Assignment, spec: types_pb2.TaskSpec
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        left_out = [refs.load_ref(ObjectId(ready.object_id)) for ready in assignment.dependencies if not ready.value]
        asked = iter(self._session.get(left_out) if left_out else ())
        values = [
            self._value(ready.object_id, ready.value) if ready.value else next(asked)
            for ready in assignment.dependencies
        ]
        return arguments.unpack(spec.args, values)

    def _value(self, object_id: str, payload: bytes) -> Any:
        value = types_pb2.Value.FromString(payload)
        return from_wire(value, lambda segment: self._transport.fetch(object_id, segment), self._host_id)

    # ---- the process ----
    def _items_read(self, frame: Frame) -> None:
        if self._items is not None and self._task is not None and frame[1] == self._task.serial:
            self._items.was_read(frame[2])

    def _committed(self, frame: Frame) -> None:
        if self._task is not None:
            self._task.committed(frame)

    def _apply_environment(self) -> None:
        for name, value in self._settings["env_vars"]:
            os.environ[name] = value  # noqa: TID251  the task's own variables
        gpus = self._settings["visible_gpus"]
        if gpus is not None and not any(name == "CUDA_VISIBLE_DEVICES" for name, _ in self._settings["env_vars"]):
            # Over what the agent inherited: that names the devices of the whole host's share.
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus  # noqa: TID251
        use_threads(self._settings["threads"])
        reseed()  # else every executor of this template draws the same numbers

    def _add_package(self, package_id: str, blob: bytes) -> None:
        """Unpack it, once per machine, and make it importable."""
        folder = unpack(self._settings["store_path"], package_id, blob)
        if is_of_environment(package_id):
            self._session.env_packages.append(package_id)
        if package_id.startswith(CWD):
            os.chdir(folder)
        if folder not in sys.path:
            sys.path.insert(0, folder)

    def _end_as_asked(self, error: SystemExit) -> NoReturn:
        """User code ends its process with a failure: that is a crash, tried again as one, as in Ray."""
        traceback.print_exception(error)
        self._say_all()
        os._exit(error.code if isinstance(error.code, int) else 1)

    def _say_all(self) -> None:
        """Have the agent know all that this process has to say."""
        self._transport.wake()
        _flush_streams()

    def _exit(self) -> NoReturn:
        self._say_all()
        os._exit(0)


def _tell_nobody(_stage: str) -> None:
    """The start of most attempts has no time limit."""


def _split(result: Any, spec: types_pb2.TaskSpec) -> list[Any]:
    """One value per return.

    Raises:
        ValueError: another number of values came back.
    """
    if spec.num_returns == 1:
        return [result]
    if spec.num_returns == 0:
        return []
    # As in Ray a generator may give a fixed number of values, too.
    is_many = isinstance(result, tuple | list) or inspect.isgenerator(result)
    values = list(result) if is_many else [result]
    if len(values) != spec.num_returns:
        raise ValueError(
            f"the task returned {len(values)} values but num_returns={spec.num_returns}; return a tuple of that length"
        )
    return values


def _fill_failure(ended: fleet_pb2.AttemptEnded, error: BaseException, spec: types_pb2.TaskSpec) -> None:
    trace = error.__traceback__
    for _ in range(2):  # the executor's own frames
        trace = trace.tb_next if trace is not None and trace.tb_next is not None else trace
    failure = failure_from_exception(error.with_traceback(trace))
    if isinstance(error, StoreFullError):
        failure.kind = types_pb2.FAILURE_KIND_STORE_FULL
    elif isinstance(error, TaskInterrupt):
        failure.kind = types_pb2.FAILURE_KIND_CANCELLED  # the agent knows why and says it
    else:
        ended.retryable = spec.retry_user_errors and _covers(spec.retry_exceptions, error)
    ended.failure.CopyFrom(failure)


def _fill_setup_failure(ended: fleet_pb2.AttemptEnded, error: Exception, function_name: str) -> None:
    if isinstance(error, ObjectLostError | StoreFullError):
        is_lost = isinstance(error, ObjectLostError)
        kind = types_pb2.FAILURE_KIND_OBJECT_LOST if is_lost else types_pb2.FAILURE_KIND_STORE_FULL
        message = str(error)
    else:
        kind = types_pb2.FAILURE_KIND_SETUP
        message = (
            f"{function_name or 'the function'} or its arguments could not be loaded on the machine: "
            f"{type(error).__name__}: {error}; check that what it imports is installed there"
        )
    text = cut_text("".join(traceback.format_exception(error)), TRACEBACK_BYTES_MAX)
    message = cut_text(message, MESSAGE_BYTES_MAX)
    ended.failure.CopyFrom(types_pb2.Failure(kind=kind, message=message, traceback=text))


def _covers(retry_exceptions: bytes, error: BaseException) -> bool:
    """Whether `retry_exceptions` lists the type; empty means all of Exception."""
    if not retry_exceptions:
        return isinstance(error, Exception)
    try:
        return isinstance(error, deserialize(retry_exceptions))
    except Exception:
        return False


def _prepare_streams() -> None:
    """Lines reach the agent when they end, whatever the pipes look like to Python."""
    for fd, name in ((1, "stdout"), (2, "stderr")):
        stream = open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def _flush_streams() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            pass
    _libc.fflush(None)
